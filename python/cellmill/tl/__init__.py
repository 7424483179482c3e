"""Tools: components, layouts, clusters, abstracted graphs, marker genes, scores."""

from __future__ import annotations

from typing import Any

from .._calls import no_verb
from ..pp._pca import pca
from ._cluster import leiden, louvain
from ._markers import rank_genes_groups, rank_genes_groups_logreg
from ._paga import paga
from ._score import score_genes, score_genes_cell_cycle
from ._umap import umap

__all__ = ["leiden", "louvain", "paga", "pca", "rank_genes_groups", "rank_genes_groups_logreg", "score_genes", "score_genes_cell_cycle", "umap"]


def __getattr__(name: str) -> Any:
    raise no_verb(__name__, __all__, name)
