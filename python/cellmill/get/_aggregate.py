"""``aggregate``: cells of a group as one."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _cellmill
from .._crew import workers
from .._matrix import home, is_backed, is_dask, mask_of, matrix_of, values_of
from .._report import _outside

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from anndata import AnnData


FUNCS = ("sum", "mean", "var", "count_nonzero", "sq_sum", "median")


def aggregate(
    adata: AnnData,
    by: str | Sequence[str],
    func: str | Iterable[str],
    *,
    axis: str | int | None = None,
    mask: np.ndarray | str | None = None,
    dof: int = 1,
    layer: str | None = None,
    obsm: str | None = None,
    varm: str | None = None,
    return_sparse: bool = False,
) -> AnnData:
    """Sums, means, variances or counts of each gene over the cells of each group: pseudobulks.

    Parameters
    ----------
    adata
        Annotated data.
    by
        Columns of obs; each combination that occurs is a group.
    func
        ``'sum'``, ``'mean'``, ``'var'``, ``'count_nonzero'``, ``'sq_sum'`` (of squares), ``'median'``, or several of them. All but the median are streamed; for it, the
        cells of one group at a time are in memory.
    axis
        ``'obs'`` (or 0), the default, groups cells; ``'var'`` (or 1) groups genes by columns of var, in memory.
    mask
        Cells that count: a column of obs, or flags `(n_obs,)`. Means and variances of a group without any are NaN.
    dof
        Degrees of freedom that a variance loses.
    layer, obsm, varm
        What to use instead of X; one of them.
    return_sparse
        Whether layers are CSR. What is not defined is 0 there, with a warning.

    Returns
    -------
    An AnnData of groups by genes, with a layer for each function (float64).

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(np.ones((5, 2), "float32"), obs={"kind": list("aabbb")})
    >>> cm.get.aggregate(adata, "kind", "sum").layers["sum"][:, 0].tolist()
    [2.0, 3.0]
    """
    import anndata

    if not hasattr(adata, "obs"):
        # scanpy's error for what it does not know.
        msg = f"aggregate is only there for an AnnData, not for {type(adata).__name__}"
        raise NotImplementedError(msg)
    if sum(given is not None for given in (layer, obsm, varm)) > 1:
        msg = "Please only provide one (or none) of varm, obsm, or layer"
        raise TypeError(msg)
    axis = ("obs" if varm is None else "var") if axis is None else axis
    if axis not in (0, "obs", 1, "var"):
        msg = f"axis must be 'obs' (0) or 'var' (1), but it was {axis!r}"
        raise ValueError(msg)
    of_genes = axis in (1, "var")
    if (varm is not None and not of_genes) or (obsm is not None and of_genes):
        msg = "varm can only be used when axis is 1" if varm is not None else "obsm can only be used when axis is 0"
        raise ValueError(msg)
    frame = adata.var if of_genes else adata.obs
    codes, groups = _groups(frame, [by] if isinstance(by, str) else list(by), "var" if of_genes else "obs")
    funcs = [func] if isinstance(func, str) else list(func)
    unknown = [name for name in funcs if name not in FUNCS]
    if unknown:
        msg = f"func: {unknown[0]!r}, but it is one of {', '.join(FUNCS)}"
        raise ValueError(msg)
    if mask is not None:
        mask = mask_of(frame, mask, "var" if of_genes else "obs")
    x = home(adata.varm[varm]) if varm is not None else home(adata.obsm[obsm]) if obsm is not None else values_of(adata, layer)
    matrix = _rows(x, of_genes and varm is None)
    streamed = [name for name in funcs if name != "median"]
    found: dict[str, Any] = {}
    if streamed:
        with workers() as crew:
            found, _ = _cellmill.aggregate(matrix, codes, list(groups.index), streamed, mask, dof, crew)
    if "median" in funcs:
        member = codes if mask is None else np.where(mask, codes, -1)
        found["median"] = np.array([_medians(matrix.keep_rows(member == group)) for group in range(len(groups))])
    # Where there are no genes, too.
    layers = {name: found[name].reshape(len(groups), matrix.shape[1]) for name in funcs}
    if return_sparse:
        import scipy.sparse as sp

        if any(np.isnan(values).any() for values in layers.values()):
            text = "what is not defined (means of no cells, variances of one) becomes implicit-zero entries of sparse layers; return_sparse=False has NaN"
            warnings.warn(text, RuntimeWarning, stacklevel=_outside())
        layers = {name: sp.csr_matrix(np.nan_to_num(values, nan=0.0)) for name, values in layers.items()}
    made = anndata.AnnData(layers=layers, obs=groups, var=_columns(adata, x, of_genes, obsm is not None or varm is not None))
    return made.T if of_genes else made


def _groups(frame: pd.DataFrame, keys: list[str], where: str) -> tuple[np.ndarray, pd.DataFrame]:
    """Group of each row, −1 for none, and a frame that names the groups: each combination of categories that occurs."""
    import pandas as pd

    absent = [key for key in keys if key not in frame]
    if absent:
        msg = f"by: there is no {absent[0]!r} in {where}; there are: {', '.join(map(str, frame.columns))}"
        raise KeyError(msg)
    parts = [pd.Categorical(frame[key]).remove_unused_categories() for key in keys]
    sizes = [len(part.categories) for part in parts]
    whole = np.ravel_multi_index([np.maximum(part.codes, 0) for part in parts], sizes)
    none = np.any([part.codes < 0 for part in parts], axis=0)
    there = np.unique(whole[~none])
    codes = np.where(none, -1, np.searchsorted(there, whole)).astype(np.int32)
    places = np.unravel_index(there, sizes)
    groups = pd.DataFrame({key: pd.Categorical.from_codes(place, dtype=part.dtype) for key, part, place in zip(keys, parts, places, strict=True)})
    groups.index = ["_".join(map(str, row)) for row in groups.itertuples(index=False)]
    return codes, groups


def _rows(x: Any, turned: bool) -> _cellmill.Matrix:
    """The rows that are grouped."""
    if not turned:
        return matrix_of(x)
    if hasattr(x, "_cellmill_matrix") or is_backed(x):
        x = x.to_memory() if hasattr(x, "to_memory") else x[:]
    x = x.compute() if is_dask(x) else x
    return matrix_of(x.T)


def _medians(matrix: _cellmill.Matrix) -> np.ndarray:
    """Median of each column: `(n_vars,)`, NaN if there are no rows."""
    n, n_vars = matrix.shape
    if n == 0:
        return np.full(n_vars, np.nan)
    _, columns, values = matrix.collect()
    order = np.lexsort((values, columns))
    columns, values = columns[order], values[order].astype(np.float64)
    held = np.bincount(columns, minlength=n_vars)
    # In each column: values below zero, the zeros that are not stored, the others.
    first, below, zeros = np.cumsum(held) - held, np.bincount(columns[values < 0], minlength=n_vars), n - held

    def smallest(k: int) -> np.ndarray:
        stored = first + np.where(k < below, k, k - zeros)
        inside = (k >= below) & (k < below + zeros)
        return np.where(inside, 0.0, np.append(values, 0.0)[np.where(inside, len(values), stored)])

    base = matrix.base()
    return (smallest((n - 1) // 2) + smallest(n // 2)) / 2 + (0.0 if base is None else base)


def _columns(adata: AnnData, x: Any, of_genes: bool, of_mapping: bool) -> pd.DataFrame:
    """What describes the columns."""
    import pandas as pd

    if of_mapping:
        return pd.DataFrame(index=x.columns if isinstance(x, pd.DataFrame) else pd.RangeIndex(x.shape[1]).astype(str))
    return (adata.obs if of_genes else adata.var).copy()
