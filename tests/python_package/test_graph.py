"""Neighbours, UMAP, clusters and PAGA beside scanpy's."""

from __future__ import annotations

import numpy as np
import pytest
import scanpy as sc
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
    with pytest.raises(ValueError, match="metric"):
        cm.pp.neighbors(adata, metric="manhattan")
    with pytest.raises(ValueError, match="n_neighbors"):
        cm.pp.neighbors(adata[:3].copy(), n_neighbors=15)


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


def test_paga(embedded):
    adata = embedded.copy()
    sc.pp.neighbors(adata)
    cm.tl.leiden(adata)
    ours, theirs = adata.copy(), adata.copy()
    cm.tl.paga(ours)
    sc.tl.paga(theirs)
    assert set(ours.uns["paga"]) == set(theirs.uns["paga"]) and ours.uns["paga"]["groups"] == "leiden"
    np.testing.assert_array_equal(ours.uns["leiden_sizes"], theirs.uns["leiden_sizes"])
    a, b = ours.uns["paga"]["connectivities"].toarray(), theirs.uns["paga"]["connectivities"].toarray()
    np.testing.assert_allclose(a, b, rtol=1e-6)
    trees = ours.uns["paga"]["connectivities_tree"].sum(), theirs.uns["paga"]["connectivities_tree"].sum()
    np.testing.assert_allclose(*trees, rtol=1e-6)
    with pytest.raises(KeyError, match="nothing"):
        cm.tl.paga(ours, groups="nothing")
