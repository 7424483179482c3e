"""calculate_qc_metrics: integers exact, sums to 1e-6, scanpy's columns and types."""

import numpy as np
import pytest
import scanpy as sc

import inputs
import reference

FLAGS = ("--through", "qc", "--filter-cells", "", "--percent-top", "50,100,200", "--qc-var", "mt=prefix:MT-", "--qc-var", "ribo=regex:^RP[SL]", "--qc-var", "own=column:flagged")


@pytest.fixture(scope="session", params=["pbmc", "synthetic"])
def pair(request, run, folder):
    """(ours, scanpy's) of one data set."""
    a = request.getfixturevalue(request.param)
    path = request.getfixturevalue(f"{request.param}_path")
    flags = FLAGS
    theirs = reference.counts(a)
    theirs.var["mt"] = a.var_names.str.startswith("MT-")
    theirs.var["ribo"] = a.var_names.str.match("^RP[SL]")
    if "flagged" in a.var:
        theirs.var["own"] = a.var["flagged"].to_numpy()
    else:
        theirs.var["own"] = a.var["scran_hvg"].to_numpy()
        flags = (*FLAGS[:-1], "own=column:scran_hvg")
    sc.pp.calculate_qc_metrics(theirs, qc_vars=["mt", "ribo", "own"], percent_top=(50, 100, 200), inplace=True)
    return run.read(path, *flags), theirs


def compare(ours, theirs, columns):
    for column in columns:
        assert column in ours, column
        if np.issubdtype(theirs[column].dtype, np.integer):
            assert np.array_equal(ours[column], theirs[column]), column
        else:
            # 100 (1 - n/N) and 100 part/total lose digits near 0 in scanpy's own float32 arithmetic.
            assert reference.far(ours[column], theirs[column], floor=1e-2 if column.startswith("pct") else 1e-12) < 1e-6, column


def test_obs(pair):
    ours, theirs = pair
    made = [c for c in theirs.obs.columns if c.split("_")[0] in ("n", "total", "log1p", "pct")]
    assert len(made) == 4 + 3 + 3 * 3
    compare(ours.obs, theirs.obs, made)


def test_var(pair):
    ours, theirs = pair
    made = [c for c in theirs.var.columns if c.split("_")[0] in ("n", "total", "mean", "log1p", "pct")]
    assert len(made) == 6
    compare(ours.var, theirs.var, made)


def test_types(pair):
    ours, theirs = pair
    expected = {
        "n_genes_by_counts": "int32",
        "total_counts": "float32",
        "log1p_n_genes_by_counts": "float64",
        "log1p_total_counts": "float32",
        "total_counts_mt": "float32",
        "log1p_total_counts_mt": "float32",
        "pct_counts_mt": "float32",
        "pct_counts_in_top_50_genes": "float64",
    }
    assert {c: str(ours.obs[c].dtype) for c in expected} == expected
    columns = ["n_cells_by_counts", "total_counts", "mean_counts", "log1p_total_counts", "log1p_mean_counts", "pct_dropout_by_counts"]
    assert {c: str(ours.var[c].dtype) for c in columns} == {c: str(theirs.var[c].dtype) for c in columns}


def test_an_empty_cell_has_no_percentage(run, synthetic, synthetic_path):
    ours = run.read(synthetic_path, *FLAGS)
    empty = ours.obs["total_counts"] == 0
    assert empty.sum() == 2
    assert ours.obs.loc[empty, "pct_counts_mt"].isna().all()
    assert ours.obs.loc[~empty, "pct_counts_mt"].notna().all()


def test_columns_asked_for_and_no_others(run, synthetic_path, synthetic):
    ours = run.read(synthetic_path, "--through", "qc", "--filter-cells", "")
    assert set(ours.obs.columns) == set(synthetic.obs.columns) | {"n_genes_by_counts", "log1p_n_genes_by_counts", "total_counts", "log1p_total_counts"}
    assert ours.obs["n_genes_by_counts"].dtype == np.int32


def test_fractions_are_summed_in_double(run, folder):
    """Sums of many unequal numbers: scanpy's tolerance against an exact sum."""
    a = inputs.synthetic(300, 2000, seed=8)
    a.X.data = (a.X.data * np.float32(0.1)).astype(np.float32)
    ours = run.read(inputs.write(a, folder / "fractions.zarr"), "--through", "qc", "--filter-cells", "", "--target-sum", "none", "--no-log1p")
    assert reference.far(ours.obs["total_counts"], np.asarray(a.X.astype(np.float64).sum(1)).ravel()) < 1e-6
    assert reference.far(ours.var["total_counts"], np.asarray(a.X.astype(np.float64).sum(0)).ravel()) < 1e-6
