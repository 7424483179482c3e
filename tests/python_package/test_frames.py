"""get.obs_df, var_df and rank_genes_groups_df against scanpy's."""

from __future__ import annotations

import warnings

import anndata as ad
import cellmill as cm
import numpy as np
import pandas as pd
import pytest
import scanpy as sc


@pytest.fixture(scope="module")
def ranked(small):
    adata = small.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    adata.obsm["X_pca"] = adata.X[:, :5].toarray()
    adata.varm["PCs"] = adata.X[:4].toarray().T
    adata.layers["twice"] = adata.X * 2
    adata.var["symbol"] = ["s" + name for name in adata.var_names]
    adata.obs["batch"] = adata.obs["batch"].astype("category")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.tl.rank_genes_groups(adata, "batch", method="t-test", pts=True)
        sc.tl.rank_genes_groups(adata, "batch", method="logreg", key_added="logreg")
    return adata


@pytest.mark.parametrize(
    "options",
    [{}, {"layer": "twice"}, {"obsm_keys": [("X_pca", 0), ("X_pca", 3)]}],
    ids=str,
)
def test_obs_df(options, ranked):
    keys = ["batch", ranked.var_names[7], ranked.var_names[2]]
    pd.testing.assert_frame_equal(cm.get.obs_df(ranked, keys, **options), sc.get.obs_df(ranked, keys, **options))


def test_obs_df_by_symbol(ranked):
    keys = ["s" + ranked.var_names[3], "batch"]
    pd.testing.assert_frame_equal(cm.get.obs_df(ranked, keys, gene_symbols="symbol"), sc.get.obs_df(ranked, keys, gene_symbols="symbol"))


def test_obs_df_of_a_store_is_that_of_memory(small, stores):
    keys = ["batch", small.var_names[9], small.var_names[1]]
    lazy = cm.get.obs_df(cm.read_lazy(stores / "small.h5ad"), keys)
    expected = sc.get.obs_df(small, keys)
    pd.testing.assert_frame_equal(lazy, expected, check_categorical=False, check_dtype=False)


def test_var_df(ranked):
    keys = ["symbol", ranked.obs_names[11]]
    options = {"varm_keys": [("PCs", 1)]}
    pd.testing.assert_frame_equal(cm.get.var_df(ranked, keys, **options), sc.get.var_df(ranked, keys, **options))


def test_repeated_keys_and_sparse_mappings(ranked):
    ranked.obsm["sparse"] = ranked.X[:, :4]
    keys = [ranked.var_names[5], "batch", ranked.var_names[5]]
    options = {"obsm_keys": [("sparse", 2)]}
    pd.testing.assert_frame_equal(cm.get.obs_df(ranked, keys, **options), sc.get.obs_df(ranked, keys, **options))


def test_names_that_are_not_clear(small):
    part = small[:20, :6].copy()
    for change in (
        lambda a: a.obs.__setitem__(a.var_names[0], 1.0),
        lambda a: setattr(a, "var_names", ["a", "a", "b", "c", "d", "e"]),
        lambda a: setattr(a, "obs", a.obs[["batch", "batch"]]),
    ):
        adata = part.copy()
        change(adata)
        raised = []
        for module in (cm, sc):
            with pytest.raises((KeyError, ValueError)) as error:
                module.get.obs_df(adata, [adata.var_names[0], "batch"])
            raised.append(error)
        assert raised[0].type is raised[1].type and str(raised[0].value).split()[0] == str(raised[1].value).split()[0]


def test_a_name_that_is_not_there(ranked):
    with pytest.raises(KeyError, match="NOSUCHGENE"):
        cm.get.obs_df(ranked, ["NOSUCHGENE"])


@pytest.mark.parametrize("group", ["a", ["a", "c"], None], ids=str)
@pytest.mark.parametrize("cut", [{}, {"pval_cutoff": 0.05}, {"log2fc_min": 0.5}, {"log2fc_max": 0, "gene_symbols": "symbol"}], ids=str)
def test_rank_genes_groups_df(group, cut, ranked):
    ours = cm.get.rank_genes_groups_df(ranked, group, **cut)
    theirs = sc.get.rank_genes_groups_df(ranked, group, **cut)
    assert list(ours.columns) == list(theirs.columns)
    # scanpy merges the shares in by name, which changes the order of rows and makes groups plain text.
    by = [column for column in ("group", "names") if column in ours]
    order = [frame.astype({name: str for name in by}).sort_values(by).reset_index(drop=True) for frame in (ours, theirs)]
    pd.testing.assert_frame_equal(*order, check_dtype=False)


def test_rank_genes_groups_df_of_a_regression(ranked):
    ours = cm.get.rank_genes_groups_df(ranked, None, key="logreg", pval_cutoff=0.05)
    theirs = sc.get.rank_genes_groups_df(ranked, None, key="logreg", pval_cutoff=0.05)
    pd.testing.assert_frame_equal(ours, theirs, check_dtype=False)


def test_older_calls(counts):
    """Arguments by position and by old names, with the warning that scanpy gives."""
    with pytest.warns(FutureWarning, match="min_counts=500"):
        mask, _ = cm.pp.filter_cells(counts.X, 500)
    np.testing.assert_array_equal(mask, np.asarray(counts.X.sum(axis=1)).ravel() >= 500)
    with pytest.warns(FutureWarning, match="`X` was renamed to `data`"):
        cm.pp.log1p(X=counts.X)
    with pytest.raises(TypeError, match="positional argument"):
        cm.pp.filter_cells(counts.X, 500, min_counts=3)
    cm.pp.filter_genes(counts, qc_var="n_cells_by_counts", min_count=3, max_count=600)
    cells = np.asarray((counts.X > 0).sum(axis=0)).ravel()
    assert cells.min() >= 3 and cells.max() <= 600 and (counts.var["n_cells_by_counts"] == cells).all()


def test_values_of_a_file_are_not_changed_in_place(counts, tmp_path):
    counts.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    for verb in (cm.pp.scale, cm.pp.normalize_total, cm.pp.sqrt, lambda a: cm.pp.filter_cells(a, min_genes=5)):
        with pytest.raises(NotImplementedError, match="is not implemented for matrices of type.*cellmill.read_lazy"):
            verb(backed)
    with pytest.raises(NotImplementedError, match="without `chunked=True`"):
        cm.pp.log1p(backed)
    backed.file.close()
    written = ad.read_h5ad(tmp_path / "a.h5ad", backed="r+")
    cm.pp.log1p(written, chunked=True, chunk_size=100)
    np.testing.assert_allclose(written.X[:].toarray(), np.log1p(counts.X.toarray()), rtol=1e-6)


@pytest.mark.parametrize("mask", ["absent", [True], np.ones(3, int)], ids=str)
def test_masks_have_scanpys_errors(counts, mask):
    counts = counts[:3, :3].copy()
    for verb in (lambda: cm.pp.scale(counts, mask_obs=mask), lambda: cm.pp.pca(counts, n_comps=1, mask_var=mask)):
        with pytest.raises(ValueError, match="Did not find|shape of the mask|must be boolean"):
            verb()
