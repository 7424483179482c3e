"""``highly_variable_genes`` beside scanpy's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scanpy as sc
from kinds import as_kind, same_frame

import cellmill as cm

CASES = [
    dict(flavor="seurat"),
    dict(flavor="seurat", n_top_genes=500),
    dict(flavor="seurat", n_top_genes=400, batch_key="batch"),
    dict(flavor="seurat", batch_key="batch"),
    dict(flavor="cell_ranger", n_top_genes=300),
    dict(flavor="cell_ranger", n_top_genes=300, batch_key="batch"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("kind", ["csr", "dense"])
def test_dispersions(logged, options, kind):
    # scanpy's percentiles stumble over many genes without counts.
    seen = np.asarray(logged.X.sum(axis=0)).ravel() > 0
    ours, theirs = as_kind(logged[:, seen], kind), as_kind(logged[:, seen], kind)
    cm.pp.highly_variable_genes(ours, **options)
    sc.pp.highly_variable_genes(theirs, **options)
    assert ours.uns["hvg"] == theirs.uns["hvg"]
    same_frame(ours.var, theirs.var, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("flavor", ["seurat_v3", "seurat_v3_paper"])
@pytest.mark.parametrize("batch_key", [None, "batch"])
def test_v3(counts, flavor, batch_key):
    ours, theirs = counts.copy(), counts.copy()
    options = dict(flavor=flavor, n_top_genes=300, batch_key=batch_key)
    cm.pp.highly_variable_genes(ours, **options)
    sc.pp.highly_variable_genes(theirs, **options)
    assert set(ours.var) == set(theirs.var) and ours.var["highly_variable_rank"].dtype == np.float32
    rank = "highly_variable_rank"
    # Genes whose variances differ in the last digits may change places.
    np.testing.assert_allclose(ours.var.pop(rank), theirs.var.pop(rank), atol=1)
    same_frame(ours.var[list(theirs.var)], theirs.var, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["csr", "dense"])
@pytest.mark.parametrize("options", [{}, {"batch_key": "batch"}, {"theta": 10, "clip": 4}, {"subset": True}], ids=str)
def test_pearson_residuals(counts, options, kind):
    ours, theirs = as_kind(counts, kind), as_kind(counts, kind)
    cm.pp.highly_variable_genes(ours, flavor="pearson_residuals", n_top_genes=300, **options)
    sc.experimental.pp.highly_variable_genes(theirs, flavor="pearson_residuals", n_top_genes=300, **options)
    assert ours.uns["hvg"] == theirs.uns["hvg"]
    assert list(ours.var_names) == list(theirs.var_names)
    rank = "highly_variable_rank"
    assert ours.var[rank].dtype == theirs.var[rank].dtype
    np.testing.assert_allclose(ours.var.pop(rank), theirs.var.pop(rank), atol=1)
    same_frame(ours.var, theirs.var, rtol=1e-5)


def test_pearson_residuals_as_a_frame(counts):
    ours = cm.pp.highly_variable_genes(counts, flavor="pearson_residuals", n_top_genes=300, inplace=False)
    theirs = sc.experimental.pp.highly_variable_genes(counts, flavor="pearson_residuals", n_top_genes=300, inplace=False)
    assert "hvg" not in counts.uns
    same_frame(ours, theirs, rtol=1e-5)
    with pytest.raises(ValueError, match="requires the argument `n_top_genes`"):
        cm.pp.highly_variable_genes(counts, flavor="pearson_residuals")


def test_base_of_the_logarithm(small):
    ours, theirs = small.copy(), small.copy()
    for adata in (ours, theirs):
        sc.pp.log1p(adata, base=10)
    cm.pp.highly_variable_genes(ours, n_top_genes=100)
    sc.pp.highly_variable_genes(theirs, n_top_genes=100)
    same_frame(ours.var, theirs.var, rtol=1e-5, atol=1e-6)


def test_frame_and_subset(logged):
    found = cm.pp.highly_variable_genes(logged, n_top_genes=50, inplace=False)
    assert "highly_variable" not in logged.var and found["highly_variable"].sum() == 50
    for flavor in ("seurat", "cell_ranger"):
        part = logged[:, np.asarray(logged.X.sum(axis=0)).ravel() > 0]
        ours, theirs = (module.pp.highly_variable_genes(part, n_top_genes=50, flavor=flavor, inplace=False) for module in (cm, sc))
        assert list(ours) == list(theirs)
        assert (ours["mean_bin"].cat.codes == theirs["mean_bin"].cat.codes).mean() > 0.99
    cm.pp.highly_variable_genes(logged, n_top_genes=50, subset=True)
    assert logged.n_vars == 50


def test_v3_warns_of_fractions(logged):
    with pytest.warns(UserWarning, match="expects raw count data, but non-integers were found"):
        cm.pp.highly_variable_genes(logged, flavor="seurat_v3", n_top_genes=100)


def test_wrong_options(logged):
    with pytest.raises(ValueError, match="flavor"), warnings.catch_warnings():
        cm.pp.highly_variable_genes(logged, flavor="seurat_v4")
    with pytest.raises(KeyError, match="nobody"):
        cm.pp.highly_variable_genes(logged, batch_key="nobody")


def test_cells_without_a_batch_are_left_out(logged):
    """As in scanpy, which also makes text categories."""
    logged.obs["batch"] = logged.obs["batch"].where(np.arange(logged.n_obs) % 7 != 0)
    ours, theirs = logged.copy(), logged.copy()
    for module, adata in ((cm, ours), (sc, theirs)):
        module.pp.highly_variable_genes(adata, n_top_genes=300, batch_key="batch")
    assert ours.obs["batch"].dtype == theirs.obs["batch"].dtype == "category"
    assert (ours.var["highly_variable"] == theirs.var["highly_variable"]).all()


def test_more_genes_than_there_are(counts):
    few = counts[:, :300].copy()
    cm.pp.highly_variable_genes(few, flavor="seurat_v3", n_top_genes=301)
    assert few.var["highly_variable"].all()


@pytest.mark.parametrize("n", [-3, 0, 2.5])
def test_numbers_of_genes_that_are_none(logged, n):
    with pytest.raises(ValueError, match=f"n_top_genes: {n}, but"):
        cm.pp.highly_variable_genes(logged, n_top_genes=n)


@pytest.mark.parametrize("options", [{"clip": np.nan}, {"theta": 0}])
def test_residuals_that_are_none(counts, options):
    with pytest.raises(ValueError, match="Pearson residuals require"):
        cm.pp.highly_variable_genes(counts, flavor="pearson_residuals", n_top_genes=5, **options)


def test_no_cells(counts):
    with pytest.raises(ValueError, match="no cells"):
        cm.pp.highly_variable_genes(counts[:0].copy(), flavor="pearson_residuals", n_top_genes=5)
