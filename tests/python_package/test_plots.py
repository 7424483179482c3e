"""Plots: what is drawn, in which colours, and how long two million cells take."""

from __future__ import annotations

import time
import warnings

import anndata as ad
import cellmill as cm
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from matplotlib.colors import to_rgba

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture
def cells(logged) -> ad.AnnData:
    """Logged counts with clusters, a layout, components, chosen genes and markers."""
    rng = np.random.default_rng(0)
    logged.obs["kind"] = pd.Categorical(np.array(["T", "B", "NK"])[np.arange(logged.n_obs) % 3])
    logged.obs["score"] = rng.normal(size=logged.n_obs)
    logged.obsm["X_umap"] = rng.normal(size=(logged.n_obs, 2))
    logged.obsm["X_pca"] = rng.normal(size=(logged.n_obs, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.highly_variable_genes(logged, n_top_genes=300)
        sc.tl.rank_genes_groups(logged, "kind", method="t-test")
    return logged


def colours(ax) -> np.ndarray:
    return ax.collections[0].get_facecolors()


def test_categories_have_the_colours_that_scanpy_gives_them(cells):
    other = cells.copy()
    sc.pl.umap(other, color="kind", show=False)
    ax = cm.pl.umap(cells, color="kind")
    assert list(cells.uns["kind_colors"]) == list(other.uns["kind_colors"])
    drawn = {tuple(np.round(c, 3)) for c in colours(ax)}
    assert drawn == {tuple(np.round(to_rgba(c), 3)) for c in cells.uns["kind_colors"]}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(cells.obs["kind"].cat.categories)


@pytest.mark.parametrize("n", [2, 10, 11, 20, 25, 40, 102, 110])
def test_palettes(n):
    from scanpy.plotting._utils import _set_default_colors_for_categorical_obs

    adata = ad.AnnData(obs=pd.DataFrame({"c": pd.Categorical([str(i) for i in range(n)])}, index=[str(i) for i in range(n)]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _set_default_colors_for_categorical_obs(adata, "c")
    ours = cm.pl._palette.default_colors(n)
    assert [to_rgba(c) for c in ours] == [to_rgba(c) for c in adata.uns["c_colors"]]


def test_own_colours(cells):
    cm.pl.umap(cells, color="kind", palette={"T": "red", "B": "blue", "NK": "#00ff00"})
    assert list(cells.uns["kind_colors"]) == ["blue", "#00ff00", "red"]
    cells.obs["score2"] = cells.obs["score"]
    a, b = cm.pl.umap(cells, color=["kind", "score2"], ncols=2)
    assert (a.get_title(), b.get_title()) == ("kind", "score2")


def test_missing_and_unwanted_categories_are_gray(cells):
    cells.obs.loc[cells.obs_names[:5], "kind"] = np.nan
    ax = cm.pl.umap(cells, color="kind", groups="T")
    gray = np.isclose(colours(ax), to_rgba("lightgray")).all(axis=1).sum()
    assert gray == (cells.obs["kind"] != "T").sum()
    with pytest.raises(ValueError, match="'monocyte'"):
        cm.pl.umap(cells, color="kind", groups="monocyte")


def test_numbers_are_drawn_from_low_to_high(cells):
    gene = cells.var_names[np.asarray(cells.X.sum(axis=0)).argmax()]
    ax = cm.pl.umap(cells, color=gene, cmap="viridis")
    values = np.sort(cells.obs_vector(gene))
    norm = mpl.colors.Normalize(values[0], values[-1])
    assert np.allclose(colours(ax), mpl.colormaps["viridis"](norm(values)), atol=0.01)
    ax = cm.pl.umap(cells, color="score", vmin=0, vmax="p90")
    assert ax.child_axes[-1].get_ylim() == pytest.approx((0, np.percentile(cells.obs["score"], 90)))


def test_names_on_the_cells(cells):
    ax = cm.pl.umap(cells, color="kind", legend_loc="on data")
    assert {t.get_text() for t in ax.texts} == {"T", "B", "NK"} and ax.get_legend() is None


def test_what_is_not_there_is_named(cells):
    with pytest.raises(KeyError, match="CD99999"):
        cm.pl.umap(cells, color="CD99999")
    with pytest.raises(KeyError, match="X_tsne"):
        cm.pl.embedding(cells, "tsne")
    with pytest.raises(ValueError, match="dimensions: 7"):
        cm.pl.pca(cells, dimensions=(0, 7))


def test_a_file_is_saved(cells, tmp_path):
    cm.pl.pca(cells, color="kind", save=tmp_path / "pca.png")
    assert (tmp_path / "pca.png").stat().st_size > 10_000


def test_two_million_cells(tmp_path):
    n = 2_000_000
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 25, n)
    xy = (rng.normal(size=(n, 2)) + np.stack([kind % 5, kind // 5], axis=1) * 6).astype(np.float32)
    obs = pd.DataFrame({"kind": pd.Categorical.from_codes(kind, [str(i) for i in range(25)])}, index=pd.RangeIndex(n).astype(str))
    adata = ad.AnnData(obs=obs, obsm={"X_umap": xy})
    start = time.process_time()
    ax = cm.pl.umap(adata, color="kind", save=tmp_path / "many.png")
    assert time.process_time() - start < 20
    (picture,) = ax.images
    pixels = np.asarray(picture.get_array())
    seen = pixels[pixels[..., 3] > 0]
    table = {tuple(int(round(255 * v)) for v in to_rgba(c)) for c in adata.uns["kind_colors"]}
    assert {tuple(int(v) for v in p) for p in np.unique(seen, axis=0)} == table
    # A fifth of the layout's width on each side of a cluster's middle is its own.
    left, right, bottom, top = picture.get_extent()
    row = int((top - 0.0) / (top - bottom) * pixels.shape[0])
    column = int((0.0 - left) / (right - left) * pixels.shape[1])
    near = pixels[row - 3 : row + 4, column - 3 : column + 4].reshape(-1, 4)
    own = [int(round(255 * v)) for v in to_rgba(adata.uns["kind_colors"][0])]
    assert (near == own).all(axis=1).mean() > 0.8


def test_violins(cells):
    axes = cm.pl.violin(cells, ["score", cells.var_names[0]], groupby="kind", order=["NK", "T"])
    assert [t.get_text() for t in axes[0].get_xticklabels()] == ["NK", "T"]
    assert len([c for c in axes[0].collections if isinstance(c, mpl.collections.PolyCollection)]) == 2
    with pytest.raises(KeyError, match="no_column"):
        cm.pl.violin(cells, "score", groupby="no_column")


def test_highly_variable_genes(cells):
    left, right = cm.pl.highly_variable_genes(cells)
    drawn = [len(c.get_offsets()) for c in left.collections]
    assert drawn == [int((~cells.var["highly_variable"]).sum()), int(cells.var["highly_variable"].sum())]
    assert right.get_ylabel() == "dispersions of genes (not normalized)"


def test_pca_variance_ratio(cells):
    cells.uns["pca"] = {"variance_ratio": np.array([0.5, 0.2, 0.1])}
    ax = cm.pl.pca_variance_ratio(cells, log=True)
    assert np.allclose(ax.lines[0].get_ydata(), [0.5, 0.2, 0.1]) and ax.get_yscale() == "log"


def test_markers(cells):
    axes = cm.pl.rank_genes_groups(cells, n_genes=5)
    best = cells.uns["rank_genes_groups"]["names"]
    assert [[t.get_text() for t in ax.texts] for ax in axes] == [list(best[g][:5]) for g in best.dtype.names]


@pytest.mark.parametrize("only_expressed", [False, True])
def test_dots_are_those_of_scanpy(only_expressed, cells):
    names = list(cells.var_names[:4])
    theirs = sc.pl.dotplot(cells, names, "kind", mean_only_expressed=only_expressed, return_fig=True, show=False)
    ax = cm.pl.dotplot(cells, names, "kind", mean_only_expressed=only_expressed)
    dots = ax.collections[0]
    assert np.allclose(np.asarray(dots.get_sizes()) / 120, theirs.dot_size_df.to_numpy().ravel(), atol=1e-5)
    assert np.allclose(dots.get_array(), theirs.dot_color_df.to_numpy().ravel(), atol=1e-5)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(theirs.dot_size_df.index)


def test_dots_of_markers(cells):
    ax = cm.pl.rank_genes_groups_dotplot(cells, n_genes=3)
    assert len(ax.collections[0].get_sizes()) == 3 * 9


def test_pairs_of_columns_for_panels(cells):
    panels = cm.pl.pca(cells, color="kind", dimensions=[(0, 1), (2, 1)])
    assert [(panel.get_xlabel(), panel.get_ylabel()) for panel in panels] == [("PC1", "PC2"), ("PC3", "PC2")]
    assert len(cm.pl.pca(cells, color=["kind", None], components=["1,2", "2,3"])) == 2
    with pytest.raises(ValueError, match="dimensions: 3 pairs, but there are 2 colours"):
        cm.pl.pca(cells, color=["kind", None], dimensions=[(0, 1), (1, 2), (0, 2)])


def test_words_of_scanpy(cells):
    """What is drawn here, what has no meaning, and what says that it is not there."""
    some = np.arange(cells.n_obs) % 2 == 0
    ax = cm.pl.umap(cells, color="kind", mask_obs=some, components="2,1", wspace=0.3, edges=False)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["B", "NK", "T", "NA"]
    assert ax.get_xlabel() == "UMAP2"
    assert (np.sort(np.unique(colours(ax), axis=0, return_counts=True)[1]) >= 1).all()
    figure = cm.pl.umap(cells, color="score", color_map="magma", vcenter=0, colorbar_loc=None, return_fig=True)
    assert figure.axes[0].get_title() == "score" and len(figure.axes) == 1
    with pytest.raises(ValueError, match="edges: True, but this is not drawn here"):
        cm.pl.umap(cells, edges=True)
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        cm.pl.umap(cells, colour="kind")
