"""What happens to workers, folders and schedulers in the middle of a run, with real processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from kinds import ROOT
from trouble import Trouble
from workers import LOCAL, RECIPE, same

import cellmill as cm

distributed = pytest.importorskip("distributed")


@pytest.fixture
def here(cells, tmp_path) -> Path:
    """The output of one machine, and the folder of the other's."""
    (tmp_path / "hits").mkdir()
    (tmp_path / "out").mkdir()
    cm.run(cells, tmp_path / "out" / "here.zarr", RECIPE, through="pca")
    return tmp_path / "out"


def hits(folder: Path) -> int:
    """Processes that trouble has come to."""
    return len(list((folder.parent / "hits").iterdir()))


@contextlib.contextmanager
def workers(n: int, **options):
    with distributed.LocalCluster(**{**LOCAL, "n_workers": n, **options}) as cluster, cluster.get_client() as client:
        yield client


def trouble(client, folder: Path, what: str, passes: str, orders: set[int], *, once: bool = True) -> None:
    """Lets something happen, to each process that a worker has now (or to those that come in their place too)."""
    plugin = Trouble(what, passes, orders, str(folder.parent / "hits"))
    if once:
        client.run(lambda dask_worker: plugin.setup(dask_worker), workers=sorted(client.nthreads())[:1])
    else:
        client.register_plugin(plugin)


@pytest.mark.parametrize("passes", ["quality-control", "covariance", "projection"])
@pytest.mark.parametrize("what", ["killed before", "killed after"])
def test_a_worker_is_killed(cells, here, what, passes):
    """Rows that it had packed are decoded again, an order whose record is there is carried out again."""
    with workers(3) as client:
        trouble(client, here, what, passes, {0})
        cm.run(cells, here / "there.zarr", RECIPE, through="pca", client=client)
    assert hits(here) == 1
    same(here)


def test_a_worker_that_takes_too_much_memory_is_ended(cells, here):
    """By its nanny; its orders go to the other."""
    with workers(2, memory_limit="600MB") as client:
        trouble(client, here, "out of memory", "covariance", {0})
        cm.run(cells, here / "there.zarr", RECIPE, through="pca", client=client)
        (hit,) = (here.parent / "hits").iterdir()
        assert int(hit.name.removeprefix("hit-")) not in client.run(os.getpid).values()
    same(here)


def test_workers_are_killed_while_they_search_for_neighbours(cells, here):
    """One of several: another does its order. All, again and again: the run ends, and goes on later with the lists that were searched."""
    shutil.rmtree(here / "here.zarr")
    cm.run(cells, here / "here.zarr", RECIPE, through="neighbors")
    with workers(3) as client:
        trouble(client, here, "killed after", "neighbors", {0})
        cm.run(cells, here / "there.zarr", RECIPE, through="neighbors", client=client)
    assert hits(here) == 1
    same(here)
    shutil.rmtree(here / "there.zarr")
    with workers(2) as client:
        trouble(client, here, "killed before", "neighbors", set(range(100)), once=False)
        with pytest.warns(UserWarning, match="--resume"), pytest.raises(OSError, match="neighbors"):
            cm.run(cells, here / "there.zarr", RECIPE, through="neighbors", client=client)
    with workers(1) as client:
        summary = cm.run(cells, here / "there.zarr", RECIPE, through="neighbors", client=client, resume=True)
    assert all(stage["source_reads"] == 0 for stage in summary["stages"]), "what came before is there"
    same(here)


@pytest.mark.parametrize("passes", ["umap", "leiden"])
def test_the_worker_that_has_the_graph_is_killed(cells, here, passes):
    """Another gets the order; killed again and again, the run ends, and goes on later with the other half."""
    recipe = {**RECIPE, "filter": {"cells": "n_genes_by_counts >= 62"}}
    shutil.rmtree(here / "here.zarr")
    cm.run(cells, here / "here.zarr", recipe)
    with workers(3) as client:
        for worker in sorted(client.nthreads()):
            plugin = Trouble("killed before", passes, {0}, str(here.parent / "hits"))
            client.run(lambda dask_worker, plugin=plugin: plugin.setup(dask_worker), workers=[worker])
        cm.run(cells, here / "there.zarr", recipe, client=client)
    assert 1 <= hits(here) <= 3
    same(here)
    shutil.rmtree(here / "there.zarr")
    with workers(2) as client:
        trouble(client, here, "killed before", passes, set(range(100)), once=False)
        with pytest.warns(UserWarning, match="--resume"), pytest.raises(OSError, match=f"{passes}.* has lost its worker"):
            cm.run(cells, here / "there.zarr", recipe, client=client)
    other = {"umap": "leiden", "leiden": "umap"}[passes]
    assert list(here.glob(f"there.zarr.journal/{other}-*-0-1")), "the other half is done"
    with workers(1) as client:
        summary = cm.run(cells, here / "there.zarr", recipe, client=client, resume=True)
    assert all(stage["source_reads"] == 0 for stage in summary["stages"]), "what came before is there"
    same(here)


def test_a_slow_worker_loses_orders_to_others(cells, here):
    with workers(2) as client:
        trouble(client, here, "slow", "", set(range(100)))
        cm.run(cells, here / "there.zarr", RECIPE, through="pca", client=client)
    assert hits(here) == 1
    same(here)


def test_all_that_work_are_killed_and_the_run_goes_on_later(cells, here):
    with workers(2) as client:
        trouble(client, here, "killed before", "covariance", set(range(100)), once=False)
        with pytest.warns(UserWarning, match="--resume"), pytest.raises(OSError, match="covariance") as error:
            cm.run(cells, here / "there.zarr", RECIPE, through="pca", client=client)
        assert client.scheduler.address in str(error.value)
        assert hits(here) > 3
    # Later, on other workers.
    with workers(2) as client:
        summary = cm.run(cells, here / "there.zarr", RECIPE, through="pca", client=client, resume=True)
    assert summary["stages"][0]["source_reads"] == 0, "the first read is there"
    same(here)


def test_a_worker_that_sees_another_folder_is_named(cells, here):
    with workers(1) as client:
        (worker,) = client.nthreads()
        trouble(client, here, "no folder", "quality", set(range(100)))
        with pytest.warns(UserWarning, match="--resume"), pytest.raises(OSError, match="No such file") as error:
            cm.run(cells, here / "there.zarr", RECIPE, through="pca", client=client)
    assert worker in str(error.value)
    assert str(here / "elsewhere.zarr.journal") in str(error.value)


def test_a_worker_that_does_not_see_the_store_is_named(cells, here, tmp_path):
    """A worker process in a mount namespace of its own, where the input's folder is empty."""
    blind = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(cells.parent)]
    if shutil.which("unshare") is None or subprocess.run([*blind, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespaces for this user")
    with workers(0) as client:
        options = ["--nthreads", "1", "--no-dashboard", "--no-nanny", "--local-directory", str(tmp_path)]
        command = [*blind, sys.executable, "-m", "distributed.cli.dask_worker", client.scheduler.address, *options]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            client.wait_for_workers(1, timeout=60)
            (worker,) = client.nthreads()
            with pytest.warns(UserWarning, match="--resume"), pytest.raises(OSError, match="No such file") as error:
                cm.run(cells, here / "there.zarr", RECIPE, through="pca", client=client)
            assert worker in str(error.value)
            assert str(cells) in str(error.value)
        finally:
            process.kill()
            process.wait()


def test_a_worker_with_too_little_memory_is_named(cells, here):
    with workers(1, memory_limit="150MB") as client:
        (worker,) = client.nthreads()
        with pytest.warns(UserWarning, match="--resume"), pytest.raises(OSError, match="ceiling is 86 MiB") as error:
            cm.run(cells, here / "there.zarr", RECIPE, through="pca", client=client)
    assert worker in str(error.value)


def test_an_error_of_the_data_comes_at_once_and_leaves_nothing(cells, tmp_path):
    import anndata as ad

    adata = ad.read_zarr(cells)
    adata.X.data[adata.X.indptr[50_000]] = -1
    adata.write_zarr(tmp_path / "bad.zarr")
    with workers(2) as client, pytest.raises(ValueError, match=r"bad.zarr: X/data, rows 50000..50001: the value -1"):
        cm.run(tmp_path / "bad.zarr", tmp_path / "there.zarr", RECIPE, through="pca", client=client)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.zarr"]


@contextlib.contextmanager
def scheduler(folder: Path):
    """A scheduler and two workers as processes of their own: its address, and the scheduler's process."""
    file = folder / f"scheduler-{time.monotonic_ns()}.json"
    at = ["--scheduler-file", str(file)]
    hub = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard", *at]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    processes = [subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) for command in (hub, [*worker, *at], [*worker, *at])]
    try:
        while not file.exists() or not file.read_text():
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"], processes[0]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def begun(folder: Path) -> bool:
    """Whether a record of the first read is there."""
    return any(folder.glob("there.zarr.journal/quality-control-*-0-4"))


def wait(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def test_the_scheduler_is_killed_and_the_run_goes_on_with_another(cells, here, tmp_path):
    dask = pytest.importorskip("dask")
    with dask.config.set({"distributed.comm.timeouts.connect": "2s"}), scheduler(tmp_path) as (address, process):
        with distributed.Client(address) as client:
            client.wait_for_workers(2, timeout=60)
            trouble(client, here, "slow", "covariance", set(range(100)), once=False)
            ended = threading.Thread(target=lambda: (wait(lambda: hits(here) > 0), process.kill()))
            ended.start()
            with pytest.warns(UserWarning, match="--resume"), pytest.raises(OSError, match="is lost"):
                cm.run(cells, here / "there.zarr", RECIPE, through="pca", client=client)
            ended.join()
    with workers(1) as client:
        summary = cm.run(cells, here / "there.zarr", RECIPE, through="pca", client=client, resume=True)
    assert summary["stages"][0]["source_reads"] == 0, "the first read is there"
    same(here)


def program(cells: Path, here: Path, client) -> list[str]:
    """The command line of a run with the recipe of the tests."""
    file = here.parent / "recipe.toml"
    file.write_text('[hvg]\nn_top_genes = 200\n[pca]\nn_comps = 12\n[qc]\npercent_top = [50]\n[filter]\ncells = "n_genes_by_counts >= 40"\n')
    called = os.environ.get("CELLMILL", str(ROOT / "target" / "debug" / "cellmill"))
    options = ["-o", str(here / "there.zarr"), "--through", "pca", "--recipe", str(file), "--scheduler", client.scheduler.address]
    return [called, "run", str(cells), *options]


def environment() -> dict[str, str]:
    return {**os.environ, "CELLMILL_PYTHON": sys.executable}


def test_the_program_is_killed_and_goes_on(cells, here):
    with workers(2) as client:
        trouble(client, here, "slow", "covariance", set(range(100)), once=False)
        command = program(cells, here, client)
        process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait(lambda: hits(here) > 0)
        process.kill()
        process.wait()
        assert begun(here)
        ended = subprocess.run([*command, "--resume", "--json"], env=environment(), capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["stages"][0]["source_reads"] == 0, "the first read is there"
    same(here)


def test_the_program_is_killed_while_workers_leave_chunks(cells, here):
    """And then a worker, too: the chunks that are there are not made again."""
    shutil.rmtree(here / "here.zarr")
    cm.run(cells, here / "here.zarr", {**RECIPE, "pca": {"n_comps": 100}}, through="pca")
    with workers(2) as client:
        trouble(client, here, "slow", "projection", set(range(100)), once=False)
        command = [*program(cells, here, client), "--n-comps", "100"]
        process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait(lambda: any(p.suffix != ".new" for p in here.glob("there.zarr.journal/projection-*-0-*")))
        process.kill()
        process.wait()
    (made,) = here.glob("there.zarr.journal/projection-*-chunks/0")
    made = made.stat().st_ino
    assert not (here / "there.zarr").exists()
    with workers(2) as client:
        trouble(client, here, "killed after", "projection", {0})
        ended = subprocess.run([*program(cells, here, client), "--n-comps", "100", "--resume"], env=environment(), capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
    assert (here / "there.zarr" / "obsm" / "X_pca" / "c" / "0" / "0").stat().st_ino == made
    same(here)


def test_an_interrupt_takes_orders_back(cells, here):
    """Ctrl-C reaches the program and the Python beside it alike."""
    with workers(2) as client:
        trouble(client, here, "slow", "", set(range(100)), once=False)
        process = subprocess.Popen(program(cells, here, client), env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, process_group=0)
        wait(lambda: hits(here) > 0)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "go on with --resume" in said
        assert "Traceback" not in said
        wait(lambda: client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0)
        ended = subprocess.run([*program(cells, here, client), "--resume"], env=environment(), capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
    same(here)


def test_a_worker_whose_scratch_disk_is_full_reads_rows_again(cells, here, tmp_path):
    """A worker process whose scratch folder has 64 KiB, with memory for no packed rows."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    small = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=64k none "$0" && exec "$@"', str(scratch)]
    if shutil.which("unshare") is None or subprocess.run([*small, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespaces for this user")
    with workers(1, memory_limit="150MB") as client, pytest.warns(UserWarning, match="--resume"), pytest.raises(OSError) as error:
        cm.run(cells, here / "there.zarr", RECIPE, through="pca", client=client)
    need = re.search(r"raise --memory to at least ([\d.]+) MiB", str(error.value))
    assert need, str(error.value)
    with workers(0) as client:
        limit = str(int(float(need[1]) * 2**20 / 0.6))
        options = ["--nthreads", "1", "--memory-limit", limit, "--no-dashboard", "--no-nanny", "--local-directory", str(scratch)]
        command = [*small, sys.executable, "-m", "distributed.cli.dask_worker", client.scheduler.address, *options]
        # Python alone takes more than that: Dask must not hold the worker up.
        unheeded = {f"DASK_DISTRIBUTED__WORKER__MEMORY__{name}": "False" for name in ("TARGET", "SPILL", "PAUSE", "TERMINATE")}
        process = subprocess.Popen(command, env={**os.environ, **unheeded}, stderr=subprocess.DEVNULL)
        try:
            client.wait_for_workers(1, timeout=60)
            summary = cm.run(cells, here / "there.zarr", RECIPE, through="pca", client=client, resume=True)
        finally:
            process.kill()
            process.wait()
    assert summary["source_reads"] == 2, "the covariance has decoded them again"
    same(here)
