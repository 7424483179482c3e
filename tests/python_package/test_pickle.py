"""Handles in another process: by the store's place, the recorded steps and what was found."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from kinds import dense

import cellmill as cm

SIZE = "X is reached by the store's place, not carried along"


def worked_on(path, **options):
    """A handle after some verbs, with raw and a layer."""
    adata = cm.read_lazy(path, **options)
    cm.pp.filter_cells(adata, min_genes=400)
    cm.pp.normalize_total(adata, target_sum=1e4)
    cm.pp.log1p(adata)
    adata.raw = adata
    adata.layers["root"] = adata.X
    cm.pp.sqrt(adata)
    cm.pp.highly_variable_genes(adata, n_top_genes=80)
    adata = adata[:, adata.var["highly_variable"]].copy()
    cm.pp.scale(adata, max_value=3)
    cm.pp.pca(adata, n_comps=4)
    return adata


def check_same(found, expected):
    assert type(found) is type(expected) and repr(found) == repr(expected)
    pd.testing.assert_frame_equal(found.obs, expected.obs)
    pd.testing.assert_frame_equal(found.var, expected.var)
    np.testing.assert_array_equal(dense(found.X), dense(expected.X))
    np.testing.assert_array_equal(dense(found.layers["root"]), dense(expected.layers["root"]))
    np.testing.assert_array_equal(dense(found.raw.X), dense(expected.raw.X))
    np.testing.assert_array_equal(found.obsm["X_pca"], expected.obsm["X_pca"])
    assert found.uns["pca"]["params"] == expected.uns["pca"]["params"]


@pytest.mark.parametrize("name", ["small.h5ad", "small.zarr"])
def test_a_handle_goes_by_its_place(stores, name):
    adata = worked_on(stores / name)
    sent = pickle.dumps(adata)
    assert len(sent) < (stores / "small.h5ad").stat().st_size / 4, SIZE
    found = pickle.loads(sent)
    check_same(found, adata)
    # What happens to one does not show in the other.
    cm.pp.pca(found, n_comps=5, key_added="again")
    assert repr(found) != repr(adata)


def test_a_list_of_files_goes_by_their_places(stores, small, tmp_path):
    small[:300, :2000].write_h5ad(tmp_path / "a.h5ad")
    small[300:, 500:].write_h5ad(tmp_path / "b.h5ad")
    adata = worked_on([tmp_path / "a.h5ad", tmp_path / "b.h5ad"], join="outer", label="file")
    check_same(pickle.loads(pickle.dumps(adata)), adata)


def test_values_in_memory_and_of_dask_go_along(stores, small):
    da = pytest.importorskip("dask.array")
    for x in (small.X, small.X.toarray(), da.from_array(small.X, chunks=(200, small.n_vars), asarray=False)):
        adata = cm.read_lazy(stores / "small.h5ad")
        adata.X = x
        cm.pp.log1p(adata)
        np.testing.assert_array_equal(dense(pickle.loads(pickle.dumps(adata)).X), dense(adata.X))


def test_another_process_and_another_folder(stores, tmp_path, monkeypatch):
    """A relative path is found from elsewhere, and no anndata is imported where none is wanted."""
    monkeypatch.chdir(stores)
    (tmp_path / "adata.pickle").write_bytes(pickle.dumps(cm.read_lazy("small.zarr")))
    code = "import pickle, sys; a = pickle.load(open('adata.pickle', 'rb')); print(a.shape, a.X.sum(), 'anndata' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.split() == ["(700,", "3060)", str(cm.read_lazy("small.zarr").X.sum()), "False"]


def test_a_store_that_is_another_by_now(stores, small, tmp_path):
    shutil.copy(stores / "small.h5ad", tmp_path / "a.h5ad")
    sent = pickle.dumps(cm.read_lazy(tmp_path / "a.h5ad"))
    small[:10].write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match=r"a\.h5ad: 10 x 3060, but 700 x 3060 when it was pickled"):
        pickle.loads(sent)


def total(adata, batch):
    cm.pp.normalize_total(adata, target_sum=1e4)
    return float(adata[adata.obs["batch"] == batch].X.sum())


def test_joblib(stores):
    joblib = pytest.importorskip("joblib")
    adata = cm.read_lazy(stores / "small.zarr")
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(total)(adata, batch) for batch in "abc")
    assert found == [total(adata.copy(), batch) for batch in "abc"]


@pytest.mark.filterwarnings("ignore")
def test_blocks_of_a_handle_on_workers(stores):
    """Dask's workers read blocks of a handle by themselves; here the engine sees through them."""
    distributed = pytest.importorskip("distributed")
    from cellmill.dask import trace

    adata = cm.read_lazy(stores / "small.zarr")
    cm.pp.normalize_total(adata, target_sum=1e4)
    held = adata.to_dask(200)
    assert held.X.chunks[0] == (200, 200, 200, 100)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster, distributed.Client(cluster):
        np.testing.assert_array_equal(dense(held.X), dense(adata.X))
    cm.pp.log1p(held)
    cm.pp.log1p(adata)
    place, wanted = trace(held[held.obs["batch"] == "a"].X)
    assert place.shape == adata.shape and len(wanted.steps) == 1
    np.testing.assert_array_equal(dense(held.X), dense(adata.X))
    for x in (adata, held):
        cm.pp.highly_variable_genes(x, n_top_genes=50)
    assert list(held.var_names[held.var["highly_variable"]]) == list(adata.var_names[adata.var["highly_variable"]])


def test_it_stays_an_anndata(stores):
    assert isinstance(pickle.loads(pickle.dumps(cm.read_lazy(stores / "small.zarr"))), ad.AnnData)
