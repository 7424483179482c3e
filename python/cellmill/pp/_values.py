"""Verbs that change values: ``normalize_total``, ``log1p``, ``sqrt``, ``scale``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _double
from .._calls import Returned, old_positionals, renamed
from .._cellmill import highly_expressed, moments, quality
from .._matrix import actual, apply, check_adata, check_writable, held, is_backed, is_dask, is_sparse, mask_of, matrix_of, put, values_of
from .._report import _outside, say

if TYPE_CHECKING:
    from anndata import AnnData


def _floating(x: Any, otherwise: type) -> np.dtype:
    """The type of the result: that of ``x``, if it is floating."""
    return np.dtype(x.dtype) if np.issubdtype(x.dtype, np.floating) else np.dtype(otherwise)


@old_positionals()
def normalize_total(
    adata: AnnData,
    target_sum: float | None = None,
    *,
    exclude_highly_expressed: bool = False,
    max_fraction: float = 0.05,
    key_added: str | None = None,
    layer: str | None = None,
    inplace: bool = True,
    copy: bool = False,
) -> AnnData | dict[str, Any] | None:
    """Brings the counts of each cell to one sum: x · target_sum / Σ row.

    Parameters
    ----------
    adata
        Cells by genes, `n_obs` × `n_vars`, counts.
    target_sum
        The sum that each cell gets. None: the median of the sums of cells with counts, which costs a further pass.
    exclude_highly_expressed
        Whether genes that hold more than ``max_fraction`` of a cell's counts, in any cell, leave the sums.
    max_fraction
        See ``exclude_highly_expressed``.
    key_added
        Column of obs for the factors Σ row / target_sum.
    layer
        Layer to normalise instead of X.
    inplace
        Whether ``adata`` is changed; else ``{'X', 'norm_factor'}`` is returned.
    copy
        Whether a changed copy is returned.

    Returns
    -------
    Sets the following fields: ``adata.X`` or ``adata.layers[layer]`` (float32; float64 stays), ``adata.obs[key_added]``. On a lazy handle or
    a Dask array the step is recorded and done when rows pass.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(np.array([[1, 0, 3], [0, 0, 2]], dtype="float32"))
    >>> cm.pp.normalize_total(adata, target_sum=8)
    >>> adata.X.tolist()
    [[2.0, 0.0, 6.0], [0.0, 0.0, 8.0]]
    """
    check_adata(adata)
    check_writable(held(adata, layer), "normalize_total")
    if copy:
        if not inplace:
            msg = "`copy=True` cannot be used with `inplace=False`."
            raise ValueError(msg)
        adata = adata.copy()
    if not 0 <= max_fraction <= 1:
        # scanpy's words, then rapids-singlecell's.
        msg = f"Choose max_fraction between 0 and 1. `max_fraction` must be between 0 and 1, got {max_fraction}."
        raise ValueError(msg)
    if inplace:
        actual(adata)
    x = values_of(adata, layer)
    matrix = matrix_of(x)
    dtype = _floating(x, np.float32)
    counted, part = None, matrix
    if exclude_highly_expressed:
        counted = ~highly_expressed(matrix, max_fraction)
        say(f"normalize_total: not counted: {adata.var_names[~counted].tolist()}")
        part = matrix.keep_columns(counted)
    # The sums are known only after a pass: where nobody asks for them the step is just recorded.
    sums = None
    if target_sum is None or key_added is not None or not inplace or not (is_dask(x) or hasattr(x, "_cellmill_matrix")):
        sums = _double.row_sums(x, counted) if _double.is_double(x, dtype) else quality(part, [], [], False)["row_total"]
    if target_sum is None:
        target_sum = _median(np.asarray(sums))
    out = apply(x, "normalize_total", float(target_sum), *(() if counted is None else (counted,)), dtype=dtype)
    factor = None if sums is None else (sums / target_sum).astype(dtype)
    if sums is not None and not np.all(sums > 0):
        warnings.warn("Some cells have zero counts", UserWarning, stacklevel=_outside())
    if not inplace:
        return Returned(X=out, norm_factor=factor)
    if key_added is not None:
        adata.obs[key_added] = factor
    put(adata, out, layer)
    say(f"normalize_total: to {target_sum:g} a cell")
    return adata if copy else None


def _median(sums: np.ndarray) -> float:
    """Median of the sums of cells with counts; 1 if there are none."""
    positive = sums[sums > 0]
    return float(np.median(positive)) if len(positive) else 1.0


@renamed("X", "data")
def log1p(
    data: AnnData | Any,
    *,
    base: float | None = None,
    copy: bool = False,
    chunked: bool | None = None,
    chunk_size: int | None = None,
    layer: str | None = None,
    obsm: str | None = None,
    inplace: bool = True,
) -> Any:
    """Takes logarithms: ln(1 + x) / ln(base).

    Parameters
    ----------
    data
        AnnData, or an array of cells by genes.
    base
        Base of the logarithm; natural without.
    copy
        Whether a changed copy is returned.
    chunked, chunk_size
        Have no meaning: rows pass in chunks anyway.
    layer, obsm
        What to change instead of X.
    inplace
        Whether ``data`` is changed; else the changed array is returned.

    Returns
    -------
    The changed array, if ``data`` is one. Else sets the following fields: ``adata.X`` or ``adata.layers[layer]``, and
    ``adata.uns['log1p'] = {'base': base}``.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(np.array([[0, 1], [3, 0]], dtype="float32"))
    >>> cm.pp.log1p(adata, base=2)
    >>> adata.X.tolist()
    [[0.0, 1.0], [2.0, 0.0]]
    """
    if not hasattr(data, "obs"):
        return _log1p_array(data, base, copy=copy)
    if "log1p" in data.uns:
        warnings.warn("adata.X seems to be already log-transformed.", UserWarning, stacklevel=_outside())
    x = data.obsm[obsm] if obsm is not None else values_of(data, layer)
    if is_backed(x):
        return _log1p_backed(data, x, base, layer=layer, chunked=bool(chunked), chunk_size=chunk_size)
    out = _changed(x, "log1p", base)
    if not inplace:
        return out
    adata = data.copy() if copy else data
    actual(adata)
    if obsm is not None:
        adata.obsm[obsm] = out
    else:
        put(adata, out, layer)
    adata.uns["log1p"] = {"base": base}
    return adata if copy else None


def _log1p_array(x: Any, base: float | None, *, copy: bool) -> Any:
    """Logarithms of an array: in its own memory if that may be and can, as in scanpy."""
    values = x.data if is_sparse(x) else x
    out = _changed(x, "log1p", base)
    if copy or not isinstance(values, np.ndarray) or values.dtype != out.dtype or not values.flags.writeable:
        return out
    if not is_sparse(x):
        np.copyto(x, out)
    elif out.nnz == x.nnz and x.has_canonical_format:
        np.copyto(x.data, out.data)
    else:
        x.data, x.indices, x.indptr = out.data, out.indices, out.indptr
    return x


def _log1p_backed(adata: AnnData, x: Any, base: float | None, *, layer: str | None, chunked: bool, chunk_size: int | None) -> None:
    """Logarithms of a file that anndata has open, in the file: scanpy's rules and errors."""
    # Both are scanpy's errors: values of a file change in chunks, and only where it was opened for that.
    if chunked and adata.file._filemode != "r+":
        msg = "log1p is not implemented for backed AnnData with backed mode not r+"
        raise NotImplementedError(msg)
    if layer is not None or not chunked:
        where = f" from layers {layer}" if layer is not None else " without `chunked=True`"
        msg = f"log1p is not implemented for matrices of type {type(x)}{where}"
        raise NotImplementedError(msg)
    for part, start, end in adata.chunked_X(chunk_size):
        adata.X[start:end] = _changed(part, "log1p", base)
    adata.uns["log1p"] = {"base": base}


def _changed(x: Any, name: str, *args: Any) -> Any:
    """An array after one step."""
    return apply(x, name, *args, dtype=_floating(x, np.float64))


@old_positionals()
def sqrt(data: AnnData | Any, *, copy: bool = False, chunked: bool = False, chunk_size: int | None = None) -> Any:
    """Takes square roots.

    Parameters
    ----------
    data
        AnnData, or an array of cells by genes.
    copy
        Whether a changed copy is returned.
    chunked, chunk_size
        Have no meaning: rows pass in chunks anyway.

    Returns
    -------
    The changed array, if ``data`` is one. Else sets ``adata.X``.
    """
    if not hasattr(data, "obs"):
        return _changed(data, "sqrt")
    check_writable(data.X, "sqrt")
    adata = data.copy() if copy else data
    actual(adata)
    put(adata, _changed(values_of(adata), "sqrt"))
    return adata if copy else None


@old_positionals()
def scale(
    data: AnnData | Any,
    *,
    zero_center: bool = True,
    max_value: float | None = None,
    copy: bool = False,
    layer: str | None = None,
    obsm: str | None = None,
    mask_obs: np.ndarray | str | None = None,
    inplace: bool = True,
) -> Any:
    """Brings each gene to unit variance, and with ``zero_center`` to mean 0.

    Parameters
    ----------
    data
        AnnData, or an array of cells by genes, logarithms as a rule.
    zero_center
        Whether the mean is taken away. Then an array in memory becomes dense, as in scanpy; a lazy handle stays sparse all the same.
    max_value
        Values are clipped there; with ``zero_center`` on both sides.
    copy
        Whether a changed copy is returned.
    layer, obsm
        What to change instead of X.
    mask_obs
        Cells, as a mask or a boolean column of obs, that the statistics are taken from and that are scaled. Not for lazy handles.
    inplace
        Whether ``data`` is changed; else the changed array is returned.

    Returns
    -------
    The changed array, if ``data`` is one. Else sets the following fields: ``adata.X`` or ``adata.layers[layer]``, and
    ``adata.var['mean']``, ``adata.var['std']`` (float64; ddof 1, 0 becomes 1): `(n_vars,)`.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(np.array([[0, 1], [2, 1], [4, 1]], dtype="float32"))
    >>> cm.pp.scale(adata)
    >>> adata.X.tolist()
    [[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
    """
    if max_value is not None and not max_value >= 0:
        msg = f"max_value: {max_value}, but values are clipped to it: 0 or more"
        raise ValueError(msg)
    if not hasattr(data, "obs"):
        if layer is not None or obsm is not None:
            name = "layer" if layer is not None else "obsm"
            msg = f"`{name}` argument inappropriate for value of type {type(data)}"
            raise ValueError(msg)
        if isinstance(mask_obs, str):
            msg = "Cannot refer to mask with string without providing anndata object as argument"
            raise ValueError(msg)
        return _scaled(data, zero_center, max_value, None if mask_obs is None else np.asarray(mask_obs))[0]
    check_writable(data.obsm[obsm] if obsm is not None else held(data, layer), "scale")
    adata = data.copy() if copy and inplace else data
    if inplace:
        actual(adata)
    names, mask = ("mean", "std"), None
    if mask_obs is not None:
        names = (f"mean of {mask_obs}", f"std of {mask_obs}") if isinstance(mask_obs, str) else ("mean with mask", "std with mask")
        mask = mask_of(adata.obs, mask_obs, "obs")
    x = adata.obsm[obsm] if obsm is not None else values_of(adata, layer)
    out, mean, std = _scaled(x, zero_center, max_value, mask)
    if not inplace:
        return out
    if len(mean) == adata.n_vars:
        adata.var[names[0]] = mean
        adata.var[names[1]] = std
    if obsm is not None:
        adata.obsm[obsm] = out
    else:
        put(adata, out, layer)
    return adata if copy else None


def _scaled(x: Any, zero_center: bool, max_value: float | None, mask: np.ndarray | None) -> tuple[Any, np.ndarray, np.ndarray]:
    """The scaled array, and means and standard deviations that did it."""
    matrix = matrix_of(x)
    part = matrix
    if mask is not None:
        if not (is_sparse(x) or isinstance(x, np.ndarray) or is_dask(x)):
            msg = "mask_obs: values of a store, but they must lie in memory or in a Dask array; call to_memory() first"
            raise ValueError(msg)
        part = matrix.keep_rows(np.ascontiguousarray(mask, dtype=bool))
    dtype = _floating(x, np.float64)
    if _double.is_double(x, dtype):
        mean, var = _double.moments(x if mask is None else x[np.flatnonzero(mask)])
    else:
        found = moments(part)
        mean, var = found["mean"], found["var"]
    std = np.sqrt(var)
    std[std == 0] = 1
    if zero_center and (is_sparse(x) or (is_dask(x) and is_sparse(x._meta))):
        warnings.warn("zero-centering a sparse array/matrix densifies it.", UserWarning, stacklevel=_outside())
    centre = mean if zero_center else None
    if mask is None:
        return apply(x, "scale", std, centre, max_value, dtype=dtype), mean, std

    def rows(x: Any, mask: np.ndarray) -> Any:
        out = apply(x[np.flatnonzero(mask)], "scale", std, centre, max_value, dtype=dtype)
        whole: Any = x.astype(dtype).tolil() if is_sparse(x) and not zero_center else np.array(x.toarray() if is_sparse(x) else x, dtype)
        whole[np.flatnonzero(mask)] = out
        return whole.asformat("csr") if is_sparse(x) and not zero_center else whole

    if is_dask(x):
        from ..dask import by_rows

        return by_rows(x, lambda block, at: rows(block, mask[at]), dtype, dense=zero_center), mean, std
    return rows(x, mask), mean, std
