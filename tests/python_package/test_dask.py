"""Dask arrays: those that come from a store are read by the engine, others block by block; results are lazy where they can be."""

from __future__ import annotations

import functools
import warnings

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import zarr
from kinds import dense, same_frame

import cellmill as cm
from cellmill.dask import forget, trace

da = pytest.importorskip("dask.array")
h5py = pytest.importorskip("h5py")


@pytest.fixture
def reads(monkeypatch):
    """Counts how often anndata reads a block."""
    from anndata._io.specs import lazy_methods

    seen = []
    inner = lazy_methods.make_dask_chunk

    @functools.wraps(inner)
    def make_dask_chunk(*args, **kwargs):
        seen.append(args)
        return inner(*args, **kwargs)

    monkeypatch.setattr(lazy_methods, "make_dask_chunk", make_dask_chunk)
    return seen


def opened(path, rows=150):
    from anndata.experimental import read_elem_lazy

    f = h5py.File(path) if path.suffix == ".h5ad" else zarr.open(str(path), mode="r")
    return ad.AnnData(X=read_elem_lazy(f["X"], (rows, f["X"].attrs["shape"][1])), obs=ad.io.read_elem(f["obs"]), var=ad.io.read_elem(f["var"]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["small.h5ad", "small.zarr"])
def test_the_notebook(stores, small, name, reads):
    """The verbs of rapids-singlecell's out-of-core notebook, in its words, beside the same in memory."""
    forget()
    lazy, held = opened(stores / name), small.copy()
    rsc = cm
    for adata in (lazy, held):
        rsc.get.anndata_to_GPU(adata)
        rsc.pp.calculate_qc_metrics(adata, percent_top=None)
    same_frame(lazy.obs.drop(columns="batch"), held.obs.drop(columns="batch"))
    lazy, held = (a[(a.obs["n_genes_by_counts"] <= 1200) & (a.obs["n_genes_by_counts"] >= 300)].copy() for a in (lazy, held))
    for adata in (lazy, held):
        rsc.pp.normalize_total(adata, target_sum=10_000)
        rsc.pp.log1p(adata)
        rsc.pp.highly_variable_genes(adata, n_top_genes=500, flavor="cell_ranger")
    same_frame(lazy.var, held.var, rtol=1e-7)
    lazy, held = (a[:, a.var["highly_variable"]].copy() for a in (lazy, held))
    for adata in (lazy, held):
        rsc.pp.scale(adata, zero_center=False)
        rsc.pp.pca(adata, n_comps=30, mask_var=None)
    assert trace(lazy.X) is not None and reads == []
    assert isinstance(lazy.X, da.Array) and isinstance(lazy.obsm["X_pca"], da.Array)
    lazy.obsm["X_pca"] = lazy.obsm["X_pca"].compute()
    np.testing.assert_allclose(lazy.obsm["X_pca"], held.obsm["X_pca"], atol=5e-4)
    np.testing.assert_allclose(dense(lazy.X), dense(held.X), rtol=1e-5)
    for adata in (lazy, held):
        rsc.pp.neighbors(adata, n_neighbors=15, n_pcs=20, algorithm="ivfflat")
        rsc.tl.umap(adata, maxiter=30)
        rsc.tl.leiden(adata)
    assert (lazy.obs["leiden"] == held.obs["leiden"]).mean() > 0.98


def test_other_arrays_are_computed_block_by_block(small):
    x = da.from_array(small.X.toarray(), chunks=(128, 1000)).map_blocks(np.sqrt)
    adata = ad.AnnData(X=x, obs=small.obs.copy(), var=small.var.copy())
    held = small.copy()
    sc.pp.sqrt(held)
    ours, theirs = cm.pp.calculate_qc_metrics(adata, inplace=False), cm.pp.calculate_qc_metrics(held, inplace=False)
    np.testing.assert_allclose(ours[0]["total_counts"], theirs[0]["total_counts"], rtol=1e-6)
    cm.pp.filter_cells(adata, min_genes=400)
    assert isinstance(adata.X, da.Array) and adata.n_obs == (np.diff(small.X.indptr) >= 400).sum()


@pytest.mark.parametrize("columns", [-1, 1000])
def test_rows_are_whole_whatever_the_chunks(small, columns):
    """Verbs that look at whole rows, on an array that is cut along both axes."""
    for verb in (
        lambda a: cm.pp.normalize_total(a, target_sum=10),
        lambda a: cm.pp.normalize_total(a, exclude_highly_expressed=True, max_fraction=0.04),
        lambda a: cm.pp.scale(a, zero_center=False),
        lambda a: cm.pp.scale(a),
    ):
        lazy = ad.AnnData(X=da.from_array(small.X.toarray(), chunks=(128, columns)), obs=small.obs.copy(), var=small.var.copy())
        held = ad.AnnData(X=small.X.toarray(), obs=small.obs.copy(), var=small.var.copy())
        verb(lazy)
        verb(held)
        assert isinstance(lazy.X, da.Array)
        np.testing.assert_allclose(dense(lazy.X), held.X, rtol=1e-5, atol=1e-6)


def test_a_view_of_a_dask_array(small):
    whole = ad.AnnData(X=da.from_array(small.X.toarray(), chunks=(128, 1000)), obs=small.obs.copy(), var=small.var.copy())
    ours, theirs = (cm.pp.calculate_qc_metrics(adata[::3, 5:], inplace=False) for adata in (whole, small))
    np.testing.assert_array_equal(ours[0]["total_counts"], theirs[0]["total_counts"])


def test_blocks_are_never_changed(small):
    held = small.X.copy()
    before = held.copy()
    x = da.map_blocks(lambda block_info=None: held[slice(*block_info[None]["array-location"][0])], chunks=((350, 350), (held.shape[1],)),
                      dtype=np.float32, meta=held[:0, :0])  # fmt: skip
    adata = ad.AnnData(X=x, obs=small.obs.copy(), var=small.var.copy())
    cm.pp.normalize_total(adata, target_sum=1)
    cm.pp.log1p(adata)
    np.testing.assert_allclose(dense(adata.X).sum(), np.log1p(dense(before) / dense(before).sum(axis=1, keepdims=True)).sum(), rtol=1e-5)
    assert (held != before).nnz == 0


def test_errors_in_blocks_are_told(small):
    def broken(block):
        raise RuntimeError("the disk is gone")

    x = da.from_array(small.X.toarray(), chunks=(350, -1)).map_blocks(broken, dtype=np.float32, meta=np.empty((0, 0), np.float32))
    with pytest.raises(ValueError, match="the disk is gone"):
        cm.pp.calculate_qc_metrics(ad.AnnData(X=x), inplace=False)


def test_a_handle_as_dask(stores, small):
    adata = cm.read_lazy(stores / "small.zarr")
    cm.pp.normalize_total(adata, target_sum=1e4)
    made = adata.to_dask(200)
    assert made.X.chunks == ((200, 200, 200, 100), (3060,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sc.pp.normalize_total(small, target_sum=1e4, copy=True)
    np.testing.assert_allclose(dense(made.X), dense(expected.X), rtol=1e-6)


def test_the_multi_gpu_notebook(stores, small):
    """Arrays that are persisted, rechunked and persisted again: blocks in Dask's memory are read one by one."""
    lazy, held = opened(stores / "small.zarr"), small.copy()
    for adata in (lazy, held):
        cm.pp.calculate_qc_metrics(adata, percent_top=None)
    lazy, held = (a[a.obs["n_genes_by_counts"] >= 300, a.var["n_cells_by_counts"] >= 10].copy() for a in (lazy, held))
    lazy.X = lazy.X.persist()
    lazy.X.compute_chunk_sizes()
    for adata in (lazy, held):
        cm.pp.normalize_total(adata, target_sum=10_000)
        cm.pp.log1p(adata)
        cm.pp.highly_variable_genes(adata, n_top_genes=500, flavor="cell_ranger")
    lazy, held = (a[:, a.var["highly_variable"]].copy() for a in (lazy, held))
    lazy.X = lazy.X.rechunk((-(-lazy.n_obs // 7), lazy.n_vars)).persist()
    lazy.X.compute_chunk_sizes()
    for adata in (lazy, held):
        cm.pp.scale(adata, zero_center=False)
        cm.pp.pca(adata, n_comps=20, mask_var=None)
    lazy.obsm["X_pca"] = lazy.obsm["X_pca"].persist()
    lazy.obsm["X_pca"].compute_chunk_sizes()
    np.testing.assert_allclose(lazy.obsm["X_pca"].compute(), held.obsm["X_pca"], atol=5e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zero_center", [True, False])
def test_some_cells_are_scaled(stores, logged, zero_center):
    held = logged.copy()
    held.obs["some"] = np.arange(held.n_obs) % 3 > 0
    lazy = ad.AnnData(da.from_array(held.X.toarray(), chunks=(150, 1000)).map_blocks(type(held.X)), obs=held.obs.copy(), var=held.var.copy())
    for adata in (lazy, held):
        cm.pp.scale(adata, mask_obs="some", zero_center=zero_center, max_value=3)
        cm.pp.pca(adata, n_comps=5)
    assert type(lazy.X) is da.Array
    np.testing.assert_array_equal(dense(lazy.X.compute()), dense(held.X))
    np.testing.assert_allclose(lazy.uns["pca"]["variance"], held.uns["pca"]["variance"], rtol=1e-6)
    same_frame(lazy.var, held.var)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("processes", [False, True])
def test_arrays_that_workers_hold(counts, processes):
    """Persisted on a cluster, with steps behind: workers of this process share its threads, what comes from others is not aligned."""
    distributed = pytest.importorskip("distributed")
    held = counts[:, :400].copy()
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=processes, dashboard_address=None)
    with cluster, distributed.Client(cluster):
        lazy = ad.AnnData(da.from_array(held.X, chunks=(150, 130), asarray=False).persist(), obs=held.obs.copy(), var=held.var.copy())
        for adata in (lazy, held):
            cm.pp.normalize_total(adata, target_sum=1e4)
        lazy.X = lazy.X.persist()
        for adata in (lazy, held):
            cm.pp.log1p(adata)
            cm.tl.rank_genes_groups(adata, "batch")
            cm.pp.pca(adata, n_comps=5)
        np.testing.assert_array_equal(lazy.obsm["X_pca"].compute(), held.obsm["X_pca"])
    ours, theirs = (a.uns["rank_genes_groups"]["scores"] for a in (lazy, held))
    assert ours.tolist() == theirs.tolist()
