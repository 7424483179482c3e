"""What the way through Python costs: the same analysis by the program, by ``cellmill.run`` and verb by verb, each in a process of its own.

    python xtask/overhead.py STORE --program target/release/cellmill [--threads N] [--memory 4GiB] [--runs N] [--through pca]

Prints wall-clock and CPU seconds (medians, with start and import) and the peak of resident memory of each way, and what they are of the
program's.
The interpreter is the one that runs this script; the package in it should be the release wheel.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUN = """
import sys, cellmill as cm
store, output, through = sys.argv[1:]
cm.run(store, output, through=through, overwrite=True)
"""

# The default recipe, in verbs; results are written as the program writes them, without X.
VERBS = """
import sys, cellmill as cm
store, output, through = sys.argv[1:]
adata = cm.read_lazy(store)
cm.pp.calculate_qc_metrics(adata)
adata = adata[(adata.obs["n_genes_by_counts"] >= 200) & (adata.obs["n_genes_by_counts"] <= 10_000)]
cm.pp.normalize_total(adata, target_sum=10_000)
cm.pp.log1p(adata)
cm.pp.highly_variable_genes(adata, n_top_genes=5_000, flavor="cell_ranger")
chosen = adata[:, adata.var["highly_variable"]]
cm.pp.scale(chosen, zero_center=False)
cm.pp.pca(chosen, n_comps=100, mask_var=None)
if through == "leiden":
    cm.pp.neighbors(chosen, n_neighbors=15, n_pcs=50)
    cm.tl.umap(chosen)
    cm.tl.leiden(chosen)
chosen.write_zarr(output, with_x=False)
"""


def measure(command: list[str], env: dict[str, str]) -> tuple[float, float, float]:
    """Wall-clock and CPU seconds of a process, and its peak of resident memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{' '.join(command)} failed")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--program", required=True)
    parser.add_argument("--threads", default="2")
    parser.add_argument("--memory", default="4GiB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--through", choices=["pca", "leiden"], default="leiden")
    ask = parser.parse_args()
    env = os.environ | {"CELLMILL_NUM_THREADS": ask.threads, "CELLMILL_MEMORY": ask.memory, "CI": "1"}
    with tempfile.TemporaryDirectory(dir=Path(ask.store).resolve().parent) as folder:
        out = str(Path(folder) / "out.zarr")
        options = ["--through", ask.through, "--threads", ask.threads, "--memory", ask.memory]
        ways = {
            "program": [ask.program, "run", ask.store, "-o", out, "-y", "--quiet", "--device", "cpu", *options],
            "cellmill.run": [sys.executable, "-c", RUN, ask.store, out, ask.through],
            "verb by verb": [sys.executable, "-c", VERBS, ask.store, out, ask.through],
        }
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
        # One after the other, so that a machine that slows down slows all.
        for _ in range(ask.runs):
            for name, command in ways.items():
                found[name].append(measure(command, env))
    base = [statistics.median(column) for column in zip(*found["program"], strict=True)]
    for name, runs in found.items():
        wall, cpu, memory = (statistics.median(column) for column in zip(*runs, strict=True))
        times = f"{wall:8.2f} s  {wall / base[0]:5.2f}x   {cpu:8.2f} CPU s  {cpu / base[1]:5.2f}x"
        print(f"{name:14} {times}   {memory:7.0f} MB  {memory - base[2]:+6.0f} MB")


if __name__ == "__main__":
    main()
