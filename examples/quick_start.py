"""Counts to clusters and their genes, from a store that stays on disk until rows are needed.

python examples/quick_start.py data/pbmc3k.h5ad [PICTURE.png]
"""

from __future__ import annotations

import sys

import cellmill as cm


def main(path: str, picture: str | None = None) -> cm.AnnData:
    adata = cm.read_lazy(path)
    adata.var_names_make_unique()

    adata.var["mt"] = adata.var_names.str.startswith("MT-")
    cm.pp.calculate_qc_metrics(adata, qc_vars=["mt"], percent_top=None, inplace=True)
    adata = adata[(adata.obs["n_genes_by_counts"] >= 200) & (adata.obs["pct_counts_mt"] < 5)]
    cm.pp.filter_genes(adata, min_cells=3)

    cm.pp.normalize_total(adata, target_sum=10_000)
    cm.pp.log1p(adata)
    cm.pp.highly_variable_genes(adata, n_top_genes=2_000)
    cm.pp.pca(adata)
    cm.pp.neighbors(adata, n_pcs=30)
    cm.tl.umap(adata)
    cm.tl.leiden(adata)
    cm.tl.rank_genes_groups(adata, "leiden", method="wilcoxon")

    cm.pl.umap(adata, color=["leiden", "CST3", "NKG7", "MS4A1"], save=picture, show=False)
    return adata


if __name__ == "__main__":
    result = main(*sys.argv[1:])
    print(result)
    print(cm.get.rank_genes_groups_df(result, "0").head())
