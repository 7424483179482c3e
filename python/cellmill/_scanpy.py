"""scanpy's verbs on this engine, for versions of scanpy that dispatch through ``scverse-backends``: ``scanpy.settings.backend = "cellmill"``.

It is found by the entry point ``scanpy.backends``. A verb is called with scanpy's arguments by name, and with this package's defaults for those
that are left out.
"""

from __future__ import annotations

import functools
from typing import Any

from . import pp
from .get import aggregate
from .pp import (
    filter_cells,
    filter_genes,
    highly_variable_genes,
    log1p,
    neighbors,
    normalize_pearson_residuals,
    normalize_total,
    pca,
    regress_out,
    sample,
    scale,
    sqrt,
)
from .tl import leiden, louvain, paga, rank_genes_groups, score_genes, score_genes_cell_cycle, umap

__all__ = [
    "aggregate",
    "calculate_qc_metrics",
    "filter_cells",
    "filter_genes",
    "highly_variable_genes",
    "leiden",
    "log1p",
    "louvain",
    "neighbors",
    "normalize_pearson_residuals",
    "normalize_total",
    "paga",
    "pca",
    "rank_genes_groups",
    "regress_out",
    "sample",
    "scale",
    "score_genes",
    "score_genes_cell_cycle",
    "sqrt",
    "umap",
]

name = "cellmill"
aliases: tuple[str, ...] = ()


@functools.wraps(pp.calculate_qc_metrics)
def calculate_qc_metrics(adata: Any, *, inplace: bool = False, **options: Any) -> Any:
    """As in scanpy, which returns frames where ``inplace`` isn't given."""
    return pp.calculate_qc_metrics(adata, inplace=inplace, **options)
