"""What Dask costs, and what workers bring: the same run up to the components on threads of one process and on local workers.

    python xtask/workers.py STORE [--n-top-genes 2000] [--memory 4GiB] [--runs 3]

Prints the wall-clock seconds of a run (median; the clusters are there already) on 2 threads, on 1 worker of 1 thread and on 2 workers of 1 thread,
by stage, what they are of 2 threads, and how long workers wait for the client between passes (wall-clock seconds, and CPU seconds of the client, which say more on a
busy machine); then what a run's orders and records weigh. The package in the interpreter that runs this should
be the release wheel. The outputs must have the same bytes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from distributed import LocalCluster

import cellmill as cm
from cellmill import _crew


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


class Timed(_crew.Crew):
    """Sums the time in which no order is out: the client's alone."""

    alone = (0.0, 0.0)
    since = (0.0, 0.0)

    @staticmethod
    def now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    @classmethod
    def begin(cls) -> None:
        Timed.alone, Timed.since = (0.0, 0.0), cls.now()

    @classmethod
    def end(cls) -> None:
        Timed.alone = tuple(sum_ + now - then for sum_, now, then in zip(Timed.alone, cls.now(), Timed.since, strict=True))

    def submit(self, orders: list[_crew.Order]) -> None:
        self.end()
        super().submit(orders)

    def carried_out(self) -> tuple[list[int], str | None]:
        done = super().carried_out()
        if done[0]:
            Timed.since = self.now()
        return done


class Weighed(_crew.Crew):
    """Looks at orders as they are handed out, and at records before the journal is gone."""

    orders: list[int] = []
    records: dict[str, int] = {}
    journal = Path()

    def submit(self, orders: list[_crew.Order]) -> None:
        self.orders.extend(len(order[1]) for order in orders)
        super().submit(orders)

    def carried_out(self) -> tuple[list[int], str | None]:
        done = super().carried_out()
        if not self._orders:
            self.records |= {path.name: path.stat().st_size for path in self.journal.glob("*-[0-9]*-[0-9]*")}
        return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--n-top-genes", type=int, default=2000)
    parser.add_argument("--memory", default="4GiB")
    parser.add_argument("--runs", type=int, default=3)
    ask = parser.parse_args()
    cm.settings.n_threads, cm.settings.memory, cm.settings.verbosity = 2, ask.memory, 0
    recipe = {"hvg": {"n_top_genes": ask.n_top_genes}}
    options: dict[str, Any] = {"threads_per_worker": 1, "processes": True, "dashboard_address": ":0", "memory_limit": ask.memory}
    found: dict[str, list[dict[str, float]]] = {}
    with (
        tempfile.TemporaryDirectory(dir=Path(ask.store).resolve().parent) as folder,
        LocalCluster(n_workers=1, **options) as one,
        LocalCluster(n_workers=2, **options) as two,
        one.get_client() as client_of_one,
        two.get_client() as client_of_two,
    ):
        ways = {"2 threads": None, "1 worker": client_of_one, "2 workers": client_of_two}
        _crew.Crew = Timed  # type: ignore[misc]
        # One after the other, so that a machine that slows down slows all.
        for i in range(ask.runs):
            for name, client in ways.items():
                start = time.perf_counter()
                Timed.begin()
                done = cm.run(ask.store, Path(folder) / f"{name}.zarr", recipe, through="pca", client=client, overwrite=i > 0)
                Timed.end()
                stages = {stage["stage"]: stage["wall_s"] for stage in done["stages"]}
                waits = dict(zip(("workers wait", "workers wait (CPU)"), Timed.alone, strict=True)) if client else {}
                found.setdefault(name, []).append({"all": time.perf_counter() - start, **stages, **waits})
        base = contents(Path(folder) / "2 threads.zarr")
        assert all(contents(Path(folder) / f"{name}.zarr") == base for name in ways), "the outputs differ"
        Weighed.journal = Path(folder) / "weighed.zarr.journal"
        _crew.Crew = Weighed  # type: ignore[misc]
        cm.run(ask.store, Path(folder) / "weighed.zarr", recipe, through="pca", client=client_of_two)
    medians = {name: {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]} for name, runs in found.items()}
    for name, stages in medians.items():
        print(f"{name:10} {stages['all'] / medians['2 threads']['all']:5.2f}x ", ", ".join(f"{stage} {s:.2f} s" for stage, s in stages.items()))
    print(f"{len(Weighed.orders)} orders, {max(Weighed.orders)} bytes at most")
    sizes: dict[str, list[int]] = {}
    for record, size in Weighed.records.items():
        sizes.setdefault(record.rsplit("-", 3)[0], []).append(size)
    for name, of in sizes.items():
        print(f"{name}: {len(of)} records, {statistics.mean(of) / 1e6:.2f} MB on average")


if __name__ == "__main__":
    main()
