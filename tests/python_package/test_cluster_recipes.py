"""The documentation's recipes for Slurm and Kubernetes, carried out: what a batch system or an operator would start runs as processes here."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from kinds import ROOT
from workers import RECIPE, same

import cellmill as cm

distributed = pytest.importorskip("distributed")

PROGRAM = Path(os.environ.get("CELLMILL", ROOT / "target" / "debug" / "cellmill"))
DOCS = (ROOT / "docs" / "cluster.md").read_text()

#: Takes a job as `sbatch` does, a copy of its script, and starts it at once; its job is a process group.
SBATCH = """
import os, pathlib, re, subprocess, sys
folder = pathlib.Path(os.environ["STAND_IN"])
script, text = folder / f"script-{os.getpid()}", pathlib.Path(sys.argv[-1]).read_text()
script.write_text(text)
options = re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE)
with open(folder / "options", "a") as log:
    print(*options, sep="\\n", file=log)
with open(folder / "log", "a") as log:
    job = subprocess.Popen(["bash", script], stdout=log, stderr=log, start_new_session=True)
with open(folder / "jobs", "a") as jobs:
    print(job.pid, file=jobs)
print("Submitted batch job", job.pid)
"""
#: Ends jobs.
SCANCEL = """
import os, signal, sys
for job in sys.argv[1:]:
    try:
        os.killpg(int(job), signal.SIGTERM)
    except ProcessLookupError:
        pass
"""
#: Starts a step's tasks, and waits for them.
SRUN = """
import subprocess, sys
n = next(int(word.partition("=")[2]) for word in sys.argv[1:] if word.startswith("--ntasks="))
command = [word for word in sys.argv[1:] if not word.startswith("--ntasks=") and word != "--exact"]
tasks = [subprocess.Popen(command) for _ in range(n)]
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.fixture
def there(cells, tmp_path, monkeypatch):
    """A folder with the input, the output of one machine and stand-ins of Slurm's programs; their jobs are gone afterwards."""
    shared, stand_in = tmp_path / "shared", tmp_path / "bin"
    (shared / "out").mkdir(parents=True)
    stand_in.mkdir()
    for name, text in {"sbatch": SBATCH, "scancel": SCANCEL, "srun": SRUN}.items():
        path = stand_in / name
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    path = os.pathsep.join(map(str, [stand_in, Path(sys.executable).parent, PROGRAM.parent, os.environ["PATH"]]))
    for name, value in {"PATH": path, "STAND_IN": stand_in, "TMPDIR": tmp_path, "CELLMILL_PYTHON": sys.executable}.items():
        monkeypatch.setenv(name, str(value))
    (shared / "atlas.zarr").symlink_to(cells)
    yield shared
    for job in (stand_in / "jobs").read_text().split() if (stand_in / "jobs").exists() else []:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(job), signal.SIGKILL)


def block(language: str, word: str) -> str:
    """The block of the documentation that has this word."""
    (found,) = (text for text in re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL) if word in text)
    return found


def put(text: str, *pairs: tuple[str, str]) -> str:
    """Puts this machine's size in place of a cluster's; each must be there."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def test_slurm_by_dask_jobqueue(there):
    """Its jobs start workers that work, with the threads, the memory and the scratch folder of the recipe."""
    pytest.importorskip("dask_jobqueue")
    cm.run(there / "atlas.zarr", there / "out" / "here.zarr", RECIPE, through="pca")
    code = put(
        block("python", "SLURMCluster"),
        ("cores=8", "cores=2"), ("16GB", "2GB"), ("jobs=8", "jobs=2"), ('"/shared/atlas.zarr"', "SHARED / 'atlas.zarr'"),
        ('"/shared/out.zarr", ', "SHARED / 'out' / 'there.zarr', RECIPE, through='pca', "),
        ("    cm.run", "    client.wait_for_workers(2, timeout=60)\n    WORKERS.update(client.scheduler_info(n_workers=-1)['workers'])\n    cm.run"),
    )  # fmt: skip
    found = {"SHARED": there, "RECIPE": RECIPE, "WORKERS": {}}
    with pytest.warns(UserWarning, match="nothing to resume"):
        exec(code, found)
    found["cluster"].close()
    same(there / "out")
    workers = list(found["WORKERS"].values())
    # dask-jobqueue says 1.86GiB.
    assert [(worker["nthreads"], round(worker["memory_limit"] / 1e8)) for worker in workers] == [(2, 20)] * 2
    assert all(worker["local_directory"].startswith(os.environ["TMPDIR"]) for worker in workers)
    options = Path(os.environ["STAND_IN"], "options").read_text().splitlines()
    assert options.count("--cpus-per-task=2") == 2 and options.count("-t 01:00:00") == 2, options


def test_slurm_without_dask_jobqueue(there):
    """The script: a scheduler, workers and the program in one job."""
    cm.run(there / "atlas.zarr", there / "out" / "here.zarr", RECIPE, through="pca")
    (there / "recipe.toml").write_text("[hvg]\nn_top_genes = 200\n[pca]\nn_comps = 12\n[qc]\npercent_top = [50]\n[filter]\ncells = 'n_genes_by_counts >= 40'\n")
    text = put(
        block("sh", "#SBATCH"),
        ("--ntasks=7", "--ntasks=2"), ("--nthreads 8", "--nthreads 1 --dashboard-address :0"), ("dask scheduler", "dask scheduler --port 0 --dashboard-address :0"),
        ("/shared/out.zarr", "/shared/out/there.zarr --through pca --recipe /shared/recipe.toml --threads 2"), ("/shared", str(there)),
    )  # fmt: skip
    script = there.parent / "job.sh"
    script.write_text(text)
    job = int(subprocess.run(["sbatch", script], check=True, capture_output=True, text=True).stdout.split()[-1])
    log, limit = Path(os.environ["STAND_IN"], "log"), time.monotonic() + 120
    while not (there / "out" / "there.zarr").exists() or (there / "out" / "there.zarr.journal").exists():
        assert time.monotonic() < limit, log.read_text()
        time.sleep(0.1)
    subprocess.run(["scancel", str(job)], check=True)
    same(there / "out")


def test_kubernetes(there):
    """The containers of the manifest, started as dask-kubernetes' operator (2026.3) starts them: it tells workers their name and the scheduler's address."""
    cm.run(there / "atlas.zarr", there / "out" / "here.zarr", RECIPE, through="pca")
    manifest = yaml.safe_load(block("yaml", "DaskCluster"))
    name, spec = manifest["metadata"]["name"], manifest["spec"]
    (scheduler,), (worker,) = spec["scheduler"]["spec"]["containers"], spec["worker"]["spec"]["containers"]
    # The service finds the scheduler's pod and its ports by these.
    service = spec["scheduler"]["service"]
    assert service["selector"] == {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    assert {port["targetPort"] for port in service["ports"]} <= {port["name"] for port in scheduler["ports"]}
    assert {mount["name"] for mount in worker["volumeMounts"]} <= {volume["name"] for volume in spec["worker"]["spec"]["volumes"]}
    file = there / "scheduler.json"
    processes = []

    def start(arguments: list[str], *more: str, **environment: str) -> None:
        words = [re.sub(r"\$\((\w+)\)", lambda at: environment[at[1]], word) for word in arguments]
        with open(there / f"log{len(processes)}", "w") as log:
            processes.append(subprocess.Popen([*words, *more], env={**os.environ, **environment}, cwd=there, stdout=log, stderr=log))

    try:
        start(scheduler["args"], "--port", "0", "--dashboard-address", ":0", "--scheduler-file", str(file))
        with distributed.Client(scheduler_file=str(file), timeout=60) as client:
            address = client.scheduler.address
            for i in range(2):
                start(worker["args"], "--dashboard-address", ":0", DASK_WORKER_NAME=f"{name}-worker-{i}", DASK_SCHEDULER_ADDRESS=address)
            client.wait_for_workers(2, timeout=60)
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
            assert {worker["name"] for worker in workers} == {f"{name}-worker-0", f"{name}-worker-1"}
            cm.run(there / "atlas.zarr", there / "out" / "there.zarr", RECIPE, through="pca", client=client)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
    same(there / "out")
