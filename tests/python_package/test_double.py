"""Values of float64 in memory keep their precision."""

from __future__ import annotations

import warnings

import anndata as ad
import cellmill as cm
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from kinds import dense

KINDS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": lambda x: x.toarray()}

#: float32 has relative errors of 6e-8.
NEAR = 1e-12


@pytest.fixture(scope="module")
def fractions(small):
    """400 genes with values that float32 does not have."""
    seen = np.flatnonzero(np.asarray(small.X.sum(axis=0)).ravel() > 0)[:400]
    adata = small[:, seen].copy()
    adata.X = adata.X.astype(np.float64)
    adata.X.data *= np.random.default_rng(0).uniform(0.5, 1.5, adata.X.nnz)
    adata.obs["depth"] = np.asarray(adata.X.sum(axis=1)).ravel()
    adata.obs["day"] = np.arange(adata.n_obs) % 5
    return adata


@pytest.fixture(params=KINDS)
def pair(fractions, request):
    """The same data twice."""
    made = []
    for _ in range(2):
        adata = fractions.copy()
        adata.X = KINDS[request.param](fractions.X.copy())
        made.append(adata)
    return made


VERBS = {
    "normalize_total": lambda tool, adata: tool.pp.normalize_total(adata, target_sum=1e4, key_added="factor"),
    "of what counts": lambda tool, adata: tool.pp.normalize_total(adata, 1e4, exclude_highly_expressed=True, max_fraction=0.1),
    "log1p": lambda tool, adata: tool.pp.log1p(adata),
    "log2": lambda tool, adata: tool.pp.log1p(adata, base=2),
    "sqrt": lambda tool, adata: tool.pp.sqrt(adata),
    "scale": lambda tool, adata: tool.pp.scale(adata),
    "clipped": lambda tool, adata: tool.pp.scale(adata, max_value=2),
    "not centred": lambda tool, adata: tool.pp.scale(adata, zero_center=False, max_value=3),
    "some cells": lambda tool, adata: tool.pp.scale(adata, mask_obs=adata.obs["day"].to_numpy() > 1),
    "regress_out": lambda tool, adata: tool.pp.regress_out(adata, ["depth", "day"]),
}


@pytest.mark.parametrize("verb", VERBS)
def test_values(pair, verb):
    ours, theirs = pair
    before = dense(ours.X).copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        VERBS[verb](cm, ours)
        VERBS[verb](sc, theirs)
    assert ours.X.dtype == theirs.X.dtype == np.float64
    assert np.abs(before - dense(ours.X)).max() > 0.1
    np.testing.assert_allclose(dense(ours.X), dense(theirs.X), rtol=NEAR, atol=NEAR)
    for frame, expected in ((ours.obs, theirs.obs), (ours.var, theirs.var)):
        for name in expected.select_dtypes("float"):
            np.testing.assert_allclose(frame[name], expected[name], rtol=NEAR)


def test_whole_numbers_become_float64(small):
    x = small.X[:, :200].astype(np.int64)
    np.testing.assert_allclose(dense(cm.pp.log1p(x)), np.log1p(dense(x)), rtol=NEAR)


@pytest.mark.parametrize("kind", KINDS)
def test_residuals(small, kind):
    made = []
    for tool in (cm.pp, sc.experimental.pp):
        adata = ad.AnnData(KINDS[kind](small.X[:, :300].astype(np.float64)))
        adata = adata[:, np.asarray(adata.X.sum(axis=0)).ravel() > 0].copy()
        tool.normalize_pearson_residuals(adata)
        made.append(adata.X)
    assert made[0].dtype == made[1].dtype == np.float64
    np.testing.assert_allclose(*made, rtol=NEAR, atol=NEAR)


def test_blocks_of_dask(fractions):
    da = pytest.importorskip("dask.array")
    held, blocks = (ad.AnnData(x, obs=fractions.obs) for x in (dense(fractions.X), da.from_array(dense(fractions.X), chunks=(100, -1))))
    for adata in (held, blocks):
        cm.pp.normalize_total(adata, target_sum=1e4)
        cm.pp.log1p(adata)
    np.testing.assert_allclose(blocks.X.compute(), held.X, rtol=NEAR)


@pytest.mark.parametrize("options", [{}, {"method": "wilcoxon"}, {"reference": "2", "groups": ["0", "1"]}, {"mask_var": "some"}], ids=str)
def test_markers(pair, options):
    found = []
    for adata, tool in zip(pair, (cm, sc), strict=True):
        tool.pp.log1p(adata)
        adata.obs["day"] = adata.obs["day"].astype(str)
        adata.var["some"] = np.arange(adata.n_vars) % 3 > 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tool.tl.rank_genes_groups(adata, "day", **options)
        found.append(adata.uns["rank_genes_groups"])
    ours, theirs = found
    for group in theirs["names"].dtype.names:
        assert list(ours["names"][group]) == list(theirs["names"][group])
        np.testing.assert_allclose(ours["pvals"][group], theirs["pvals"][group], rtol=1e-7)
        # float32, of which the last bit may be another.
        for field in ("scores", "logfoldchanges"):
            np.testing.assert_allclose(ours[field][group], theirs[field][group], rtol=2e-7)


def test_aggregates(pair):
    ours, theirs = (tool.get.aggregate(adata, "day", ["sum", "mean", "var"]) for adata, tool in zip(pair, (cm, sc), strict=True))
    for name in ("sum", "mean", "var"):
        np.testing.assert_allclose(ours.layers[name], theirs.layers[name], rtol=1e-11)


def test_entries_in_any_order_and_twice(fractions):
    x = fractions.X.tocsr()
    rows = list(zip(x.indptr[:-1], x.indptr[1:], strict=True))
    indices, data = (np.concatenate([np.repeat(part[a:b], 2)[::-1] for a, b in rows]) for part in (x.indices, x.data / 2))
    twice = sp.csr_matrix((data, indices, x.indptr * 2), shape=x.shape)
    found = [cm.get.aggregate(ad.AnnData(values, obs=fractions.obs), "day", "var").layers["var"] for values in (x, twice)]
    np.testing.assert_allclose(*found, rtol=NEAR)
    np.testing.assert_allclose(dense(cm.pp.sqrt(twice)), np.sqrt(dense(x)), rtol=NEAR)
    assert twice.nnz == 2 * x.nnz
