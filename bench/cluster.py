"""Times runs on Dask workers against the program alone, on one machine, and leaves a JSON of all figures.

    python bench/cluster.py FOLDER [--cells N] [--runs N] [--gpus N] [--ways NAME ...] [--seconds S] [--work DIR] [--json FILE]

FOLDER holds the program `cellmill`. The Python that runs this, and with it scheduler and workers, needs the package, dask and distributed.
Each worker is a process of its own (`dask worker`), and each run a process `cellmill run`, with `--scheduler` or without; its seconds are
those of its own trace. The data are simulated in a temporary folder below DIR, so they are in the page cache.
The first run on GPUs of a machine compiles kernels.

On CPUs, through X_pca: 2 threads, 2 workers of 1 thread, 1 worker of 1 thread, 16 threads, 8 workers of 2 threads; outputs must
have the same bytes. With `--gpus`, through Leiden: the program on 1 and on N GPUs, and workers of 8 threads with a GPU each
(`CUDA_VISIBLE_DEVICES`), 1 and N of them; those of workers must have the same bytes, and those of the program. `--ways` names some of them. Ways take
turns, so that a machine that slows down slows all; a round that would not end in `--seconds` is not begun. Exit status 1 if a run fails or bytes
differ.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from distributed import Client, get_task_stream

#: A worker's, of which the engine takes three fifths.
MEMORY_LIMIT = "16GB"


class Way:
    """How a run is carried out: threads of the program, and workers, each with so many threads and perhaps a GPU."""

    def __init__(self, name, threads, device, workers=(), like=""):
        self.name, self.threads, self.device, self.workers = name, threads, device, workers
        #: Ways of the same word have the same bytes.
        self.like = like or device


def ways(gpus):
    """All that there are: those first that take least."""
    found = []
    for n in sorted({1, gpus}) if gpus else []:
        everything = "cuda:" + ",".join(map(str, range(n)))
        name = "1 worker with a GPU" if n == 1 else f"{n} workers with a GPU"
        found.append(Way(everything, 8 * n, everything, like="program"))
        found.append(Way(name, 8 * n, "cuda", [(8, str(gpu)) for gpu in range(n)], "workers"))
    return [
        *found,
        Way("16 threads", 16, "cpu"),
        Way("8 workers of 2 threads", 16, "cpu", [(2, "")] * 8),
        Way("2 workers of 1 thread", 2, "cpu", [(1, "")] * 2),
        Way("1 worker of 1 thread", 2, "cpu", [(1, "")]),
        Way("2 threads", 2, "cpu"),
    ]


@contextlib.contextmanager
def cluster(way, work):
    """A scheduler and workers; gives the scheduler's address."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=work))
    there = folder / "scheduler.json"
    plain = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = []

    def start(what, environment, *words):
        log = (folder / f"{what}-{len(processes)}.log").open("w")
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--scheduler-file", str(there), "--no-dashboard", *map(str, words)]
        processes.append(subprocess.Popen(command, env=environment, stderr=log, stdout=log))

    try:
        start("scheduler", plain, "--port", 0)
        for threads, gpu in way.workers:
            environment = {**plain, "CUDA_VISIBLE_DEVICES": gpu}
            options = ["--nthreads", threads, "--memory-limit", MEMORY_LIMIT, "--no-nanny", "--local-directory", folder / f"worker{len(processes)}"]
            start("worker", environment, *options)
        limit = time.monotonic() + 60
        logs = sorted(folder.glob("worker-*.log"))
        while sum("Registered to" in log.read_text() for log in logs) < len(way.workers):
            if time.monotonic() > limit or any(process.poll() is not None for process in processes):
                raise SystemExit("the workers did not come:\n" + "".join(log.read_text() for log in folder.glob("*.log")))
            time.sleep(0.1)
        yield json.loads(there.read_text())["address"]
    finally:
        # Told to end, a worker waits for its scheduler, and that for its workers.
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
        for log in folder.glob("worker-*.log"):
            said = [line for line in log.read_text().splitlines() if "cellmill:" in line or "Traceback" in line]
            print(*said, sep="\n", end="\n" if said else "")


def passes(stream, began):
    """Of each pass: its orders, the seconds of a run at which the first begins and the last ends, and the workers' seconds in all."""
    found = {}
    for task in stream:
        spans = [span for span in task["startstops"] if span["action"] == "compute"]
        found.setdefault(task["key"].replace("-again", "").rsplit("-", 5)[0], []).extend((span["start"] - began, span["stop"] - began) for span in spans)
    return {
        name: {"orders": len(spans), "from": round(min(spans)[0], 3), "to": round(max(end for _, end in spans), 3), "work_s": round(sum(b - a for a, b in spans), 3)}
        for name, spans in found.items()
    }


def digests(store):
    """Hashes of all files of a store."""
    return {str(p.relative_to(store)): hashlib.blake2b(p.read_bytes()).hexdigest() for p in sorted(store.rglob("*")) if p.is_file()}


def differing(a, b):
    """Files that are not the same in both."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--cells", type=int, default=1_306_127)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--ways", nargs="+", metavar="NAME")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path, default=pathlib.Path("cluster.json"))
    args = parser.parse_args()
    start = time.monotonic()
    program = args.folder / "cellmill"
    environment = {**os.environ, "CELLMILL_PYTHON": sys.executable}
    report = {"cells": args.cells, "cores": os.cpu_count(), "runs": []}
    base, fine = {}, True
    with tempfile.TemporaryDirectory(dir=args.work) as work, contextlib.ExitStack() as stack:
        work = pathlib.Path(work)
        data, out, trace = work / "data.zarr", work / "out.zarr", work / "trace.json"
        subprocess.run([program, "simulate", "-q", "--cells", str(args.cells), "--format", "zarr2", data], check=True)
        report["simulated_s"] = time.monotonic() - start
        asked = [way for way in ways(args.gpus) if args.ways is None or way.name in args.ways]
        addresses = {way.name: stack.enter_context(cluster(way, work)) for way in asked if way.workers}
        clients = {name: stack.enter_context(Client(address, set_as_default=False)) for name, address in addresses.items()}
        print(f"simulated and started: {time.monotonic() - start:.0f} s", flush=True)
        round_s = 0.0
        for run in range(args.runs):
            began = time.monotonic()
            if began - start + round_s > args.seconds:
                break
            for way in asked:
                shutil.rmtree(out, ignore_errors=True)
                words = [program, "run", "-q", data, "-o", out, "-y", "--threads", str(way.threads), "--memory", "12GiB", "--device", way.device]
                words += ["--through", "pca" if way.device == "cpu" else "leiden", "--trace", trace]
                words += ["--scheduler", addresses[way.name]] if way.workers else []
                before, began_at = time.monotonic(), time.time()
                with get_task_stream(client=clients[way.name]) if way.workers else contextlib.nullcontext() as stream:
                    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    fine = False
                    print(f"{way.name}: failed:\n{done.stderr}", flush=True)
                    report["runs"].append({"way": way.name, "run": run, "error": done.stderr})
                    continue
                told = json.loads(trace.read_text())
                stages = {}
                for stage in told["stages"]:
                    stages[stage["stage"]] = round(stages.get(stage["stage"], 0) + stage["wall_s"], 3)
                found = {"way": way.name, "run": run, "wall_s": round(told["wall_s"], 3), "process_s": round(time.monotonic() - before, 3)}
                found["passes"] = passes(stream.data, began_at) if way.workers else {}
                found |= {"stages_s": stages, "peak_rss_bytes": told["peak_rss_bytes"], "said": done.stderr.strip()}
                here = digests(out)
                first = base.setdefault(way.like, here)
                found["differ"] = differing(here, first)
                if way.like == "workers" and "program" in base:
                    found["differ_from_program"] = differing(here, base["program"])
                    found["said"] += f" (other bytes than the program in {len(found['differ_from_program'])} of {len(here)} files)"
                fine &= not found["differ"]
                report["runs"].append(found)
                args.json.write_text(json.dumps(report, indent=1))
                print(f"{way.name:24} {found['wall_s']:6.2f} s", stages, found["said"], *found["differ"][:3], flush=True)
                for name, of in found["passes"].items():
                    print(f"    {name}: {of}", flush=True)
            round_s = time.monotonic() - began
    walls = {}
    for run in report["runs"]:
        if "wall_s" in run:
            walls.setdefault(run["way"], []).append(run["wall_s"])
    report["median_s"] = {name: statistics.median(of) for name, of in walls.items()}
    median = report["median_s"]
    for a, b in [("2 workers of 1 thread", "2 threads"), ("1 worker of 1 thread", "2 workers of 1 thread"), ("8 workers of 2 threads", "16 threads")]:
        if a in median and b in median:
            print(f"{a} / {b}: {median[a] / median[b]:.3f}")
    print(f"same bytes: {fine}; medians: {median}")
    args.json.write_text(json.dumps(report, indent=1))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
