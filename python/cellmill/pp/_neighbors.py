"""``neighbors``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .._cellmill import available_memory
from .._cellmill import connectivities as weigh
from .._cellmill import neighbors as search
from .._matrix import check_adata, home, is_dask, is_sparse, lent, seed_of
from .._report import _outside, logger, say
from .._settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import scipy.sparse as sp
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
    transformer: Any = None,
    algorithm: str | None = None,
    metric: str | Callable[[np.ndarray, np.ndarray], float] = "euclidean",
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
        Whether weights are between neighbours alone. False, for ``method='gauss'``: dense matrices of all pairs.
    method
        ``'umap'``, ``'gauss'`` or ``'jaccard'``.
    transformer, algorithm
        ``'exact'``, ``'accurate'`` (recall at least 0.99, the default) or ``'fast'`` (0.95). Names of rapids-singlecell and scanpy are taken for
        the nearest of these; uns says which. A transformer as scikit-learn's ``KNeighborsTransformer`` finds the neighbours itself;
        `n_neighbors` and `metric` are its own then.
    metric
        ``'euclidean'`` (``'l2'``), ``'sqeuclidean'``, ``'cosine'``, ``'correlation'``, ``'hellinger'``, by the algorithm's search. All pairs
        are compared, on the CPU, by ``'manhattan'`` (``'cityblock'``, ``'l1'``, ``'taxicab'``), ``'chebyshev'`` (``'linf'``),
        ``'minkowski'`` (``'lp'``), ``'canberra'``, ``'braycurtis'``, ``'hamming'``, ``'jensenshannon'``, and by ``'inner_product'``, whose
        ``distances`` are similarities. A function of two rows goes to scikit-learn.
    metric_kwds
        ``p``, the exponent of ``'minkowski'``: 2 without.
    algorithm_kwds
        Has no meaning.
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
    check_adata(adata)
    if not knn and (method != "gauss" or transformer is not None):
        msg = f"knn: False, but `method = {method!r}` only with `knn = True`; `method = 'gauss'` finds all pairs itself"
        raise ValueError(msg)
    if n_neighbors > adata.n_obs:
        n_neighbors = 1 + int(0.5 * adata.n_obs)
        logger.warning("n_obs too small: adjusting to `n_neighbors = %s`", n_neighbors)
    word: Any = algorithm if algorithm is not None else transformer
    if callable(metric) and isinstance(word, str | None):
        from sklearn.neighbors import KNeighborsTransformer

        k = n_neighbors if knn else adata.n_obs - 1
        word = KNeighborsTransformer(n_neighbors=k, algorithm="brute", metric=metric, metric_params=dict(metric_kwds or {}))
    if not knn and str(metric) == "inner_product":
        msg = "metric: 'inner_product' are similarities, and `knn = False` weighs distances"
        raise ValueError(msg)
    if hasattr(word, "fit_transform"):
        mode = type(word).__name__
        n_neighbors = word.get_params().get("n_neighbors", n_neighbors) if knn else n_neighbors
    elif isinstance(word, str | None) and word in ALGORITHMS:
        mode = ALGORITHMS[word]
    else:
        msg = f"algorithm: {word!r}, but it is one of {', '.join(str(name) for name in ALGORITHMS if name)}, or a transformer of scikit-learn"
        raise ValueError(msg)
    adata = adata.copy() if copy else adata
    if adata.is_view:
        adata._init_as_actual(adata.copy())
    seed = seed_of(random_state, rng)
    x = representation(adata, use_rep, n_pcs)
    n = x.shape[0]
    if not knn:
        check_all_pairs(n, int(n_neighbors))
    distances: Any
    connectivities: Any = None
    if isinstance(word, str | None):
        k, mode = (int(n_neighbors), mode) if knn else (n, "exact")
        found, weights = search(x, k, mode, str(metric), exponent(metric_kwds), method if knn else None, seed)
        distances = matrix(found, n)
        connectivities = matrix(weights, n) if weights is not None else None
    else:
        distances = word.fit_transform(x)
        if knn:
            ids, lengths = nearest(distances, n_neighbors - 1)
            connectivities = matrix(weigh(ids, lengths, method), n)
            if callable(metric):
                # The transformer is ours: no more neighbours than were asked for.
                distances = matrix((np.arange(n + 1) * (n_neighbors - 1), ids.ravel(), lengths.ravel()), n)
    if not knn:
        distances = distances.toarray()
        connectivities = of_all_pairs(distances, int(n_neighbors))
    key, dists, conns = ("neighbors", "distances", "connectivities")
    if key_added is not None and key_added != "neighbors":
        key, dists, conns = key_added, f"{key_added}_distances", f"{key_added}_connectivities"
    params: dict[str, Any] = dict(n_neighbors=n_neighbors, method=method, random_state=random_state, metric=metric)
    if metric_kwds:
        params["metric_kwds"] = dict(metric_kwds)
    if use_rep is not None:
        params["use_rep"] = use_rep
    if n_pcs is not None:
        params["n_pcs"] = n_pcs
    if isinstance(word, str):
        params["algorithm"] = word
        if word != mode:
            params["algorithm_used"] = mode
    adata.uns[key] = dict(connectivities_key=conns, distances_key=dists, params=params)
    adata.obsp[dists] = distances
    adata.obsp[conns] = connectivities
    say(f"neighbors: {n_neighbors} of {n} cells in {x.shape[1]} dimensions ({mode})")
    return adata if copy else None


def exponent(metric_kwds: Mapping[str, Any] | None) -> float | None:
    """What options of a metric say: ``p`` alone."""
    others = set(metric_kwds or {}) - {"p"}
    if others:
        msg = f"metric_kwds: {', '.join(sorted(others))}, but a metric has no option but minkowski's p; transformer= takes scikit-learn's"
        raise ValueError(msg)
    return float(metric_kwds["p"]) if metric_kwds and metric_kwds["p"] is not None else None


def check_all_pairs(n: int, n_neighbors: int) -> None:
    """Refuses what memory has no room for, and more neighbours than there are."""
    if not 1 <= n_neighbors <= n:
        msg = f"n_neighbors: {n_neighbors}, but there are {n} cells"
        raise ValueError(msg)
    # Squares, widths, weights in float64; distances and places of all pairs.
    needs, room = 50 * n * n, settings.memory or available_memory()
    if needs > room:
        msg = f"neighbors(knn=False): all pairs of {n} cells need {needs >> 20} MiB of memory, and {room >> 20} MiB are there; `knn = True` finds the nearest"
        raise MemoryError(msg)


def matrix(parts: tuple[np.ndarray, np.ndarray, np.ndarray], n: int) -> sp.csr_matrix:
    """A square CSR matrix of ``(indptr, indices, data)``."""
    import scipy.sparse as sp

    indptr, indices, data = parts
    return sp.csr_matrix((data, indices, indptr), shape=(n, n), copy=False)


def nearest(distances: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` nearest others of each row of a sparse matrix of distances: ids (u32) and distances (f32), `(n_obs, k)`."""
    pairs = distances.tocoo()
    others = pairs.row != pairs.col
    row, col, data = pairs.row[others], pairs.col[others], pairs.data[others]
    order = np.lexsort((col, data, row))
    row = row[order]
    starts = np.searchsorted(row, np.arange(distances.shape[0]))
    place = np.arange(len(row)) - starts[row]
    counts = np.bincount(row, minlength=distances.shape[0])
    if counts.min(initial=k) < k:
        at = int(counts.argmin())
        msg = f"transformer: row {at} of its distances has {counts[at]} others, but {k} are needed"
        raise ValueError(msg)
    kept = order[place < k]
    return col[kept].reshape(-1, k).astype(np.uint32), data[kept].reshape(-1, k).astype(np.float32)


def of_all_pairs(distances: np.ndarray, n_neighbors: int) -> np.ndarray:
    """scanpy's Gauss kernel without a threshold: s² is a quarter of the square of the distance to the last of the neighbours."""
    squares = distances.astype(np.float64) ** 2
    widths = np.partition(squares, n_neighbors - 1, axis=1)[:, n_neighbors - 1] / 4
    sums = np.add.outer(widths, widths)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.sqrt(2 * np.sqrt(np.multiply.outer(widths, widths)) / sums) * np.exp(-squares / sums)
    return np.where(weights > 1e-14, weights, 0).astype(np.float32)


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
