"""Several files as one data set: h5ad, zarr or 10x, with genes in common or all genes, without copying them into one.

python examples/several_files.py OUTPUT.zarr SAMPLE.h5ad SAMPLE.h5ad ...
"""

from __future__ import annotations

import sys
from pathlib import Path

import cellmill as cm


def main(output: str, *paths: str) -> cm.AnnData:
    adata = cm.read_lazy({Path(path).stem: path for path in paths}, label="sample", join="outer", index_unique="-")

    cm.pp.calculate_qc_metrics(adata, inplace=True, percent_top=None)
    adata = adata[adata.obs["n_genes_by_counts"] >= 200]
    cm.pp.normalize_total(adata, target_sum=10_000)
    cm.pp.log1p(adata)
    # One read for all samples; genes that vary in most of them come first.
    cm.pp.highly_variable_genes(adata, n_top_genes=2_000, batch_key="sample")
    cm.pp.pca(adata, n_comps=30)
    cm.pp.neighbors(adata)
    cm.tl.leiden(adata)

    bulk = cm.get.aggregate(adata, ["sample", "leiden"], "mean")
    print(bulk)
    adata.write_zarr(output)
    return adata


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
