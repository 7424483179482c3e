"""neighbors: true neighbours, their layout, and umap-learn's graph of them."""

import numpy as np
import pytest
import scipy.sparse as sp

import reference

BASIC = ("--through", "neighbors", "--min-genes", 200, "--n-top-genes", 500, "--n-comps", 30)
ASKED = {
    "default": ((), 15, 30, "euclidean", 0.99),
    "exact": (("--knn", "exact"), 15, 30, "euclidean", 0.9999),
    "fast": (("--knn", "fast"), 15, 30, "euclidean", 0.95),
    "cosine": (("--metric", "cosine"), 15, 30, "cosine", 0.99),
    "cosine exact": (("--metric", "cosine", "--knn", "exact"), 15, 30, "cosine", 0.9999),
    "few": (("--n-neighbors", 5, "--n-pcs", 10), 5, 10, "euclidean", 0.99),
    "many": (("--n-neighbors", 40), 40, 30, "euclidean", 0.99),
}


@pytest.fixture(scope="session", params=list(ASKED))
def found(request, run, synthetic_path):
    flags, k, n_pcs, metric, least = ASKED[request.param]
    ours = run.read(synthetic_path, *BASIC, *flags)
    return ours, np.ascontiguousarray(ours.obsm["X_pca"][:, :n_pcs]), k, metric, least


def test_recall_and_distances(found):
    ours, z, k, metric, least = found
    distances, indices = reference.rows_of(ours.obsp["distances"], k)
    share, true = reference.recall(distances, indices, z, k, metric)
    assert share >= least
    assert distances.mean() / true.mean() <= 1.002
    from sklearn.metrics.pairwise import paired_distances

    own = np.stack([paired_distances(z.astype(np.float64), z[indices[:, j]].astype(np.float64), metric=metric) for j in range(k - 1)], axis=1)
    assert np.abs(own - distances).max() <= 1e-5 * own.max()


def test_layout(found):
    ours, _, k, *_ = found
    d = sp.csr_matrix(ours.obsp["distances"])
    assert d.dtype == np.float32 and d.shape == (ours.n_obs, ours.n_obs)
    distances, indices = reference.rows_of(d, k)
    assert np.all(np.diff(distances, axis=1) >= 0), "ascending"
    assert not np.any(indices == np.arange(len(indices))[:, None]), "no self"
    assert all(len(set(row)) == k - 1 for row in indices), "no repeats"
    c = sp.csr_matrix(ours.obsp["connectivities"])
    assert c.dtype == np.float32
    assert c.has_sorted_indices and not c.diagonal().any() and (c.data > 0).all()
    assert abs(c - c.T).max() == 0


def test_connectivities(found):
    ours, z, k, metric, _ = found
    distances, indices = reference.rows_of(ours.obsp["distances"], k)
    c = sp.csr_matrix(ours.obsp["connectivities"])
    theirs = reference.fuzzy(z, distances, indices, k, metric)
    assert abs(theirs - c).max() <= 1e-4
    pattern = lambda m: set(zip(*(m > 1e-6).nonzero()))
    assert pattern(theirs) == pattern(c)


def test_uns(found):
    ours, _, k, metric, _ = found
    said = ours.uns["neighbors"]
    assert said["connectivities_key"] == "connectivities" and said["distances_key"] == "distances"
    assert said["params"]["n_neighbors"] == k and said["params"]["metric"] == metric and said["params"]["method"] == "umap"
    assert said["params"]["random_state"] == 0


def test_twins(run, synthetic, folder):
    """Cells with equal counts: distance 0 is a distance, and each row is still k-1 others."""
    import anndata as ad

    import inputs

    a = synthetic[:500].copy()
    a.var_names_make_unique()
    twice = ad.concat([a, a, a[:50]], index_unique="-")
    twice.var_names = synthetic.var_names
    ours = run.read(inputs.write(twice, folder / "twins.zarr"), *BASIC)
    distances, indices = reference.rows_of(ours.obsp["distances"], 15)
    assert not np.any(indices == np.arange(len(indices))[:, None])
    assert (distances[:, 0] < 1e-3 * distances[:, -1].mean()).mean() > 0.95
    assert np.isfinite(ours.obsp["connectivities"].data).all()
