"""score: scores, control genes and phases of scanpy's score_genes and score_genes_cell_cycle."""

import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import inputs
import reference
from program import cellmill, message, read, succeed


@pytest.fixture(scope="session")
def cells(pbmc):
    """Logged blood cells with unique gene names."""
    a = pbmc.copy()
    a.var_names_make_unique()
    sc.pp.normalize_total(a, target_sum=1e4)
    sc.pp.log1p(a)
    return a


@pytest.fixture(scope="session")
def cells_path(pbmc, folder):
    a = pbmc.copy()
    a.var_names_make_unique()
    return inputs.write(a, folder / "cells_for_scores.zarr")


T = ["CD3D", "CD3E", "CD3G", "IL7R", "LTB"]
B = ["MS4A1", "CD79A", "CD79B", "NOT-A-GENE"]


def scores(path, output, *flags):
    succeed("score", path, "-o", output, *flags)
    return pd.read_csv(output, index_col=0)


def test_scores(cells, cells_path, tmp_path):
    (tmp_path / "b.txt").write_text("\n".join(B) + "\n")
    ours = scores(cells_path, tmp_path / "s.csv", "--set", "T=" + ",".join(T), "--set", f"B={tmp_path / 'b.txt'}")
    for name, genes in (("T", T), ("B", B)):
        a = cells.copy()
        sc.tl.score_genes(a, genes, score_name=name)
        assert list(ours.index) == list(a.obs_names)
        assert np.allclose(ours[name], a.obs[name], atol=2e-6), name


@pytest.mark.parametrize(
    "flags, options",
    [
        (("--ctrl-size", "20", "--n-bins", "10"), {"ctrl_size": 20, "n_bins": 10}),
        (("--seed", "7"), {"random_state": 7}),
        (("--no-ctrl-as-ref",), {"ctrl_as_ref": False}),
        (("--ctrl-size", "5000"), {"ctrl_size": 5000}),
    ],
)
def test_options(flags, options, cells, cells_path, tmp_path):
    ours = scores(cells_path, tmp_path / "s.csv", "--set", "T=" + ",".join(T), *flags)
    a = cells.copy()
    sc.tl.score_genes(a, T, score_name="T", **options)
    assert np.allclose(ours["T"], a.obs["T"], atol=2e-6)


def test_gene_pool(cells, cells_path, tmp_path):
    pool = list(cells.var_names[:9000]) + T
    (tmp_path / "pool.txt").write_text("\n".join(pool))
    ours = scores(cells_path, tmp_path / "s.csv", "--set", "T=" + ",".join(T), "--gene-pool", tmp_path / "pool.txt")
    a = cells.copy()
    sc.tl.score_genes(a, T, score_name="T", gene_pool=pd.unique(np.array(pool)))
    assert np.allclose(ours["T"], a.obs["T"], atol=2e-6)


def test_cell_cycle(cells, cells_path, tmp_path):
    expressed = cells.var_names[np.asarray((cells.X > 0).mean(0)).ravel() > 0.02]
    s, g2m = list(expressed[5:300:7]), list(expressed[9:500:9])
    ours = scores(cells_path, tmp_path / "s.csv", "--s-genes", ",".join(s), "--g2m-genes", ",".join(g2m))
    a = cells.copy()
    sc.tl.score_genes_cell_cycle(a, s_genes=s, g2m_genes=g2m)
    assert list(ours.columns) == ["S_score", "G2M_score", "phase"]
    for name in ("S_score", "G2M_score"):
        assert np.allclose(ours[name], a.obs[name], atol=2e-6)
    sure = (np.abs(a.obs["S_score"] - a.obs["G2M_score"]) > 1e-5) & (a.obs[["S_score", "G2M_score"]].abs().min(axis=1) > 1e-5)
    assert (ours["phase"][sure] == a.obs["phase"][sure]).all()
    assert set(ours["phase"]) == {"S", "G2M", "G1"}


def test_in_place_and_in_a_new_store(cells_path, pbmc, tmp_path):
    import shutil

    store = tmp_path / "copy.zarr"
    shutil.copytree(cells_path, store)
    succeed("score", store, "--in-place", "--set", "T=" + ",".join(T))
    inside = read(store)
    assert inside.obs["T"].dtype == np.float64
    assert inside.X.nnz == pbmc.X.nnz
    succeed("score", cells_path, "-o", tmp_path / "o.h5ad", "--set", "T=" + ",".join(T))
    assert read(tmp_path / "o.h5ad").obs["T"].tolist() == inside.obs["T"].tolist()


def test_threads_change_no_bit(cells_path, tmp_path):
    tables = []
    for threads in (1, 3):
        scores(cells_path, tmp_path / f"{threads}.csv", "--set", "T=" + ",".join(T), "--threads", threads)
        tables.append((tmp_path / f"{threads}.csv").read_bytes())
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--set", "X=NOPE,NADA"), ["'X'", "at least one must be in var"]),
        (("--set", "justgenes"), ["--set", "'justgenes'"]),
        ((), ["--set", "at least one set"]),
        (("--set", "T=CD3D", "--n-bins", "1"), ["n_bins"]),
    ],
)
def test_refusals(flags, words, cells_path, tmp_path):
    done = cellmill("--quiet", "score", cells_path, "-o", tmp_path / "o.csv", *flags)
    text = message(done)
    for word in words:
        assert word in text, text


def test_reference_is_used_on_logged_values_too(cells, folder, tmp_path):
    """X that is logged already is taken as it is."""
    path = inputs.write(cells, folder / "logged_cells.h5ad")
    ours = scores(path, tmp_path / "s.csv", "--set", "T=" + ",".join(T))
    a = cells.copy()
    sc.tl.score_genes(a, T, score_name="T")
    assert reference.far(ours["T"] + 10, a.obs["T"] + 10) < 1e-7
