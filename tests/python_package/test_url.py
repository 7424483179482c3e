"""Stores at a URL in Python: handles, the whole job, and workers that open the address themselves."""

from __future__ import annotations

import os
import signal
import warnings

import numpy as np
import pytest
import servers
from workers import LOCAL, RECIPE, contents, same

import cellmill as cm


@pytest.fixture(scope="module")
def bucket(cells):
    with servers.Bucket() as bucket:
        bucket.put(cells)
        yield bucket


@pytest.fixture
def reachable(bucket, monkeypatch):
    """The environment tells how the bucket is reached, to this process and to those that it starts."""
    for key, value in bucket.env.items():
        monkeypatch.setenv(key, value)
    return f"s3://{bucket.name}/cells.zarr"


@pytest.mark.parametrize("name", ["small.zarr", "small.h5ad"])
def test_a_handle(stores, small, name):
    with servers.Web(stores) as web:
        adata = cm.open(f"{web.url}/{name}")
        assert adata.shape == small.shape
        cm.pp.normalize_total(adata, target_sum=1e4)
        cm.pp.log1p(adata)
        near = cm.read_lazy(stores / name)
        cm.pp.normalize_total(near, target_sum=1e4)
        cm.pp.log1p(near)
        assert (adata[5:300, 7:90].to_memory().X != near[5:300, 7:90].to_memory().X).nnz == 0
        web.refuse = dict.fromkeys([name, f"{name}/zarr.json", f"{name}/.zmetadata"], 403)
        with pytest.raises(OSError, match=f"{web.url}/{name}.*403: access is refused"):
            cm.open(f"{web.url}/{name}")


@pytest.mark.filterwarnings("ignore")
def test_a_forked_child_makes_its_own_requests(stores):
    with servers.Web(stores) as web:
        adata = cm.open(f"{web.url}/small.zarr")
        expected = cm.pp.calculate_qc_metrics(adata, inplace=False)[0]["total_counts"]
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            other = cm.open(f"{web.url}/small.zarr")
            same_rows = [np.array_equal(a[9:20].to_memory().X.toarray(), adata[9:20].to_memory().X.toarray()) for a in (other, adata)]
            found = cm.pp.calculate_qc_metrics(other, inplace=False)[0]["total_counts"]
            os._exit(0 if all(same_rows) and (found == expected).all() else 1)
        assert os.waitpid(pid, 0)[1] == 0


def test_the_whole_job(cells, reachable, tmp_path):
    cm.run(cells, tmp_path / "here.zarr", RECIPE, through="pca")
    cm.run(reachable, tmp_path / "there.zarr", RECIPE, through="pca")
    same(tmp_path)


def test_workers_open_the_address_themselves(cells, reachable, tmp_path):
    distributed = pytest.importorskip("distributed")
    cm.run(cells, tmp_path / "here.zarr", RECIPE, through="pca")
    with distributed.LocalCluster(n_workers=2, **LOCAL) as cluster, cluster.get_client() as client:
        summary = cm.run(reachable, tmp_path / "there.zarr", RECIPE, through="pca", client=client)
        assert all(stage["bytes_read"] == 0 for stage in summary["stages"]), "this process reads no row"
        same(tmp_path)
        client.run(os.environ.__setitem__, "AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(OSError, match=r"worker tcp://.*s3://cells/cells.zarr.*no connection to the server"):
            cm.run(reachable, tmp_path / "more.zarr", RECIPE, through="pca", client=client)
    assert contents(tmp_path / "here.zarr")


@pytest.mark.parametrize("name", ["cells.zarr", "columns.h5ad"])
def test_an_address_is_opened_once_by_each(cells, whole, tmp_path, name):
    """Columns by the client alone, which turns them into rows."""
    distributed = pytest.importorskip("distributed")
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    store = cells
    if name == "columns.h5ad":
        store = tmp_path / "in" / name
        adata = whole.copy()
        adata.X = adata.X.tocsc()
        adata.write_h5ad(store)
    with warnings.catch_warnings(), servers.Web(store.parent) as web:
        warnings.filterwarnings("ignore", "(?s).*lies by columns")
        cm.run(store, tmp_path / "out" / "here.zarr", RECIPE, through="pca")
        with distributed.LocalCluster(n_workers=2, **LOCAL) as cluster, cluster.get_client() as client:
            cm.run(f"{web.url}/{name}", tmp_path / "out" / "there.zarr", RECIPE, through="pca", client=client)
    same(tmp_path / "out")
    # An identity asks for single bytes.
    opened = {"cells.zarr": ("cells.zarr/zarr.json", None), "columns.h5ad": ("columns.h5ad", "bytes=0-262143")}[name]
    asked = [(asked, span) for _, asked, span in web.asked if span != "bytes=0-0"]
    assert asked.count(opened) == {"cells.zarr": 3, "columns.h5ad": 1}[name], [found for found in asked if found[0] == opened[0]][:20]
