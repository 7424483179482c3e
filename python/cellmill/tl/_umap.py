"""``umap``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .._calls import old_positionals
from .._cellmill import find_ab
from .._cellmill import umap as layout
from .._graph import neighbors_of, parts
from .._matrix import check_adata, home, is_dask, lent, seed_of
from .._report import _outside, say

if TYPE_CHECKING:
    from anndata import AnnData


@old_positionals(
    "min_dist",
    "spread",
    "n_components",
    "maxiter",
    "alpha",
    "gamma",
    "negative_sample_rate",
    "init_pos",
    "random_state",
    "a",
    "b",
    "copy",
    "method",
    "neighbors_key",
)
def umap(
    adata: AnnData,
    *,
    min_dist: float = 0.5,
    spread: float = 1.0,
    n_components: int = 2,
    maxiter: int | None = None,
    alpha: float = 1.0,
    gamma: float = 1.0,
    negative_sample_rate: int = 5,
    init_pos: str | np.ndarray | None = "spectral",
    random_state: Any = 0,
    rng: Any = None,
    a: float | None = None,
    b: float | None = None,
    method: str = "umap",
    key_added: str | None = None,
    neighbors_key: str | None = "neighbors",
    copy: bool = False,
) -> AnnData | None:
    """Lays the graph of the neighbours out in a few dimensions (UMAP).

    Parameters
    ----------
    adata
        Annotated data, after ``pp.neighbors``.
    min_dist
        Distance below which cells count as touching.
    spread
        Scale of the layout.
    n_components
        Dimensions.
    maxiter
        Epochs; 500 up to 10,000 cells, else 200.
    alpha
        First learning rate.
    gamma
        Weight of repulsion.
    negative_sample_rate
        Cells that push for each neighbour that attracts.
    init_pos
        ``'spectral'``, ``'random'``, ``'pca'``, ``'paga'``, a key of obsm, ``'auto'`` or coordinates.
    random_state, rng
        Where random numbers start.
    a, b
        The curve; fitted to ``min_dist`` and ``spread`` without.
    method
        Has no meaning.
    key_added
        Name of the result in obsm and uns.
    neighbors_key
        Where the neighbours are.
    copy
        Whether a changed copy is returned.

    Returns
    -------
    Sets the following fields:

    ``adata.obsm['X_umap']`` : float32, `(n_obs, n_components)`
        The layout.
    ``adata.uns['umap']``
        ``params``: the curve.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(obsm={"X_pca": np.random.default_rng(0).normal(size=(60, 4))})
    >>> cm.pp.neighbors(adata, n_neighbors=10)
    >>> cm.tl.umap(adata, maxiter=20)
    >>> adata.obsm["X_umap"].shape
    (60, 2)
    """
    check_adata(adata)
    adata = adata.copy() if copy else adata
    obsm, uns = ("X_umap", "umap") if key_added is None else (key_added, key_added)
    found = neighbors_of(adata, neighbors_key)
    conns = found.get("connectivities_key", "connectivities")
    params = found.get("params", {})
    if params.get("method", "umap") not in ("umap", "rapids"):
        warnings.warn(f'.obsp["{conns}"] have not been computed using umap', UserWarning, stacklevel=_outside())
    if a is None or b is None:
        a, b = find_ab(min_dist, spread)
    seed = seed_of(random_state, rng)
    init, start = _start(adata, init_pos, params, n_components, seed, neighbors_key)
    shape = dict(
        n_components=n_components, min_dist=min_dist, spread=spread, n_epochs=maxiter, alpha=alpha, gamma=gamma,
        negative_sample_rate=negative_sample_rate, a=a, b=b, seed=seed,
    )  # fmt: skip
    placed = layout(*parts(adata.obsp[conns]), shape, init, start)
    adata.obsm[obsm] = placed
    kept: dict[str, Any] = dict(a=a, b=b)
    if isinstance(random_state, (int, np.integer)) and random_state != 0:
        kept["random_state"] = int(random_state)
    adata.uns[uns] = dict(params=kept)
    say(f"umap: {placed.shape[0]} cells in {n_components} dimensions")
    return adata if copy else None


def _start(adata: AnnData, init: Any, params: dict[str, Any], d: int, seed: int, neighbors_key: str | None) -> tuple[str, np.ndarray | None]:
    """How a layout starts, and from which coordinates."""

    def plain(x: Any) -> np.ndarray:
        x = x.compute() if is_dask(x) else home(x)
        return lent(np.asarray(x)[:, :d], np.float32)

    def whole(x: Any) -> np.ndarray:
        if np.ndim(x) != 2 or x.shape[1] != d:
            msg = f"init_pos: Expected {d} columns but got {x.shape[1] if np.ndim(x) == 2 else 1} columns."
            raise ValueError(msg)
        return plain(x)

    if init is None or (isinstance(init, str) and init in ("spectral", "auto")):
        # Parts of the graph that no edge joins are put where their cells lie in what the neighbours were searched in.
        lie = adata.obsm.get(params.get("use_rep", "X_pca"))
        if lie is None:
            return "spectral", None
        lie = lie.compute() if is_dask(lie) else home(lie)
        return "spectral", lent(np.asarray(lie)[:, : params.get("n_pcs")], np.float32)
    if isinstance(init, str) and init == "random":
        return "random", None
    if isinstance(init, str) and init == "paga":
        return "given", plain(_around_groups(adata, seed))
    if isinstance(init, str) and init in adata.obsm:
        return "given", whole(adata.obsm[init])
    if isinstance(init, str) and init == "pca":
        from ..pp._neighbors import representation

        return "pca", plain(representation(adata, params.get("use_rep"), params.get("n_pcs")))
    if isinstance(init, str):
        msg = f"init_pos: {init!r}, but it is spectral, random, pca, paga, a key of obsm or coordinates"
        raise ValueError(msg)
    return "given", whole(init)


def _around_groups(adata: AnnData, seed: int) -> np.ndarray:
    """Cells around the places of their groups, towards the group that is nearest: as scanpy does."""
    found = adata.uns.get("paga", {})
    if "pos" not in found:
        msg = "Plot PAGA first, so that `adata.uns['paga']['pos']` exists."
        raise ValueError(msg)
    places = np.asarray(found["pos"])
    graph = found["connectivities"].tocsr()
    codes = adata.obs[found["groups"]].cat.codes.to_numpy()
    random = np.random.default_rng(seed)
    nearest = np.array([graph[i].indices[np.argmax(graph[i].data)] if graph[i].nnz else i for i in range(len(places))])
    towards = places - places[nearest]
    return places[codes] - 0.5 * towards[codes] + random.random((len(codes), 2)) * towards[codes]
