"""Verbs whose results are dense: ``normalize_pearson_residuals`` and ``regress_out``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _double
from .._calls import Returned, old_positionals
from .._cellmill import Matrix, moments, pearson_fit, pearson_rows, quality, regress_fit, regress_rows
from .._labels import categories_of
from .._matrix import actual, check_adata, check_writable, held, is_dask, matrix_of, put, values_of
from .._report import _outside, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

#: Rows of a handle that are made dense at a time: those of a task of the engine.
ROWS = 4096


class Residuals:
    """Pearson residuals of rows, once the genes' shares of the counts are known."""

    def __init__(self, share: np.ndarray, theta: float, clip: float, dtype: np.dtype) -> None:
        self.share, self.theta, self.clip, self.dtype = share, theta, clip, dtype

    def __call__(self, matrix: Matrix, start: int, stop: int) -> np.ndarray:
        return pearson_rows(matrix, self.share, self.theta, self.clip, self.dtype == np.float64)


class Left:
    """What regressors leave of rows, once their coefficients are known."""

    def __init__(self, regressors: np.ndarray, coefficients: np.ndarray) -> None:
        self.regressors, self.coefficients = regressors, coefficients

    def __call__(self, matrix: Matrix, start: int, stop: int) -> np.ndarray:
        return regress_rows(matrix, np.ascontiguousarray(self.regressors[start:stop]), self.coefficients)


class Block:
    """Turns a block of a Dask array."""

    def __init__(self, rows: Residuals | Left, dtype: np.dtype) -> None:
        self.rows, self.dtype = rows, dtype

    def __call__(self, block: Any, block_info: Any = None) -> np.ndarray:
        start, stop = block_info[0]["array-location"][0]
        return self.rows(matrix_of(block), start, stop).astype(self.dtype, copy=False)


class Reader:
    """Reads a block of rows of a handle."""

    def __init__(self, rows: Residuals | Left, matrix: Matrix) -> None:
        self.rows, self.matrix = rows, matrix

    def __call__(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n_obs, n_vars = self.matrix.shape
        start, stop = i * ROWS, min((i + 1) * ROWS, n_obs)
        mask = np.zeros(n_obs, bool)
        mask[start:stop] = True
        dense = self.rows(self.matrix.keep_rows(mask), start, stop)
        indptr = np.arange(stop - start + 1, dtype=np.int64) * n_vars
        return indptr, np.tile(np.arange(n_vars, dtype=np.int32), stop - start), dense.ravel()


def _turned(x: Any, matrix: Matrix, rows: Residuals | Left, dtype: np.dtype) -> Any:
    """Dense rows in place of ``x``: at once if it lies in memory, else when rows are asked for."""
    if is_dask(x):
        x = x if len(x.chunks[1]) == 1 else x.rechunk({1: -1})
        return x.map_blocks(Block(rows, dtype), dtype=dtype, meta=np.empty((0, 0), dtype))
    if hasattr(x, "_cellmill_matrix"):
        n_obs, n_vars = matrix.shape
        ends = [*range(ROWS, n_obs, ROWS), n_obs]
        return type(x)(Matrix.blocks(Reader(rows, matrix), ends, n_vars))
    return rows(matrix, 0, matrix.shape[0]).astype(dtype, copy=False)


def normalize_pearson_residuals(
    adata: AnnData,
    *,
    theta: float = 100,
    clip: float | None = None,
    check_values: bool = True,
    layer: str | None = None,
    inplace: bool = True,
    copy: bool = False,
) -> AnnData | dict[str, Any] | None:
    """Analytic Pearson residuals of a negative binomial model of the counts (Lause, Berens & Kobak 2021).

    Parameters
    ----------
    adata
        Cells by genes, `n_obs` × `n_vars`, counts; chosen genes as a rule, for the result is dense.
    theta
        Overdispersion; larger values are nearer to Poisson.
    clip
        Residuals are clipped there, on both sides; √n_obs without.
    check_values
        Whether values that are no counts are warned of.
    layer
        Layer to use instead of X.
    inplace
        Whether ``adata`` is changed; else ``{'X', 'theta', 'clip', 'computed_on'}`` is returned.
    copy
        Whether a changed copy is returned.

    Returns
    -------
    Sets the following fields: ``adata.X`` or ``adata.layers[layer]``, dense (float32; float64 stays), ``adata.uns['pearson_residuals_normalization']``
    (``theta``, ``clip``, ``computed_on``). On a lazy handle or a Dask array rows are made dense when they are asked for.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(np.array([[2, 0], [0, 2]], dtype="float32"))
    >>> cm.pp.normalize_pearson_residuals(adata, theta=np.inf)
    >>> adata.X.tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    check_adata(adata)
    if copy:
        if not inplace:
            msg = "`copy=True` cannot be used with `inplace=False`."
            raise ValueError(msg)
        adata = adata.copy()
    if not theta > 0:
        msg = "Pearson residuals require theta > 0"
        raise ValueError(msg)
    if clip is not None and not clip >= 0:
        msg = "Pearson residuals require `clip>=0` or `clip=None`."
        raise ValueError(msg)
    if inplace:
        actual(adata)
    x = values_of(adata, layer)
    check_writable(x, "normalize_pearson_residuals")
    matrix = matrix_of(x)
    if check_values and not quality(matrix, [], [], False)["whole"]:
        text = "`normalize_pearson_residuals()` expects raw count data, but non-integers were found."
        warnings.warn(text, UserWarning, stacklevel=_outside())
    share, limit = pearson_fit(matrix, float(theta), clip)
    dtype = np.dtype(np.float32 if x.dtype == np.float32 else np.float64)
    out = _turned(x, matrix, Residuals(share, float(theta), limit, dtype), dtype)
    settings = dict(theta=theta, clip=clip, computed_on=layer or "adata.X")
    if not inplace:
        return Returned(X=out, **settings)
    put(adata, out, layer)
    adata.uns["pearson_residuals_normalization"] = settings
    say(f"normalize_pearson_residuals: theta {theta:g}, clip {limit:g}")
    return adata if copy else None


@old_positionals()
def regress_out(
    adata: AnnData,
    keys: str | Sequence[str],
    *,
    layer: str | None = None,
    n_jobs: int | None = None,
    copy: bool = False,
    inplace: bool = True,
    batchsize: int | str | None = None,
    verbose: bool = False,
) -> Any:
    """Takes from each gene what columns of obs explain of it, by least squares.

    Parameters
    ----------
    adata
        Cells by genes, `n_obs` × `n_vars`; chosen genes as a rule, for the result is dense.
    keys
        Columns of obs with numbers, or one of categories, which each gene's mean in the category is taken for.
    layer
        Layer to use instead of X.
    n_jobs, batchsize, verbose
        Have no meaning.
    copy
        Whether a changed copy is returned.
    inplace
        Whether ``adata`` is changed; else the values are returned.

    Returns
    -------
    Sets ``adata.X`` or ``adata.layers[layer]``, dense: what is left (float32; float64 stays). On a lazy handle or a Dask array rows are made
    dense when they are asked for.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(np.array([[1, 5], [3, 5], [5, 8]], dtype="float32"), obs={"depth": [0.0, 1.0, 2.0]})
    >>> cm.pp.regress_out(adata, "depth")
    >>> adata.X[:, 1].round(3).tolist()
    [0.5, -1.0, 0.5]
    """
    import pandas as pd

    check_adata(adata)
    check_writable(held(adata, layer), "regress_out")
    adata = adata.copy() if copy else adata
    keys = [keys] if isinstance(keys, str) else list(keys)
    absent = [key for key in keys if key not in adata.obs]
    if absent:
        msg = f"obs: there is no {absent[0]!r}; there are: {', '.join(map(str, adata.obs.columns))}"
        raise KeyError(msg)
    if inplace:
        actual(adata)
    if inplace:
        # Text becomes categories, as in scanpy.
        adata.strings_to_categoricals()
    columns = adata.obs[keys]
    labels = [key for key in keys if not pd.api.types.is_numeric_dtype(columns[key].dtype)]
    if labels and len(keys) > 1:
        msg = "If providing categorical variable, only a single one is allowed. For this one we regress on the mean for each category."
        raise ValueError(msg)
    regressors = np.ascontiguousarray(categories_of(columns[keys[0]]).codes, dtype=np.int32) if labels else columns.to_numpy(np.float64, copy=True)
    x = values_of(adata, layer)
    matrix = matrix_of(x)
    if not matrix.shape[1]:
        return (adata if copy else None) if inplace else x
    dtype = np.dtype(x.dtype) if np.issubdtype(x.dtype, np.floating) else np.dtype(np.float32 if x.dtype.itemsize <= 4 else np.float64)
    double = _double.is_double(x, dtype)
    coefficients = regress_fit(matrix, regressors)
    if not labels:
        ones = np.insert(regressors, 0, 1.0, axis=1)
        coefficients = _double.least_squares(x, ones) if double else coefficients
        if np.linalg.det(ones.T @ ones) == 0:
            # Where regressors explain each other, genes that don't vary stay as they are, as in scanpy.
            coefficients[:, moments(matrix)["var"] == 0] = 0
    if double:
        out = _double.dense(x) - (coefficients[regressors] if labels else ones @ coefficients)
    else:
        out = _turned(x, matrix, Left(regressors, coefficients), dtype)
    if not inplace:
        return out
    put(adata, out, layer)
    say(f"regress_out: {', '.join(keys)}")
    return adata if copy else None
