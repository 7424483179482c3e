"""Verbs that change values beside scanpy's."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from kinds import KINDS, as_kind, dense

import cellmill as cm


def same_values(ours, theirs, rtol=1e-6):
    assert type(ours.X) is type(theirs.X)
    assert ours.X.dtype == theirs.X.dtype
    np.testing.assert_allclose(dense(ours.X), dense(theirs.X), rtol=rtol)


@pytest.mark.parametrize("kind", KINDS)
def test_normalize_and_log(counts, kind):
    ours, theirs = as_kind(counts, kind), as_kind(counts, kind)
    cm.pp.normalize_total(ours, target_sum=1e4, key_added="factor")
    sc.pp.normalize_total(theirs, target_sum=1e4, key_added="factor")
    if kind != "csc":  # scanpy gives rows back for columns.
        same_values(ours, theirs)
    np.testing.assert_allclose(ours.obs["factor"], theirs.obs["factor"], rtol=1e-6)
    cm.pp.log1p(ours)
    sc.pp.log1p(theirs)
    np.testing.assert_allclose(dense(ours.X), dense(theirs.X), rtol=2e-6)
    assert ours.uns["log1p"] == theirs.uns["log1p"] == {"base": None}


@pytest.mark.parametrize("kind", KINDS)
def test_log_of_counts(counts, kind):
    ours, theirs = as_kind(counts, kind), as_kind(counts, kind)
    cm.pp.log1p(ours, base=2)
    sc.pp.log1p(theirs, base=2)
    same_values(ours, theirs)
    assert ours.uns["log1p"] == {"base": 2}
    with pytest.warns(UserWarning, match="already log-transformed"):
        cm.pp.log1p(ours)


def test_the_median_is_of_cells_with_counts(counts):
    x = counts.X.tolil()
    x[:5] = 0
    counts.X = x.tocsr()
    sums = np.asarray(counts.X.sum(axis=1)).ravel()
    with pytest.warns(UserWarning, match="zero counts"):
        found = cm.pp.normalize_total(counts, inplace=False)
    after = np.asarray(found["X"].sum(axis=1)).ravel()
    np.testing.assert_allclose(after[5:], np.median(sums[5:]), rtol=1e-5)
    assert (after[:5] == 0).all()
    np.testing.assert_array_equal(dense(counts.X), dense(x))


@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "csr64", "ints"])
@pytest.mark.parametrize("target_sum", [1e3, None])
def test_genes_that_take_too_much(counts, kind, target_sum):
    ours, theirs = as_kind(counts, kind), as_kind(counts, "csr" if kind == "csc" else kind)
    options = dict(exclude_highly_expressed=True, max_fraction=0.04, target_sum=target_sum)
    cm.pp.normalize_total(ours, **options)
    sc.pp.normalize_total(theirs, **options)
    assert ours.X.dtype == theirs.X.dtype
    np.testing.assert_allclose(dense(ours.X), dense(theirs.X), rtol=1e-5)


def test_genes_that_take_too_much_of_a_store(stores, counts):
    """The sums are those of the genes that count, also where genes are chosen afterwards or values are looked at in another order."""
    ours = cm.read_lazy(stores / "small.zarr")
    for adata, tool in ((ours, cm), (counts, sc)):
        tool.pp.normalize_total(adata, exclude_highly_expressed=True, max_fraction=0.04, key_added="factor")
        tool.pp.log1p(adata)
    np.testing.assert_allclose(ours.obs["factor"], counts.obs["factor"], rtol=1e-6)
    np.testing.assert_allclose(ours.X.to_memory(dense=True), dense(counts.X), rtol=1e-5)
    some = np.arange(counts.n_vars) % 7 == 0
    np.testing.assert_allclose(ours[:, some].X.to_memory(dense=True), dense(counts[:, some].X), rtol=1e-5)
    np.testing.assert_allclose(ours[:, some].copy().X.mean(axis=0), dense(counts[:, some].X).mean(axis=0), rtol=1e-4, atol=1e-7)
    half = np.arange(counts.n_obs) % 2 == 0
    for adata in (ours, counts):
        adata.obs["half"] = np.where(half, "a", "b")
    found, expected = (cm.get.aggregate(a, "half", "mean").layers["mean"] for a in (ours, counts))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_layers_copies_and_arrays(counts):
    before = counts.X.copy()
    counts.layers["l"] = counts.X.copy()
    made = cm.pp.normalize_total(counts, target_sum=10, layer="l", copy=True)
    assert (counts.X != before).nnz == 0 and (counts.layers["l"] != before).nnz == 0
    np.testing.assert_allclose(np.asarray(made.layers["l"].sum(axis=1)).ravel(), 10, rtol=1e-5)
    np.testing.assert_allclose(dense(cm.pp.log1p(before, copy=True)), np.log1p(dense(before)), rtol=1e-6)
    assert (counts.X != before).nnz == 0
    with pytest.raises(ValueError, match="copy=True"):
        cm.pp.normalize_total(counts, copy=True, inplace=False)
    with pytest.raises(ValueError, match="max_fraction"):
        cm.pp.normalize_total(counts, max_fraction=2)


def test_sqrt(counts):
    ours, theirs = counts.copy(), counts.copy()
    cm.pp.sqrt(ours)
    sc.pp.sqrt(theirs)
    same_values(ours, theirs)


def test_a_view_becomes_a_copy(counts):
    view = counts[:100]
    with pytest.warns(Warning, match="view"):
        cm.pp.normalize_total(view, target_sum=1)
    assert not view.is_view
    assert counts.X.sum() > 1000 * 100


@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "array"])
def test_what_is_only_read_may_be_a_view(counts, kind):
    view, part = as_kind(counts, kind)[::2, 10:], as_kind(counts, kind)[::2, 10:].copy()
    for ours, theirs in zip(*(cm.pp.calculate_qc_metrics(adata, inplace=False) for adata in (view, part)), strict=True):
        assert ours.equals(theirs)
    options = dict(flavor="pearson_residuals", n_top_genes=9, inplace=False)
    assert cm.pp.highly_variable_genes(view, **options).equals(cm.pp.highly_variable_genes(part, **options))
    assert view.is_view


@pytest.mark.parametrize("kind", ["csr", "dense", "csr64"])
@pytest.mark.parametrize("options", [dict(zero_center=False), dict(zero_center=False, max_value=3), dict(), dict(max_value=2)])
def test_scale(logged, kind, options):
    ours, theirs = as_kind(logged, kind), as_kind(logged, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cm.pp.scale(ours, **options)
        sc.pp.scale(theirs, **options)
    assert type(ours.X) is type(theirs.X)
    np.testing.assert_allclose(dense(ours.X), dense(theirs.X), rtol=2e-5, atol=3e-6)
    for name in ("mean", "std"):
        assert ours.var[name].dtype == np.float64
        np.testing.assert_allclose(ours.var[name], theirs.var[name], rtol=2e-6)


@pytest.mark.parametrize("kind", ["csr", "dense"])
@pytest.mark.parametrize("zero_center", [True, False])
def test_scale_of_some_cells(logged, kind, zero_center):
    ours, theirs = as_kind(logged, kind), as_kind(logged, kind)
    for adata in (ours, theirs):
        adata.obs["some"] = np.arange(adata.n_obs) % 2 == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cm.pp.scale(ours, mask_obs="some", zero_center=zero_center)
        sc.pp.scale(theirs, mask_obs="some", zero_center=zero_center)
    np.testing.assert_allclose(dense(ours.X), dense(theirs.X), rtol=2e-5, atol=3e-6)
    assert list(ours.var) == list(theirs.var) == ["mean of some", "std of some"]


def test_sparse_arrays_stay_what_they_are(counts):
    """scanpy 1.11 takes matrices alone; the results are theirs."""
    ours, theirs = as_kind(counts, "array"), counts.copy()
    for adata in (ours, theirs):
        cm.pp.calculate_qc_metrics(adata, inplace=True, percent_top=[20])
        cm.pp.filter_genes(adata, min_cells=3)
        cm.pp.normalize_total(adata)
        cm.pp.log1p(adata)
    assert type(ours.X).__name__ == "csr_array"
    np.testing.assert_array_equal(dense(ours.X), dense(theirs.X))
    assert ours.obs.equals(theirs.obs)


def test_what_is_returned_changes_nothing(counts):
    before = counts.copy()
    logged, scaled = cm.pp.log1p(counts, inplace=False), cm.pp.scale(counts, zero_center=False, inplace=False)
    assert (counts.X != before.X).nnz == 0 and not counts.uns and "mean" not in counts.var
    for made, verb, options in ((logged, cm.pp.log1p, {}), (scaled, cm.pp.scale, {"zero_center": False})):
        verb(before, **options)
        np.testing.assert_array_equal(dense(made), dense(before.X))
        before = counts.copy()


def test_complex_numbers_are_refused(small):
    for x in (small.X.astype("complex64"), small.X[:50].toarray().astype("complex128")):
        with pytest.raises(TypeError, match="complex.*real numbers are expected"):
            cm.pp.normalize_total(ad.AnnData(x), target_sum=1)


def test_bytes_in_another_order_or_place(counts):
    """Of a file of a big-endian machine, or of a buffer that begins anywhere."""
    x = counts.X[:, :50].toarray()
    expected = cm.pp.log1p(x, copy=True)
    shifted = np.frombuffer(b"." + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    assert not shifted.flags.aligned
    for odd in (x.astype(">f4"), shifted):
        np.testing.assert_array_equal(cm.pp.log1p(odd), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_arrays_are_logged_in_place(counts, kind, dtype):
    x, theirs = as_kind(counts, kind).X.astype(dtype), as_kind(counts, kind).X.astype(dtype)
    before = dense(x).copy()
    copied = cm.pp.log1p(x, copy=True)
    np.testing.assert_array_equal(dense(x), before)
    found, wanted = cm.pp.log1p(x), sc.pp.log1p(theirs)
    assert (found is x) == (wanted is theirs)
    for ours in (found, copied):
        np.testing.assert_allclose(dense(ours), dense(wanted), rtol=2e-6)
    np.testing.assert_allclose(dense(x), dense(theirs), rtol=2e-6)


def test_values_are_clipped_to_a_bound(logged):
    for dtype in (np.float32, np.float64):
        logged.X = logged.X.astype(dtype)
        with pytest.raises(ValueError, match="max_value: -1"):
            cm.pp.scale(logged, max_value=-1)
