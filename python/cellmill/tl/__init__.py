"""Tools: layouts, clusters, abstracted graphs."""

from __future__ import annotations

from ._cluster import leiden, louvain
from ._paga import paga
from ._umap import umap

__all__ = ["leiden", "louvain", "paga", "umap"]
