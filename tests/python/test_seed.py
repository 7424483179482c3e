"""The whole job against scanpy: the seed notebook's recipe on real and synthetic cells."""

import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from sklearn.manifold import trustworthiness
from sklearn.metrics import adjusted_rand_score

import inputs
import reference

CASES = {
    "pbmc3k": dict(flags=("--hvg", 2000, "--pcs", 50), hvg=2000, pcs=50),
    "synthetic": dict(flags=("--hvg", 1000, "--pcs", 100), hvg=1000, pcs=100),
}
GRAPH_PCS, K = 50, 15


@pytest.fixture(scope="session", params=list(CASES))
def job(request, run, folder):
    """(input with scanpy's metrics, kept cells, output, case)."""
    case = CASES[request.param]
    a = inputs.pbmc() if request.param == "pbmc3k" else inputs.synthetic(2000, 3000, seed=11)
    output = run.read(inputs.write(a, folder / f"seed_{request.param}.h5ad"), *case["flags"])
    names = a.var_names
    a = reference.counts(a)
    sc.pp.calculate_qc_metrics(a, inplace=True, percent_top=None)
    keep = ((a.obs.n_genes_by_counts >= 200) & (a.obs.n_genes_by_counts <= 10000)).to_numpy()
    return a, keep, output, case, names


@pytest.fixture(scope="session")
def logged(job):
    a, keep, *_ = job
    b = a[keep].copy()
    sc.pp.normalize_total(b, target_sum=1e4)
    sc.pp.log1p(b)
    return b


@pytest.fixture(scope="session")
def components(job, logged):
    """Exact PCA of the output's own genes: (scores, variance, ratio, loadings, scaled std)."""
    output = job[2]
    b = logged[:, output.var["highly_variable"].to_numpy()].copy()
    sc.pp.scale(b, zero_center=False)
    return *reference.pca(b.X.toarray()), b.var["std"]


@pytest.fixture(scope="session")
def truth(job):
    """Exact neighbours in the output's own components."""
    output, case = job[2], job[3]
    z = np.ascontiguousarray(output.obsm["X_pca"][:, : min(GRAPH_PCS, case["pcs"])])
    return z, *reference.nearest(z, K)


def test_qc(job):
    a, keep, output, _, names = job
    assert list(output.var_names) == list(names)
    assert list(output.obs_names) == list(a.obs_names[keep])
    assert np.array_equal(output.var["n_cells_by_counts"], a.var["n_cells_by_counts"])
    assert np.array_equal(output.obs["n_genes_by_counts"], a.obs["n_genes_by_counts"][keep])
    for column in ("total_counts", "mean_counts", "pct_dropout_by_counts", "log1p_total_counts", "log1p_mean_counts"):
        assert reference.far(output.var[column], a.var[column]) < 1e-5, column
    for column in ("total_counts", "log1p_total_counts", "log1p_n_genes_by_counts"):
        assert reference.far(output.obs[column], a.obs[column][keep]) < 1e-5, column


def test_hvg(job, logged):
    output, case = job[2], job[3]
    theirs = reference.hvg(logged, n_top_genes=case["hvg"], flavor="cell_ranger")
    mine, other = output.var["highly_variable"].to_numpy(), theirs["highly_variable"].to_numpy().astype(bool)
    assert (mine & other).sum() / (mine | other).sum() >= 0.999
    for column in ("means", "dispersions"):
        assert reference.far(output.var[column], theirs[column]) < 1e-4, column


def test_pca(job, components):
    output, n = job[2], job[3]["pcs"]
    scores, variance, ratio, v, std = components
    chosen = output.var["highly_variable"].to_numpy()
    assert reference.far(output.var["std"][chosen], std) < 1e-4
    p = output.obsm["X_pca"]
    assert p.shape == (output.n_obs, n) and p.dtype == np.float32
    assert reference.far(output.uns["pca"]["variance"], variance[:n]) < 1e-4
    assert reference.far(output.uns["pca"]["variance_ratio"], ratio[:n]) < 1e-4
    loadings = np.asarray(output.varm["PCs"], np.float64)
    assert not loadings[~chosen].any()
    w = loadings[chosen]
    assert min(abs(w[:, i] @ v[i]) for i in reference.isolated(variance, n)) > 0.9999
    assert all(w[np.abs(w[:, i]).argmax(), i] > 0 for i in range(n))
    d = min(GRAPH_PCS, n)
    assert reference.overlap(reference.nearest(p[:, :d], K)[1], reference.nearest(scores[:, :d], K)[1]) > 0.98


def test_neighbors(job, truth):
    output = job[2]
    z, _, true = truth
    distances, indices = reference.rows_of(output.obsp["distances"], K)
    assert reference.overlap(indices, true) >= 0.99
    c = sp.csr_matrix(output.obsp["connectivities"])
    assert abs(c - c.T).max() == 0 and not c.diagonal().any()
    alone = sp.diags((distances[:, 0] > 0).astype(float))  # an identical twin may be its twin's neighbour or its own
    assert abs(alone @ (reference.fuzzy(z, distances, indices, K) - c) @ alone).max() <= 1e-4


def test_umap(job, truth):
    output = job[2]
    z, _, true = truth
    theirs = output.copy()
    sc.tl.umap(theirs)
    layouts = [np.asarray(x.obsm["X_umap"], np.float64) for x in (theirs, output)]
    assert np.isfinite(layouts[1]).all()
    trust = [trustworthiness(z, layout, n_neighbors=15) for layout in layouts]
    assert trust[1] >= trust[0] - 0.01
    kept = [reference.overlap(reference.nearest(layout, K)[1], true) for layout in layouts]
    assert kept[1] >= 0.95 * kept[0]


def test_leiden(job):
    output = job[2]
    g, weights = reference.graph(output.obsp["connectivities"])
    theirs = reference.leiden(g, weights, 1.0)
    labels = output.obs["leiden"].astype(int).to_numpy()
    qs = [reference.modularity(g, weights, m, 1.0) for m in theirs]
    assert reference.modularity(g, weights, labels, 1.0) >= min(qs) - 0.001
    sizes = np.bincount(labels)
    assert np.all(np.diff(sizes) <= 0)
    assert all(g.induced_subgraph(np.flatnonzero(labels == c).tolist()).is_connected() for c in range(len(sizes)))
    among = min(adjusted_rand_score(theirs[i], theirs[j]) for i in range(5) for j in range(i))
    assert max(adjusted_rand_score(m, labels) for m in theirs) >= among - 0.05


def test_clusters_of_a_scanpy_run(job, logged):
    """End to end: our clusters agree with scanpy's as scanpy's agree with each other from other seeds, less 0.1."""
    output, case = job[2], job[3]
    b = logged[:, output.var["highly_variable"].to_numpy()].copy()
    sc.pp.scale(b, zero_center=False)
    sc.pp.pca(b, n_comps=case["pcs"])
    sc.pp.neighbors(b, n_neighbors=K, n_pcs=min(GRAPH_PCS, case["pcs"]))
    found = reference.leiden(*reference.graph(b.obsp["connectivities"]), 1.0)
    among = np.median([adjusted_rand_score(found[i], found[j]) for i in range(5) for j in range(i)])
    ours = np.median([adjusted_rand_score(m, output.obs["leiden"]) for m in found])
    assert ours >= among - 0.1
