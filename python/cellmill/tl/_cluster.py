"""``leiden`` and ``louvain``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .._calls import names_fields, old_positionals
from .._cellmill import cluster
from .._graph import categorical, choose_graph, parts, renamed, restrict
from .._matrix import check_adata, seed_of
from .._report import _outside, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


@names_fields
def leiden(
    adata: AnnData,
    resolution: float | Sequence[float] = 1,
    *,
    restrict_to: tuple[str, Sequence[str]] | None = None,
    random_state: Any = 0,
    rng: Any = None,
    key_added: str = "leiden",
    adjacency: Any = None,
    directed: bool | None = None,
    use_weights: bool = True,
    n_iterations: int = 2,
    partition_type: Any = None,
    neighbors_key: str | None = None,
    obsp: str | None = None,
    copy: bool = False,
    flavor: str = "leidenalg",
    theta: float | None = None,
    dtype: Any = None,
    use_dask: bool = False,
    **clustering_args: Any,
) -> AnnData | None:
    """Clusters cells by the Leiden algorithm: communities of the graph that maximise modularity.

    Parameters
    ----------
    adata
        Annotated data, after ``pp.neighbors``.
    resolution
        Larger values give more clusters. A list gives ``leiden_{resolution}`` for each, and one entry in uns.
    restrict_to
        ``(key, categories)``: only these cells are clustered anew, into ``leiden_R``.
    random_state, rng
        Where random numbers start.
    key_added
        Name of the result.
    adjacency
        Graph to use instead of that of ``pp.neighbors``.
    directed, partition_type, flavor, theta, dtype, use_dask
        Have no meaning: the graph is undirected, the quality modularity.
    use_weights
        Whether edges have their weights; else each weighs 1.
    n_iterations
        Rounds, each from the clusters of the one before; −1 goes on until nothing changes.
    neighbors_key, obsp
        Where the graph is.
    copy
        Whether a changed copy is returned.

    Returns
    -------
    Sets the following fields:

    ``adata.obs['leiden']`` : category
        ``'0'``, ``'1'``, … by size, the largest first.
    ``adata.uns['leiden']``
        ``params`` and ``modularity``; lists for several resolutions.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(60, 4)) + np.repeat([[0], [50]], 30, axis=0)
    >>> adata = anndata.AnnData(obsm={"X_pca": x})
    >>> cm.pp.neighbors(adata, n_neighbors=10)
    >>> cm.tl.leiden(adata, resolution=0.1)
    >>> adata.obs["leiden"].value_counts().tolist()
    [30, 30]
    """
    if flavor not in ("igraph", "leidenalg"):
        msg = f"flavor must be either 'igraph' or 'leidenalg', but {flavor!r} was passed"
        raise ValueError(msg)
    if flavor == "igraph" and directed:
        msg = "Cannot use igraph’s leiden implementation with a directed graph."
        raise ValueError(msg)
    if flavor == "igraph" and partition_type is not None:
        msg = "Do not pass in partition_type argument when using igraph."
        raise ValueError(msg)
    unknown = set(clustering_args) - _OF_OTHERS
    if unknown:
        msg = f"leiden() got an unexpected keyword argument {sorted(unknown)[0]!r}"
        raise TypeError(msg)
    if clustering_args:
        warnings.warn(f"leiden: no effect of {', '.join(sorted(clustering_args))}", UserWarning, stacklevel=_outside())
    _check_dtype(dtype)
    return _cluster(
        "leiden", adata, resolution, restrict_to, seed_of(random_state, rng), random_state, key_added, adjacency, use_weights, n_iterations,
        neighbors_key, obsp, copy,
    )  # fmt: skip


@old_positionals(
    "random_state",
    "restrict_to",
    "key_added",
    "adjacency",
    "flavor",
    "directed",
    "use_weights",
    "partition_type",
    "partition_kwargs",
    "neighbors_key",
    "obsp",
    "copy",
)
def louvain(
    adata: AnnData,
    resolution: float | Sequence[float] | None = None,
    *,
    random_state: Any = 0,
    rng: Any = None,
    restrict_to: tuple[str, Sequence[str]] | None = None,
    key_added: str = "louvain",
    adjacency: Any = None,
    flavor: str = "vtraag",
    directed: bool = True,
    use_weights: bool = False,
    partition_type: Any = None,
    partition_kwargs: Any = None,
    n_iterations: int = 1,
    threshold: float | None = None,
    neighbors_key: str | None = None,
    obsp: str | None = None,
    copy: bool = False,
    dtype: Any = None,
    use_dask: bool = False,
) -> AnnData | None:
    """Clusters cells by the Louvain algorithm; ``leiden`` is the better one.

    Parameters
    ----------
    adata
        Annotated data, after ``pp.neighbors``.
    resolution
        Larger values give more clusters; 1 without.
    random_state, rng
        Where random numbers start.
    restrict_to
        ``(key, categories)``: only these cells are clustered anew, into ``louvain_R``.
    key_added
        Name of the result.
    adjacency
        Graph to use instead of that of ``pp.neighbors``.
    flavor, directed, partition_type, partition_kwargs, threshold, dtype, use_dask
        Have no meaning.
    use_weights
        Whether edges have their weights; else each weighs 1.
    n_iterations
        Rounds, each from the clusters of the one before.
    neighbors_key, obsp
        Where the graph is.
    copy
        Whether a changed copy is returned.

    Returns
    -------
    Sets the following fields: ``adata.obs['louvain']`` (category of strings, by size), ``adata.uns['louvain']`` (``params``, ``modularity``).
    """
    if flavor not in ("vtraag", "igraph", "rapids"):
        msg = '`flavor` needs to be "vtraag" or "igraph" or "rapids".'
        raise ValueError(msg)
    _check_dtype(dtype)
    return _cluster(
        "louvain", adata, 1 if resolution is None else resolution, restrict_to, seed_of(random_state, rng), random_state, key_added, adjacency,
        use_weights, n_iterations, neighbors_key, obsp, copy,
    )  # fmt: skip


def _cluster(
    method: str, adata: AnnData, resolution: Any, restrict_to: Any, seed: int, random_state: Any, key: str, adjacency: Any, use_weights: bool,
    n_iterations: int, neighbors_key: str | None, obsp: str | None, copy: bool,
) -> AnnData | None:  # fmt: skip
    check_adata(adata)
    adata = adata.copy() if copy else adata
    graph = choose_graph(adata, obsp, neighbors_key) if adjacency is None else adjacency
    mask = None
    if restrict_to is not None:
        graph, mask = restrict(adata, restrict_to, graph)
        if key == method:
            key += "_R"
    indptr, indices, weights = parts(graph)
    if not use_weights:
        weights = np.ones_like(weights)
    several = isinstance(resolution, (list, tuple, np.ndarray))
    modularities = []
    for one in resolution if several else [resolution]:
        name = f"{key}_{one}" if several else key
        how = dict(method=method, resolution=float(1 if one is None else one), n_iterations=int(n_iterations), seed=seed)
        labels, n, modularity = cluster(indptr, indices, weights, how)
        adata.obs[name] = categorical(labels, n) if mask is None else renamed(adata, restrict_to, mask, labels)
        modularities.append(modularity)
        say(f"{method}: {n} clusters at resolution {one}")
    params = dict(resolution=list(resolution) if several else resolution, random_state=random_state, n_iterations=n_iterations)
    adata.uns[key] = dict(params=params, modularity=modularities if several else modularities[0])
    return adata if copy else None


#: What leidenalg, igraph and cuGraph may be told, which has no meaning here.
_OF_OTHERS = {
    "beta", "initial_membership", "node_weights", "node_sizes", "objective_function", "max_comm_size", "weights", "n_jobs", "seed",
}  # fmt: skip


def _check_dtype(dtype: Any) -> None:
    """rapids-singlecell's check of a type that has no meaning here."""
    if dtype is not None and dtype not in ("float32", "float64", np.float32, np.float64):
        msg = "dtype must be one of ['float32', 'float64']"
        raise ValueError(msg)
