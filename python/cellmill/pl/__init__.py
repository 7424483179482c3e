"""Plots: matplotlib axes, named and coloured as scanpy's."""

from __future__ import annotations

from ._embedding import embedding, pca, umap
from ._genes import highly_variable_genes, pca_variance_ratio
from ._groups import dotplot, rank_genes_groups, rank_genes_groups_dotplot
from ._violin import violin

__all__ = [
    "dotplot",
    "embedding",
    "highly_variable_genes",
    "pca",
    "pca_variance_ratio",
    "rank_genes_groups",
    "rank_genes_groups_dotplot",
    "umap",
    "violin",
]
