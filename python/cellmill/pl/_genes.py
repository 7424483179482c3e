"""Highly variable genes, and the variance of components."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._axes import finish, grid

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes


def highly_variable_genes(adata: AnnData, *, log: bool = False, show: bool | None = None, save: str | bool | None = None) -> Axes | list[Axes]:
    """Draws dispersions (or variances) of genes against their means, normalised and as they are; chosen genes are black.

    Parameters
    ----------
    adata
        Annotated data after ``pp.highly_variable_genes``.
    log
        Whether both axes are logarithmic; variances of ``seurat_v3`` always are.
    show, save
        Whether the figure is shown now, and where it is saved.

    Returns
    -------
    Two axes.
    """
    var = adata.var
    if "highly_variable" not in var:
        msg = "highly_variable: there is none in var; run pp.highly_variable_genes first"
        raise KeyError(msg)
    if "residual_variances" in var:
        kinds, log = ["residual_variances", "variances"], True
    elif "variances_norm" in var:
        kinds, log = ["variances_norm", "variances"], True
    else:
        kinds = ["dispersions_norm", "dispersions"]
    panels = grid(2, 2, 4, 3.6)
    chosen = var["highly_variable"].to_numpy(dtype=bool)
    means = var["means"].to_numpy(dtype=np.float64)
    words = {"dispersions_norm": "dispersions of genes (normalized)", "dispersions": "dispersions of genes (not normalized)"}
    for panel, kind in zip(panels, kinds, strict=True):
        values = var[kind].to_numpy(dtype=np.float64)
        for mask, color, label in ((~chosen, "lightgray", "other genes"), (chosen, "black", "highly variable genes")):
            panel.scatter(means[mask], values[mask], s=1.5, c=color, label=label, linewidths=0, rasterized=True)
        if log:
            panel.set(xscale="log", yscale="log")
        panel.set(xlabel="mean expressions of genes", ylabel=words.get(kind, f"{kind} of genes"))
    panels[0].legend(frameon=False, markerscale=4)
    return finish(panels, show=show, save=save, name="highly_variable_genes")


def pca_variance_ratio(adata: AnnData, n_pcs: int = 30, *, log: bool = False, show: bool | None = None, save: str | bool | None = None) -> Axes | list[Axes]:
    """Draws the share of the variance that each component holds.

    Parameters
    ----------
    adata
        Annotated data after ``pp.pca``.
    n_pcs
        Components to draw.
    log
        Whether the shares' axis is logarithmic.
    show, save
        Whether the figure is shown now, and where it is saved.

    Returns
    -------
    The axes.
    """
    if "pca" not in adata.uns:
        msg = "pca: there is none in uns; run pp.pca first"
        raise KeyError(msg)
    ratio = np.asarray(adata.uns["pca"]["variance_ratio"])[:n_pcs]
    panel = grid(1, 1, 4.5, 3.4)[0]
    panel.plot(np.arange(1, len(ratio) + 1), ratio, marker="o", markersize=3, color="#1f77b4", linewidth=0.8)
    panel.set(xlabel="ranking of components", ylabel="variance ratio")
    if log:
        panel.set_yscale("log")
    return finish([panel], show=show, save=save, name="pca_variance_ratio")
