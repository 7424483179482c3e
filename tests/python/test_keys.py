"""The same recipe in scanpy and here: the same slots, types and structure."""

import anndata as ad
import numpy as np
import pytest
import scanpy as sc

import reference

N_TOP, N_COMPS = 2000, 50
# Where we differ on purpose: scanpy's own distances are float64 from one search and float32 from another.
TYPES = {"obsp/distances": "float32"}
MORE = {"uns/cellmill", "uns/leiden/modularity"}


@pytest.fixture(scope="session")
def theirs(pbmc, folder):
    """scanpy's result on the whole var, after a trip through a file."""
    a = reference.counts(pbmc)
    a.uns, a.obsm = {}, {}
    sc.pp.calculate_qc_metrics(a, percent_top=None, inplace=True)
    a = a[(a.obs.n_genes_by_counts >= 200) & (a.obs.n_genes_by_counts <= 10000)].copy()
    sc.pp.normalize_total(a, target_sum=1e4)
    sc.pp.log1p(a)
    pd_cut = reference.pd.cut
    reference.pd.cut = reference._merging_cut
    try:
        sc.pp.highly_variable_genes(a, n_top_genes=N_TOP, flavor="cell_ranger")
    finally:
        reference.pd.cut = pd_cut
    sc.pp.scale(a, zero_center=False)
    sc.pp.pca(a, n_comps=N_COMPS)
    sc.pp.neighbors(a, n_neighbors=15, n_pcs=N_COMPS)
    sc.tl.umap(a, maxiter=5)
    sc.tl.leiden(a, flavor="igraph", n_iterations=2, directed=False)
    path = folder / "scanpy_keys.h5ad"
    a.write_h5ad(path)
    return ad.read_h5ad(path)


@pytest.fixture(scope="session")
def ours(run, pbmc_path):
    return run.read(pbmc_path, "--n-top-genes", N_TOP, "--n-comps", N_COMPS, "--n-pcs", N_COMPS)


@pytest.mark.parametrize("slot", ["obs", "var"])
def test_columns(slot, ours, theirs):
    mine, other = getattr(ours, slot), getattr(theirs, slot)
    assert set(mine.columns) == set(other.columns)
    for column in other.columns:
        assert str(mine[column].dtype) == str(other[column].dtype), column


@pytest.mark.parametrize("slot", ["obsm", "varm", "obsp"])
def test_arrays(slot, ours, theirs):
    mine, other = getattr(ours, slot), getattr(theirs, slot)
    made = {"obsm": {"X_pca", "X_umap"}, "varm": {"PCs"}, "obsp": {"distances", "connectivities"}}[slot]
    assert made <= set(other.keys())
    assert made <= set(mine.keys())
    for key in made:
        assert mine[key].shape == other[key].shape, key
        assert str(mine[key].dtype) == TYPES.get(f"{slot}/{key}", str(other[key].dtype)), key


def tree(value, path):
    """Every path below a dictionary with the kind of its value."""
    if isinstance(value, dict):
        return {k: v for name, inner in value.items() for k, v in tree(inner, f"{path}/{name}").items()}
    kind = np.asarray(value).dtype.kind
    return {path: {"i": "number", "u": "number", "f": "number", "U": "text", "O": "text"}.get(kind, kind)}


@pytest.mark.parametrize("key", ["hvg", "log1p", "pca", "neighbors", "umap", "leiden"])
def test_uns(key, ours, theirs):
    assert key in ours.uns
    mine, other = tree(dict(ours.uns[key]), f"uns/{key}"), tree(dict(theirs.uns[key]), f"uns/{key}")
    none = {path for tree_ in (mine, other) for path in tree_ if path == "uns/log1p/base" or path.endswith("/mask_var")}
    for path, kind in other.items():
        if path in none:  # None: written as null, or left out
            continue
        assert path in mine, f"{path} is missing; there are {sorted(mine)}"
        assert mine[path] == kind, path
    extra = set(mine) - set(other) - MORE - none
    assert not {path for path in extra if "/params/" not in path}, extra


def test_uns_values(ours, theirs):
    for path in (("hvg", "flavor"), ("pca", "params", "zero_center"), ("pca", "params", "use_highly_variable"), ("neighbors", "connectivities_key"), ("neighbors", "distances_key"), ("neighbors", "params", "n_neighbors"), ("neighbors", "params", "method"), ("neighbors", "params", "metric"), ("neighbors", "params", "random_state"), ("leiden", "params", "resolution"), ("leiden", "params", "random_state"), ("leiden", "params", "n_iterations")):
        mine, other = ours.uns, theirs.uns
        for name in path:
            assert name in mine, path
            mine, other = mine[name], other[name]
        assert mine == other, path
    assert reference.far([ours.uns["umap"]["params"][k] for k in "ab"], [theirs.uns["umap"]["params"][k] for k in "ab"]) < 1e-4


def test_the_record_of_the_run(ours):
    """uns tells recipe, versions and methods."""
    said = ours.uns["cellmill"]
    assert {"recipe", "methods"} <= set(said)
    assert any("version" in key for key in said), set(said)
    assert "2000" in str(said["methods"]) or "2,000" in str(said["methods"])


@pytest.mark.parametrize("stage, made, absent", [("qc", "obs/total_counts", "var/highly_variable"), ("hvg", "var/highly_variable", "obsm/X_pca"), ("pca", "obsm/X_pca", "obsp/distances"), ("neighbors", "obsp/connectivities", "obsm/X_umap"), ("umap", "obsm/X_umap", "obs/leiden"), ("leiden", "obs/leiden", None)])
def test_each_stage_leaves_its_own_slots(stage, made, absent, run, small_path):
    output = run.read(small_path, "--through", stage, "--min-genes", 20, "--n-top-genes", 200, "--n-comps", 20)
    has = lambda path: path.split("/")[1] in getattr(output, path.split("/")[0])
    assert has(made)
    assert absent is None or not has(absent)
