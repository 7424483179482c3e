"""``paga``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._calls import old_positionals
from .._cellmill import paga as abstract
from .._elements import element
from .._graph import neighbors_of, parts
from .._matrix import check_adata

if TYPE_CHECKING:
    from anndata import AnnData


@old_positionals()
def paga(
    adata: AnnData,
    groups: str | None = None,
    *,
    use_rna_velocity: bool = False,
    model: str = "v1.2",
    neighbors_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """How strongly clusters are connected: edges between them over those expected at random.

    Parameters
    ----------
    adata
        Annotated data, after ``pp.neighbors``.
    groups
        Categorical column of obs; ``leiden`` or ``louvain`` without.
    use_rna_velocity
        Only False.
    model
        What edges between two groups are compared with: those expected at random (``'v1.2'``, which counts the edges of ``distances``), or
        neighbours times the geometric mean of the groups' sizes (``'v1.0'``, the pairs of ``connectivities``).
    neighbors_key
        Where the neighbours are.
    copy
        Whether a changed copy is returned.

    Returns
    -------
    Sets the following fields:

    ``adata.uns['paga']['connectivities']``, ``['connectivities_tree']`` : CSR float64, `(n_groups, n_groups)`
        The abstracted graph and its maximum spanning tree.
    ``adata.uns['paga']['groups']``
        The column.
    ``adata.uns['{groups}_sizes']`` : int64
        Cells in each group.
    """
    check_adata(adata)
    if use_rna_velocity:
        msg = "use_rna_velocity: True, but only graphs without direction are abstracted (False)"
        raise ValueError(msg)
    if model not in ("v1.2", "v1.0"):
        msg = f"`model` {model} needs to be one of ('v1.2', 'v1.0')."
        raise ValueError(msg)
    if (neighbors_key or "neighbors") not in adata.uns:
        msg = "You need to run `pp.neighbors` first to compute a neighborhood graph."
        raise ValueError(msg)
    if groups is None:
        groups = next((key for key in ("leiden", "louvain") if key in adata.obs), None)
    if groups is None:
        msg = "You need to run `tl.leiden` or `tl.louvain` to compute community labels, or specify `groups='an_existing_key'`"
        raise ValueError(msg)
    if groups not in adata.obs:
        msg = f"`groups` key {groups!r} not found in `adata.obs`."
        raise KeyError(msg)
    adata = adata.copy() if copy else adata
    # Text becomes categories, as scanpy makes it.
    adata.strings_to_categoricals()
    column = adata.obs[groups].astype("category")
    adata.obs[groups] = column
    found = neighbors_of(adata, neighbors_key)
    edges = adata.obsp[found.get("distances_key", "distances") if model == "v1.2" else found.get("connectivities_key", "connectivities")]
    indptr, indices, _ = parts(edges)
    codes = column.cat.codes.to_numpy()
    if (codes < 0).any():
        msg = f"obs/{groups}: a missing value, but each cell needs a group"
        raise ValueError(msg)
    # Where the number of neighbours is not told, scanpy takes half of a cell's pairs.
    n_neighbors = None if model == "v1.2" else int(found.get("params", {}).get("n_neighbors", len(indices) / len(codes) / 2))
    graph, tree, sizes = abstract(indptr, indices, codes.astype(np.uint32), len(column.cat.categories), n_neighbors)
    adata.uns.setdefault("paga", {})
    adata.uns["paga"] |= dict(connectivities=element(graph), connectivities_tree=element(tree), groups=groups)
    adata.uns[f"{groups}_sizes"] = sizes
    return adata if copy else None
