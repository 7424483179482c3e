"""``aggregate``: cells of a group as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import _cellmill
from .._labels import labels_of
from .._matrix import matrix_of, values_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData


def aggregate(
    adata: AnnData,
    by: str | Sequence[str],
    func: str | Iterable[str],
    *,
    axis: str | int | None = None,
    mask: np.ndarray | str | None = None,
    dof: int = 1,
    layer: str | None = None,
) -> AnnData:
    """Sums, means, variances or counts of each gene over the cells of each group: pseudobulks.

    Parameters
    ----------
    adata
        Annotated data.
    by
        Columns of obs; each combination that occurs is a group.
    func
        ``'sum'``, ``'mean'``, ``'var'``, ``'count_nonzero'``, or several of them.
    axis
        ``'obs'`` (or 0), which is the default; genes are not grouped.
    mask
        Cells that count: a column of obs, or flags `(n_obs,)`.
    dof
        Degrees of freedom that a variance loses.
    layer
        Layer to use instead of X.

    Returns
    -------
    An AnnData of groups by genes, with a layer for each function (float64) and ``n_obs_aggregated`` in obs.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(np.ones((5, 2), "float32"), obs={"kind": list("aabbb")})
    >>> cm.get.aggregate(adata, "kind", "sum").layers["sum"][:, 0].tolist()
    [2.0, 3.0]
    """
    import anndata
    import pandas as pd

    if axis not in (None, 0, "obs"):
        msg = f"axis: {axis!r}, but only cells ('obs') are grouped"
        raise ValueError(msg)
    keys = [by] if isinstance(by, str) else list(by)
    absent = [key for key in keys if key not in adata.obs]
    if absent:
        msg = f"by: there is no {absent[0]!r} in obs; there are: {', '.join(adata.obs)}"
        raise KeyError(msg)
    funcs = [func] if isinstance(func, str) else list(func)
    parts = [labels_of(adata.obs, key) for key in keys]
    sizes = [len(names) for _, names in parts]
    whole = np.ravel_multi_index([np.maximum(codes, 0) for codes, _ in parts], sizes)
    none = np.any([codes < 0 for codes, _ in parts], axis=0)
    there = np.unique(whole[~none])
    codes = np.where(none, -1, np.searchsorted(there, whole)).astype(np.int32)
    columns = {}
    for key, place in zip(keys, np.unravel_index(there, sizes), strict=True):
        named = adata.obs[key] if isinstance(adata.obs[key].dtype, pd.CategoricalDtype) else None
        categories = labels_of(adata.obs, key)[1] if named is None else named.cat.categories
        ordered = named is not None and named.cat.ordered
        columns[key] = pd.Categorical.from_codes(place, categories=categories, ordered=ordered)
    obs = pd.DataFrame(columns)
    obs.index = ["_".join(map(str, row)) for row in obs.itertuples(index=False)]
    if mask is not None:
        mask = np.ascontiguousarray(adata.obs[mask] if isinstance(mask, str) else mask, dtype=bool)
    matrix = matrix_of(values_of(adata, layer))
    layers, counts = _cellmill.aggregate(matrix, codes, list(obs.index), funcs, mask, dof)
    obs["n_obs_aggregated"] = np.asarray(counts, dtype=np.int64)
    return anndata.AnnData(layers=layers, obs=obs, var=adata.var[[]].copy())
