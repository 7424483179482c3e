"""Which workers compute on GPUs, on a machine that has none: all or none do, and who insists hears which worker can't."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from workers import LOCAL, same

import cellmill as cm
from cellmill import _cellmill

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(_cellmill.no_gpu() is None, reason="there is a GPU")

RECIPE = {"hvg": {"n_top_genes": 200}, "pca": {"n_comps": 12}, "filter": {"max_genes": None, "cells": "total_counts > 0"}}


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """So many entries that a GPU is worth it, and cells enough for a search in lists."""
    n_obs, n_vars = 20_500, 2_450
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 5, n_obs)
    high = rng.integers(2, 9, (5, n_vars))
    data = np.concatenate([rng.integers(1, high[k] + 1).astype(np.float32) for k in kind])
    indices = np.tile(np.arange(n_vars, dtype=np.int32), n_obs)
    adata = ad.AnnData(sp.csr_matrix((data, indices, np.arange(n_obs + 1) * n_vars), shape=(n_obs, n_vars)))
    assert adata.X.nnz >= 50_000_000
    path = tmp_path_factory.mktemp("many") / "many.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_zarr(path)
    return path


@pytest.fixture(scope="module")
def client():
    with distributed.LocalCluster(n_workers=2, **LOCAL) as cluster, cluster.get_client() as client:
        yield client


def boast(client, n: int) -> None:
    """Lets workers, the first `n` of them, say that they have a GPU."""

    def say(dask_worker, first):
        import cellmill._crew
        from cellmill import _cellmill

        native = {name: staticmethod(getattr(_cellmill, name)) for name in ("work", "leave", "room", "no_gpu")}
        if dask_worker.address in first:
            native["no_gpu"] = staticmethod(lambda: None)
        cellmill._crew._cellmill = type("Native", (), native)

    client.run(say, first=sorted(client.nthreads())[:n])


@pytest.mark.parametrize("n", [0, 1, 2])
def test_auto_computes_on_cpus_unless_all_have_a_gpu(many, tmp_path, client, n):
    """None has: nothing to say. One has: it does not help the other. Both say so, and can't: their CPUs do it, in two passes."""
    cm.run(many, tmp_path / "here.zarr", RECIPE, through="neighbors")
    boast(client, n)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        cm.run(many, tmp_path / "there.zarr", RECIPE, through="neighbors", client=client, device="auto")
    said = [str(warning.message) for warning in said if "worker" in str(warning.message)]
    workers = sorted(client.nthreads())
    assert len(said) == n, said
    if n == 1:
        assert f"1 of 2 workers have no GPU, {workers[1]} for one: all compute on their CPUs" in said[0]
    if n == 2:
        assert all("cuda on worker tcp://" in text and "no NVIDIA driver" in text and "the CPUs of all workers" in text for text in said)
    same(tmp_path)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_cuda_names_the_worker_without_a_gpu(many, tmp_path, client, n):
    """Before the first read, or where a worker finds out in a pass."""
    boast(client, n)
    with pytest.raises(ValueError, match=r"device: .*cuda on worker tcp://.*no NVIDIA driver") as error:
        cm.run(many, tmp_path / "there.zarr", RECIPE, through="pca", client=client, device="cuda")
    if n < 2:
        assert sorted(client.nthreads())[n] in str(error.value)
    assert not list(tmp_path.iterdir())
