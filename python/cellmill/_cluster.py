"""A local Dask cluster that fits the machine."""

from __future__ import annotations

import os
from typing import Any


def cluster(n_workers: int | None = None, **options: Any) -> Any:
    """A local Dask cluster: one worker, whose threads the engine shares, unless more are asked for.

    Parameters
    ----------
    n_workers
        Worker processes; 1 without.
    **options
        Options of ``dask.distributed.LocalCluster``.

    Returns
    -------
    The cluster; ``dask.distributed.Client(cluster)`` connects to it.
    """
    from dask.distributed import LocalCluster

    n_workers = n_workers or 1
    options.setdefault("threads_per_worker", max(1, (os.cpu_count() or 1) // n_workers))
    return LocalCluster(n_workers=n_workers, **options)
