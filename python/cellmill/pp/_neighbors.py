"""``neighbors``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .._cellmill import neighbors as search
from .._matrix import check_adata, home, is_dask, is_sparse, lent, seed_of
from .._report import _outside, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

#: What each word of scanpy and rapids-singlecell means here.
ALGORITHMS = {
    None: "accurate",
    "accurate": "accurate",
    "fast": "fast",
    "exact": "exact",
    "brute": "exact",
    "sklearn": "exact",
    "pynndescent": "accurate",
    "rapids": "accurate",
    "nn_descent": "accurate",
    "cagra": "accurate",
    "ivfflat": "accurate",
    "all_neighbors": "accurate",
    "ivfpq": "fast",
    "mg_ivfflat": "accurate",
    "mg_ivfpq": "fast",
    "mg_cagra": "accurate",
    "mg_brute": "exact",
}


def neighbors(
    adata: AnnData,
    n_neighbors: int = 15,
    n_pcs: int | None = None,
    *,
    use_rep: str | None = None,
    knn: bool = True,
    method: str = "umap",
    transformer: str | None = None,
    algorithm: str | None = None,
    metric: str = "euclidean",
    metric_kwds: Mapping[str, Any] | None = None,
    algorithm_kwds: Mapping[str, Any] | None = None,
    random_state: Any = 0,
    rng: Any = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Finds the nearest neighbours of each cell and weighs them.

    Parameters
    ----------
    adata
        Annotated data, with components in obsm.
    n_neighbors
        Neighbours of a cell, itself counted: 14 others by default.
    n_pcs
        Components used; all without.
    use_rep
        Key of obsm, or ``'X'``; ``X_pca`` without.
    knn
        Only True: weights between neighbours alone.
    method
        ``'umap'``, ``'gauss'`` or ``'jaccard'``.
    transformer, algorithm
        ``'exact'``, ``'accurate'`` (recall at least 0.99, the default) or ``'fast'`` (0.95). Names of rapids-singlecell and scanpy are taken for
        the nearest of these; uns says which.
    metric
        ``'euclidean'`` or ``'cosine'``.
    metric_kwds, algorithm_kwds
        Have no meaning.
    random_state, rng
        Where random numbers start.
    key_added
        Prefix of the names of the results.
    copy
        Whether a changed copy is returned.

    Returns
    -------
    Sets the following fields:

    ``adata.obsp['distances']`` : CSR float32, `(n_obs, n_obs)`
        `n_neighbors` − 1 entries a row, nearest first.
    ``adata.obsp['connectivities']`` : CSR float32, `(n_obs, n_obs)`
        Weights, symmetric.
    ``adata.uns['neighbors']``
        ``connectivities_key``, ``distances_key``, ``params``.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(obsm={"X_pca": np.random.default_rng(0).normal(size=(50, 8))})
    >>> cm.pp.neighbors(adata, n_neighbors=5)
    >>> adata.obsp["distances"].nnz
    200
    """
    import scipy.sparse as sp

    check_adata(adata)
    if not knn:
        msg = "knn: False, but weights are those of the nearest neighbours alone (True)"
        raise ValueError(msg)
    word = algorithm if algorithm is not None else transformer
    if not (word is None or isinstance(word, str)) or word not in ALGORITHMS:
        msg = f"algorithm: {word!r}, but it is one of {', '.join(str(name) for name in ALGORITHMS if name)}"
        raise ValueError(msg)
    mode = ALGORITHMS[word]
    adata = adata.copy() if copy else adata
    if adata.is_view:
        adata._init_as_actual(adata.copy())
    seed = seed_of(random_state, rng)
    x = representation(adata, use_rep, n_pcs)
    distances, connectivities = search(x, int(n_neighbors), mode, metric, method, seed)
    n = x.shape[0]
    key, dists, conns = ("neighbors", "distances", "connectivities")
    if key_added is not None and key_added != "neighbors":
        key, dists, conns = key_added, f"{key_added}_distances", f"{key_added}_connectivities"

    def matrix(parts: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Any:
        indptr, indices, data = parts
        return sp.csr_matrix((data, indices, indptr), shape=(n, n), copy=False)

    params: dict[str, Any] = dict(n_neighbors=n_neighbors, method=method, random_state=random_state, metric=metric)
    if metric_kwds:
        params["metric_kwds"] = dict(metric_kwds)
    if use_rep is not None:
        params["use_rep"] = use_rep
    if n_pcs is not None:
        params["n_pcs"] = n_pcs
    if word is not None:
        params["algorithm"] = word
        if word != mode:
            params["algorithm_used"] = mode
    adata.uns[key] = dict(connectivities_key=conns, distances_key=dists, params=params)
    adata.obsp[dists] = matrix(distances)
    adata.obsp[conns] = matrix(connectivities)
    say(f"neighbors: {n_neighbors} of {n} cells in {x.shape[1]} dimensions ({mode})")
    return adata if copy else None


def representation(adata: AnnData, use_rep: str | None, n_pcs: int | None) -> np.ndarray:
    """Coordinates of the cells by scanpy's rules: `(n_obs, d)` float32, C order."""
    from ._pca import N_PCS, pca

    if use_rep is None and n_pcs == 0:
        use_rep = "X"
    if use_rep is None:
        if adata.n_vars <= N_PCS and adata.X is not None:
            use_rep = "X"
        elif "X_pca" in adata.obsm:
            use_rep = "X_pca"
            if n_pcs is not None and n_pcs > adata.obsm["X_pca"].shape[1]:
                msg = "`X_pca` does not have enough PCs. Rerun `sc.pp.pca` with adjusted `n_comps`."
                raise ValueError(msg)
        else:
            warnings.warn(
                f"You’re trying to run this on {adata.n_vars} dimensions of `.X`, if you really want this, set `use_rep='X'`.\n         Falling back to preprocessing with `sc.pp.pca` and default params.",
                stacklevel=_outside(),
            )
            pca(adata, n_comps=n_pcs if n_pcs is not None else N_PCS)
            use_rep = "X_pca"
    if use_rep == "X":
        x = adata.X
    elif use_rep in adata.obsm:
        x = adata.obsm[use_rep]
        if n_pcs is not None:
            if n_pcs > x.shape[1]:
                msg = f"{use_rep} does not have enough Dimensions. Provide a Representation with equal or more dimensions than`n_pcs` or lower `n_pcs` "
                raise ValueError(msg)
            x = x[:, :n_pcs]
    else:
        msg = f"Did not find {use_rep} in `.obsm.keys()`. You need to compute it first."
        raise ValueError(msg)
    x = home(x)
    if hasattr(x, "_cellmill_matrix"):
        x = x.to_memory()
    if is_dask(x):
        x = x.compute()
    if is_sparse(x):
        x = x.toarray()
    return lent(x, np.float32)
