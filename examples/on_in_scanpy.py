"""The heavy part here, the rest in scanpy: what cellmill leaves is an AnnData.

python examples/on_in_scanpy.py data/pbmc3k.h5ad OUTPUT.h5ad
"""

from __future__ import annotations

import sys

import anndata
import scanpy as sc

import cellmill as cm


def main(path: str, output: str) -> anndata.AnnData:
    # The whole job in one call, as on the command line; X of the output holds the highly variable genes.
    recipe = {"hvg": {"n_top_genes": 2_000}, "pca": {"n_comps": 50}}
    cm.run(path, output, recipe, with_x="hvg", overwrite=True)

    adata = anndata.read_h5ad(output)
    sc.tl.dendrogram(adata, "leiden")
    sc.tl.paga(adata, groups="leiden")
    sc.pl.paga(adata, show=False)
    sc.tl.umap(adata, init_pos="paga")
    sc.pl.umap(adata, color="leiden", show=False)
    return adata


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
