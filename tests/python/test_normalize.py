"""normalize_total and log1p, by the X that the program writes."""

import numpy as np
import pytest

import inputs
import reference
from program import succeed

BASIC = ("--through", "hvg", "--filter-cells", "", "--n-top-genes", 300)


@pytest.mark.parametrize("target, theirs", [("10000", 1e4), ("1e6", 1e6), ("median", None)])
@pytest.mark.parametrize("base", [None, 2, 10])
def test_values(target, theirs, base, run, synthetic, synthetic_path):
    flags = () if base is None else ("--log-base", base)
    ours = run.read(synthetic_path, *BASIC, "--target-sum", target, *flags, "--with-x", "normalized")
    expected = reference.normalized(synthetic, target_sum=theirs, base=base)
    assert ours.X.dtype == np.float32
    assert np.array_equal(ours.X.indptr, expected.X.indptr) and np.array_equal(ours.X.indices, expected.X.indices)
    assert reference.far(ours.X.data, expected.X.data) < 2e-6
    assert ours.uns.get("log1p", {}).get("base") == base


def test_without_logarithm(run, synthetic, synthetic_path):
    ours = run.read(synthetic_path, *BASIC, "--flavor", "seurat_v3", "--no-log1p", "--with-x", "normalized", "--target-sum", "500")
    sums = np.asarray(ours.X.astype(np.float64).sum(1)).ravel()
    full = sums > 0
    assert full.sum() == synthetic.n_obs - 2
    assert np.allclose(sums[full], 500, rtol=1e-5)
    assert "log1p" not in ours.uns


def test_the_median_is_of_the_kept_cells(run, synthetic, synthetic_path):
    a = reference.counts(synthetic)
    a = a[np.diff(a.X.indptr) >= 500].copy()
    expected = reference.normalized(a, target_sum=None)
    ours = run.read(synthetic_path, "--through", "hvg", "--min-genes", 500, "--n-top-genes", 300, "--target-sum", "median", "--with-x", "normalized")
    assert ours.shape == expected.shape
    assert reference.far(ours.X.data, expected.X.data) < 2e-6


def test_values_that_are_logged_already(run, synthetic, folder):
    """'none' and --no-log1p take X as it is: the rest is what it is from counts."""
    path = inputs.write(inputs.log_normalized(synthetic), folder / "logged.zarr")
    flags = ("--through", "pca", "--filter-cells", "", "--n-top-genes", 300, "--n-comps", 10)
    logged = run.read(path, *flags, "--target-sum", "none", "--no-log1p")
    plain = run.read(inputs.write(synthetic, folder / "not_logged.zarr"), *flags)
    assert (logged.var["highly_variable"] == plain.var["highly_variable"]).mean() > 0.999
    assert reference.far(logged.uns["pca"]["variance"], plain.uns["pca"]["variance"]) < 1e-4


def test_highly_variable_genes_alone(run, synthetic, synthetic_path):
    ours = run.read(synthetic_path, *BASIC, "--with-x", "hvg")
    expected = reference.normalized(synthetic)
    full = run.read(synthetic_path, *BASIC)
    chosen = full.var["highly_variable"].to_numpy()
    assert ours.shape == (synthetic.n_obs, chosen.sum())
    assert list(ours.var_names) == list(full.var_names[chosen])
    assert reference.far(ours.X.toarray(), expected.X[:, chosen].toarray()) < 2e-6


def test_no_x_unless_asked_for(run, synthetic_path, tmp_path):
    assert run.read(synthetic_path, *BASIC).X is None
    succeed("run", synthetic_path, "-o", tmp_path / "o.h5ad", *BASIC)
