"""The examples run, on real data."""

from __future__ import annotations

import runpy

import anndata as ad
import matplotlib as mpl
import numpy as np
import pytest
from kinds import PBMC, ROOT

mpl.use("agg")
EXAMPLES = ROOT / "examples"


def main(name, *args):
    """Calls an example as a script would be called."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](*map(str, args))


@pytest.mark.filterwarnings("ignore")
def test_quick_start(tmp_path):
    adata = main("quick_start", PBMC, tmp_path / "umap.png")
    assert (tmp_path / "umap.png").stat().st_size > 10_000
    assert len(adata.obs["leiden"].cat.categories) >= 5
    best = adata.uns["rank_genes_groups"]["names"]
    assert any("MS4A1" in best[group][:10] for group in best.dtype.names)


@pytest.mark.filterwarnings("ignore")
def test_the_out_of_core_notebook_as_a_script(tmp_path):
    adata = main("out_of_core", PBMC, tmp_path / "umap.png")
    assert (tmp_path / "umap.png").stat().st_size > 10_000
    assert adata.obsm["X_umap"].shape == (adata.n_obs, 2)


@pytest.mark.filterwarnings("ignore")
def test_several_files(whole, tmp_path):
    for i in range(3):
        part = whole[i::3, i * 100 :].copy()
        part.write_h5ad(tmp_path / f"s{i}.h5ad")
    adata = main("several_files", tmp_path / "o.zarr", *(tmp_path / f"s{i}.h5ad" for i in range(3)))
    assert adata.n_vars == whole.n_vars and set(adata.obs["sample"]) == {"s0", "s1", "s2"}
    read = ad.read_zarr(tmp_path / "o.zarr")
    assert read.shape == adata.shape and (read.obs["leiden"] == adata.obs["leiden"]).all()


@pytest.mark.filterwarnings("ignore")
def test_on_in_scanpy(tmp_path):
    adata = main("on_in_scanpy", PBMC, tmp_path / "o.h5ad")
    assert {"X_pca", "X_umap"} <= set(adata.obsm) and "dendrogram_leiden" in adata.uns
    assert np.isfinite(adata.obsm["X_umap"]).all()


def _printed(cells):
    return [output.text for cell in cells for output in cell.outputs if output.get("name") == "stdout"]


def test_the_notebook():
    """Each cell of the notebook runs, in its order; the pictures that are kept in it are those of a run."""
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    notebook = nbformat.read(EXAMPLES / "out_of_core.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    printed = _printed(cells)
    client.NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    assert printed and printed == _printed(cells)
