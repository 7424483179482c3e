"""A local Dask cluster that fits the machine."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any


def cluster(n_workers: int | None = None, **options: Any) -> Any:
    """A local Dask cluster: one worker, whose threads the engine shares, unless more are asked for; a worker for each GPU of
    ``CUDA_VISIBLE_DEVICES`` where dask-cuda is there and that is given, here or in the environment.

    Parameters
    ----------
    n_workers
        Worker processes; 1 without, or one a GPU.
    **options
        Options of ``dask.distributed.LocalCluster``, or of ``dask_cuda.LocalCUDACluster``.

    Returns
    -------
    The cluster; ``dask.distributed.Client(cluster)`` connects to it.
    """
    cores = os.cpu_count() or 1
    visible = options.get("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES"))
    gpus = visible if isinstance(visible, (list, tuple)) else [gpu for gpu in str(visible or "").split(",") if gpu.strip() not in ("", "-1")]
    if gpus and find_spec("dask_cuda"):
        from dask_cuda import LocalCUDACluster

        options.setdefault("threads_per_worker", max(1, cores // (n_workers or len(gpus))))
        return LocalCUDACluster(n_workers=n_workers, **options)
    from dask.distributed import LocalCluster

    # Only dask-cuda knows these.
    for name in ("CUDA_VISIBLE_DEVICES", "rmm_pool_size"):
        options.pop(name, None)
    n_workers = n_workers or 1
    options.setdefault("threads_per_worker", max(1, cores // n_workers))
    return LocalCluster(n_workers=n_workers, **options)
