"""Scheduler, workers and the program on hosts of their own: network namespaces with an address each, which a bridge joins."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kinds import ROOT
from workers import same

pytest.importorskip("distributed")

PROGRAM = os.environ.get("CELLMILL", str(ROOT / "target" / "debug" / "cellmill"))
OPTIONS = ["--threads", "2", "--through", "pca", "--n-top-genes", "200", "--filter-cells", "n_genes_by_counts >= 40", "--n-comps", "12"]
SCHEDULER = "tcp://10.86.0.1:8786"
#: Least that Dask allows: how long it takes until a host that is silent is given up.
SILENCE = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s"}


class Network:
    """Hosts 10.86.0.1, 10.86.0.2 …: each is there as long as a process that reads from a pipe of ours, so none outlives us."""

    def __init__(self, hosts: int) -> None:
        self.processes: list[subprocess.Popen] = []
        self.switch, *self.hosts = self.holders = [subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE) for _ in range(hosts + 1)]
        ours = os.readlink("/proc/self/ns/net")
        while any(os.readlink(f"/proc/{holder.pid}/ns/net") == ours for holder in self.holders):
            time.sleep(0.01)

    def join(self) -> None:
        """Gives each host its address, and a cable to the switch."""
        self.ask(self.switch, "ip", "link", "add", "switch", "up", "type", "bridge")
        for i, host in enumerate(self.hosts):
            self.ask(self.switch, "ip", "link", "add", f"port{i}", "up", "master", "switch", "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
            self.ask(host, "ip", "address", "add", f"10.86.0.{i + 1}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                self.ask(host, "ip", "link", "set", device, "up")

    @staticmethod
    def within(holder: subprocess.Popen, *command: str) -> list[str]:
        return ["nsenter", "--target", str(holder.pid), "--net", *command]

    def ask(self, holder: subprocess.Popen, *command: str) -> None:
        subprocess.run(self.within(holder, *command), check=True)

    def start(self, host: int, *command: str, **options) -> subprocess.Popen:
        """A process on a host."""
        process = subprocess.Popen(self.within(self.hosts[host], *command), text=True, **options)
        self.processes.append(process)
        return process

    def unplug(self, process: int) -> None:
        """Pulls the cable of the host on which a process is."""
        host = [os.readlink(f"/proc/{holder.pid}/ns/net") for holder in self.hosts].index(os.readlink(f"/proc/{process}/ns/net"))
        self.ask(self.switch, "ip", "link", "set", f"port{host}", "down")

    def close(self) -> None:
        """Ends all processes; the hosts are gone with them."""
        for process in self.processes:
            process.kill()
        for process in (*self.processes, *self.holders):
            if process.stdin:
                process.stdin.close()
            process.wait()


@pytest.fixture
def network():
    """Hosts for a scheduler, two workers and the program."""
    tools = all(map(shutil.which, ("ip", "unshare", "nsenter")))
    if not tools or subprocess.run(["unshare", "--net", "ip", "link", "add", "name", "x", "type", "bridge"], check=False, capture_output=True).returncode:
        pytest.skip("no network namespaces for this user")
    network = Network(4)
    try:
        network.join()
        yield network
    finally:
        network.close()


@pytest.fixture(scope="module")
def here(cells, tmp_path_factory):
    """The output of one machine."""
    out = tmp_path_factory.mktemp("here") / "here.zarr"
    subprocess.run([PROGRAM, "run", "-q", cells, "-o", out, *OPTIONS], check=True)
    return out


@pytest.mark.parametrize(("what", "passes"), [("nothing", "nothing"), ("killed", "covariance"), ("unplugged", "covariance")])
def test_hosts_of_their_own(cells, here, network, tmp_path, what, passes):
    """A worker is killed, or its cable is pulled, while it works: the other does its orders, and what the first may still write has the same bytes."""
    hits, out = tmp_path / "hits", tmp_path / "out"
    hits.mkdir()
    out.mkdir()
    shutil.copytree(here, out / "here.zarr")
    preload = tmp_path / "slow.py"
    preload.write_text(f"from trouble import Trouble\n\n\ndef dask_setup(worker):\n    Trouble('slow', {passes!r}, set(range(100)), {str(hits)!r}).setup(worker)\n")
    environment = {**os.environ, **SILENCE, "CELLMILL_PYTHON": sys.executable, "PYTHONPATH": str(Path(__file__).parent)}
    log = tmp_path / "log"
    with log.open("w") as file:
        quiet = {"env": environment, "stderr": file, "stdout": file}
        network.start(0, sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "10.86.0.1", "--no-dashboard", **quiet)
        options = ["--nthreads", "1", "--memory-limit", "2GB", "--no-dashboard", "--local-directory", str(tmp_path), "--preload", str(preload)]
        for host in (1, 2):
            network.start(host, sys.executable, "-m", "distributed.cli.dask_worker", SCHEDULER, *options, **quiet)
    wait(lambda: log.read_text().count("Registered to") == 2, log)
    assert all(f"Start worker at: tcp://10.86.0.{host}:" in " ".join(log.read_text().split()) for host in (2, 3))
    program = network.start(3, PROGRAM, "run", str(cells), "-o", str(out / "there.zarr"), *OPTIONS, "--scheduler", SCHEDULER, env=environment, stderr=subprocess.PIPE)
    if what != "nothing":
        wait(lambda: list(hits.iterdir()), log)
        worker = int(next(hits.iterdir()).name.removeprefix("hit-"))
        if what == "killed":
            os.kill(worker, signal.SIGKILL)
        else:
            network.unplug(worker)
        assert program.poll() is None
    _, errors = program.communicate(timeout=120)
    assert program.returncode == 0, errors
    same(out)


def wait(condition, log: Path) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)
