"""Graphs of cells in an AnnData, and columns of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._matrix import home, lent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


def neighbors_of(adata: AnnData, key: str | None) -> dict[str, Any]:
    """What ``neighbors`` left in uns under ``key``."""
    key = key or "neighbors"
    if key not in adata.uns:
        msg = f"Did not find .uns[{key!r}]. Run `sc.pp.neighbors` first."
        raise ValueError(msg)
    return adata.uns[key]


def choose_graph(adata: AnnData, obsp: str | None, neighbors_key: str | None) -> Any:
    """The weights of the neighbours, by scanpy's rules: CSR, `(n_obs, n_obs)`."""
    if obsp is not None and neighbors_key is not None:
        msg = "You can't specify both obsp, neighbors_key. Please select only one."
        raise ValueError(msg)
    if obsp is not None:
        return adata.obsp[obsp]
    key = neighbors_key or "neighbors"
    found = adata.uns.get(key)
    if found is None and neighbors_key is not None:
        msg = f"uns: there is no {key!r}; pp.neighbors(key_added={key!r}) makes it"
        raise KeyError(msg)
    if found is None or found.get("connectivities_key", "connectivities") not in adata.obsp:
        msg = "You need to run `pp.neighbors` first to compute a neighborhood graph."
        raise ValueError(msg)
    return adata.obsp[found.get("connectivities_key", "connectivities")]


def parts(graph: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``indptr``, ``indices`` and float32 weights of a square matrix."""
    graph = _by_rows(graph)
    return lent(graph.indptr), lent(graph.indices), lent(graph.data, np.float32)


def _by_rows(graph: Any) -> Any:
    """A square matrix of any kind as CSR in main memory."""
    import scipy.sparse as sp

    graph = home(graph)
    return graph if sp.issparse(graph) and graph.format == "csr" else sp.csr_matrix(graph)


def restrict(adata: AnnData, restrict_to: tuple[str, Sequence[str]], graph: Any) -> tuple[Any, np.ndarray]:
    """The graph between the cells of some categories, and which cells these are."""
    key, categories = restrict_to
    if key not in adata.obs:
        msg = f"obs: there is no {key!r}; there are: {', '.join(map(str, adata.obs.columns))}"
        raise KeyError(msg)
    if len(categories) and not isinstance(categories[0], str):
        msg = "You need to use strings to label categories, e.g. '1' instead of 1."
        raise ValueError(msg)
    column = adata.obs[key].astype("category")
    for category in categories:
        if category not in column.cat.categories:
            msg = f"{category!r} is not a valid category for {key!r}"
            raise ValueError(msg)
    mask = column.isin(categories).to_numpy()
    return _by_rows(graph)[mask][:, mask], mask


def categorical(labels: np.ndarray, n: int) -> Any:
    """Labels 0..n as a categorical of strings."""
    import pandas as pd

    return pd.Categorical.from_codes(labels, categories=[str(i) for i in range(n)])


def renamed(adata: AnnData, restrict_to: tuple[str, Sequence[str]], mask: np.ndarray, labels: np.ndarray) -> Any:
    """Labels of some cells as ``old,new`` among the old labels of the others."""
    import pandas as pd
    from natsort import natsorted

    key, categories = restrict_to
    all_labels = adata.obs[key].astype(str).to_numpy().astype(object)
    prefix = "-".join(categories)
    all_labels[mask] = [f"{prefix},{label}" for label in labels]
    return pd.Categorical(all_labels, categories=natsorted(set(all_labels)))
