"""aggregate: every function, one or several columns, masks, against scanpy.get.aggregate."""

import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import inputs
import reference
from program import cellmill, message, read, succeed

FUNCS = ["sum", "mean", "var", "count_nonzero"]


@pytest.fixture(scope="session")
def labelled(synthetic):
    a = reference.counts(synthetic)
    a.obs = synthetic.obs.copy()
    rng = np.random.default_rng(4)
    a.obs["sample"] = np.array(["s10", "s2", "s1"])[rng.integers(0, 3, a.n_obs)]
    a.obs["day"] = rng.integers(0, 2, a.n_obs) * 7
    a.obs["good"] = rng.random(a.n_obs) < 0.8
    a.obs["one"] = ["x"] + ["y"] * (a.n_obs - 1)
    return a


@pytest.fixture(scope="session")
def labelled_path(labelled, folder):
    return inputs.write(labelled, folder / "labelled.zarr")


def aggregated(path, output, *flags):
    succeed("aggregate", path, "-o", output, "--target-sum", "none", "--no-log1p", *flags)
    return read(output)


def assert_same(ours, theirs, funcs=FUNCS):
    assert ours.X is None
    assert list(ours.obs_names) == list(theirs.obs_names)
    assert list(ours.var_names) == list(theirs.var_names)
    assert list(ours.obs.columns) == list(theirs.obs.columns)
    for column in theirs.obs:
        assert list(ours.obs[column].cat.categories) == list(theirs.obs[column].cat.categories)
        assert ours.obs[column].tolist() == theirs.obs[column].tolist()
    assert set(ours.layers) == set(funcs)
    for name in funcs:
        mine, his = ours.layers[name], theirs.layers[name]
        assert mine.dtype == np.float64
        assert np.allclose(mine, his, rtol=1e-9, atol=1e-12, equal_nan=True), (name, np.nanmax(np.abs(mine - his)))


@pytest.mark.parametrize("by", [["kind"], ["sample"], ["day"], ["kind", "sample"], ["sample", "day", "batch"]])
@pytest.mark.parametrize("suffix", [".zarr", ".h5ad"])
def test_groups(by, suffix, labelled, labelled_path, tmp_path):
    ours = aggregated(labelled_path, tmp_path / f"o{suffix}", "--by", ",".join(by), "--func", ",".join(FUNCS))
    assert_same(ours, sc.get.aggregate(labelled, by=by, func=FUNCS))


def test_sums_of_counts_are_exact(labelled, labelled_path, tmp_path):
    ours = aggregated(labelled_path, tmp_path / "o.zarr", "--by", "kind")
    assert list(ours.layers) == ["sum"]
    assert np.array_equal(ours.layers["sum"], sc.get.aggregate(labelled, by="kind", func="sum").layers["sum"])


def test_mask_and_degrees_of_freedom(labelled, labelled_path, tmp_path):
    ours = aggregated(labelled_path, tmp_path / "o.zarr", "--by", "kind", "--func", "sum,mean,var", "--mask", "good", "--dof", "0")
    theirs = sc.get.aggregate(labelled[labelled.obs["good"]], by="kind", func=["sum", "mean", "var"], dof=0)
    assert np.array_equal(ours.layers["sum"], theirs.layers["sum"])
    assert np.allclose(ours.layers["mean"], theirs.layers["mean"], rtol=1e-6)
    assert np.allclose(ours.layers["var"], theirs.layers["var"], rtol=1e-5, atol=1e-6)


def test_a_group_of_one_cell_has_no_variance(labelled, labelled_path, tmp_path):
    ours = aggregated(labelled_path, tmp_path / "o.zarr", "--by", "one", "--func", "var,mean")
    with np.errstate(all="ignore"):
        theirs = sc.get.aggregate(labelled, by="one", func=["var", "mean"])
    assert np.isnan(ours.layers["var"][0]).all()
    assert_same(ours, theirs, ["var", "mean"])


def test_values_of_a_run(run, synthetic, synthetic_path, tmp_path):
    """By the output's labels and its recipe."""
    output = run(synthetic_path, "--min-genes", "300", "--n-top-genes", "300", "--n-comps", "10")
    succeed("aggregate", synthetic_path, "--obs", output, "--by", "leiden,batch", "--func", "mean", "-o", tmp_path / "o.zarr")
    labels = read(output)
    a = reference.normalized(synthetic)
    a.obs_names, a.var_names = synthetic.obs_names, synthetic.var_names
    a = a[labels.obs_names].copy()
    a.obs = labels.obs
    theirs = sc.get.aggregate(a, by=["leiden", "batch"], func="mean")
    ours = read(tmp_path / "o.zarr")
    assert list(ours.obs_names) == list(theirs.obs_names)
    assert np.allclose(ours.layers["mean"], theirs.layers["mean"], rtol=1e-5, atol=1e-7)


def test_cells_without_a_label_are_left_out(labelled, folder, tmp_path):
    a = labelled.copy()
    a.obs["part"] = pd.Categorical([None if i % 5 == 0 else "pq"[i % 2] for i in range(a.n_obs)], categories=["q", "unused", "p"])
    path = inputs.write(a, folder / "missing_labels.zarr")
    done = succeed("aggregate", path, "--by", "part", "-o", tmp_path / "o.zarr", "--target-sum", "none", "--no-log1p")
    assert "400 cells without a label" in done.err
    ours = read(tmp_path / "o.zarr")
    theirs = sc.get.aggregate(a[a.obs["part"].notna()].copy(), by="part", func="sum")
    assert list(ours.obs_names) == list(theirs.obs_names) == ["q", "p"]
    assert np.array_equal(ours.layers["sum"], theirs.layers["sum"])


def test_many_groups_under_a_ceiling(labelled, labelled_path, tmp_path, folder):
    """Groups whose sums don't fit at once are taken gene run by gene run, with the same result."""
    a = labelled.copy()
    a.obs["many"] = [f"g{i % 400:03}" for i in range(a.n_obs)]
    path = inputs.write(a, folder / "many_groups.zarr")
    flags = ("--by", "many", "--func", "sum,var", "--threads", 1)
    small = aggregated(path, tmp_path / "small.zarr", *flags, "--memory", "110MiB")
    large = aggregated(path, tmp_path / "large.zarr", *flags, "--memory", "2GiB")
    for name in ("sum", "var"):
        assert np.array_equal(small.layers[name], large.layers[name], equal_nan=True)


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--by", "kinds"), ["'kinds'", "did you mean 'kind'"]),
        (("--by", "kind", "--func", "median"), ["func", "'median'", "sum, mean, var, count_nonzero"]),
        (("--by", "kind", "--mask", "god"), ["'god'", "did you mean 'good'"]),
        (("--by", "kind", "--matrix", "layers/none"), ["layers/none"]),
    ],
)
def test_refusals(flags, words, labelled_path, tmp_path):
    text = message(cellmill("aggregate", labelled_path, "-o", tmp_path / "o.zarr", *flags))
    for word in words:
        assert word in text, text
    assert not (tmp_path / "o.zarr").exists()
