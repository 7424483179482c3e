"""How the package behaves: imports, threads, signals, forks, errors, the whole job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from kinds import PBMC

import cellmill as cm


def python(code: str, **env: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | env, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light():
    heavy = ["anndata", "pandas", "scipy", "scanpy", "dask", "matplotlib", "h5py", "zarr", "tqdm"]
    seen = python(f"import sys, cellmill; print([m for m in {heavy} if m in sys.modules])")
    assert seen.strip() == "[]"


def test_settings_and_environment():
    said = python("import cellmill as cm; print(cm.settings.n_threads, cm.settings.memory)", CELLMILL_NUM_THREADS="3", CELLMILL_MEMORY="2GiB")
    assert said.split() == ["3", str(2 << 30)]
    with pytest.raises(ValueError, match="4GiB"):
        cm.settings.memory = "a lot"
    with pytest.raises(ValueError, match="n_threads"):
        cm.settings.n_threads = -1
    done = subprocess.run([sys.executable, "-c", "import cellmill"], capture_output=True, text=True, env=os.environ | {"CELLMILL_NUM_THREADS": "many"})
    assert "CELLMILL_NUM_THREADS: 'many', but 0 (all cores) or more are expected" in done.stderr


def test_the_same_bits_for_any_number_of_threads(small):
    found = []
    before = cm.settings.n_threads
    try:
        for n in (1, 2, 3):
            cm.settings.n_threads = n
            adata = small.copy()
            adata.obs["n_counts"] = np.asarray(small.X.sum(axis=1)).ravel()
            cm.pp.normalize_total(adata, target_sum=1e4)
            cm.pp.log1p(adata)
            cm.pp.pca(adata, n_comps=10)
            cm.pp.neighbors(adata, n_neighbors=10)
            cm.tl.umap(adata, maxiter=20)
            cm.tl.leiden(adata)
            cm.tl.rank_genes_groups(adata, "batch", method="logreg")
            left = cm.pp.regress_out(adata[:, :300], "n_counts", inplace=False)
            residuals = cm.pp.normalize_pearson_residuals(small[:, :300], inplace=False)["X"]
            cm.pp.pca(adata, n_comps=5, zero_center=False, key_added="svd")
            arrays = [adata.obsm["X_pca"], adata.obsm["X_umap"], adata.obsm["svd"], left, residuals, adata.uns["rank_genes_groups"]["scores"]]
            found.append((*(array.tobytes() for array in arrays), tuple(adata.obs["leiden"])))
    finally:
        cm.settings.n_threads = before
    assert found[0] == found[1] == found[2]


def test_other_threads_run_meanwhile():
    x = np.random.default_rng(0).normal(size=(20_000, 30)).astype("float32")
    counted, over = [0], threading.Event()

    def count():
        while not over.is_set():
            counted[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    from cellmill._cellmill import neighbors

    before = counted[0]
    neighbors(x, 15, "exact", "euclidean", None, "umap", 0)
    after = counted[0]
    over.set()
    thread.join()
    assert after - before > 20


def test_ctrl_c_stops_a_long_call():
    code = """
import numpy as np, os, signal, threading, time
import cellmill
from cellmill._cellmill import umap
n = 60_000
indptr = np.arange(0, 2 * n + 1, 2)
indices = np.stack([(np.arange(n) - 1) % n, (np.arange(n) + 1) % n], axis=1).ravel()
shape = dict(n_components=2, min_dist=0.5, spread=1.0, n_epochs=1_000_000, alpha=1.0, gamma=1.0, negative_sample_rate=5, a=None, b=None, seed=0)
threading.Timer(2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
start = time.time()
try:
    umap(indptr, indices, np.ones(2 * n, "float32"), shape, "random")
except KeyboardInterrupt:
    print("stopped", time.time() - start < 60)
"""
    assert python(code).strip() == "stopped True"


@pytest.mark.filterwarnings("ignore")
def test_a_forked_child_has_threads_of_its_own(small):
    expected, _ = cm.pp.calculate_qc_metrics(small, inplace=False)
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        obs, _ = cm.pp.calculate_qc_metrics(small, inplace=False)
        os._exit(0 if (obs["total_counts"] == expected["total_counts"]).all() else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_damaged_matrices_are_refused(small):
    import scipy.sparse as sp

    x = small.X.copy()
    x.indices[5] = 10**6
    with pytest.raises(ValueError, match="column 1000000"):
        cm.pp.log1p(x)
    x = sp.csr_matrix((np.ones(3, "f4"), np.array([0, 1, 2]), np.array([0, 2, 3])), shape=(2, 3))
    x.indptr[1] = 5
    with pytest.raises(ValueError, match="indptr"):
        cm.pp.log1p(x)


def test_unsorted_and_double_entries_are_summed():
    import scipy.sparse as sp

    x = sp.csr_matrix((np.array([1, 2, 4], "f4"), np.array([2, 0, 2]), np.array([0, 3])), shape=(1, 3))
    np.testing.assert_allclose(cm.pp.log1p(x).toarray(), np.log1p([[2, 0, 5]]))


def test_run_is_the_command_lines_job(tmp_path):
    import anndata as ad

    out = tmp_path / "out.zarr"
    recipe = {"hvg": {"n_top_genes": 800}, "pca": {"n_comps": 20}, "neighbors": {"n_pcs": 15}, "qc": {"qc_vars": {"mt": "prefix:MT-"}}}
    summary = cm.run(PBMC, out, recipe)
    assert summary["shape"] == [2700, 32738] and summary["n_comps"] == 20 and summary["n_clusters"] > 3
    adata = ad.read_zarr(out)
    assert adata.obsm["X_pca"].shape == (adata.n_obs, 20) and "pct_counts_mt" in adata.obs and "leiden" in adata.obs
    with pytest.raises(ValueError, match="exists already"):
        cm.run(PBMC, out, recipe)
    with pytest.raises(KeyError, match="n_top_genes"):
        cm.run(PBMC, out, {"hvg": {"n_top_gene": 3}})
    with pytest.raises(ValueError, match="through"):
        cm.run(PBMC, tmp_path / "x.zarr", through="everything")
    json.dumps(summary)


def test_words_of_rapids_singlecell_choose_the_device(counts, monkeypatch):
    """Harmless where there is no GPU; one that is named must be there."""
    monkeypatch.setattr(cm.settings, "device", "cpu")
    cm.pp.pca(counts, n_comps=5)
    here = counts.obsm["X_pca"].copy()
    cm.get.anndata_to_GPU(counts)
    assert cm.settings.device == "auto"
    cm.pp.pca(counts, n_comps=5)
    np.testing.assert_allclose(counts.obsm["X_pca"], here, rtol=1e-3, atol=1e-3)
    cm.get.anndata_to_CPU(counts)
    assert cm.settings.device == "cpu"
    cm.settings.device = "cuda:97"
    with pytest.raises(Exception, match="(?i)cuda|gpu"):
        cm.pp.pca(counts, n_comps=5)
    with pytest.raises(ValueError, match="it is auto, cpu, cuda"):
        cm.settings.device = "tpu"
    assert cm.settings.device == "cuda:97"


def test_verbs_that_are_not_here_are_said_to_be():
    with pytest.raises(AttributeError, match="no attribute 'bbknn'; it has calculate_qc_metrics.*scanpy.pp takes the same AnnData"):
        cm.pp.bbknn  # noqa: B018
    assert not hasattr(cm.tl, "tsne")
