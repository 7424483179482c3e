"""``pca``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .._cellmill import DeviceArray
from .._cellmill import pca as components
from .._device import on_cupy
from .._matrix import is_dask, is_sparse, mask_of, matrix_of, values_of
from .._report import _outside, say
from .._settings import settings

if TYPE_CHECKING:
    from anndata import AnnData

_UNSET: Any = "highly_variable if it is there"
N_PCS = 50

#: Solvers that scanpy knows, by whether values are centred and how they are held. All give the same here; of others it warns.
_SOLVERS = {
    (True, "sparse"): {"arpack", "covariance_eigh"},
    (True, "dense"): {"arpack", "auto", "covariance_eigh", "full", "randomized"},
    (True, "dask of sparse"): {"covariance_eigh"},
    (True, "dask"): {"arpack", "auto", "covariance_eigh", "full", "randomized", "tsqr"},
    (False, "sparse"): {"arpack", "randomized"},
    (False, "dense"): {"arpack", "randomized"},
    (False, "dask of sparse"): {"arpack", "randomized", "tsqr"},
    (False, "dask"): {"arpack", "randomized", "tsqr"},
}


def pca(
    data: AnnData | Any,
    n_comps: int | None = None,
    *,
    layer: str | None = None,
    zero_center: bool = True,
    svd_solver: str | None = None,
    chunked: bool = False,
    chunk_size: int | None = None,
    random_state: Any = 0,
    rng: Any = None,
    return_info: bool = False,
    mask_var: np.ndarray | str | None = _UNSET,
    use_highly_variable: bool | None = None,
    dtype: Any = "float32",
    key_added: str | None = None,
    copy: bool = False,
    n_oversamples: int | None = None,
    n_iter: int | None = None,
) -> Any:
    """Principal components: exact, from the covariance of the genes, in one pass and a projection.

    Packed rows of a store are given back meanwhile: neighbours and layouts need the memory. Verbs that look at values afterwards read them again.

    Parameters
    ----------
    data
        AnnData, or an array of cells by genes.
    n_comps
        How many; 50, or as many as there can be.
    layer
        Layer to use instead of X.
    zero_center
        Whether means are taken away first. Without, components are those of ``scikit-learn``'s ``TruncatedSVD``, and variances have ddof 0.
    svd_solver, chunked, chunk_size, random_state, rng, n_oversamples, n_iter
        Have no meaning: the result is that of ``svd_solver="arpack"`` at full precision, out of core.
    return_info
        For an array: whether components, shares and variances are returned, too.
    mask_var
        Genes to use: a mask, a boolean column of var, or None for all; without, ``highly_variable`` if it is there.
    use_highly_variable
        Old word for ``mask_var``.
    dtype
        Type of the scores.
    key_added
        Name of the result in obsm, varm and uns instead of ``X_pca``, ``PCs``, ``pca``.
    copy
        Whether a changed copy is returned.

    Returns
    -------
    The scores, if ``data`` is an array. Else sets the following fields:

    ``adata.obsm['X_pca']`` : float32, `(n_obs, n_comps)`
        Scores; a Dask array if X is one, and one of CuPy with ``cellmill.settings.keep_on_device``.
    ``adata.varm['PCs']`` : float64, `(n_vars, n_comps)`
        Loadings, 0 for genes that are not used. In each the entry of largest magnitude is positive.
    ``adata.uns['pca']``
        ``params``, and ``variance`` (ddof 1) and ``variance_ratio``, each `(n_comps,)`.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(np.random.default_rng(0).normal(size=(50, 8)).astype("float32"))
    >>> cm.pp.pca(adata, n_comps=3)
    >>> adata.obsm["X_pca"].shape, adata.varm["PCs"].shape
    ((50, 3), (8, 3))
    """
    is_adata = hasattr(data, "obs")
    adata = data.copy() if copy and is_adata else data
    x = values_of(adata, layer) if is_adata else data
    _warn_of_words(x, svd_solver, random_state, zero_center)
    matrix = matrix_of(x)
    if not zero_center and matrix.base() is not None:
        # A centred handle leaves out what a zero has become, which changes nothing but this.
        matrix = matrix_of(x.to_memory())
    if is_adata:
        name, mask = _mask(adata, mask_var, use_highly_variable)
    else:
        name, mask = None, None if mask_var is None or mask_var is _UNSET else np.ascontiguousarray(mask_var, dtype=bool)
    if mask is not None:
        matrix = matrix.keep_columns(mask)
    smallest = min(matrix.shape)
    if n_comps is None:
        n_comps = max(smallest - 1, 1) if smallest <= N_PCS else N_PCS
    if not 1 <= n_comps < smallest:
        n_obs, n_vars = matrix.shape
        allowed = f"allow 1 to {smallest - 1}" if smallest > 1 else "allow none"
        hint = f"n_components={n_comps} must be between 1 and one below {smallest} with svd_solver='arpack'"
        msg = f"n_comps: {n_comps}, but {n_obs} cells and {n_vars} genes {allowed} ({hint})"
        raise ValueError(msg)
    found = components(matrix, int(n_comps), zero_center, settings.keep_on_device and not is_dask(x))
    scores = found["scores"]
    if isinstance(scores, DeviceArray):
        scores = on_cupy(scores)
    scores = scores.astype(dtype, copy=False)
    if is_dask(x):
        from ..dask import from_rows

        scores = from_rows(scores, x.chunks[0])
    if not is_adata:
        return (scores, found["components"].T, found["variance_ratio"], found["variance"]) if return_info else scores
    obsm, varm, uns = ("X_pca", "PCs", "pca") if key_added is None else (key_added,) * 3
    adata.obsm[obsm] = scores
    loadings = found["components"]
    if mask is not None:
        loadings = np.zeros((adata.n_vars, n_comps))
        loadings[mask] = found["components"]
    adata.varm[varm] = loadings
    params: dict[str, Any] = dict(zero_center=zero_center, use_highly_variable=name == "highly_variable", mask_var=name)
    if layer is not None:
        params["layer"] = layer
    adata.uns[uns] = dict(params=params, variance=found["variance"], variance_ratio=found["variance_ratio"])
    say(f"pca: {n_comps} components of {matrix.shape[1]} genes")
    return adata if copy else None


def _warn_of_words(x: Any, svd_solver: str | None, random_state: Any, zero_center: bool) -> None:
    """Warns, as scanpy does, of words that have no meaning for values of this kind."""
    held = ("dask of sparse" if is_sparse(x._meta) else "dask") if is_dask(x) else "sparse" if is_sparse(x) else "dense"
    where = " when using a sparse dask array" if held == "dask of sparse" else ""
    if held == "dask of sparse" and random_state not in (0, None):
        warnings.warn(f"Ignoring {random_state=}{where}", UserWarning, stacklevel=_outside())
    if svd_solver is None or svd_solver in _SOLVERS[zero_center, held]:
        return
    if svd_solver == "lobpcg" and held == "sparse" and zero_center:
        text = f"{svd_solver=} for sparse relies on legacy code and will not be supported in the future: components are exact"
        warnings.warn(text, FutureWarning, stacklevel=_outside())
    else:
        warnings.warn(f"Ignoring {svd_solver=}{where}: components are exact", UserWarning, stacklevel=_outside())


def _mask(adata: AnnData, mask_var: Any, use_highly_variable: bool | None) -> tuple[Any, np.ndarray | None]:
    """What ``params`` says of the genes, and their mask; scanpy's rules."""
    if use_highly_variable is not None:
        hint = 'Use_highly_variable=True can be called through mask_var="highly_variable". Use_highly_variable=False can be called through mask_var=None'
        warnings.warn(f"Argument `use_highly_variable` is deprecated, consider using the mask argument. {hint}", FutureWarning, stacklevel=_outside())
        if mask_var is not _UNSET:
            msg = f"These arguments are incompatible. {hint}"
            raise ValueError(msg)
        mask_var = "highly_variable" if use_highly_variable else None
    if mask_var is _UNSET:
        mask_var = "highly_variable" if "highly_variable" in adata.var else None
    if mask_var is None:
        return None, None
    if isinstance(mask_var, str) and mask_var == "highly_variable" and mask_var not in adata.var:
        msg = "Did not find `adata.var['highly_variable']`. Either your data already only consists of highly-variable genes or consider running `pp.highly_variable_genes` first."
        raise ValueError(msg)
    return mask_var, mask_of(adata.var, mask_var, "var")
