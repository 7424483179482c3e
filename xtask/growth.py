"""Time and memory against cells: simulates data sets, analyses each in a process of its own, and draws what they took.

    python xtask/growth.py --program target/release/cellmill --cells 20000 130000 1306127 [--threads N] [--memory 4GiB] [--runs N]
        [--folder FOLDER] [--plot docs/growth.svg] [--table docs/growth.csv]

Data sets stay in FOLDER (default: target/growth) and are used again. Of several runs the median by wall-clock time is taken.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

# What is drawn together, from the bottom up.
STAGES = ("quality control", "principal components", "neighbors", "connectivities", "umap", "leiden", "writing")


def measure(asked: argparse.Namespace, cells: int) -> dict[str, float]:
    store = asked.folder / f"{cells}.zarr"
    if not store.exists():
        subprocess.run([asked.program, "simulate", store, "--cells", str(cells), "--format", "zarr2", "--quiet"], check=True)
    traces = []
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        for _ in range(asked.runs):
            output, trace = Path(folder) / "out.zarr", Path(folder) / "trace.json"
            command = [asked.program, "run", store, "-o", output, "-y", "--quiet", "--device", "cpu", "--trace", trace]
            subprocess.run([*command, "--threads", str(asked.threads), "--memory", asked.memory], check=True)
            traces.append(json.loads(trace.read_text()))
    trace = sorted(traces, key=lambda t: t["wall_s"])[len(traces) // 2]
    stages = {s["stage"]: s["wall_s"] for s in trace["stages"]}
    peak = max(s["peak_rss_bytes"] for s in trace["stages"] if s["stage"] in STAGES[:2])
    row = {"cells": cells, "threads": asked.threads, "all_s": trace["wall_s"], "peak_mib": trace["peak_rss_bytes"] / 2**20, "peak_pca_mib": peak / 2**20}
    return row | {name: stages.get(name, 0.0) for name in STAGES}


def draw(rows: list[dict[str, float]], path: Path) -> None:
    cells = [row["cells"] for row in rows]
    figure, (time, memory) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    time.plot(cells, [row["all_s"] for row in rows], "o-", color="black", label="all")
    time.plot(cells, [row["quality control"] + row["principal components"] for row in rows], "o-", label="QC to PCA")
    for name in ("neighbors", "umap", "leiden"):
        time.plot(cells, [row[name] for row in rows], ".-", lw=1, label=name)
    time.set(xscale="log", yscale="log", xlabel="cells", ylabel="wall-clock seconds", title=f"time, {rows[0]['threads']:.0f} threads")
    memory.plot(cells, [row["peak_mib"] for row in rows], "o-", color="black", label="all")
    memory.plot(cells, [row["peak_pca_mib"] for row in rows], "o-", label="QC to PCA")
    memory.set(xscale="log", yscale="log", xlabel="cells", ylabel="MiB", title="peak resident memory")
    for axes in (time, memory):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--cells", type=int, nargs="+", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", default="4GiB")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("target/growth"))
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--table", type=Path)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for cells in asked.cells:
        rows.append(measure(asked, cells))
        print(json.dumps({k: round(v, 2) for k, v in rows[-1].items()}), flush=True)
    if asked.table:
        with asked.table.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            table.writeheader()
            table.writerows({k: round(v, 2) for k, v in row.items()} for row in rows)
    if asked.plot:
        draw(rows, asked.plot)


if __name__ == "__main__":
    main()
