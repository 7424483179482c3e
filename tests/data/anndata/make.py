"""Writes a small AnnData with the installed anndata: `python make.py` in an environment of each version that SOURCES.md names.

Every element that the version knows is there: categories (ordered or not, with missing values), text, booleans, integers, dense and sparse
arrays, data frames, nested uns, layers, raw, compressed and not.
"""

import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

version = anndata.__version__
number = tuple(int(part) for part in version.split(".")[:2])
rng = np.random.RandomState(0)
n, p = 30, 20
x = sp.csr_matrix(rng.poisson(0.7, size=(n, p)).astype(np.float32))
obs = pd.DataFrame(index=["cell%d" % i for i in range(n)])
obs["batch"] = pd.Categorical(["b", "a", "c"] * (n // 3))
obs["phase"] = pd.Categorical.from_codes(rng.randint(-1, 3, size=n), ["G1", "S", "G2M"], ordered=True)
obs["note"] = ["naïve %d" % (i % 7) for i in range(n)]
obs["score"] = rng.normal(size=n)
obs["count"] = np.arange(n, dtype=np.int64)
obs["good"] = rng.rand(n) < 0.5
var = pd.DataFrame(index=["gene%d" % j for j in range(p)])
var["kind"] = pd.Categorical(["coding", "other"] * (p // 2))
var["length"] = np.arange(p, dtype=np.int32)
if number >= (0, 8):
    obs["nullable"] = pd.array([1, None, 3] * (n // 3), dtype="Int64")
    obs["maybe"] = pd.array([True, None, False] * (n // 3), dtype="boolean")
a = anndata.AnnData(x, obs=obs, var=var)
a.obsm["X_pca"] = rng.normal(size=(n, 3)).astype(np.float32)
a.varm["PCs"] = rng.normal(size=(p, 3))
a.layers["dense"] = x.toarray()
a.uns["title"] = "a small one"
a.uns["sizes"] = np.arange(4)
a.uns["nested"] = {"a": 1, "b": {"words": np.array(["x", "yy"])}}
a.uns["batch_colors"] = np.array(["#ff0000", "#00ff00", "#0000ff"])
if number >= (0, 7):
    a.obsm["frame"] = pd.DataFrame({"u": rng.normal(size=n), "v": list("abc") * (n // 3)}, index=a.obs_names)
    a.obsp["pairs"] = sp.random(n, n, 0.1, format="csr", random_state=1)
    a.layers["columns"] = sp.csc_matrix(x)
a.raw = a
here = Path(__file__).parent
name = sys.argv[1] if len(sys.argv) > 1 else version
a.write(here / (name + ".h5ad"), compression="gzip") if number >= (0, 7) else a.write(str(here / (name + ".h5ad")), compression="gzip")
if number >= (0, 7):
    a.write_zarr(str(here / (name + ".zarr")))
