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


def test_gauss_equals_scanpy(run, synthetic_path):
    """scanpy's kernel of the same neighbours."""
    from scanpy.neighbors._connectivity import gauss

    ours = run.read(synthetic_path, *BASIC, "--method", "gauss")
    assert ours.uns["neighbors"]["params"]["method"] == "gauss"
    distances = sp.csr_matrix(ours.obsp["distances"]).astype(np.float64)
    distances.sort_indices()
    theirs = sp.csr_matrix(gauss(distances, 15, knn=True))
    c = sp.csr_matrix(ours.obsp["connectivities"])
    assert abs(theirs - c).max() <= 1e-4
    assert abs(c - c.T).max() == 0


def test_jaccard_is_the_overlap_of_neighbourhoods(run, synthetic_path):
    """PhenoGraph's weights, averaged over both directions."""
    ours = run.read(synthetic_path, *BASIC, "--method", "jaccard")
    _, indices = reference.rows_of(ours.obsp["distances"], 15)
    c = sp.csr_matrix(ours.obsp["connectivities"])
    sets = [set(row) for row in indices]
    share = lambda i, j: len(sets[i] & sets[j]) / len(sets[i] | sets[j])
    for i in np.random.default_rng(0).choice(len(sets), 100, replace=False):
        row = dict(zip(c[i].indices, c[i].data))
        for j in sets[i]:
            directed = share(i, j) * ((j in sets[i]) + (i in sets[j])) / 2
            assert abs(row.get(j, 0) - directed) < 1e-5


def test_key_added(run, synthetic_path):
    ours = run.read(synthetic_path, *BASIC, "--neighbors-key", "mine")
    usual = run.read(synthetic_path, *BASIC)
    assert ours.uns["mine"]["connectivities_key"] == "mine_connectivities" and "neighbors" not in ours.uns
    assert abs(ours.obsp["mine_connectivities"] - usual.obsp["connectivities"]).max() == 0
    assert abs(ours.obsp["mine_distances"] - usual.obsp["distances"]).max() == 0


@pytest.fixture(scope="session")
def many_path(folder):
    """30,000 simulated cells, beyond those of which all pairs are compared."""
    import program

    path = folder / "many.zarr"
    program.succeed("simulate", path, "--cells", 30000, "--genes", 2000, "--genes-per-cell", 150)
    return path


MANY = ("--through", "neighbors", "--filter-cells", "", "--n-top-genes", 1000, "--n-comps", 50)


def test_lists_find_what_pynndescent_finds(run, many_path):
    """Recall on a sample, beside pynndescent as scanpy calls it."""
    from pynndescent import NNDescent
    from sklearn.neighbors import NearestNeighbors

    ours = run.read(many_path, *MANY)
    z = np.ascontiguousarray(ours.obsm["X_pca"])
    sample = np.random.default_rng(0).choice(len(z), 1000, replace=False)
    d, i = NearestNeighbors(n_neighbors=16, algorithm="brute").fit(z).kneighbors(z[sample])
    truth = [set(row[row != own][:14]) for row, own in zip(i, sample)]
    _, indices = reference.rows_of(ours.obsp["distances"], 15)
    found = np.mean([len(set(indices[own]) & t) / 14 for own, t in zip(sample, truth)])
    n = len(z)
    trees, rounds = min(64, 5 + round(n**0.5 / 20)), max(5, round(np.log2(n)))
    theirs, _ = NNDescent(z, n_neighbors=15, n_trees=trees, n_iters=rounds, random_state=0).neighbor_graph
    peer = np.mean([len(set(theirs[own]) & t) / 14 for own, t in zip(sample, truth)])
    assert found >= 0.99
    assert found >= peer - 0.005, (found, peer)


def test_little_memory_gives_the_same_bits(run, many_path):
    """With room for the components or the graph, but not for both, lists are read from temporary files. Many neighbours and components make
    the graph the largest need of so few cells."""
    import program

    flags = ("--through", "neighbors", "--filter-cells", "", "--n-top-genes", 500, "--n-comps", 200, "--n-pcs", 50, "--n-neighbors", 120)
    plan = lambda memory: program.cellmill("plan", many_path, *flags, "--threads", 1, "--memory", memory, "--json")
    assert not plan("8GiB").json()["aside"]
    # The least that the plan accepts.
    low, high = 16 << 20, 8 << 30
    while high - low > 1 << 20:
        middle = (low + high) // 2
        low, high = (low, middle) if plan(middle).code == 0 else (middle, high)
    assert plan(high).json()["aside"]
    a, b = run.read(many_path, *flags, threads=1), run.read(many_path, *flags, "--memory", high, threads=1)
    for key in ("distances", "connectivities"):
        x, y = a.obsp[key], b.obsp[key]
        assert np.array_equal(x.indices, y.indices) and np.array_equal(x.data, y.data)
    assert np.array_equal(a.obsm["X_pca"], b.obsm["X_pca"])
