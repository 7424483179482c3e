"""Checks and times cellmill on a machine with NVIDIA GPUs, and leaves a JSON of all figures.

    python bench/gpu.py FOLDER [--cells N] [--runs N] [--device cuda:0,1] [--format zarr2] [--json FILE]

FOLDER holds three programs, built anywhere: `cellmill`, `gpu` (`cargo build --release --workspace --example gpu`) and `graph`
(the crate's unit tests, `cargo test --workspace --lib --no-run`). Needs Python alone. The data are simulated in a temporary folder,
so they are in the page cache: as zarr version 2 with blosc-lz4, or as `--format zarr3` (zstd) or `h5ad` (gzip). Exit status 1 if a
kernel differs from its CPU twin, a rerun or several GPUs from one, a pseudobulk from the CPU's, or a marker's score by more than
1e-4.
"""

import argparse
import csv
import filecmp
import json
import pathlib
import subprocess
import sys
import tempfile


def stages(trace):
    """Wall-clock seconds of each stage and of all."""
    times = {stage["stage"]: round(stage["wall_s"], 3) for stage in trace["stages"]}
    keys = ("wall_s", "peak_rss_bytes", "device_peak_bytes", "device", "threads")
    return {"stages_s": times, **{key: trace[key] for key in keys}}


def files(store):
    """Files of results whose bytes must not differ."""
    return sorted(p.relative_to(store) for p in store.rglob("*") if p.is_file() and p.parts[len(store.parts)] in ("obsm", "obsp", "varm", "layers"))


def same(a, b):
    """Whether two stores hold the same embeddings, graphs, loadings and layers to the byte."""
    names = files(a)
    return bool(names) and names == files(b) and not filecmp.cmpfiles(a, b, map(str, names), shallow=False)[1]


def scores(table):
    """Scores of a table of markers, by group and gene."""
    with open(table, newline="") as lines:
        return {(row["group"], row["names"]): float(row["scores"]) for row in csv.DictReader(lines)}


def furthest(found, wanted):
    """The largest difference of scores, relative to those above 1; infinite if the genes differ."""
    if found.keys() != wanted.keys():
        return float("inf")
    apart = [abs(score - wanted[key]) / max(1.0, abs(wanted[key])) for key, score in found.items()]
    return float("inf") if any(x != x for x in apart) else max(apart, default=0.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--cells", type=int, default=1_306_127)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", action="append", help="given several times, results must be the same on all [default: cuda]")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--format", default="zarr2", choices=["zarr2", "zarr3", "h5ad"])
    parser.add_argument("--json", type=pathlib.Path, default=pathlib.Path("gpu.json"))
    args = parser.parse_args()
    report, fine = {"cells": args.cells}, True

    def call(program, *words):
        return subprocess.run([args.folder / program, *map(str, words)], capture_output=True, text=True, check=False)

    checks = call("gpu", "check")
    report["checks"] = [json.loads(line) for line in checks.stdout.splitlines()]
    tests = call("graph", "umap::filter", "umap::start", "leiden::twin")
    fine &= checks.returncode == 0 and tests.returncode == 0
    report["kernels_fine"] = fine
    print(f"kernels fine: {fine}", checks.stderr, "" if tests.returncode == 0 else tests.stdout, flush=True)
    with tempfile.TemporaryDirectory() as work:
        data = pathlib.Path(work, "data.h5ad" if args.format == "h5ad" else "data.zarr")
        call("cellmill", "simulate", "-q", "--cells", args.cells, "--format", args.format, data)
        threads = ["--threads", args.threads] if args.threads else []
        report["runs"] = []
        first = None
        for device in args.device or ["cuda"]:
            for run in range(args.runs):
                for through in ("pca", "leiden"):
                    out, trace = pathlib.Path(work, f"out{len(report['runs'])}.zarr"), pathlib.Path(work, "trace.json")
                    words = ["-q", data, "-o", out, "--device", device, "--through", through, "--trace", trace, *threads]
                    done = call("cellmill", "run", *words)
                    if done.returncode != 0:
                        print(done.stderr)
                        return 1
                    found = {"asked": device, "through": through, "run": run, **stages(json.loads(trace.read_text()))}
                    report["runs"].append(found)
                    print(device, through, f"{found['wall_s']:.2f}", found["stages_s"], flush=True)
                    if through == "leiden":
                        first = first or out
                        found["same_bytes"] = same(first, out)
                        fine &= found["same_bytes"]
                        print("same bytes as the first run:", found["same_bytes"], flush=True)
        # Sums and ranks over groups: the markers of the clusters, and a pseudobulk of the counts.
        report["statistics"], by_cpu, bulks = [], {}, []
        for device in ["cpu", *(args.device or ["cuda"])]:
            table = pathlib.Path(work, "markers.csv")
            options = [data, "--obs", first, "--device", device, "--json", "-y", *threads]
            times, apart = {}, 0.0
            for method in ("t-test", "wilcoxon"):
                found = call("cellmill", "markers", *options, "--method", method, "-o", table)
                if found.returncode != 0:
                    print(found.stderr)
                    return 1
                # A card that leaves it to the CPU says so.
                fine &= "the CPU does that" not in found.stderr
                times[method] = json.loads(found.stdout)["wall_s"]
                apart = max(apart, furthest(scores(table), by_cpu.setdefault(method, scores(table))))
            sums = pathlib.Path(work, f"bulk-{len(report['statistics'])}.zarr")
            bulk = call("cellmill", "aggregate", *options, "--by", "leiden", "--target-sum", "none", "--no-log1p", "-o", sums)
            if bulk.returncode != 0:
                print(bulk.stderr)
                return 1
            bulks.append(sums)
            # Sums of counts are exact.
            fine &= apart < 1e-4 and same(bulks[0], sums)
            fine &= "the CPU does that" not in bulk.stderr
            times["aggregate"] = json.loads(bulk.stdout)["wall_s"]
            report["statistics"].append({"asked": device, "wall_s": times, "scores_apart": apart})
            print(device, {name: round(seconds, 2) for name, seconds in times.items()}, f"scores at most {apart:.1e} from the CPU's", flush=True)
    args.json.write_text(json.dumps(report, indent=1))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
