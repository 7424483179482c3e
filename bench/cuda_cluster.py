"""Runs on the clusters that people with GPUs make, against the program alone, on a machine with one GPU; leaves a JSON of what ran and what differs.

    python bench/cuda_cluster.py PROGRAM [--device cuda|cpu] [--cells N] [--through STEP] [--threads N] [--seconds S] [--work DIR] [--json FILE]

PROGRAM is `cellmill`. The Python that runs this needs the package, dask and distributed; for the GPU dask-cuda, rmm and cupy, for UCX distributed-ucxx.
What is missing is said, and the rest runs. The data are simulated in a temporary folder below DIR. Ways, all of which must give the bytes of the first:

- `program`: the program on `cuda:0`;
- `tcp`, `ucx`: `cellmill.cluster(CUDA_VISIBLE_DEVICES="0", protocol=…, rmm_pool_size="1GB")`, which is dask-cuda's `LocalCUDACluster`, in the order of lines
  of rapids-singlecell's notebooks: cluster, client, and on each worker RMM's pool as cupy's allocator, of which an array is taken before the run and held;
- `killed`: a plain cluster of one worker with the GPU, which is killed with -9 in the middle of an order of the covariance; its nanny starts another.

With `--device cpu` all of it without a GPU: plain clusters, no pool. After `--seconds` no way is begun, and a minute later everything is ended, whatever hangs.
Exit status 1 if a run fails that could begin, or bytes differ.
"""

import argparse
import contextlib
import faulthandler
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from cluster import MEMORY_LIMIT, differing, digests, passes
from distributed import Client, LocalCluster, get_task_stream

import cellmill as cm

PACKAGES = ["cellmill", "dask", "distributed", "dask-cuda", "rmm-cu13", "rmm-cu12", "ucxx-cu13", "ucxx-cu12", "distributed-ucxx-cu13", "distributed-ucxx-cu12"]
PACKAGES += ["libucx-cu13", "libucx-cu12", "cupy-cuda13x", "cupy-cuda12x", "cuda-core", "numpy"]


def versions():
    """Of all packages that are there."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {"python": sys.version.split()[0], **found}


def missing(protocol, device):
    """Modules that a cluster needs and that are not there."""
    needed = [*(["dask_cuda", "rmm", "cupy"] if device == "cuda" else []), *(["distributed_ucxx"] if protocol == "ucx" else [])]
    return [name for name in needed if importlib.util.find_spec(name) is None]


def set_mem(dask_worker):
    """RMM's pool as cupy's allocator, as the notebooks have it; what the worker holds of it, and where."""
    import cupy as cp
    import rmm
    from rmm.allocators.cupy import rmm_cupy_allocator

    rmm.reinitialize(managed_memory=False, pool_allocator=True, initial_pool_size="1GB")
    cp.cuda.set_allocator(rmm_cupy_allocator)
    dask_worker.held = cp.arange(2**24, dtype=cp.float32)
    return {"resource": type(rmm.mr.get_current_device_resource()).__name__, "sum": float(dask_worker.held.sum()), "device_bytes_free": cp.cuda.runtime.memGetInfo()[0]}


def still(dask_worker):
    """Whether cupy's array has outlived the run."""
    return float(dask_worker.held.sum())


def arm(after):
    """Lets the worker that runs this die so many seconds after it has begun an order of the covariance; gives its process."""
    import json
    import os
    import signal
    import threading

    from cellmill import _crew

    class Armed:
        native = _crew._cellmill

        def __getattr__(self, name):
            return getattr(self.native, name)

        def work(self, order, *rest):
            if json.loads(order)["pass"].startswith("covariance"):
                threading.Timer(after, os.kill, (os.getpid(), signal.SIGKILL)).start()
            return self.native.work(order, *rest)

    _crew._cellmill = Armed()
    return os.getpid()


class Bench:
    """Runs of the same data, each with its entry in the report."""

    def __init__(self, args, work):
        self.args, self.data, self.out, self.base = args, work / "data.zarr", work / "out.zarr", None
        self.start = time.monotonic()
        self.report = {"cells": args.cells, "device": args.device, "through": args.through, "cores": os.cpu_count(), "versions": versions(), "ways": {}}
        cm.settings.n_threads, cm.settings.memory, cm.settings.verbosity = args.threads, "12GiB", 0

    def way(self, name, run):
        """Carries out a way: `run` fills in its entry."""
        entry = self.report["ways"][name] = {}
        if time.monotonic() - self.start > self.args.seconds:
            entry["not_run"] = "no time left"
        else:
            shutil.rmtree(self.out, ignore_errors=True)
            try:
                run(entry)
            except Exception as error:
                entry["error"] = f"{type(error).__name__}: {error}"
        if "seconds" in entry:
            here = digests(self.out)
            self.base = here if self.base is None else self.base
            entry |= {"files": len(here), "differ": differing(here, self.base)}
        print(name, json.dumps(entry), flush=True)
        self.args.json.write_text(json.dumps(self.report, indent=1))

    def program(self, entry):
        """The program alone."""
        device = "cuda:0" if self.args.device == "cuda" else "cpu"
        words = [self.args.program, "run", "-q", self.data, "-o", self.out, "--threads", str(self.args.threads), "--memory", "12GiB", "--device", device]
        before = time.monotonic()
        done = subprocess.run([*words, "--through", self.args.through], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        entry |= {"seconds": round(time.monotonic() - before, 3), "said": done.stderr.strip()}

    def workers(self, entry, client):
        """The package with a client."""
        before, began_at = time.monotonic(), time.time()
        with get_task_stream(client=client) as stream:
            cm.run(self.data, self.out, through=self.args.through, device=self.args.device, client=client)
        entry |= {"seconds": round(time.monotonic() - before, 3), "passes": passes(stream.data, began_at)}

    def cuda_cluster(self, entry, protocol):
        """dask-cuda's cluster, with a pool that cupy allocates from."""
        gone = missing(protocol, self.args.device)
        if gone:
            entry["not_run"] = f"no {', '.join(gone)}"
            return
        gpu = {"CUDA_VISIBLE_DEVICES": "0", "rmm_pool_size": "1GB"} if self.args.device == "cuda" else {}
        with cm.cluster(protocol=protocol, threads_per_worker=self.args.threads, memory_limit=MEMORY_LIMIT, dashboard_address=None, **gpu) as cluster, Client(cluster) as client:
            entry |= {"cluster": type(cluster).__name__, "scheduler": client.scheduler.address, "workers": sorted(client.nthreads())}
            if gpu:
                entry["pool"] = list(client.run(set_mem).values())
            self.workers(entry, client)
            if gpu:
                entry["pool_after"] = list(client.run(still).values())

    def killed(self, entry):
        """A worker that dies in the covariance and comes back."""
        told = next((way["passes"] for way in self.report["ways"].values() if way.get("passes")), {})
        order_s = next((of["work_s"] / of["orders"] for name, of in told.items() if name.startswith("covariance")), 0.2)
        options = {"threads_per_worker": self.args.threads, "memory_limit": MEMORY_LIMIT, "dashboard_address": None, "env": {"CUDA_VISIBLE_DEVICES": "0"}}
        with LocalCluster(n_workers=1, processes=True, **options) as cluster, Client(cluster) as client:
            entry["kills_after_s"] = round(order_s / 2, 3)
            before = client.run(arm, order_s / 2)
            self.workers(entry, client)
            entry["processes"] = [*before.values(), *client.run(os.getpid).values()]
            if len(set(entry["processes"])) != 2:
                raise RuntimeError("the worker was not killed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--cells", type=int, default=1_306_127)
    parser.add_argument("--through", default="leiden")
    parser.add_argument("--threads", type=int, default=min(16, os.cpu_count() or 1))
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path, default=pathlib.Path("cuda_cluster.json"))
    args = parser.parse_args()
    faulthandler.dump_traceback_later(args.seconds + 60, exit=True)
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        bench = Bench(args, pathlib.Path(work))
        subprocess.run([args.program, "simulate", "-q", "--cells", str(args.cells), "--format", "zarr2", bench.data], check=True)
        bench.report["simulated_s"] = round(time.monotonic() - bench.start, 1)
        bench.way("program", bench.program)
        for protocol in ("tcp", "ucx"):
            bench.way(protocol, lambda entry, protocol=protocol: bench.cuda_cluster(entry, protocol))
        bench.way("killed", bench.killed)
    ways = bench.report["ways"].values()
    fine = not any(way.get("error") or way.get("differ") for way in ways)
    # The program alone is not compared with anything.
    bench.report["same_bytes"] = fine and sum("differ" in way for way in ways) > 1
    print(json.dumps(bench.report, indent=1))
    args.json.write_text(json.dumps(bench.report, indent=1))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
