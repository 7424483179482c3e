"""scanpy in memory on the same input and recipe as `cellmill run --through pca`, with the seconds of each step."""

import sys
import time

import anndata as ad
import scanpy as sc


def main(path: str) -> None:
    start = time.perf_counter()

    def lap(step: str) -> None:
        nonlocal start
        now = time.perf_counter()
        print(f"scanpy {step}: {now - start:.2f} s", file=sys.stderr)
        start = now

    adata = ad.read_zarr(path)
    lap("read")
    sc.pp.calculate_qc_metrics(adata, inplace=True, percent_top=None)
    genes = adata.obs["n_genes_by_counts"]
    adata = adata[(genes >= 200) & (genes <= 10_000)].copy()
    lap("qc and filter")
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    lap("normalize and log1p")
    sc.pp.highly_variable_genes(adata, n_top_genes=5000, flavor="cell_ranger")
    adata = adata[:, adata.var["highly_variable"]].copy()
    lap("highly variable genes")
    sc.pp.scale(adata, zero_center=False)
    lap("scale")
    sc.pp.pca(adata, n_comps=100)
    lap("pca")


if __name__ == "__main__":
    main(sys.argv[1])
