"""Out-of-core single-cell RNA analysis: scanpy's verbs over AnnData stores that are larger than memory.

>>> import cellmill as cm
>>> cm.pp, cm.tl, cm.get  # doctest: +ELLIPSIS
(<module 'cellmill.pp' ...)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import get, pp, tl
from ._cellmill import __version__
from ._settings import settings

if TYPE_CHECKING:
    from ._cluster import cluster
    from ._lazy import AnnData, concat
    from ._open import open, read_lazy
    from ._rows import LazyMatrix
    from ._run import default_recipe, run

# What needs anndata and pandas is imported when it is asked for.
_LATER = {
    "AnnData": "_lazy",
    "LazyMatrix": "_rows",
    "concat": "_lazy",
    "open": "_open",
    "read_lazy": "_open",
    "run": "_run",
    "default_recipe": "_run",
    "cluster": "_cluster",
}

__all__ = [
    "AnnData",
    "LazyMatrix",
    "__version__",
    "cluster",
    "concat",
    "default_recipe",
    "get",
    "open",
    "pl",
    "pp",
    "read_lazy",
    "run",
    "settings",
    "tl",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"cellmill.{_LATER[name]}"), name)
    if name == "pl":
        return importlib.import_module("cellmill.pl")
    msg = f"module 'cellmill' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
