"""Data of the tests: real counts that are part of the repository."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from kinds import PBMC

os.environ.setdefault("CELLMILL_NUM_THREADS", "2")


@pytest.fixture(scope="session")
def whole() -> ad.AnnData:
    """2,700 cells by 32,738 genes, counts, CSR float32."""
    adata = ad.read_h5ad(PBMC)
    adata = ad.AnnData(adata.X.astype(np.float32), obs=adata.obs[[]].copy(), var=adata.var[[]].copy())
    adata.obs["batch"] = np.array(["b", "a", "c"])[np.arange(adata.n_obs) % 3]
    return adata


@pytest.fixture(scope="session")
def small(whole: ad.AnnData) -> ad.AnnData:
    """700 cells by the 3,000 genes seen most often, and 60 that are not seen, shuffled by a fixed order."""
    seen = np.asarray((whole.X > 0).sum(axis=0)).ravel()
    genes = np.sort(np.r_[np.argsort(-seen, kind="stable")[:3000], np.flatnonzero(seen == 0)[:60]])
    return whole[:700, genes].copy()


@pytest.fixture
def counts(small: ad.AnnData) -> ad.AnnData:
    return small.copy()


@pytest.fixture
def logged(small: ad.AnnData) -> ad.AnnData:
    """Logarithms that scanpy has taken."""
    import scanpy as sc

    adata = small.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


@pytest.fixture(scope="session")
def stores(small: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``small`` as ``small.h5ad`` and ``small.zarr``."""
    folder = tmp_path_factory.mktemp("stores")
    small.write_h5ad(folder / "small.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small.write_zarr(folder / "small.zarr")
    return folder


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60,000 cells of six kinds: fifteen tasks, four orders of a read."""
    n_obs, n_vars = 60_000, 700
    rng = np.random.default_rng(0)
    kinds = rng.gamma(0.3, 0.25, (6, n_vars)) + 0.01
    kind = rng.integers(0, 6, n_obs)
    blocks = [sp.csr_matrix(rng.poisson(kinds[kind[at : at + 5000]]).astype(np.float32)) for at in range(0, n_obs, 5000)]
    adata = ad.AnnData(sp.vstack(blocks, format="csr"))
    adata.obs["batch"] = np.array(["b", "a", "c"])[np.arange(n_obs) % 3]
    path = tmp_path_factory.mktemp("cluster") / "cells.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_zarr(path)
    return path
