"""``calculate_qc_metrics`` and the filters beside scanpy's."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from kinds import KINDS, as_kind, dense, same_frame

import cellmill as cm


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_are_scanpys(counts, kind):
    ours, theirs = as_kind(counts, kind), as_kind(counts, kind)
    for adata in (ours, theirs):
        adata.var["mt"] = adata.var_names.str.startswith("MT-")
        adata.var["rp"] = adata.var_names.str.startswith(("RPS", "RPL"))
    options = dict(qc_vars=["mt", "rp"], percent_top=[20, 50], inplace=True)
    assert cm.pp.calculate_qc_metrics(ours, **options) is None
    sc.pp.calculate_qc_metrics(theirs, **options)
    same_frame(ours.obs, theirs.obs)
    same_frame(ours.var, theirs.var)


def test_frames_are_returned(counts):
    counts.var["mt"] = counts.var_names.str.startswith("MT-")
    obs, var = cm.pp.calculate_qc_metrics(counts, qc_vars="mt", inplace=False, log1p=False)
    their_obs, their_var = sc.pp.calculate_qc_metrics(counts, qc_vars="mt", inplace=False, log1p=False)
    assert "total_counts" not in counts.obs
    same_frame(obs, their_obs)
    same_frame(var, their_var)


def test_without_inplace_both(counts):
    obs, var = cm.pp.calculate_qc_metrics(counts)
    same_frame(counts.obs[obs.columns], obs)
    same_frame(counts.var, var)
    for found, expected in zip((obs, var), sc.pp.calculate_qc_metrics(counts[:, :]), strict=True):
        same_frame(found, expected)
    few = counts[:, :90].copy()
    obs, _ = cm.pp.calculate_qc_metrics(few)
    assert [name for name in obs if "top" in name] == ["pct_counts_in_top_50_genes"]
    few.X = da.from_array(few.X.toarray(), chunks=(100, 90))
    obs, _ = cm.pp.calculate_qc_metrics(few)
    assert not any("top" in name for name in obs), "none of what is streamed"


def test_other_words(counts):
    counts.var["mito"] = counts.var_names.str.startswith("MT-")
    options = dict(expr_type="umis", var_type="features", qc_vars=["mito"], percent_top=[10], inplace=False)
    for ours, theirs in zip(cm.pp.calculate_qc_metrics(counts, **options), sc.pp.calculate_qc_metrics(counts, **options), strict=True):
        same_frame(ours, theirs)


def test_layers_and_raw(counts):
    counts.layers["double"] = counts.X * 2
    counts.raw = counts
    part = counts[:, :100].copy()
    for options in (dict(layer="double"), dict(use_raw=True)):
        ours = cm.pp.calculate_qc_metrics(counts, inplace=False, **options)
        theirs = sc.pp.calculate_qc_metrics(counts, inplace=False, **options)
        same_frame(ours[0], theirs[0])
        same_frame(ours[1], theirs[1])
    assert part.n_vars == 100


def test_explicit_zeros_are_no_counts(counts):
    expected, _ = cm.pp.calculate_qc_metrics(counts, inplace=False)
    x = counts.X.copy()
    x.data[::7] = 0
    thinned = counts.copy()
    thinned.X = x
    obs, _ = cm.pp.calculate_qc_metrics(thinned, inplace=False)
    assert (obs["n_genes_by_counts"] == np.diff((x != 0).tocsr().indptr)).all()
    assert (obs["n_genes_by_counts"] < expected["n_genes_by_counts"]).any()


def test_wrong_names_and_numbers(counts):
    with pytest.raises(KeyError, match="mt"):
        cm.pp.calculate_qc_metrics(counts, qc_vars=["mt"])
    with pytest.raises(IndexError, match="Positions outside range of features"):
        cm.pp.calculate_qc_metrics(counts, percent_top=[10**6])
    with pytest.raises(KeyError, match="nowhere"):
        cm.pp.calculate_qc_metrics(counts, layer="nowhere")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bound", [dict(min_genes=400), dict(max_genes=700), dict(min_counts=1500), dict(max_counts=2000)])
def test_filter_cells(counts, kind, bound):
    ours, theirs = as_kind(counts, kind), as_kind(counts, kind)
    cm.pp.filter_cells(ours, **bound)
    sc.pp.filter_cells(theirs, **bound)
    assert 0 < ours.n_obs < counts.n_obs
    assert list(ours.obs_names) == list(theirs.obs_names)
    same_frame(ours.obs.drop(columns="batch"), theirs.obs.drop(columns="batch"))
    np.testing.assert_array_equal(dense(ours.X), dense(theirs.X))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bound", [dict(min_cells=50), dict(max_cells=300), dict(min_counts=70), dict(max_counts=900)])
def test_filter_genes(counts, kind, bound):
    ours, theirs = as_kind(counts, kind), as_kind(counts, kind)
    cm.pp.filter_genes(ours, **bound)
    sc.pp.filter_genes(theirs, **bound)
    assert 0 < ours.n_vars < counts.n_vars
    assert list(ours.var_names) == list(theirs.var_names)
    same_frame(ours.var, theirs.var)


def test_filters_return_masks(counts):
    for ours, theirs in ((cm.pp.filter_cells, sc.pp.filter_cells),):
        for data in (counts, counts.X):
            found = ours(data, min_genes=400, inplace=False)
            expected = theirs(data, min_genes=400, inplace=False)
            np.testing.assert_array_equal(found[0], np.ravel(expected[0]))
            np.testing.assert_array_equal(found[1], np.ravel(expected[1]))
    with pytest.raises(ValueError, match="Only provide one"):
        cm.pp.filter_cells(counts, min_genes=1, max_genes=2)
    with pytest.raises(ValueError, match="Only provide one"):
        cm.pp.filter_genes(counts)


def test_families_and_samples(counts):
    cm.pp.flag_gene_family(counts, gene_family_name="ribo", gene_family_prefix="RP")
    assert counts.var["ribo"].sum() == sum(name.startswith("RP") for name in counts.var_names)
    cm.pp.flag_gene_family(counts, gene_family_name="two", gene_list=["CD3D", "MS4A1"])
    assert counts.var["two"].sum() == 2
    counts.var["highly_variable"] = counts.var["ribo"]
    cm.pp.filter_highly_variable(counts)
    assert counts.n_vars == counts.var["ribo"].sum()
    del counts.var["highly_variable"]
    with pytest.raises(KeyError, match="highly_variable"):
        cm.pp.filter_highly_variable(counts)


SAMPLES = [
    dict(fraction=0.1),
    dict(n=50),
    dict(n=40, axis="var"),
    dict(n=900, replace=True),
    dict(n=30, p="half"),
    dict(n=30, p="weight", axis=0),
]


@pytest.mark.parametrize("options", SAMPLES, ids=str)
def test_samples_are_scanpys(counts, options):
    counts.obs["half"] = np.arange(counts.n_obs) % 2 == 0
    counts.obs["weight"] = np.arange(counts.n_obs) / np.arange(counts.n_obs).sum()
    ours, theirs = (module.pp.sample(counts, rng=3, copy=True, **options) for module in (cm, sc))
    assert list(ours.obs_names) == list(theirs.obs_names) and list(ours.var_names) == list(theirs.var_names)
    np.testing.assert_array_equal(dense(ours.X), dense(theirs.X))
    for found, expected in zip(*(module.pp.sample(counts.X, rng=3, **options) for module in (cm, sc)), strict=True) if "p" not in options else ():
        np.testing.assert_array_equal(dense(found), dense(expected))
    cm.pp.sample(counts, rng=3, **options)
    assert list(counts.obs_names) == list(theirs.obs_names)


def test_samples_of_a_store(stores, counts):
    lazy = cm.read_lazy(stores / "small.h5ad")
    cm.pp.sample(lazy, n=60, rng=0)
    sc.pp.sample(counts, n=60, rng=0)
    assert set(lazy.obs_names) == set(counts.obs_names) and lazy.X.shape == (60, counts.n_vars)


@pytest.mark.parametrize("options", [{}, {"n": 1, "fraction": 0.1}, {"fraction": -1}, {"fraction": 2}, {"n": 5, "axis": "cells"}], ids=str)
def test_samples_that_cannot_be_drawn(counts, options):
    raised = []
    for module in (cm, sc):
        with pytest.raises((TypeError, ValueError)) as error:
            module.pp.sample(counts, **options)
        raised.append(error)
    assert raised[0].type is raised[1].type
    if options.get("axis") is None:
        assert str(raised[0].value) == str(raised[1].value)


@pytest.mark.parametrize("kind", ["dense", "csr", "dask"])
def test_filters_count_values_above_0(counts, kind):
    adata = counts[:, :80].copy()
    adata.X = dense(adata.X).astype(np.float32) - 0.5 * (np.arange(80) % 3 == 0)
    adata.X[3, 4] = np.nan
    if kind == "csr":
        adata.X = sp.csr_matrix(adata.X)
    x = adata.X if kind != "dask" else da.from_array(adata.X, chunks=(100, 80))
    for verb, bound in (("filter_cells", {"min_genes": 9}), ("filter_genes", {"max_cells": 40})):
        ours, theirs = getattr(cm.pp, verb)(x, **bound), getattr(sc.pp, verb)(adata.X, **bound)
        for our, their in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(np.asarray(our), their)


def test_a_filter_of_no_cells(counts):
    cm.pp.filter_cells(counts, min_genes=10**6)
    cm.pp.filter_cells(counts, min_genes=10)
    assert counts.n_obs == 0
