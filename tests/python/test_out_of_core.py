"""Past memory: one decode, a ceiling that is kept, and a run that goes on after it was killed at any moment."""

import json
import random
import shutil
import signal
import subprocess
import time

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import inputs
from program import binary, cellmill, files, message, succeed
from test_determinism import assert_same_files

MIB = 1 << 20
SMALL = ("--min-genes", 1, "--max-genes", 100000, "--n-top-genes", 300, "--n-comps", 20, "--through", "pca")


def matrices():
    """Sparse, dense rows, and skew: a few cells with nearly all genes, all in one place."""
    rng = np.random.default_rng(3)
    sparse = sp.random(30000, 4000, 0.05, "csr", np.float32, rng, lambda n: rng.poisson(2, n) + 1)
    dense = sp.csr_matrix(rng.poisson(2.0, (3000, 3000)).astype(np.float32))
    skewed = sp.vstack([sp.random(20000, 20000, 0.004, "csr", np.float32, rng, lambda n: rng.poisson(1, n) + 1), sp.csr_matrix(rng.poisson(4.0, (60, 20000)).astype(np.float32))]).tocsr()
    skewed = skewed[np.r_[:9000, 20000:20060, 9000:20000]]
    return {"sparse": sparse, "dense": dense, "skewed": skewed}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ceilings")
    paths = {}
    for name, x in matrices().items():
        paths[name] = folder / f"{name}.zarr"
        ad.AnnData(x).write_zarr(paths[name])
    return paths


def smallest(store, *flags, threads=2):
    """The smallest ceiling that the plan accepts, in bytes."""
    done = cellmill("plan", store, "--json", "--threads", threads, *flags)
    assert done.code == 0, str(done)
    return done.json()["peak_bytes"]


def peak(trace):
    """The largest resident memory of a run as the kernel saw it (VmHWM at its end), in bytes."""
    return json.loads(trace.read_text())["peak_rss_bytes"]


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("name", ["sparse", "dense", "skewed"])
def test_the_ceiling_is_kept(name, threads, stores, tmp_path):
    """At the smallest ceiling that is accepted, rows are spilled and the output is that of a run with all the memory it likes."""
    least = smallest(stores[name], *SMALL, threads=threads)
    outputs = []
    for i, ceiling in enumerate([least, least + 16 * MIB, 16 << 30]):
        out = tmp_path / f"{i}.zarr"
        succeed("run", stores[name], "-o", out, *SMALL, "--threads", threads, "--memory", ceiling, "--trace", tmp_path / "t.json")
        used = peak(tmp_path / "t.json")
        assert used <= ceiling, f"{used / MIB:.0f} MiB of {ceiling / MIB:.0f} MiB"
        outputs.append(out)
    assert_same_files(outputs[2], outputs[0])
    assert_same_files(outputs[2], outputs[1])


@pytest.mark.parametrize("name", ["sparse", "dense", "skewed"])
def test_a_plan_that_does_not_fit_says_what_would(name, stores, tmp_path):
    least = smallest(stores[name], *SMALL)
    said = message(cellmill("run", stores[name], "-o", tmp_path / "o.zarr", *SMALL, "--threads", 2, "--memory", least - MIB))
    assert "raise --memory to at least" in said
    assert not list(tmp_path.iterdir())


def test_the_source_is_decoded_once(stores, tmp_path):
    traces = {}
    for memory in ["16GiB", smallest(stores["sparse"], *SMALL)]:
        out = tmp_path / f"{memory}.zarr"
        succeed("run", stores["sparse"], "-o", out, *SMALL, "--threads", 2, "--memory", memory, "--trace", tmp_path / "t.json")
        traces[memory] = json.loads((tmp_path / "t.json").read_text())
    for trace in traces.values():
        assert trace["source_reads"] == 1
        stages = {s["stage"]: s for s in trace["stages"]}
        assert stages["quality control"]["bytes_decoded"] > 0
        assert stages["principal components"]["bytes_decoded"] == 0
        assert stages["principal components"]["source_reads"] == 0


@pytest.mark.parametrize("flags", [("--flavor", "seurat_v3"), ("--target-sum", "median"), ("--min-cells", "3"), ("--with-x", "raw")], ids=str)
def test_other_recipes_decode_once_too(flags, stores, tmp_path):
    succeed("run", stores["sparse"], "-o", tmp_path / "o.zarr", *SMALL, *flags, "--trace", tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["source_reads"] == 1


def test_fractions_are_staged_losslessly(tmp_path):
    rng = np.random.default_rng(0)
    x = sp.random(3000, 500, 0.2, "csr", np.float32, rng)
    ad.AnnData(x).write_zarr(tmp_path / "a.zarr")
    flags = ("--target-sum", "none", "--no-log1p", "--filter-cells", "", "--n-top-genes", 100, "--n-comps", 10, "--through", "pca", "--with-x", "raw")
    succeed("run", tmp_path / "a.zarr", "-o", tmp_path / "o.zarr", *flags)
    back = ad.read_zarr(tmp_path / "o.zarr").X
    assert (back != x).nnz == 0


def test_a_spill_folder_without_room(stores, tmp_path):
    """Without a place to spill the source is decoded again; the result is the same."""
    least = smallest(stores["sparse"], *SMALL)
    succeed("run", stores["sparse"], "-o", tmp_path / "a.zarr", *SMALL, "--threads", 2)
    done = succeed("run", stores["sparse"], "-o", tmp_path / "b.zarr", *SMALL, "--threads", 2, "--memory", least, "--spill-dir", tmp_path / "nowhere", "--trace", tmp_path / "t.json")
    assert "nowhere" in done.err
    assert json.loads((tmp_path / "t.json").read_text())["source_reads"] > 1
    assert_same_files(tmp_path / "a.zarr", tmp_path / "b.zarr")


# --- the journal -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def medium(tmp_path_factory):
    path = tmp_path_factory.mktemp("journal") / "medium.zarr"
    succeed("simulate", path, "--cells", 20000, "--genes", 3000, "--seed", 5, "--quiet")
    return path


WHOLE = ("--min-genes", 20, "--n-top-genes", 500, "--n-comps", 20, "--resolution", "0.5,1", "--with-x", "hvg")


@pytest.mark.parametrize("name", ["out.zarr", "out.h5ad"])
def test_killed_at_any_moment(name, medium, tmp_path):
    reference = tmp_path / f"reference_{name}"
    start = time.monotonic()
    succeed("run", medium, "-o", reference, *WHOLE, "--threads", 2)
    seconds = time.monotonic() - start
    out, draw, kills = tmp_path / name, random.Random(11), 0
    resume = ()
    while True:
        threads = draw.choice([1, 2, 3])
        child = subprocess.Popen(list(map(str, [binary(), "run", medium, "-o", out, *WHOLE, "--threads", threads, "--quiet", *resume])))
        try:
            child.wait(seconds * draw.uniform(0.05, 0.5) if kills < 12 else 300)
            break
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            kills += 1
            resume = ("--resume",)
            if out.exists():
                # Killed behind its last step but one: what is there is whole.
                assert_same_files(reference, out)
                if not out.with_name(name + ".journal").exists():
                    break
    assert child.returncode in (0, -signal.SIGKILL)
    assert kills > 0
    assert_same_files(reference, out)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == sorted([reference.name, out.name])


def killed(medium, out, *flags, after=0.3):
    """Leaves a journal of a run that was killed."""
    for _ in range(20):
        child = subprocess.Popen(list(map(str, [binary(), "run", medium, "-o", out, *WHOLE, *flags, "--quiet"])))
        journal = out.with_name(out.name + ".journal")
        deadline = time.monotonic() + 60
        while not (journal / "quality control.log").exists() and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        if journal.exists() and not out.exists():
            return journal
    raise AssertionError("no run could be caught")


def test_killed_between_output_and_journal(medium, tmp_path):
    """The output is there and so is the journal: going on ends as an undisturbed run."""
    out = tmp_path / "o.zarr"
    journal = killed(medium, out)
    saved = tmp_path / "saved"
    shutil.copytree(journal, saved)
    succeed("run", medium, "-o", out, *WHOLE, "--resume")
    shutil.move(saved, journal)
    before = files(out)
    succeed("run", medium, "-o", out, *WHOLE, "--resume")
    assert files(out) == before
    assert not journal.exists()


def test_another_recipe_is_not_resumed(medium, tmp_path):
    out = tmp_path / "o.zarr"
    journal = killed(medium, out)
    said = message(cellmill("run", medium, "-o", out, *WHOLE, "--n-neighbors", 7, "--resume"))
    assert "recipe neighbors.n_neighbors: 15 then, 7 now" in said
    assert journal.exists()
    assert not out.exists()


def test_another_input_is_not_resumed(medium, tmp_path):
    copy = tmp_path / "copy.zarr"
    subprocess.run(["cp", "-a", medium, copy], check=True)
    out = tmp_path / "o.zarr"
    killed(copy, out)
    some = next(p for p in sorted(copy.rglob("*")) if p.is_file() and p.stat().st_size > 1000)
    some.write_bytes(some.read_bytes()[:-1] + b"\0")
    assert "input" in message(cellmill("run", copy, "-o", out, *WHOLE, "--resume"))


def test_an_unfinished_run_is_not_thrown_away_unasked(medium, tmp_path):
    out = tmp_path / "o.zarr"
    killed(medium, out)
    assert "--resume" in message(cellmill("run", medium, "-o", out, *WHOLE))
    succeed("run", medium, "-o", out, *WHOLE, "-y", "--through", "hvg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.zarr"]


def test_a_damaged_journal_is_done_again(medium, tmp_path):
    succeed("run", medium, "-o", tmp_path / "a.zarr", *WHOLE, "--through", "pca")
    out = tmp_path / "o.zarr"
    journal = killed(medium, out, "--through", "pca")
    log = journal / "quality control.log"
    data = bytearray(log.read_bytes())
    for at in range(100, len(data), 5000):
        data[at] ^= 0x55
    log.write_bytes(bytes(data[: len(data) - 3]))
    succeed("run", medium, "-o", out, *WHOLE, "--through", "pca", "--resume")
    assert_same_files(tmp_path / "a.zarr", out)


def test_interrupted_by_the_user(medium, tmp_path):
    """Ctrl-C stops within a second and leaves a journal that can be resumed."""
    out = tmp_path / "o.zarr"
    child = subprocess.Popen(list(map(str, [binary(), "run", medium, "-o", out, *WHOLE])), stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "o.zarr.journal"
    while not (journal / "quality control.log").exists() and child.poll() is None:
        time.sleep(0.005)
    start = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode != 0
    assert time.monotonic() - start < 1.5
    assert "--resume" in err
    assert journal.exists()
    succeed("run", medium, "-o", out, *WHOLE, "--resume")
    assert files(out)


def test_nothing_to_resume(medium, tmp_path):
    done = succeed("run", medium, "-o", tmp_path / "o.zarr", "--through", "qc", "--resume")
    assert "nothing to resume" in done.err


def test_bad_input_leaves_no_journal(tmp_path):
    a = inputs.synthetic(300, 400)
    a.X[3, 4] = -1
    path = inputs.write(a, tmp_path / "bad.zarr")
    message(cellmill("run", path, "-o", tmp_path / "o.zarr", "--quiet"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.zarr"]
