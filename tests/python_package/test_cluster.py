"""A run whose rows are read by Dask workers: the bytes of one machine, whatever happens to the workers."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import cellmill as cm

distributed = pytest.importorskip("distributed")

N_OBS, N_VARS = 60_000, 700
RECIPE = {"hvg": {"n_top_genes": 200}, "pca": {"n_comps": 12}, "qc": {"percent_top": [50]}, "filter": {"cells": "n_genes_by_counts >= 40"}}


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60,000 cells of six kinds: fifteen tasks, four orders of a read."""
    rng = np.random.default_rng(0)
    kinds = rng.gamma(0.3, 0.25, (6, N_VARS)) + 0.01
    kind = rng.integers(0, 6, N_OBS)
    blocks = [sp.csr_matrix(rng.poisson(kinds[kind[at : at + 5000]]).astype(np.float32)) for at in range(0, N_OBS, 5000)]
    adata = ad.AnnData(sp.vstack(blocks, format="csr"))
    adata.obs["batch"] = np.array(["b", "a", "c"])[np.arange(N_OBS) % 3]
    path = tmp_path_factory.mktemp("cluster") / "cells.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_zarr(path)
    return path


@pytest.fixture(scope="module")
def client():
    with distributed.LocalCluster(n_workers=3, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster, cluster.get_client() as client:
        yield client


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def same(folder: Path) -> None:
    """Both outputs have the same bytes, and nothing else is left."""
    here, there = contents(folder / "here.zarr"), contents(folder / "there.zarr")
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []
    assert sorted(p.name for p in folder.iterdir()) == ["here.zarr", "there.zarr"]


RECIPES = {
    "plain": {},
    "genes filtered": {"filter": {"min_cells": 200, "cells": "total_counts < 60 & batch != 'a'"}},
    "median": {"normalize": {"target_sum": "median"}},
    "counts, batches, scaled": {"hvg": {"flavor": "seurat_v3", "batch_key": "batch", "n_top_genes": 150}, "scale": {"enabled": True}},
    "residuals": {"hvg": {"flavor": "pearson_residuals", "n_top_genes": 150}},
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_bytes(store, tmp_path, client, name):
    recipe = {section: {**RECIPE.get(section, {}), **RECIPES[name].get(section, {})} for section in {**RECIPE, **RECIPES[name]}}
    cm.run(store, tmp_path / "here.zarr", recipe, through="pca")
    summary = cm.run(store, tmp_path / "there.zarr", recipe, through="pca", client=client)
    same(tmp_path)
    assert summary["source_reads"] == 1, "later passes find the rows packed on the workers"
    assert all(stage["bytes_read"] == 0 for stage in summary["stages"]), "this process reads no row"


@pytest.mark.parametrize(("n_workers", "threads"), [(1, 1), (2, 2), (4, 1)])
def test_any_number_of_workers(store, tmp_path, n_workers, threads):
    cm.run(store, tmp_path / "here.zarr", RECIPE, through="pca")
    options = {"n_workers": n_workers, "threads_per_worker": threads, "processes": True, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, cluster.get_client() as client:
        cm.run(store, tmp_path / "there.zarr", RECIPE, through="pca", client=client)
    same(tmp_path)


def test_the_graph_follows_from_an_address_in_the_settings(store, tmp_path, client, monkeypatch):
    recipe = {**RECIPE, "filter": {"cells": "n_genes_by_counts >= 62"}}
    cm.run(store, tmp_path / "here.zarr", recipe, with_x="hvg")
    monkeypatch.setattr(cm.settings, "client", client.scheduler.address)
    summary = cm.run(store, tmp_path / "there.zarr", recipe, with_x="hvg")
    same(tmp_path)
    assert summary["kept"][0] > 1000, "there is a graph to speak of"
