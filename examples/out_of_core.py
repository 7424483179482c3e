"""rapids-singlecell's notebook 'Out-of-core analysis using Dask', with one import changed.

    python examples/out_of_core.py data/pbmc3k.h5ad [PICTURE.png]

The lines of the notebook that start a GPU cluster (dask_cuda, rmm, cupy) are gone; without Dask workers the engine reads the store itself.
"""

from __future__ import annotations

import sys

import anndata as ad
import h5py
import scanpy as sc
import zarr
from anndata.experimental import read_elem_lazy as read_dask

import cellmill as rsc

SPARSE_CHUNK_SIZE = 20_000


def main(path: str, picture: str | None = None) -> ad.AnnData:
    f = h5py.File(path, "r") if path.endswith(".h5ad") else zarr.open(path, mode="r")
    X = f["X"]
    shape = X.attrs["shape"]
    adata = ad.AnnData(X=read_dask(X, (SPARSE_CHUNK_SIZE, shape[1])), obs=ad.io.read_elem(f["obs"]), var=ad.io.read_elem(f["var"]))

    rsc.get.anndata_to_GPU(adata)
    adata.var_names_make_unique()
    rsc.pp.calculate_qc_metrics(adata)
    adata = adata[(adata.obs["n_genes_by_counts"] <= 10_000) & (adata.obs["n_genes_by_counts"] >= 200)].copy()
    rsc.pp.normalize_total(adata, target_sum=10_000)
    rsc.pp.log1p(adata)
    rsc.pp.highly_variable_genes(adata, n_top_genes=5_000, flavor="cell_ranger")
    adata = adata[:, adata.var["highly_variable"]].copy()
    rsc.pp.scale(adata, zero_center=False)
    rsc.pp.pca(adata, n_comps=100, mask_var=None)
    adata.obsm["X_pca"] = adata.obsm["X_pca"].compute()
    rsc.get.anndata_to_CPU(adata, convert_all=True)
    rsc.pp.neighbors(adata, n_neighbors=15, n_pcs=50, algorithm="ivfflat")
    rsc.tl.umap(adata)
    rsc.tl.leiden(adata)
    sc.pl.umap(adata, color="leiden", show=False)
    if picture:
        import matplotlib.pyplot as plt

        plt.savefig(picture, dpi=150, bbox_inches="tight")
    return adata


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
