"""Servers on this machine that give stores away: the web's, and Amazon's storage as moto plays it."""

import contextlib
import http.server
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Files(http.server.BaseHTTPRequestHandler):
    """Answers GET and HEAD of the files of a folder, and ranges of them, as web servers do."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, *, body):
        web = self.server.web
        name = unquote(urlsplit(self.path).path).lstrip("/")
        span = self.headers.get("Range")
        with web.lock:
            web.asked.append((self.command, name, span))
            web.waiting += 1
            web.most = max(web.most, web.waiting)
        try:
            time.sleep(web.latency)
            self.give(name, span if web.ranges else None, body)
        finally:
            with web.lock:
                web.waiting -= 1

    def give(self, name, span, body):
        path = self.server.web.folder / name
        status = self.server.web.refuse.get(name, 404 if not path.is_file() else 200)
        if status != 200:
            return self.reply(status, b"", {}, body)
        size, first, last = path.stat().st_size, 0, path.stat().st_size - 1
        if span:
            start, end = re.fullmatch(r"bytes=(\d*)-(\d*)", span).groups()
            first = int(start) if start else max(0, size - int(end))
            last = min(size - 1, int(end)) if start and end else size - 1
            if first >= size:
                return self.reply(416, b"", {"Content-Range": f"bytes */{size}"}, body)
        with path.open("rb") as file:
            file.seek(first)
            part = file.read(last - first + 1)
        about = {"ETag": f'"{path.stat().st_mtime_ns:x}"', "Last-Modified": formatdate(path.stat().st_mtime, usegmt=True)}
        if span:
            about["Content-Range"] = f"bytes {first}-{last}/{size}"
        self.reply(206 if span else 200, part, about, body)

    def reply(self, status, part, about, body):
        self.send_response(status)
        for key, value in {"Content-Length": len(part), **about}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if body:
            # Whoever asked may have gone.
            with contextlib.suppress(ConnectionError):
                self.wfile.write(part)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # Many connections come at once.
    request_queue_size = 256


class Web:
    """A web server of a folder. ``latency``: seconds until it answers; ``refuse``: names and the status that they get instead."""

    def __init__(self, folder):
        self.folder, self.latency, self.ranges, self.refuse = Path(folder), 0.0, True, {}
        self.asked, self.waiting, self.most, self.lock = [], 0, 0, threading.Lock()
        self.server = Server(("127.0.0.1", 0), Files)
        self.server.web = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Bucket:
    """Amazon's storage, played by moto in a process of its own, with one bucket; ``env`` is what a program needs to reach it."""

    def __init__(self, name="cells"):
        import boto3

        self.name = name
        # The free port is told in the first line that the server prints.
        command = [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = ""
        for line in self.process.stdout:
            said += line
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                break
        else:
            msg = f"moto did not start: {said}"
            raise RuntimeError(msg)
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{found[1]}"
        self.env = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "cells",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for _ in range(100):
            try:
                urllib.request.urlopen(self.endpoint + "/moto-api/", timeout=10)
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        keys = {"aws_access_key_id": "cells", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        self.client = boto3.client("s3", endpoint_url=self.endpoint, **keys)
        self.client.create_bucket(Bucket=name)

    def put(self, path, name=None):
        """Copies a file or a folder there; returns its address."""
        path, name = Path(path), name or Path(path).name
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            inside = str(file.relative_to(path)) if file != path else ""
            self.client.put_object(Bucket=self.name, Key=os.path.join(name, inside).rstrip("/"), Body=file.read_bytes())
        return f"s3://{self.name}/{name}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
