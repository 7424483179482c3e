"""Every kind of container that the package takes, and how results are compared."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import scipy.sparse as sp

ROOT = Path(__file__).parents[2]
PBMC = ROOT / "data" / "pbmc3k.h5ad"


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


KINDS = ["csr", "csc", "dense", "csr64", "ints"]


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
