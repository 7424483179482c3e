"""Data of the tests: real counts that are part of the repository, in every kind of container that the package takes."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

ROOT = Path(__file__).parents[2]
PBMC = ROOT / "data" / "pbmc3k.h5ad"

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


def as_kind(adata: ad.AnnData, kind: str) -> ad.AnnData:
    """The same data with X in another container."""
    x = adata.X
    adata = adata.copy()
    if kind == "csc":
        adata.X = x.tocsc()
    elif kind == "dense":
        adata.X = x.toarray()
    elif kind == "csr64":
        adata.X = x.astype(np.float64)
    elif kind == "ints":
        adata.X = x.astype(np.int64)
    elif kind == "array":
        adata.X = sp.csr_array(x)
    return adata


KINDS = ["csr", "csc", "dense", "csr64", "ints", "array"]


def dense(x) -> np.ndarray:
    """Values, whatever holds them."""
    if hasattr(x, "compute"):
        x = x.compute()
    return x.toarray() if hasattr(x, "toarray") else np.asarray(x)


def same_frame(found, expected, *, rtol: float = 1e-6, atol: float = 0, dtypes: bool = True) -> None:
    """The same columns in the same order, with the same types and values."""
    assert list(found.columns) == list(expected.columns)
    for name in expected:
        a, b = found[name], expected[name]
        if dtypes:
            assert a.dtype == b.dtype, (name, a.dtype, b.dtype)
        if b.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=name)
        else:
            assert (a.to_numpy() == b.to_numpy()).all(), name
