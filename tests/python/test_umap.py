"""umap: as good a layout as umap-learn makes of the same graph."""

import numpy as np
import pytest
import scanpy as sc
from scipy.stats import spearmanr
from sklearn.manifold import trustworthiness

import reference

FLAGS = {
    "synthetic": ("--min-genes", 200, "--n-top-genes", 500, "--n-comps", 30),
    "pbmc": ("--n-top-genes", 2000, "--n-comps", 50),
}


@pytest.fixture(scope="session", params=list(FLAGS))
def pair(request, run):
    """(our output, umap-learn's layout of its graph, the embedding)."""
    ours = run.read(request.getfixturevalue(f"{request.param}_path"), "--through", "leiden", *FLAGS[request.param])
    theirs = ours.copy()
    sc.tl.umap(theirs)
    return ours, np.asarray(theirs.obsm["X_umap"], np.float64), np.ascontiguousarray(ours.obsm["X_pca"][:, :50])


def test_form(pair):
    ours, *_ = pair
    u = ours.obsm["X_umap"]
    assert u.dtype == np.float32 and u.shape == (ours.n_obs, 2) and np.isfinite(u).all()
    params = ours.uns["umap"]["params"]
    assert reference.far([params["a"], params["b"]], [0.58303, 1.33417]) < 1e-4


def test_trustworthiness(pair):
    ours, theirs, z = pair
    assert trustworthiness(z, ours.obsm["X_umap"], n_neighbors=15) >= trustworthiness(z, theirs, n_neighbors=15) - 0.01


def test_neighbours_are_kept(pair):
    ours, theirs, z = pair
    true = reference.nearest(z)[1]
    kept = [reference.overlap(reference.nearest(np.asarray(layout, np.float64))[1], true) for layout in (ours.obsm["X_umap"], theirs)]
    assert kept[0] >= 0.95 * kept[1]


def test_clusters_stay_together(pair):
    ours, theirs, _ = pair
    label = ours.obs["leiden"].to_numpy()
    same = [np.mean(label[reference.nearest(np.asarray(layout, np.float64))[1]] == label[:, None]) for layout in (ours.obsm["X_umap"], theirs)]
    assert same[0] >= same[1] - 0.01


def test_shape_at_large(pair):
    ours, theirs, z = pair
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, len(z), (2, 20000))
    far = lambda x: np.linalg.norm(np.asarray(x, np.float64)[i] - np.asarray(x, np.float64)[j], axis=1)
    assert spearmanr(far(z), far(ours.obsm["X_umap"]))[0] >= spearmanr(far(z), far(theirs))[0] - 0.05


def test_no_outliers(pair):
    ours, theirs, _ = pair
    u = np.asarray(ours.obsm["X_umap"], np.float64)
    ratio = np.ptp(u, axis=0) / np.ptp(theirs, axis=0)
    spread = np.sqrt(np.prod(ratio))
    assert 0.5 <= spread <= 2, ratio
    radius = np.linalg.norm(u - np.median(u, axis=0), axis=1)
    assert radius.max() <= 3 * np.quantile(radius, 0.999)


def test_min_dist_gives_other_constants(run, synthetic_path):
    ours = run.read(synthetic_path, "--through", "umap", *FLAGS["synthetic"], "--min-dist", 0.1)
    params = ours.uns["umap"]["params"]
    assert reference.far([params["a"], params["b"]], [1.57694, 0.89506]) < 1e-3
    assert "leiden" not in ours.obs


@pytest.mark.parametrize("init", ["pca", "random"])
def test_other_starts(init, run, pbmc_path):
    ours = run.read(pbmc_path, "--through", "umap", *FLAGS["pbmc"], "--init-pos", init)
    z = np.ascontiguousarray(ours.obsm["X_pca"][:, :50])
    assert trustworthiness(z, ours.obsm["X_umap"], n_neighbors=15) > 0.8


@pytest.fixture(scope="session")
def apart(folder):
    """Counts of four types that share no gene, so that the graph falls into parts; two of them are more alike than the others."""
    import anndata as ad
    import pandas as pd
    import scipy.sparse as sp

    import inputs

    rng = np.random.default_rng(4)
    sizes, genes = [500, 300, 250, 150], 800
    kind = np.repeat(np.arange(4), sizes)
    profile = np.full((4, genes), 0.02)
    for t in range(4):
        profile[t, t * 150 : t * 150 + 150] = rng.gamma(2, 2, 150)
    profile[1, 600:700] = profile[2, 600:700] = rng.gamma(2, 4, 100)
    # Within each type, a gradient.
    along = rng.random(len(kind))
    mu = profile[kind] * np.exp(np.outer(along, rng.normal(0, 0.7, genes)))
    x = rng.poisson(mu / mu.sum(1, keepdims=True) * 3000).astype(np.float32)
    a = ad.AnnData(sp.csr_matrix(x), obs=pd.DataFrame({"kind": pd.Categorical(list(map(str, kind)))}, index=[f"c{i}" for i in range(len(kind))]))
    return inputs.write(a, folder / "apart.zarr")


APART = ("--filter-cells", "", "--n-top-genes", 700, "--n-comps", 20)


def test_parts_lie_as_their_cells_do(run, apart):
    """A graph in unconnected parts: the layout's shape at large is within what umap-learn's is, which depends on its seed."""
    from scipy.sparse.csgraph import connected_components

    ours = run.read(apart, "--through", "umap", *APART)
    assert connected_components(ours.obsp["connectivities"])[0] >= 3
    z = ours.obsm["X_pca"]
    i, j = np.random.default_rng(0).integers(0, len(z), (2, 20000))
    far = lambda x: np.linalg.norm(np.asarray(x, np.float64)[i] - np.asarray(x, np.float64)[j], axis=1)
    kept = lambda layout: spearmanr(far(z), far(layout))[0]
    theirs = [kept(sc.tl.umap(ours, random_state=seed, copy=True).obsm["X_umap"]) for seed in range(5)]
    assert kept(ours.obsm["X_umap"]) >= min(theirs)


def test_start_from_paga(run, pbmc_path):
    ours = run.read(pbmc_path, "--through", "umap", *FLAGS["pbmc"], "--init-pos", "paga")
    z = np.ascontiguousarray(ours.obsm["X_pca"][:, :50])
    assert trustworthiness(z, ours.obsm["X_umap"], n_neighbors=15) > 0.8
    assert "leiden" not in ours.obs


def test_start_from_obsm(run, pbmc, folder):
    """A start far from ours is seen in the layout; cells that are filtered away have no row."""
    import inputs
    import program

    a = pbmc.copy()
    rng = np.random.default_rng(0)
    a.obsm["X_start"] = rng.normal(size=(a.n_obs, 3)).astype(np.float32)
    path = inputs.write(a, folder / "start.zarr")
    ours = run.read(path, "--through", "umap", *FLAGS["pbmc"], "--init-pos", "X_start", "--min-genes", 700)
    assert ours.n_obs < a.n_obs
    other = run.read(path, "--through", "umap", *FLAGS["pbmc"], "--min-genes", 700)
    assert not np.array_equal(ours.obsm["X_umap"], other.obsm["X_umap"])
    z = np.ascontiguousarray(ours.obsm["X_pca"][:, :50])
    assert trustworthiness(z, ours.obsm["X_umap"], n_neighbors=15) > 0.8
    said = program.message(program.cellmill("run", path, "-o", folder / "none.zarr", "--init-pos", "X_strat"))
    assert "X_strat" in said and "X_start" in said


def test_constants_and_keys(run, synthetic_path):
    flags = ("--umap-a", 1.2, "--umap-b", 0.9, "--umap-key", "X_mine", "--n-components", 3, "--maxiter", 20)
    ours = run.read(synthetic_path, "--through", "umap", *FLAGS["synthetic"], *flags)
    assert ours.obsm["X_mine"].shape == (ours.n_obs, 3) and np.isfinite(ours.obsm["X_mine"]).all()
    assert ours.uns["X_mine"]["params"]["a"] == 1.2 and ours.uns["X_mine"]["params"]["b"] == 0.9
    assert "X_umap" not in ours.obsm
