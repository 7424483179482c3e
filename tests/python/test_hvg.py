"""highly_variable_genes: four flavours, with and without batches, by number and by bounds."""

import numpy as np
import pytest

import reference

FLAVORS = ["seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper"]
TOP = 400


@pytest.fixture(scope="session")
def prepared(synthetic):
    """(counts, normalised) of the cells that the filter keeps."""
    a = reference.counts(synthetic)
    a = a[np.diff(a.X.indptr) >= 200].copy()
    return a, reference.normalized(a)


def both(run, path, prepared, flavor, batch=None, recipe=None, **options):
    """(our var, scanpy's frame)."""
    flags = ["--through", "hvg", "--min-genes", 200, "--flavor", flavor]
    if batch:
        flags += ["--batch-key", batch]
    if recipe:
        flags += ["--recipe", recipe]
    if "n_top_genes" in options:
        flags += ["--n-top-genes", options["n_top_genes"]]
    else:
        flags += ["--n-top-genes", 0]
    a = prepared[0] if flavor.startswith("seurat_v3") else prepared[1]
    return run.read(path, *flags), reference.hvg(a, flavor=flavor, batch_key=batch, **options)


def assert_equal(ours, theirs, flavor, ranked):
    var = ours.var
    for column in theirs.columns:
        if column in ("gene_name", "mean_bin"):
            continue
        assert column in var, f"{column} is missing; there are {list(var.columns)}"
        mine, other = var[column].to_numpy(), theirs[column].to_numpy()
        if column == "highly_variable":
            assert mine.dtype == bool
            other = other.astype(bool)
            # scanpy keeps float32 values: genes within 1e-5 of the cut-off may change sides.
            jaccard = (mine & other).sum() / max((mine | other).sum(), 1)
            differ = mine ^ other
            if flavor.startswith("seurat_v3"):
                # Genes with the same variances_norm have no order: scanpy's own depends on numpy's sort.
                _, group, size = np.unique(np.round(theirs["variances_norm"].to_numpy(), 9), return_inverse=True, return_counts=True)
                differ &= size[group] == 1
            assert jaccard >= 0.999 or differ.sum() <= 1, f"Jaccard {jaccard}, {differ.sum()} differ"
        elif column in ("highly_variable_nbatches", "highly_variable_intersection"):
            assert (mine.astype(float) != np.nan_to_num(other.astype(float))).mean() <= 1e-3, column
        elif column == "highly_variable_rank":
            if ranked:
                assert np.mean(np.isnan(mine) != np.isnan(other.astype(float))) <= 1e-3, column
                ok = ~np.isnan(mine) & ~np.isnan(other.astype(float))
                # Genes with the same variances_norm have no order: scanpy's own depends on numpy's sort.
                norm = np.round(theirs["variances_norm"].to_numpy(), 9)
                _, group, size = np.unique(norm, return_inverse=True, return_counts=True)
                ok &= size[group] == 1
                other = other.astype(float)
                assert np.mean(np.abs(mine[ok] - other[ok]) > 1 + 0.01 * other[ok]) <= 2e-2, column
        else:
            limit = {"means": 2e-6, "variances": 2e-6, "dispersions": 1e-5, "dispersions_norm": 1e-4, "variances_norm": 1e-5}[column]
            # dispersions_norm is a difference divided by a spread: relative to values of order 1.
            assert reference.far(mine, other, floor=1.0 if column == "dispersions_norm" else 1e-6) < limit, column


@pytest.mark.parametrize("batch", [None, "batch"])
@pytest.mark.parametrize("flavor", FLAVORS)
def test_by_number(flavor, batch, run, synthetic_path, prepared):
    ours, theirs = both(run, synthetic_path, prepared, flavor, batch, n_top_genes=TOP)
    assert_equal(ours, theirs, flavor, ranked=True)
    assert ours.uns["hvg"]["flavor"] == flavor


@pytest.mark.parametrize("batch", [None, "batch"])
@pytest.mark.parametrize("flavor", FLAVORS[:2])
def test_by_bounds(flavor, batch, run, synthetic_path, prepared):
    ours, theirs = both(run, synthetic_path, prepared, flavor, batch)
    assert 20 < theirs["highly_variable"].sum() < 2500
    assert_equal(ours, theirs, flavor, ranked=False)


@pytest.mark.parametrize("flavor", FLAVORS[:2])
def test_by_bounds_of_a_recipe(flavor, run, synthetic_path, prepared, folder):
    recipe = folder / "bounds.toml"
    recipe.write_text("[hvg]\nmin_mean = 0.3\nmax_mean = 2.5\nmin_disp = 0.2\nmax_disp = 3.0\n")
    ours, theirs = both(run, synthetic_path, prepared, flavor, recipe=recipe, min_mean=0.3, max_mean=2.5, min_disp=0.2, max_disp=3.0)
    assert 20 < theirs["highly_variable"].sum() < 2500
    assert_equal(ours, theirs, flavor, ranked=False)


@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger"])
def test_bins_and_base_of_a_recipe(flavor, run, synthetic_path, synthetic, prepared, folder):
    recipe = folder / "bins.toml"
    recipe.write_text("[log1p]\nbase = 2.0\n[hvg]\nn_bins = 13\n")
    theirs = reference.hvg(reference.normalized(prepared[0], base=2), flavor=flavor, n_bins=13, n_top_genes=TOP)
    ours = run.read(synthetic_path, "--through", "hvg", "--min-genes", 200, "--flavor", flavor, "--n-top-genes", TOP, "--recipe", recipe)
    assert_equal(ours, theirs, flavor, ranked=True)


@pytest.mark.parametrize("flavor", FLAVORS)
def test_real_cells(flavor, run, pbmc, pbmc_path):
    a = reference.counts(pbmc)
    a = a[np.diff(a.X.indptr) >= 200].copy()
    ours, theirs = both(run, pbmc_path, (a, reference.normalized(a)), flavor, n_top_genes=2000)
    assert_equal(ours, theirs, flavor, ranked=True)


def test_types(run, synthetic_path, prepared):
    ours, _ = both(run, synthetic_path, prepared, "seurat", "batch", n_top_genes=TOP)
    expected = {"highly_variable": "bool", "means": "float64", "dispersions": "float64", "dispersions_norm": "float32", "highly_variable_nbatches": "int64", "highly_variable_intersection": "bool"}
    assert {c: str(ours.var[c].dtype) for c in expected} == expected
    ours, _ = both(run, synthetic_path, prepared, "seurat_v3", "batch", n_top_genes=TOP)
    expected = {"highly_variable": "bool", "highly_variable_rank": "float32", "means": "float64", "variances": "float64", "variances_norm": "float64", "highly_variable_nbatches": "int64"}
    assert {c: str(ours.var[c].dtype) for c in expected} == expected


def test_batches_take_no_further_read(run, synthetic_path, folder):
    reads = []
    for batch in ((), ("--batch-key", "batch")):
        trace = folder / f"reads{len(batch)}.json"
        run(synthetic_path, "--through", "hvg", "--min-genes", 200, "--n-top-genes", TOP, *batch, "--trace", trace)
        import json

        reads.append(json.loads(trace.read_text())["source_reads"])
    assert reads == [1, 1]
