"""Preprocessing: quality control, filters, normalisation, highly variable genes, scaling, components, neighbours."""

from __future__ import annotations

from typing import Any

from .._calls import no_verb
from ._dense import normalize_pearson_residuals, regress_out
from ._filter import filter_cells, filter_genes, filter_highly_variable, flag_gene_family, sample
from ._hvg import highly_variable_genes
from ._neighbors import neighbors
from ._pca import pca
from ._qc import calculate_qc_metrics
from ._values import log1p, normalize_total, scale, sqrt

__all__ = [
    "calculate_qc_metrics",
    "filter_cells",
    "filter_genes",
    "filter_highly_variable",
    "flag_gene_family",
    "highly_variable_genes",
    "log1p",
    "neighbors",
    "normalize_pearson_residuals",
    "normalize_total",
    "pca",
    "regress_out",
    "sample",
    "scale",
    "sqrt",
]


def __getattr__(name: str) -> Any:
    raise no_verb(__name__, __all__, name)
