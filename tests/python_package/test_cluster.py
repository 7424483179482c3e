"""A run whose rows are read by Dask workers: the bytes of one machine, whatever happens to the workers."""

from __future__ import annotations

import contextlib
import importlib.machinery
import json
import os
import re
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from kinds import PBMC, ROOT
from workers import LOCAL, RECIPE, same

import cellmill as cm
from cellmill._crew import Crew

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")

PROGRAM = os.environ.get("CELLMILL", ROOT / "target" / "debug" / "cellmill")


@pytest.fixture(scope="module")
def client():
    """Workers that take no order from each other on a busy machine: one that has not the rows would read them again."""
    placed = dask.config.set({"distributed.scheduler.work-stealing": False})
    with placed, distributed.LocalCluster(n_workers=3, **LOCAL) as cluster, cluster.get_client() as client:
        yield client


RECIPES = {
    "plain": {},
    "genes filtered": {"filter": {"min_cells": 200, "cells": "total_counts < 60 & batch != 'a'"}},
    "median": {"normalize": {"target_sum": "median"}},
    "counts, batches, scaled": {"hvg": {"flavor": "seurat_v3", "batch_key": "batch", "n_top_genes": 150}, "scale": {"enabled": True}},
    "residuals": {"hvg": {"flavor": "pearson_residuals", "n_top_genes": 150}},
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_bytes(cells, tmp_path, client, name):
    recipe = {section: {**RECIPE.get(section, {}), **RECIPES[name].get(section, {})} for section in {**RECIPE, **RECIPES[name]}}
    cm.run(cells, tmp_path / "here.zarr", recipe, through="pca")
    summary = cm.run(cells, tmp_path / "there.zarr", recipe, through="pca", client=client)
    same(tmp_path)
    assert summary["source_reads"] == 1, "later passes find the rows packed on the workers"
    assert all(stage["bytes_read"] == 0 for stage in summary["stages"]), "this process reads no row"


@pytest.mark.parametrize(("n_workers", "threads"), [(1, 1), (2, 2), (4, 1)])
def test_any_number_of_workers(cells, tmp_path, n_workers, threads):
    cm.run(cells, tmp_path / "here.zarr", RECIPE, through="pca")
    with distributed.LocalCluster(**{**LOCAL, "n_workers": n_workers, "threads_per_worker": threads}) as cluster, cluster.get_client() as client:
        cm.run(cells, tmp_path / "there.zarr", RECIPE, through="pca", client=client)
    same(tmp_path)


def test_a_local_cluster_of_gpus_where_dask_cuda_is(monkeypatch):
    """dask-cuda makes a worker for each GPU; without it, or without GPUs, workers are plain, and what only dask-cuda knows is left out."""
    made = []
    there = types.ModuleType("dask_cuda")
    there.__spec__ = importlib.machinery.ModuleSpec("dask_cuda", None)
    there.LocalCUDACluster = lambda **options: made.append(("gpu", options))
    monkeypatch.setattr("dask.distributed.LocalCluster", lambda **options: made.append(("cpu", options)))
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cm.cluster(CUDA_VISIBLE_DEVICES="0,1", rmm_pool_size="1GB")
    monkeypatch.setitem(sys.modules, "dask_cuda", there)
    cm.cluster(2)
    cm.cluster(CUDA_VISIBLE_DEVICES="0,1", protocol="ucx", rmm_pool_size="1GB")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    cm.cluster()
    assert made == [
        ("cpu", {"n_workers": 1, "threads_per_worker": 8}),
        ("cpu", {"n_workers": 2, "threads_per_worker": 4}),
        ("gpu", {"n_workers": None, "threads_per_worker": 4, "CUDA_VISIBLE_DEVICES": "0,1", "protocol": "ucx", "rmm_pool_size": "1GB"}),
        ("gpu", {"n_workers": None, "threads_per_worker": 8}),
    ]


GRAPHS = {
    "spectral": {"leiden": {"resolution": [1.0, 0.5]}},
    "paga": {"umap": {"init_pos": "paga"}, "leiden": {"paga": True}},
    "pca": {"umap": {"init_pos": "pca"}, "leiden": {"restrict_to": ["batch", ["a"]]}},
}


@pytest.mark.parametrize("name", GRAPHS)
def test_workers_lay_out_and_cluster(cells, tmp_path, client, monkeypatch, name):
    """With an address in the settings; one worker for each."""
    recipe = {**RECIPE, "filter": {"cells": "n_genes_by_counts >= 62"}, **GRAPHS[name]}
    cm.run(cells, tmp_path / "here.zarr", recipe, with_x="hvg")
    monkeypatch.setattr(cm.settings, "client", client.scheduler.address)
    orders = []
    monkeypatch.setattr(Crew, "submit", lambda crew, given, submit=Crew.submit: (orders.append([order[0] for order in given]), submit(crew, given)))
    # Workers without a GPU compute on their CPU.
    summary = cm.run(cells, tmp_path / "there.zarr", recipe, with_x="hvg", device="auto")
    same(tmp_path)
    assert summary["kept"][0] > 1000, "there is a graph to speak of"
    graph = [{order.split("-")[0] for order in given} & {"umap", "leiden"} for given in orders]
    assert [given for given in graph if given] == ([{"leiden"}, {"umap"}] if name == "paga" else [{"umap", "leiden"}])


@contextlib.contextmanager
def uneven(folder, *limits: str):
    """Workers of different memory."""
    with distributed.LocalCluster(**{**LOCAL, "n_workers": 0}) as cluster, cluster.get_client() as client:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, "--nthreads", "1", "--no-dashboard", "--no-nanny"]
        command += ["--local-directory", str(folder)]
        unheeded = {f"DASK_DISTRIBUTED__WORKER__MEMORY__{name}": "False" for name in ("TARGET", "SPILL", "PAUSE", "TERMINATE")}
        environment = {**os.environ, **unheeded}
        processes = [subprocess.Popen([*command, "--memory-limit", limit], env=environment, stderr=subprocess.DEVNULL) for limit in limits]
        try:
            client.wait_for_workers(len(limits), timeout=60)
            yield client
        finally:
            for process in processes:
                process.kill()
                process.wait()


def needed(refused: str) -> int:
    """Bytes that an error asks for."""
    number, unit = re.search(r"to at least ([\d.]+) (MiB|GiB)", refused).groups()
    return int(float(number) * {"MiB": 2**20, "GiB": 2**30}[unit])


def test_the_worker_with_the_memory_lays_out_and_clusters(cells, tmp_path, monkeypatch):
    """Where the client has too little: the workers that have enough do it, and without one the run is refused before it begins."""
    out = tmp_path / "out"
    out.mkdir()
    recipe = {**RECIPE, "neighbors": {"n_neighbors": 90}}
    cm.run(cells, out / "here.zarr", recipe)
    monkeypatch.setattr(cm.settings, "memory", "60MiB")
    with pytest.raises(MemoryError) as error:
        cm.run(cells, out / "there.zarr", recipe)
    monkeypatch.setattr(cm.settings, "memory", f"{needed(str(error.value)) * 97 // 100}B")
    handed = []
    hand_out = Crew._hand_out
    monkeypatch.setattr(Crew, "_hand_out", lambda crew, order, place, **options: (handed.append((order, options["workers"])), hand_out(crew, order, place, **options)))
    with uneven(tmp_path, "150MB") as client, pytest.raises(MemoryError, match=r"UMAP and Leiden on one worker.*tcp://\S+ 85.8 MiB.* needs \d+ MiB"):
        cm.run(cells, out / "there.zarr", recipe, client=client)
    assert not handed
    with uneven(tmp_path, "400MB", "2GB", "1500MB") as client:
        limits = {address: worker["memory_limit"] for address, worker in client.scheduler_info()["workers"].items()}
        cm.run(cells, out / "there.zarr", recipe, client=client)
    assert [(order[0].split("-")[0], limits[worker]) for order, (worker,) in handed if order[5]] == [
        ("connectivities", 2_000_000_000),
        ("umap", 2_000_000_000),
        ("leiden", 1_500_000_000),
    ]
    same(out)


@pytest.mark.parametrize("recipe", [{}, {"neighbors": {"mode": "fast", "metric": "cosine", "n_neighbors": 9}}], ids=["accurate", "fast"])
def test_neighbours(cells, tmp_path, client, recipe):
    """Of more cells than are compared with all others: workers search the lists."""
    cm.run(cells, tmp_path / "here.zarr", {**RECIPE, **recipe}, through="neighbors")
    summary = cm.run(cells, tmp_path / "there.zarr", {**RECIPE, **recipe}, through="neighbors", client=client)
    same(tmp_path)
    assert summary["kept"][0] > 16_384
    assert "neighbors" in client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes))


WIDE = {**RECIPE, "pca": {"n_comps": 100}}


@pytest.mark.parametrize("form", ["zarr2", "zarr", "h5ad", "in place"])
def test_scores_lie_in_the_output_as_workers_left_them(cells, tmp_path, client, monkeypatch, form):
    """Chunks of a zarr store are the workers' own files; the client's journal holds no scores."""
    recipe, options = WIDE, {"format": form}
    if form == "in place":
        recipe, options = {**WIDE, "filter": {"cells": ""}}, {"in_place": True}
    files = {}

    def leave(crew, run, leave=Crew.leave):
        files.update({p: p.stat().st_ino for p in tmp_path.glob("there.zarr.journal/**/*") if p.is_file()})
        leave(crew, run)

    monkeypatch.setattr(Crew, "leave", leave)
    for name in ("here.zarr", "there.zarr"):
        if form == "in place":
            shutil.copytree(cells, tmp_path / name)
        given = (tmp_path / name,) if form == "in place" else (cells, tmp_path / name)
        summary = cm.run(*given, recipe=recipe, through="pca", client=client if name == "there.zarr" else None, **options)
    assert summary["kept"][0] == 60_000 if form == "in place" else 16_384 < summary["kept"][0] < 60_000
    left = {p: inode for p, inode in files.items() if p.parent.name.endswith("-chunks")}
    records = [p.name for p in files if p.name.startswith("projection-") and p.name.count("-") == 3]
    assert "scores" not in {p.name for p in files}
    if form == "h5ad":
        assert (tmp_path / "here.zarr").read_bytes() == (tmp_path / "there.zarr").read_bytes()
        assert not left
        return
    same(tmp_path)
    scores = [p for p in (tmp_path / "there.zarr" / "obsm" / "X_pca").rglob("*") if p.is_file() and not p.name.startswith((".z", "zarr"))]
    assert sorted(left.values()) == sorted(p.stat().st_ino for p in scores)
    assert len(scores) > len(records) > 1, "several chunks an order"


def test_components_that_wait_on_disk(cells, tmp_path, client, monkeypatch):
    """Where memory is short, in one process or with workers: the neighbours look at some columns of them, and all are written as ever."""
    recipe = {**WIDE, "neighbors": {"n_neighbors": 90, "n_pcs": 20}}
    cm.run(cells, tmp_path / "here.zarr", recipe, through="neighbors")
    monkeypatch.setattr(cm.settings, "memory", "60MiB")
    with pytest.raises(MemoryError) as error:
        cm.run(cells, tmp_path / "there.zarr", recipe, through="neighbors")
    monkeypatch.setattr(cm.settings, "memory", f"{needed(str(error.value)) + 2**20}B")
    for by in (None, client):
        cm.run(cells, tmp_path / "there.zarr", recipe, through="neighbors", client=by)
        same(tmp_path)
        shutil.rmtree(tmp_path / "there.zarr")


def test_a_start_from_scores_that_workers_left(cells, tmp_path, client):
    recipe = {**WIDE, "filter": {"cells": "n_genes_by_counts >= 62"}, "neighbors": {"n_pcs": 20}, "umap": {"init_pos": "X_pca"}}
    cm.run(cells, tmp_path / "here.zarr", recipe, through="umap")
    cm.run(cells, tmp_path / "there.zarr", recipe, through="umap", client=client)
    same(tmp_path)


def test_the_program(cells, tmp_path, client):
    """``cellmill run --scheduler`` asks the package, and says what is missing if it is not there."""

    def run(name: str, *options: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
        # Paths of the command line are relative here, and workers have folders of their own.
        command = [PROGRAM, "run", os.path.relpath(cells, tmp_path), "-o", name, "--threads", "2", "--through", "pca", "--n-top-genes", "200"]
        command += ["--filter-cells", "n_genes_by_counts >= 40", "--n-comps", "12", *options]
        environment = {**os.environ, "CELLMILL_PYTHON": python}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120)

    address = client.scheduler.address
    for ended in (run("here.zarr"), run("there.zarr", "--scheduler", address)):
        assert ended.returncode == 0, ended.stderr
    same(tmp_path)
    wrong = run("x.zarr", "--scheduler", address, "--n-comps", "1000")
    assert (wrong.returncode, wrong.stderr.count("allow 1 to 199")) == (1, 1), wrong.stderr
    missing = run("x.zarr", "--scheduler", address, python="no-such-python")
    assert missing.returncode == 1
    assert 'pip install "cellmill[distributed]"' in missing.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here.zarr", "there.zarr"]


def test_few_cells_of_many_genes(tmp_path, client):
    """From h5ad; the eigensolver asks this process for the rows then, as a covariance would take longer."""
    recipe = {"hvg": {"n_top_genes": 8000}, "pca": {"n_comps": 5}}
    cm.run(PBMC, tmp_path / "here.zarr", recipe, through="pca")
    cm.run(PBMC, tmp_path / "there.zarr", recipe, through="pca", client=client)
    same(tmp_path)


def test_the_dashboard_knows_the_passes(cells, tmp_path, client):
    cm.run(cells, tmp_path / "there.zarr", RECIPE, through="pca", client=client)
    groups = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes))
    assert {"quality-control", "covariance", "projection"} <= set(groups)


def test_columns_are_turned_into_rows_for_the_workers(tmp_path, client):
    """Once, by the client, into the journal."""
    import anndata as ad

    (tmp_path / "out").mkdir()
    ad.AnnData(ad.read_h5ad(PBMC).X.tocsc()).write_h5ad(tmp_path / "columns.h5ad")
    with pytest.warns(UserWarning, match="X lies by columns"):
        cm.run(tmp_path / "columns.h5ad", tmp_path / "out" / "here.zarr", RECIPE, through="pca")
    with pytest.warns(UserWarning, match="X lies by columns"):
        cm.run(tmp_path / "columns.h5ad", tmp_path / "out" / "there.zarr", RECIPE, through="pca", client=client)
    same(tmp_path / "out")


@pytest.fixture(scope="module")
def columns(cells, tmp_path_factory):
    """The same cells, in a matrix that lies by columns, as a layer, too."""
    import anndata as ad

    adata = ad.read_zarr(cells)
    adata.X = adata.X.tocsc()
    adata.layers["counts"] = adata.X.copy()
    path = tmp_path_factory.mktemp("columns") / "columns.h5ad"
    adata.write_h5ad(path)
    return path


STATISTICS = {
    "aggregate": ["aggregate", "--by", "batch", "--func", "sum,mean,var,count_nonzero"],
    "t-test": ["markers", "--groupby", "batch"],
    "wilcoxon": ["markers", "--groupby", "batch", "--method", "wilcoxon"],
    "logreg": ["markers", "--groupby", "batch", "--method", "logreg"],
    "score": ["score", "--set", "first=1,2,3,5,8,13"],
}


def statistics(name, store, folder, client) -> None:
    """The program's, with and without workers: the same bytes, and the workers' notes are gone."""
    command, *options = STATISTICS[name]
    for output, more in (("here.zarr", []), ("there.zarr", ["--scheduler", client.scheduler.address])):
        call = [PROGRAM, command, store, "-o", output, "--threads", "2", "--json", *options, *more]
        ended = subprocess.run(call, cwd=folder, env={**os.environ, "CELLMILL_PYTHON": sys.executable}, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
    same(folder)
    read = [stage["bytes_read"] for stage in json.loads(ended.stdout)["stages"]]
    assert sum(read) == 0, "this process reads no row but the first, before the stages"


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics(cells, tmp_path, client, name):
    """Markers, aggregates and scores."""
    statistics(name, cells, tmp_path, client)


@pytest.mark.parametrize("name", ["aggregate", "wilcoxon", "score"])
def test_statistics_of_columns(columns, tmp_path, client, name):
    """The program turns them into rows, once, and workers read these."""
    statistics(name, columns, tmp_path, client)


VERBS = {
    "aggregate": lambda a: cm.get.aggregate(a, "batch", ["mean", "var"]).layers["var"],
    "t-test": lambda a: cm.tl.rank_genes_groups(a, "batch", copy=True).uns["rank_genes_groups"]["pvals"],
    "wilcoxon": lambda a: cm.tl.rank_genes_groups(a, "batch", method="wilcoxon", copy=True).uns["rank_genes_groups"]["scores"],
    "score": lambda a: cm.tl.score_genes(a, a.var_names[:20].tolist(), ctrl_size=5, copy=True).obs["score"].to_numpy(),
}


def verbs(name, store, client, monkeypatch, **options) -> None:
    """On a handle: the settings' client reads the rows, of the cells and genes that are left, as they are after the recorded steps; the same bits."""
    adata = cm.read_lazy(store, **options)
    cm.pp.normalize_total(adata, target_sum=100)
    cm.pp.log1p(adata)
    adata = adata[np.arange(adata.n_obs) % 5 != 0, np.arange(adata.n_vars) % 3 != 0]
    here = VERBS[name](adata)
    monkeypatch.setattr(cm.settings, "client", client)
    orders = []
    monkeypatch.setattr(Crew, "submit", lambda crew, given, submit=Crew.submit: (orders.extend(given), submit(crew, given)))
    there = VERBS[name](adata)
    assert here.tobytes() == there.tobytes()
    assert len(orders) >= 4, "workers have read"
    assert [p.name for p in store.parent.iterdir()] == [store.name], "the workers' notes are gone"


@pytest.mark.parametrize("name", VERBS)
def test_verbs_on_a_handle(cells, client, monkeypatch, name):
    verbs(name, cells, client, monkeypatch)


@pytest.mark.parametrize(("name", "matrix"), [("t-test", "X"), ("aggregate", "layers/counts")])
@pytest.mark.filterwarnings("ignore:.*lies by columns")
def test_verbs_on_a_handle_of_columns(columns, client, monkeypatch, name, matrix):
    verbs(name, columns, client, monkeypatch, matrix=matrix)
