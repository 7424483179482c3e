"""``normalize_pearson_residuals`` and ``regress_out`` beside scanpy's."""

from __future__ import annotations

import pickle
import warnings

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from kinds import as_kind, dense

import cellmill as cm


@pytest.fixture
def chosen(counts):
    """Counts of 200 genes that are all seen."""
    seen = np.asarray(counts.X.sum(axis=0)).ravel() > 0
    part = counts[:, np.flatnonzero(seen)[::15]].copy()
    part.obs["depth"] = np.asarray(counts.X.sum(axis=1)).ravel()
    part.obs["day"] = np.arange(part.n_obs) % 5
    return part


KINDS = ["csr", "csc", "dense", "csr64", "ints"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"theta": 20, "clip": 3}], ids=str)
def test_residuals(chosen, kind, options):
    ours, theirs = as_kind(chosen, kind), as_kind(chosen, kind)
    cm.pp.normalize_pearson_residuals(ours, **options)
    sc.experimental.pp.normalize_pearson_residuals(theirs, **options)
    # In scanpy the type of the clip, float64 unless it is given, becomes that of the residuals.
    assert type(ours.X) is type(theirs.X) and ours.X.dtype == (np.float32 if kind in ("csr", "csc", "dense") else theirs.X.dtype)
    np.testing.assert_allclose(ours.X, theirs.X, rtol=1e-4, atol=1e-5)
    assert ours.uns == theirs.uns


def test_residuals_that_are_returned(chosen):
    chosen.layers["l"] = chosen.X * 2
    found = cm.pp.normalize_pearson_residuals(chosen, layer="l", inplace=False)
    expected = sc.experimental.pp.normalize_pearson_residuals(chosen, layer="l", inplace=False)
    assert list(found) == list(expected) and found["computed_on"] == expected["computed_on"]
    np.testing.assert_allclose(found["X"], expected["X"], rtol=1e-4, atol=1e-5)
    made = cm.pp.normalize_pearson_residuals(chosen, copy=True)
    assert isinstance(made.X, np.ndarray) and dense(chosen.X).min() == 0


def test_residuals_of_what_is_not_counted(logged):
    with pytest.warns(UserWarning, match="expects raw count data, but non-integers"):
        cm.pp.normalize_pearson_residuals(logged[:, :50].copy())
    for options in ({"theta": 0}, {"clip": -1}, {"clip": np.nan}):
        with pytest.raises(ValueError, match="Pearson residuals require"):
            cm.pp.normalize_pearson_residuals(logged, **options)
    with pytest.raises(ValueError, match="copy=True"):
        cm.pp.normalize_pearson_residuals(logged, copy=True, inplace=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keys", ["depth", ["depth", "day"], "batch"], ids=str)
def test_regression(chosen, kind, keys):
    ours, theirs = as_kind(chosen, kind), as_kind(chosen, kind)
    cm.pp.regress_out(ours, keys)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.regress_out(theirs, keys)
    assert isinstance(ours.X, np.ndarray)
    # What scanpy leaves of a category is float64 for sparse and dense data alike.
    assert ours.X.dtype == (np.float32 if kind in ("csr", "csc", "dense") else theirs.X.dtype)
    np.testing.assert_allclose(ours.X, theirs.X, rtol=1e-4, atol=1e-4)


def test_regressors_that_depend_on_each_other(chosen):
    chosen.obs["twice"] = 2 * chosen.obs["depth"] + 1
    one, both = chosen.copy(), chosen.copy()
    cm.pp.regress_out(one, "depth")
    cm.pp.regress_out(both, ["depth", "twice"])
    np.testing.assert_allclose(both.X, one.X, atol=1e-4)


def test_regressors_that_will_not_do(chosen):
    with pytest.raises(KeyError, match="nothing"):
        cm.pp.regress_out(chosen, ["depth", "nothing"])
    with pytest.raises(ValueError, match="only a single one"):
        cm.pp.regress_out(chosen, ["batch", "depth"])
    chosen.obs.loc[chosen.obs_names[3], "depth"] = np.nan
    with pytest.raises(ValueError, match="missing or infinite"):
        cm.pp.regress_out(chosen, "depth")


def test_a_store_and_a_dask_array_wait_until_rows_are_asked_for(chosen, tmp_path):
    da = pytest.importorskip("dask.array")
    chosen.write_h5ad(tmp_path / "a.h5ad")
    for verb, options in ((cm.pp.normalize_pearson_residuals, {}), (cm.pp.regress_out, {"keys": ["depth", "day"]}), (cm.pp.regress_out, {"keys": "batch"})):
        held, lazy = chosen[::2, 5:].copy(), cm.read_lazy(tmp_path / "a.h5ad")[::2, 5:]
        blocks = ad.AnnData(da.from_array(held.X.toarray(), chunks=(100, 60)), obs=held.obs.copy(), var=held.var.copy())
        for adata in (held, lazy, blocks):
            verb(adata, **options)
        assert isinstance(blocks.X, da.Array) and lazy.X.shape == held.shape
        np.testing.assert_array_equal(lazy.X.to_memory(dense=True), held.X)
        np.testing.assert_array_equal(lazy[10:20].X.to_memory(dense=True), held.X[10:20])
        np.testing.assert_allclose(dense(blocks.X), held.X, rtol=1e-6, atol=1e-6)


def test_verbs_that_follow(stores):
    """The way with regression, from a store and in memory: what is dense is made when rows are asked for, by whichever verb."""
    lazy = cm.read_lazy(stores / "small.h5ad")
    held = lazy.to_memory()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for adata in (lazy, held):
            cm.pp.calculate_qc_metrics(adata)
            cm.pp.normalize_total(adata, target_sum=1e4)
            cm.pp.log1p(adata)
            cm.pp.highly_variable_genes(adata, n_top_genes=400, subset=True)
            cm.pp.regress_out(adata, ["total_counts", "n_genes_by_counts"])
            cm.pp.scale(adata, max_value=10)
            cm.pp.pca(adata, n_comps=15)
            cm.pp.neighbors(adata)
            cm.tl.leiden(adata)
    np.testing.assert_allclose(lazy.obsm["X_pca"], held.obsm["X_pca"], atol=1e-4)
    assert (lazy.obs["leiden"] == held.obs["leiden"]).mean() > 0.99


def test_blocks_travel_to_workers(chosen):
    da = pytest.importorskip("dask.array")
    adata = ad.AnnData(da.from_array(chosen.X.toarray(), chunks=(100, -1)), obs=chosen.obs.copy(), var=chosen.var.copy())
    cm.pp.regress_out(adata, "depth")
    assert pickle.loads(pickle.dumps(adata.X)).sum().compute() == adata.X.sum().compute()


def test_what_does_not_fit_is_refused(chosen):
    cm.settings.memory = 100_000
    try:
        with pytest.raises(MemoryError, match="a dense matrix of 700 x"):
            cm.pp.regress_out(chosen, "depth")
    finally:
        cm.settings.memory = 0


def test_what_is_returned_is_a_dict_and_an_array(counts):
    """scanpy returns a dict, rapids-singlecell its X."""
    found = cm.pp.normalize_pearson_residuals(counts, inplace=False)
    assert isinstance(found, dict) and set(found) == {"X", "theta", "clip", "computed_on"}
    np.testing.assert_array_equal(found, found["X"])
    assert np.max(cm.pp.normalize_total(counts, target_sum=10, inplace=False)) <= 10


def test_regression_of_no_genes(chosen):
    none = chosen[:, :0].copy()
    none.obs["depth"] = np.arange(none.n_obs, dtype=float)
    cm.pp.regress_out(none, ["depth"])
    assert none.X.shape == (chosen.n_obs, 0)
