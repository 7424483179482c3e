"""Threads, memory and what is said: ``cellmill.settings``."""

from __future__ import annotations

import os
from typing import Any

from . import _cellmill


class Settings:
    """How much of the machine cellmill takes.

    Attributes
    ----------
    n_threads
        Threads of the engine; 0, the default, takes all cores. Also ``CELLMILL_NUM_THREADS``.
    memory
        Memory ceiling: bytes, or text such as ``"4GiB"``; 0, the default, takes 80 % of what is free. Also ``CELLMILL_MEMORY``.
    device
        What ``pp.pca``, ``pp.neighbors``, ``tl.umap``, ``tl.leiden``, ``tl.rank_genes_groups`` and ``get.aggregate`` compute on: ``"cpu"``, the default, ``"auto"`` (a GPU if there is one), ``"cuda"``,
        ``"cuda:N"`` or, for several GPUs, ``"cuda:N,M"``. Also ``CELLMILL_DEVICE``.
    keep_on_device
        Whether ``obsm['X_pca']`` of ``pp.pca`` stays in the memory of the GPU that finds it, as an array of CuPy, as in rapids-singlecell; False by
        default. Verbs take such arrays, and X, layers and graphs of CuPy, too. With several GPUs, or where the CPU computes, results are numpy's.
    verbosity
        0: warnings alone; 1, the default: progress bars in terminals and notebooks; 2: a log line for each verb.
    client
        A ``dask.distributed.Client`` (or a scheduler's address) whose workers read the rows for :func:`run`, and those of a store for
        ``tl.rank_genes_groups``, ``tl.score_genes`` and ``get.aggregate``; none, the default, works here.

    Examples
    --------
    >>> import cellmill as cm
    >>> cm.settings.n_threads = 2
    >>> cm.settings.memory = "1.5GiB"
    >>> cm.settings.memory
    1610612736
    >>> cm.settings.memory = cm.settings.n_threads = 0
    """

    def __init__(self) -> None:
        threads = os.environ.get("CELLMILL_NUM_THREADS") or "0"
        if not threads.isdecimal():
            msg = f"CELLMILL_NUM_THREADS: {threads!r}, but 0 (all cores) or more are expected"
            raise ValueError(msg)
        self._n_threads = int(threads)
        self._memory = _cellmill.parse_memory(os.environ["CELLMILL_MEMORY"]) if os.environ.get("CELLMILL_MEMORY") else 0
        self.verbosity = 1
        self.device = os.environ.get("CELLMILL_DEVICE") or "cpu"
        self.client: Any = None
        self._keep_on_device = False
        self._configure()

    def _configure(self) -> None:
        _cellmill.configure(self._n_threads, self._memory)

    @property
    def n_threads(self) -> int:
        return self._n_threads

    @n_threads.setter
    def n_threads(self, n: int | None) -> None:
        n = int(n or 0)
        if n < 0:
            msg = f"n_threads: {n}, but 0 (all cores) or more are expected"
            raise ValueError(msg)
        self._n_threads = n
        self._configure()

    @property
    def memory(self) -> int:
        return self._memory

    @memory.setter
    def memory(self, size: int | str | None) -> None:
        self._memory = _cellmill.parse_memory(size) if isinstance(size, str) and size != "0" else int(size or 0)
        self._configure()

    @property
    def device(self) -> str:
        return self._device

    @device.setter
    def device(self, word: str) -> None:
        _cellmill.choose_device(word)
        self._device = word

    @property
    def keep_on_device(self) -> bool:
        return self._keep_on_device

    @keep_on_device.setter
    def keep_on_device(self, keep: bool) -> None:
        if keep:
            import cupy  # noqa: F401 — an error now is better than after the work
        self._keep_on_device = bool(keep)

    def __repr__(self) -> str:
        return f"Settings(n_threads={self.n_threads}, memory={self.memory}, verbosity={self.verbosity}, device={self.device!r}, keep_on_device={self.keep_on_device})"


settings = Settings()
