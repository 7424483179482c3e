"""scale and pca against scanpy's scale and an exact SVD in float64."""

import numpy as np
import pytest
import scanpy as sc

import reference

BASIC = ("--through", "pca", "--min-genes", 200, "--n-top-genes", 500)
N = 30
WAYS = {
    "no centre": ((), dict(zero_center=False)),
    "no centre, clipped": (("--max-value", 3), dict(zero_center=False, max_value=3)),
    "centred": (("--zero-center",), dict(zero_center=True)),
    "centred, clipped": (("--zero-center", "--max-value", 2), dict(zero_center=True, max_value=2)),
    "not scaled": (("--no-scale",), None),
}


@pytest.fixture(scope="session", params=list(WAYS))
def pair(request, run, synthetic, synthetic_path):
    """(our output, the scaled matrix, the frame of scanpy's scale) for one way of scaling."""
    flags, scaled = WAYS[request.param]
    ours = run.read(synthetic_path, *BASIC, "--n-comps", N, *flags)
    a = reference.counts(synthetic)
    a = reference.normalized(a[np.diff(a.X.indptr) >= 200].copy())
    b = a[:, ours.var["highly_variable"].to_numpy()].copy()
    if scaled is not None:
        sc.pp.scale(b, **scaled)
    x = b.X if isinstance(b.X, np.ndarray) else b.X.toarray()
    return ours, np.asarray(x, np.float64), b.var, scaled is not None


def test_mean_and_std(pair):
    ours, _, var, scaled = pair
    chosen = ours.var["highly_variable"].to_numpy()
    if not scaled:
        assert "std" not in ours.var
        return
    for column in ("mean", "std"):
        assert ours.var[column].dtype == np.float64
        assert reference.far(ours.var[column][chosen], var[column]) < 1e-5, column


def test_variance(pair):
    ours, x, *_ = pair
    _, variance, ratio, _ = reference.pca(x)
    assert ours.uns["pca"]["variance"].shape == (N,)
    assert reference.far(ours.uns["pca"]["variance"], variance[:N]) < 1e-4
    assert reference.far(ours.uns["pca"]["variance_ratio"], ratio[:N]) < 1e-4


def test_loadings(pair):
    ours, x, *_ = pair
    _, variance, _, v = reference.pca(x)
    chosen = ours.var["highly_variable"].to_numpy()
    loadings = np.asarray(ours.varm["PCs"], np.float64)
    assert loadings.shape == (ours.n_vars, N)
    assert not loadings[~chosen].any()
    w = loadings[chosen]
    assert np.abs(w.T @ w - np.eye(N)).max() <= 1e-4
    assert all(w[np.abs(w[:, i]).argmax(), i] > 0 for i in range(N)), "the largest loading is positive"
    apart = reference.isolated(variance, N)
    assert len(apart) >= 3
    assert min(abs(w[:, i] @ v[i]) for i in apart) >= 0.9999
    last = max(i for i in range(N) if variance[i] / variance[i + 1] - 1 > 1e-2) + 1
    assert np.linalg.svd(w[:, :last].T @ v[:last].T, compute_uv=False).min() >= 0.999


def test_scores(pair):
    ours, x, *_ = pair
    scores, _, _, v = reference.pca(x)
    p = ours.obsm["X_pca"]
    assert p.dtype == np.float32 and p.shape == (len(x), N)
    own = (x - x.mean(0)) @ np.asarray(ours.varm["PCs"], np.float64)[ours.var["highly_variable"].to_numpy()]
    assert np.abs(own - p).max() <= 1e-4 * np.abs(own).max()
    assert reference.overlap(reference.nearest(p)[1], reference.nearest(scores[:, :N])[1]) >= 0.98


def test_mask(run, synthetic, synthetic_path):
    """Another column of var, and the leave to use all genes."""
    ours = run.read(synthetic_path, *BASIC, "--n-comps", 10, "--mask-var", "flagged")
    used = np.any(np.asarray(ours.varm["PCs"]) != 0, axis=1)
    silent = np.asarray(synthetic.X.sum(0)).ravel() == 0
    assert not used[~ours.var["flagged"]].any()
    assert used[ours.var["flagged"].to_numpy() & ~silent].all()


def test_more_components_than_default_precision(run, pbmc, pbmc_path):
    """Real cells, 50 components: the acceptance row of pca."""
    ours = run.read(pbmc_path, "--through", "pca", "--n-top-genes", 2000, "--n-comps", 50)
    a = reference.counts(pbmc)
    a = reference.normalized(a[np.diff(a.X.indptr) >= 200].copy())
    b = a[:, ours.var["highly_variable"].to_numpy()].copy()
    sc.pp.scale(b, zero_center=False)
    scores, variance, ratio, _ = reference.pca(b.X.toarray())
    assert reference.far(ours.uns["pca"]["variance"], variance[:50]) < 1e-4
    assert reference.far(ours.uns["pca"]["variance_ratio"], ratio[:50]) < 1e-4
    assert reference.overlap(reference.nearest(ours.obsm["X_pca"])[1], reference.nearest(scores[:, :50])[1]) > 0.98
