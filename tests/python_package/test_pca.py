"""``pca`` beside scanpy's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scanpy as sc
from kinds import as_kind

import cellmill as cm


def same_components(ours, theirs, key="X_pca", varm="PCs", uns="pca"):
    n = theirs.obsm[key].shape[1]
    assert ours.obsm[key].shape == theirs.obsm[key].shape and ours.obsm[key].dtype == theirs.obsm[key].dtype
    np.testing.assert_allclose(ours.uns[uns]["variance"], theirs.uns[uns]["variance"], rtol=1e-5)
    np.testing.assert_allclose(ours.uns[uns]["variance_ratio"], theirs.uns[uns]["variance_ratio"], rtol=1e-5)
    a, b = ours.obsm[key].astype(np.float64), theirs.obsm[key].astype(np.float64)
    for i in range(n):
        assert np.corrcoef(a[:, i], b[:, i])[0, 1] > 1 - 1e-7, i  # The sign, too.
    np.testing.assert_allclose(ours.varm[varm], theirs.varm[varm], atol=1e-4)


@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "csr64"])
def test_components_are_scanpys(logged, kind):
    sc.pp.highly_variable_genes(logged, n_top_genes=400)
    ours, theirs = as_kind(logged, kind), as_kind(logged, kind)
    cm.pp.pca(ours, n_comps=15)
    sc.pp.pca(theirs, n_comps=15, svd_solver="arpack")
    same_components(ours, theirs)
    assert ours.uns["pca"]["params"] == theirs.uns["pca"]["params"]
    assert (ours.varm["PCs"][~ours.var["highly_variable"].to_numpy()] == 0).all()


def test_masks_keys_and_layers(logged):
    logged.var["some"] = np.arange(logged.n_vars) % 10 == 0
    logged.layers["l"] = logged.X.copy()
    ours, theirs = logged.copy(), logged.copy()
    options = dict(n_comps=10, mask_var="some", layer="l", key_added="other")
    cm.pp.pca(ours, **options)
    sc.pp.pca(theirs, svd_solver="arpack", **options)
    same_components(ours, theirs, "other", "other", "other")
    assert ours.uns["other"]["params"] == theirs.uns["other"]["params"]


def test_after_scale(logged):
    sc.pp.highly_variable_genes(logged, n_top_genes=300, subset=True)
    ours, theirs = logged.copy(), logged.copy()
    for module, adata in ((cm, ours), (sc, theirs)):
        module.pp.scale(adata, zero_center=False, max_value=10)
    cm.pp.pca(ours, n_comps=12)
    sc.pp.pca(theirs, n_comps=12, svd_solver="arpack")
    same_components(ours, theirs)


@pytest.mark.parametrize("kind", ["csr", "dense"])
@pytest.mark.parametrize("n_top_genes", [400, 1500])
def test_without_centring(logged, kind, n_top_genes):
    """1,500 genes: the eigensolver asks the rows."""
    sc.pp.highly_variable_genes(logged, n_top_genes=n_top_genes)
    ours, theirs = as_kind(logged, kind), as_kind(logged, kind)
    cm.pp.pca(ours, n_comps=10, zero_center=False)
    sc.pp.pca(theirs, n_comps=10, zero_center=False, svd_solver="arpack")
    same_components(ours, theirs)
    assert ours.uns["pca"]["params"] == theirs.uns["pca"]["params"]


def test_without_centring_what_was_centred(stores):
    lazy = cm.read_lazy(stores / "small.h5ad")[:, :200]
    cm.pp.scale(lazy, max_value=2)
    held = lazy.to_memory()
    cm.pp.pca(lazy, n_comps=5, zero_center=False)
    sc.pp.pca(held, n_comps=5, zero_center=False, svd_solver="arpack")
    same_components(lazy, held)


def test_solvers_that_scanpy_does_not_know(logged):
    part = logged[:, :50].copy()
    with pytest.warns(UserWarning, match="Ignoring svd_solver='randomized'"):
        cm.pp.pca(part, n_comps=5, svd_solver="randomized")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cm.pp.pca(part, n_comps=5, svd_solver="covariance_eigh")
        cm.pp.pca(part.X.toarray(), n_comps=5, svd_solver="randomized")


def test_tl_has_it_too(logged):
    assert cm.tl.pca is cm.pp.pca


def test_arrays(logged):
    x = logged.X[:, :200]
    scores = cm.pp.pca(x, n_comps=5)
    again, components, ratio, variance = cm.pp.pca(x, n_comps=5, return_info=True)
    np.testing.assert_array_equal(scores, again)
    assert components.shape == (5, 200) and ratio.shape == variance.shape == (5,)


def test_wrong_options(logged):
    with pytest.raises(ValueError, match="n_comps"):
        cm.pp.pca(logged, n_comps=10**6)
    with pytest.raises(ValueError, match="Did not find"):
        cm.pp.pca(logged, mask_var="highly_variable")


def test_values_that_are_no_numbers(counts):
    counts.X.data[5] = np.nan
    with pytest.raises(ValueError, match="X: values that are missing or infinite"):
        cm.pp.pca(counts, n_comps=5)
