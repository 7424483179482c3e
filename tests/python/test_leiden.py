"""leiden: as good a partition as igraph finds on the same graph."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import reference
from test_umap import FLAGS

RESOLUTIONS = (0.5, 1.0, 2.0)


@pytest.fixture(scope="session", params=list(FLAGS))
def found(request, run):
    """(output with several resolutions, graph, weights)."""
    ours = run.read(request.getfixturevalue(f"{request.param}_path"), "--through", "leiden", *FLAGS[request.param], "--resolution", ",".join(map(str, RESOLUTIONS)))
    return ours, *reference.graph(ours.obsp["connectivities"])


def column_of(ours, resolution):
    names = [c for c in ours.obs.columns if c.startswith("leiden")]
    match = [c for c in names if c.partition("_")[2] and float(c.partition("_")[2]) == resolution]
    assert len(match) == 1, f"leiden_{resolution} among {names}"
    return ours.obs[match[0]]


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_partition(resolution, found):
    ours, g, weights = found
    column = column_of(ours, resolution)
    labels = column.astype(int).to_numpy()
    theirs = reference.leiden(g, weights, resolution)
    q = reference.modularity(g, weights, labels, resolution)
    qs = [reference.modularity(g, weights, m, resolution) for m in theirs]
    assert q >= min(qs) - 0.001, (q, qs)
    assert q >= 0.995 * np.median(qs)
    n = [m.max() + 1 for m in theirs]
    assert min(n) - 2 <= labels.max() + 1 <= max(n) + 2
    assert all(g.induced_subgraph(np.flatnonzero(labels == c).tolist()).is_connected() for c in range(labels.max() + 1)), "connected"
    among = min(adjusted_rand_score(theirs[i], theirs[j]) for i in range(len(theirs)) for j in range(i))
    assert max(adjusted_rand_score(m, labels) for m in theirs) >= among - 0.05
    own = min(normalized_mutual_info_score(theirs[i], theirs[j]) for i in range(len(theirs)) for j in range(i))
    assert max(normalized_mutual_info_score(m, labels) for m in theirs) > min(0.85, own - 0.05)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_labels(resolution, found):
    """Categorical of strings '0', '1', … by size; ties by smallest member."""
    column = column_of(found[0], resolution)
    assert column.dtype.name == "category"
    labels = column.astype(int).to_numpy()
    assert column.cat.categories.tolist() == [str(i) for i in range(labels.max() + 1)]
    sizes, first = np.bincount(labels), [np.flatnonzero(labels == c)[0] for c in range(labels.max() + 1)]
    assert sizes.min() > 0
    order = sorted(range(len(sizes)), key=lambda c: (-sizes[c], first[c]))
    assert order == list(range(len(sizes)))


@pytest.mark.parametrize("name", list(FLAGS))
def test_one_resolution(name, run, request):
    ours = run.read(request.getfixturevalue(f"{name}_path"), "--through", "leiden", *FLAGS[name])
    g, weights = reference.graph(ours.obsp["connectivities"])
    labels = ours.obs["leiden"].astype(int).to_numpy()
    said = ours.uns["leiden"]
    assert said["params"]["resolution"] == 1 and said["params"]["random_state"] == 0 and "n_iterations" in said["params"]
    assert abs(said["modularity"] - reference.modularity(g, weights, labels, 1.0)) < 1e-5


def test_known_groups_are_found(run, synthetic, synthetic_path):
    """The cells were drawn from eight types, most of them well apart."""
    ours = run.read(synthetic_path, "--through", "leiden", *FLAGS["synthetic"])
    kind = synthetic.obs["kind"][ours.obs_names]
    g, weights = reference.graph(ours.obsp["connectivities"])
    theirs = np.median([adjusted_rand_score(kind, m) for m in reference.leiden(g, weights, 1.0)])
    assert adjusted_rand_score(kind, ours.obs["leiden"]) >= theirs - 0.05


def test_until_nothing_changes(run, synthetic_path):
    two = run.read(synthetic_path, "--through", "leiden", *FLAGS["synthetic"])
    more = run.read(synthetic_path, "--through", "leiden", *FLAGS["synthetic"], "--n-iterations", "-1")
    assert more.uns["leiden"]["modularity"] >= two.uns["leiden"]["modularity"] - 1e-6


def test_louvain(run, synthetic_path):
    """No worse than igraph's multilevel on the same graph."""
    ours = run.read(synthetic_path, "--through", "leiden", *FLAGS["synthetic"], "--louvain")
    g, weights = reference.graph(ours.obsp["connectivities"])
    labels = ours.obs["louvain"].astype(int).to_numpy()
    q = reference.modularity(g, weights, labels, 1.0)
    assert abs(ours.uns["louvain"]["modularity"] - q) < 1e-5
    assert q >= g.modularity(g.community_multilevel(weights=weights).membership, weights=weights) - 0.002
    assert "leiden" in ours.obs


def test_paga_equals_scanpy(run, pbmc_path):
    import scanpy as sc

    ours = run.read(pbmc_path, "--through", "leiden", *FLAGS["pbmc"], "--paga")
    theirs = ours.copy()
    sc.tl.paga(theirs, groups="leiden")
    for key in ("connectivities", "connectivities_tree"):
        assert abs(ours.uns["paga"][key] - theirs.uns["paga"][key]).max() < 1e-6, key
    assert ours.uns["paga"]["groups"] == "leiden"
    assert np.array_equal(ours.uns["leiden_sizes"], ours.obs["leiden"].value_counts().reindex(ours.obs["leiden"].cat.categories))


def test_restrict_to(run, synthetic, synthetic_path, folder):
    """Only the cells of two batches are clustered; the others keep their batch, as in scanpy."""
    import program

    ours = run.read(synthetic_path, "--through", "leiden", *FLAGS["synthetic"], "--restrict-to", "batch=b1,b2")
    found = ours.obs["leiden_R"]
    inside = ours.obs["batch"].isin(["b1", "b2"]).to_numpy()
    assert found[inside].str.startswith("b1-b2,").all()
    assert (found[~inside].astype(str) == "b3").all()
    g, weights = reference.graph(ours.obsp["connectivities"][inside][:, inside])
    labels = np.array([int(x.partition(",")[2]) for x in found[inside]])
    q = reference.modularity(g, weights, labels, 1.0)
    assert q >= min(reference.modularity(g, weights, m, 1.0) for m in reference.leiden(g, weights, 1.0)) - 0.001
    assert abs(ours.uns["leiden_R"]["modularity"] - q) < 1e-5
    said = program.message(program.cellmill("run", synthetic_path, "-o", folder / "none.zarr", "--restrict-to", "batch=b9"))
    assert "b9" in said


def test_leidenalg_agrees(run, synthetic_path):
    """leidenalg until nothing changes finds hardly more than our rounds until nothing changes."""
    import leidenalg

    ours = run.read(synthetic_path, "--through", "leiden", *FLAGS["synthetic"], "--n-iterations", "-1", "--leiden-key", "stable")
    g, weights = reference.graph(ours.obsp["connectivities"])
    theirs = leidenalg.find_partition(g, leidenalg.RBConfigurationVertexPartition, weights=weights, n_iterations=-1, seed=0)
    q = reference.modularity(g, weights, ours.obs["stable"].astype(int).to_numpy(), 1.0)
    assert q >= reference.modularity(g, weights, theirs.membership, 1.0) - 0.001
