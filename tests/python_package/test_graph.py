"""Neighbours, UMAP, clusters and PAGA beside scanpy's."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from sklearn.metrics import adjusted_rand_score

import cellmill as cm


@pytest.fixture(scope="module")
def embedded(whole):
    """All cells with scanpy's components."""
    adata = whole.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=1500, subset=True)
    sc.pp.pca(adata, n_comps=30, svd_solver="arpack")
    return adata


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("method", ["umap", "gauss"])
def test_neighbors_are_scanpys(embedded, metric, method):
    ours, theirs = embedded.copy(), embedded.copy()
    options = dict(n_neighbors=12, n_pcs=20, metric=metric, method=method)
    cm.pp.neighbors(ours, **options)
    sc.pp.neighbors(theirs, **options)
    assert ours.uns["neighbors"]["params"] == theirs.uns["neighbors"]["params"]
    assert set(ours.uns["neighbors"]) == set(theirs.uns["neighbors"])
    d, e = ours.obsp["distances"], theirs.obsp["distances"]
    assert d.nnz == ours.n_obs * 11 and d.dtype == np.float32
    overlap = (d != 0).multiply(e != 0).nnz / e.nnz
    assert overlap > 0.995
    c, f = ours.obsp["connectivities"], theirs.obsp["connectivities"]
    assert c.dtype == np.float32 and abs(c - c.T).max() == 0 and c.diagonal().sum() == 0
    assert abs(c - f).sum() / f.sum() < 0.01


METRICS = ["l2", "sqeuclidean", "correlation", "manhattan", "cityblock", "l1", "chebyshev", "canberra", "braycurtis", "hamming", "minkowski"]


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_are_scanpys(embedded, metric):
    embedded = embedded[:900].copy()
    if metric == "hamming":
        # Some components are equal then.
        embedded.obsm["X_pca"] = np.round(embedded.obsm["X_pca"], 1)
    ours, theirs = embedded.copy(), embedded.copy()
    options = dict(n_neighbors=12, n_pcs=20, metric=metric, metric_kwds=dict(p=3) if metric == "minkowski" else {})
    cm.pp.neighbors(ours, **options)
    sc.pp.neighbors(theirs, transformer="sklearn", **options)
    assert ours.uns["neighbors"]["params"] == theirs.uns["neighbors"]["params"]
    d, e = (adata.obsp["distances"] for adata in (ours, theirs))
    np.testing.assert_allclose(d.data.reshape(900, 11), np.sort(e.data.reshape(900, 11)), rtol=1e-5, atol=1e-6)
    # Equal distances, of which it has many, may be in another order.
    if metric != "hamming":
        assert (d != 0).multiply(e != 0).nnz / e.nnz > 0.999
        c, f = (adata.obsp["connectivities"] for adata in (ours, theirs))
        assert abs(c - f).sum() / f.sum() < 1e-3


@pytest.mark.parametrize("metric", ["jensenshannon", "hellinger", "inner_product"])
def test_metrics_that_scanpy_lacks(embedded, metric):
    from scipy.spatial.distance import cdist, jensenshannon

    x = abs(embedded.obsm["X_pca"][:300])
    x[7] = x[5]
    adata = embedded[:300].copy()
    adata.obsm["X_shifted"] = x
    cm.pp.neighbors(adata, n_neighbors=8, use_rep="X_shifted", metric=metric)
    x = x.astype(np.float64)
    shares = x / x.sum(axis=1, keepdims=True)
    if metric == "inner_product":
        truth = -(x @ x.T)
    elif metric == "hellinger":
        truth = cdist(np.sqrt(shares), np.sqrt(shares)) / np.sqrt(2)
    else:
        truth = cdist(shares, shares, lambda p, q: jensenshannon(p, q))
    np.fill_diagonal(truth, np.inf)
    found = adata.obsp["distances"].data.reshape(300, 7)
    np.testing.assert_allclose(-found if metric == "inner_product" else found, np.sort(truth)[:, :7], rtol=1e-5, atol=1e-7)
    weights = adata.obsp["connectivities"]
    assert (weights.data > 0).all() and (weights.data <= 1).all() and abs(weights - weights.T).max() == 0
    if metric == "inner_product":
        with pytest.raises(ValueError, match="-1.*from 0"):
            adata.obsm["X_shifted"][3, 4] = -1
            cm.pp.neighbors(adata, use_rep="X_shifted", metric="hellinger")


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_all_pairs(embedded, metric, monkeypatch):
    ours, theirs = embedded[:400].copy(), embedded[:400].copy()
    options = dict(n_neighbors=10, method="gauss", knn=False, metric=metric)
    cm.pp.neighbors(ours, **options)
    sc.pp.neighbors(theirs, **options)
    for key in ("distances", "connectivities"):
        a, b = ours.obsp[key], theirs.obsp[key]
        assert type(a) is type(b) is np.ndarray
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3 if key == "distances" else 1e-6)
    with pytest.raises(ValueError, match="only with `knn = True`"):
        cm.pp.neighbors(ours, knn=False)
    with pytest.raises(ValueError, match=r"n_neighbors: \d+, but there are \d+ cells"):
        cm.pp.neighbors(ours, n_neighbors=0, method="gauss", knn=False)
    with pytest.raises(ValueError, match="similarities"):
        cm.pp.neighbors(ours, method="gauss", knn=False, metric="inner_product")
    monkeypatch.setattr(cm.settings, "_memory", 1 << 20)
    with pytest.raises(MemoryError, match=r"all pairs of \d+ cells need \d+ MiB"):
        cm.pp.neighbors(ours, method="gauss", knn=False)


def test_transformers_and_functions(embedded):
    from scipy.spatial.distance import cityblock
    from sklearn.neighbors import KNeighborsTransformer

    embedded = embedded[:300].copy()
    by_name, by_object, by_function, theirs = (embedded.copy() for _ in range(4))
    cm.pp.neighbors(by_name, n_neighbors=9, metric="manhattan")
    transformer = KNeighborsTransformer(n_neighbors=9, metric="manhattan", algorithm="kd_tree")
    cm.pp.neighbors(by_object, transformer=transformer)
    sc.pp.neighbors(theirs, transformer=transformer)
    cm.pp.neighbors(by_function, n_neighbors=9, metric=cityblock)
    assert by_object.uns["neighbors"]["params"] == theirs.uns["neighbors"]["params"]
    assert (by_object.obsp["distances"] != theirs.obsp["distances"]).nnz == 0
    weights = theirs.obsp["connectivities"].toarray()
    for adata in (by_name, by_object, by_function):
        np.testing.assert_allclose(adata.obsp["connectivities"].toarray(), weights, atol=1e-4)
    assert by_function.obsp["distances"].nnz == 300 * 8
    with pytest.raises(ValueError, match="has 5 others, but 8"):
        cm.pp.neighbors(by_object, transformer=Fewer(n_neighbors=9))


class Fewer:
    """A transformer that finds less than it says."""

    def __init__(self, n_neighbors):
        self.n_neighbors = n_neighbors

    def get_params(self):
        return dict(n_neighbors=self.n_neighbors)

    def fit_transform(self, x):
        from sklearn.neighbors import kneighbors_graph

        return kneighbors_graph(x, 5, mode="distance")


def test_keys_and_names_of_algorithms(embedded):
    adata = embedded.copy()
    cm.pp.neighbors(adata, n_neighbors=10, algorithm="ivfflat", key_added="other", rng=3)
    found = adata.uns["other"]
    assert found["connectivities_key"] == "other_connectivities" and found["distances_key"] == "other_distances"
    assert found["params"]["algorithm"] == "ivfflat" and found["params"]["algorithm_used"] == "accurate"
    for name in ("brute", "ivfpq", "cagra", "nn_descent", "all_neighbors"):
        cm.pp.neighbors(adata[:200].copy(), n_neighbors=5, algorithm=name)
    with pytest.raises(ValueError, match="algorithm"):
        cm.pp.neighbors(adata, algorithm="guess")
    with pytest.raises(ValueError, match="mahalanobis.*euclidean, l2.*manhattan, cityblock"):
        cm.pp.neighbors(adata, metric="mahalanobis")
    with pytest.raises(ValueError, match="metric_kwds: w"):
        cm.pp.neighbors(adata, metric="minkowski", metric_kwds=dict(w=[1.0]))
    with pytest.raises(ValueError, match="n_neighbors"):
        cm.pp.neighbors(adata, n_neighbors=0)


def test_umap(embedded):
    adata = embedded.copy()
    cm.pp.neighbors(adata)
    cm.tl.umap(adata)
    assert adata.obsm["X_umap"].shape == (adata.n_obs, 2) and adata.obsm["X_umap"].dtype == np.float32
    theirs = embedded.copy()
    sc.pp.neighbors(theirs)
    sc.tl.umap(theirs)
    assert set(adata.uns["umap"]["params"]) == set(theirs.uns["umap"]["params"])
    np.testing.assert_allclose(adata.uns["umap"]["params"]["a"], theirs.uns["umap"]["params"]["a"], rtol=1e-3)
    from sklearn.manifold import trustworthiness

    x = adata.obsm["X_pca"]
    assert trustworthiness(x, adata.obsm["X_umap"]) > trustworthiness(x, theirs.obsm["X_umap"]) - 0.01
    again = adata.copy()
    cm.tl.umap(again)
    np.testing.assert_array_equal(adata.obsm["X_umap"], again.obsm["X_umap"])
    cm.tl.umap(again, init_pos="X_umap", maxiter=5, n_components=2, key_added="more")
    assert "more" in again.obsm and "more" in again.uns
    cm.tl.umap(again, init_pos="pca", n_components=3, maxiter=5)
    with pytest.raises(ValueError, match="Expected 2 columns but got"):
        cm.tl.umap(again, init_pos="X_pca", maxiter=5)
    assert again.obsm["X_umap"].shape[1] == 3
    with pytest.raises(ValueError, match="neighbors"):
        cm.tl.umap(embedded.copy())


def test_leiden(embedded):
    adata = embedded.copy()
    cm.pp.neighbors(adata)
    cm.tl.leiden(adata, resolution=0.8)
    sc.tl.leiden(adata, resolution=0.8, flavor="igraph", n_iterations=2, directed=False, key_added="theirs")
    ours = adata.obs["leiden"]
    assert ours.dtype == "category" and list(ours.cat.categories) == [str(i) for i in range(len(ours.cat.categories))]
    assert ours.value_counts(sort=False).is_monotonic_decreasing
    assert adjusted_rand_score(ours, adata.obs["theirs"]) > 0.7
    assert set(adata.uns["leiden"]) == {"params", "modularity"}
    assert adata.uns["leiden"]["params"] == dict(resolution=0.8, random_state=0, n_iterations=2)

    cm.tl.leiden(adata, resolution=[0.2, 1.0])
    assert {"leiden_0.2", "leiden_1.0"} <= set(adata.obs)
    joint = adata.uns["leiden"]
    assert joint["params"]["resolution"] == [0.2, 1.0] and len(joint["modularity"]) == 2
    with pytest.raises(ValueError, match="dtype must be one of"):
        cm.tl.leiden(adata, dtype="int32")
    cm.tl.leiden(adata, restrict_to=("leiden", ["0", "1"]), resolution=0.3)
    parts = adata.obs["leiden_R"]
    assert (parts[~ours.isin(["0", "1"])] == ours[~ours.isin(["0", "1"])].astype(str)).all()
    assert parts[ours.isin(["0", "1"])].str.startswith("0-1,").all()
    cm.tl.leiden(adata, adjacency=adata.obsp["connectivities"], key_added="again", resolution=0.8)
    assert (adata.obs["again"] == ours).all()


def test_louvain(embedded):
    adata = embedded.copy()
    cm.pp.neighbors(adata)
    cm.tl.louvain(adata, use_weights=True)
    cm.tl.leiden(adata)
    assert adjusted_rand_score(adata.obs["louvain"], adata.obs["leiden"]) > 0.5
    assert 0.5 < adata.uns["louvain"]["modularity"] <= adata.uns["leiden"]["modularity"] + 0.01


@pytest.mark.parametrize("verb", [cm.tl.leiden, cm.tl.louvain])
def test_graphs_that_are_not_symmetric(embedded, verb):
    """An edge has the weights of both directions, as in igraph; and there is an end."""
    adata = embedded.copy()
    sc.pp.neighbors(adata)
    graph = adata.obsp["connectivities"]
    verb(adata, adjacency=graph, key_added="whole", use_weights=True)
    verb(adata, adjacency=sp.triu(graph).tocsr(), key_added="half", use_weights=True)
    assert (adata.obs["whole"] == adata.obs["half"]).all()
    verb(adata, obsp="distances", key_added="near", use_weights=True)
    verb(adata, adjacency=adata.obsp["distances"] + adata.obsp["distances"].T, key_added="both", use_weights=True)
    assert adjusted_rand_score(adata.obs["near"], adata.obs["both"]) == 1 and adata.obs["near"].nunique() > 1


def test_words_that_leiden_does_not_know(embedded):
    adata = embedded[:80].copy()
    sc.pp.neighbors(adata)
    with pytest.raises(TypeError, match="resoluton"):
        cm.tl.leiden(adata, resoluton=3)
    with pytest.warns(UserWarning, match="no effect of beta"):
        cm.tl.leiden(adata, beta=0.01)
    with pytest.raises(ValueError, match="random_state: can't convert negative int"):
        cm.tl.leiden(adata, random_state=-1)
    with pytest.raises(ValueError, match="maxiter: 'float' object"):
        cm.tl.umap(adata, maxiter=2.5)
    adata.obs["kind"] = np.array(["a", "b"])[np.arange(80) % 2]
    cm.tl.leiden(adata, restrict_to=("kind", np.array(["a"])), adjacency=adata.obsp["connectivities"].toarray())
    assert adata.obs["leiden_R"].str.startswith("a,").sum() == 40


@pytest.mark.parametrize("model", ["v1.2", "v1.0"])
def test_paga(embedded, model):
    adata = embedded.copy()
    sc.pp.neighbors(adata)
    cm.tl.leiden(adata)
    ours, theirs = adata.copy(), adata.copy()
    cm.tl.paga(ours, model=model)
    sc.tl.paga(theirs, model=model)
    assert set(ours.uns["paga"]) == set(theirs.uns["paga"]) and ours.uns["paga"]["groups"] == "leiden"
    np.testing.assert_array_equal(ours.uns["leiden_sizes"], theirs.uns["leiden_sizes"])
    a, b = ours.uns["paga"]["connectivities"].toarray(), theirs.uns["paga"]["connectivities"].toarray()
    np.testing.assert_allclose(a, b, rtol=1e-6)
    trees = ours.uns["paga"]["connectivities_tree"].sum(), theirs.uns["paga"]["connectivities_tree"].sum()
    np.testing.assert_allclose(*trees, rtol=1e-6)
    with pytest.raises(KeyError, match="nothing"):
        cm.tl.paga(ours, groups="nothing")


def test_neighbors_of_few_cells(caplog):
    """As scanpy: half of the cells where more are asked for than there are."""
    x = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    ours, theirs = ad.AnnData(x), ad.AnnData(x.copy())
    cm.pp.neighbors(ours, use_rep="X")
    sc.pp.neighbors(theirs, use_rep="X")
    assert ours.uns["neighbors"]["params"]["n_neighbors"] == theirs.uns["neighbors"]["params"]["n_neighbors"] == 6
    np.testing.assert_allclose(ours.obsp["distances"].toarray(), theirs.obsp["distances"].toarray(), rtol=1e-5)
    assert "n_obs too small" in caplog.text
    with pytest.raises(KeyError, match="'mine'"):
        cm.tl.leiden(ours, neighbors_key="mine")
