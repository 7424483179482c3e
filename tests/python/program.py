"""Runs the `cellmill` program as a user does and says what it left."""

import json
import os
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import anndata as ad

REPO = Path(__file__).resolve().parents[2]
SECONDS = 300  # longest that any single call may take on a busy machine
TALK = ("panicked at", "RUST_BACKTRACE", "stack backtrace", "Traceback", "unwrap()", "core::", "src/")


def binary():
    """The program: $CELLMILL, else the newest build of this repository."""
    if given := os.environ.get("CELLMILL"):
        return Path(given)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
    builds = [path for name in ("release", "bench", "debug") if (path := target / name / "cellmill").is_file()]
    return max(builds, key=lambda path: path.stat().st_mtime, default=None)


@dataclass
class Done:
    """How a call ended."""

    code: int
    out: str
    err: str
    call: str

    def json(self):
        return json.loads(self.out)

    def __str__(self):
        return f"$ {self.call}\nstatus {self.code}\nstdout: {self.out[-2000:]}\nstderr: {self.err[-3000:]}"


def cellmill(*args, cwd=None, address_space=None, file_size=None, before=(), timeout=SECONDS, env=None):
    """Calls the program. `address_space` and `file_size` are limits in bytes; `before` goes before the command."""

    def limit():
        if address_space:
            resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
        if file_size:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    command = [*before, str(binary()), *map(str, args)]
    # restore_signals=False: SIGXFSZ stays ignored, so that a write past the limit fails as a full disk does.
    ended = subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        preexec_fn=limit if address_space or file_size else None,
        restore_signals=not file_size,
        env=os.environ | (env or {}),
    )
    return Done(ended.returncode, ended.stdout, ended.stderr, " ".join(command))


def succeed(*args, **how):
    """Calls the program, which must succeed."""
    done = cellmill(*args, **how)
    assert done.code == 0, str(done)
    return done


def message(done):
    """The one line that a refusal prints; checks its form."""
    assert done.code == 1, f"status 1 expected\n{done}"
    for word in TALK:
        assert word not in done.err, f"'{word}' is not for users\n{done}"
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert len(lines) == 1, f"one line expected\n{done}"
    assert lines[0].startswith("cellmill: "), str(done)
    return lines[0]


def read(path):
    """The store as anndata reads it."""
    path = Path(path)
    return ad.read_h5ad(path) if path.suffix == ".h5ad" else ad.read_zarr(path)


def files(folder):
    """Every file below a folder with its bytes."""
    folder = Path(folder)
    if folder.is_file():
        return {".": folder.read_bytes()}
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def listing(folder):
    """Every name below a folder with its size: what a call must leave as it was."""
    return {str(path.relative_to(folder)): path.stat().st_size if path.is_file() else None for path in sorted(Path(folder).rglob("*"))}


class Runs:
    """Runs of the program, each made once a session."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.made = {}

    def __call__(self, store, *flags, suffix=".zarr", threads=2):
        """Path of the output of `cellmill run STORE FLAGS`."""
        key = (str(store), tuple(map(str, flags)), suffix, threads)
        if key not in self.made:
            output = self.folder / f"run{len(self.made)}{suffix}"
            self.made[key] = output, succeed("run", store, "-o", output, "--threads", threads, *flags)
        return self.made[key][0]

    def said(self, store, *flags, suffix=".zarr", threads=2):
        """What that run printed."""
        self(store, *flags, suffix=suffix, threads=threads)
        return self.made[(str(store), tuple(map(str, flags)), suffix, threads)][1]

    def read(self, store, *flags, **how):
        """The output as AnnData (a fresh object)."""
        return read(self(store, *flags, **how))


def copy(store, target):
    """A copy of a store that may be broken."""
    store, target = Path(store), Path(target)
    if store.is_dir():
        shutil.copytree(store, target)
    else:
        shutil.copy(store, target)
    return target
