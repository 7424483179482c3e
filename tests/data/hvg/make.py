"""Writes counts.tsv: made-up counts and what scanpy chooses from them, to test highly variable genes against.

usage: make.py     needs: scanpy 1.11, scikit-misc
A line a gene: its name, its counts (one base-36 digit a cell), then scanpy's columns. The first line holds the batch of each cell.
scanpy runs in float64 with a stable argsort (its own order of ties depends on the machine) and with equal percentile
edges merged where it would stop.
"""
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp

warnings.filterwarnings("ignore")
argsort, cut = np.argsort, pd.cut
np.argsort = lambda *args, **options: argsort(*args, **{"kind": "stable", **options})
pd.cut = lambda *args, **options: cut(*args, **{"duplicates": "drop", **options})

N_CELLS, N_GENES, N_TOP = 130, 300, 60
rng = np.random.default_rng(7)
mean = np.exp(rng.normal(-0.9, 1.1, N_GENES))
batch = np.array(["a"] * 70 + ["b"] * 60)
shift = np.where(batch[:, None] == "a", 1.0, np.exp(rng.normal(0, 0.4, N_GENES)))
noise = rng.gamma(1 / 0.4, 0.4, (N_CELLS, N_GENES))
counts = np.minimum(rng.poisson(mean * shift * noise), 35).astype(np.float64)
counts[:, 5] = 0  # in no cell
counts[batch == "b", 6:9] = 0  # in one batch alone
counts[:, 9] = 1  # constant
counts[:, 21] = np.roll(counts[:, 20], 3)  # the same counts in other cells
names = [f"g{i}" for i in range(N_GENES)]
A = ad.AnnData(sp.csr_matrix(counts), obs=pd.DataFrame({"batch": batch}, index=[f"c{i}" for i in range(N_CELLS)]), var=pd.DataFrame(index=names))
L = A.copy()
sc.pp.normalize_total(L, target_sum=1e4)
sc.pp.log1p(L)

columns = {}
for flavor in ("seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper"):
    v3 = flavor.startswith("seurat_v3")
    for key in (None, "batch"):
        for n_top in (N_TOP,) if v3 else (N_TOP, None):
            d = sc.pp.highly_variable_genes(A if v3 else L, n_top_genes=n_top, flavor=flavor, batch_key=key, inplace=False).loc[names]
            if flavor == "seurat_v3_paper":
                d = d[["highly_variable"]]
            for c in d.columns.difference(["means", "dispersions", "variances", "gene_name", "mean_bin", "highly_variable_intersection"]):
                if n_top or c == "highly_variable":
                    columns[f"{flavor}{'/batch' if key else ''}/{c}{'' if n_top else '/cut'}"] = d[c].to_numpy()


def text(value):
    return str(int(value)) if isinstance(value, (bool, np.bool_, np.integer)) else f"{value:.9g}"


with open(Path(__file__).with_name("counts.tsv"), "w") as out:
    print("".join(batch), file=out)
    print("name", "counts", *columns, sep="\t", file=out)
    for g in range(N_GENES):
        cells = "".join(np.base_repr(int(c), 36) for c in counts[:, g])
        print(names[g], cells, *(text(v[g]) for v in columns.values()), sep="\t", file=out)
