"""The lazy handle: the same numbers as in memory, from every kind of store."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from kinds import PBMC, ROOT, dense, same_frame

import cellmill as cm

KINDS = ["small.h5ad", "small.zarr"]


@pytest.mark.parametrize("name", KINDS)
def test_a_handle_shows_what_is_there(stores, small, name):
    adata = cm.read_lazy(stores / name)
    assert adata.shape == small.shape and isinstance(adata, ad.AnnData)
    pd.testing.assert_index_equal(adata.var_names, small.var_names, exact=False)
    assert (adata.obs["batch"].astype(str) == small.obs["batch"].astype(str)).all()
    assert "Lazy AnnData object with n_obs × n_vars = 700 × 3060" in repr(adata)
    assert "<pre>" in adata._repr_html_()
    # What is in memory, which is little.
    assert 0 < adata.__sizeof__() < small.__sizeof__() / 2
    assert repr(adata.X) == "LazyMatrix of 700 × 3060 float32"
    with pytest.raises(AttributeError, match="'nnz'; to_memory"):
        _ = adata.X.nnz
    adata.layers["same"] = adata.X
    assert repr(adata).count("layers: 'same'") == 1
    del adata.layers
    assert not len(adata.layers)
    np.testing.assert_array_equal(dense(adata.to_memory().X), dense(small.X))
    np.testing.assert_array_equal(adata.obs_vector("CD3D"), small.obs_vector("CD3D"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_the_whole_way_equals_memory(stores, small, name):
    """Each verb on the handle and on an AnnData in memory."""
    lazy, held = cm.read_lazy(stores / name), small.copy()
    for adata in (lazy, held):
        adata.var["mt"] = adata.var_names.str.startswith("MT-")
        cm.pp.calculate_qc_metrics(adata, qc_vars=["mt"], percent_top=[20], inplace=True)
        cm.pp.filter_cells(adata, min_genes=300)
        cm.pp.filter_genes(adata, min_cells=3)
        cm.pp.normalize_total(adata, target_sum=1e4)
        cm.pp.log1p(adata)
        cm.pp.highly_variable_genes(adata, n_top_genes=400, flavor="cell_ranger")
    same_frame(lazy.obs.drop(columns="batch"), held.obs.drop(columns="batch"), rtol=0)
    same_frame(lazy.var, held.var, rtol=1e-9)
    np.testing.assert_array_equal(dense(lazy.X.to_memory()), dense(held.X))
    lazy, held = lazy[:, lazy.var["highly_variable"]].copy(), held[:, held.var["highly_variable"]].copy()
    for adata in (lazy, held):
        cm.pp.scale(adata, zero_center=False, max_value=10)
        cm.pp.pca(adata, n_comps=20)
        cm.pp.neighbors(adata, n_neighbors=10, n_pcs=15)
        cm.tl.umap(adata, maxiter=50)
        cm.tl.leiden(adata)
    np.testing.assert_allclose(lazy.obsm["X_pca"], held.obsm["X_pca"], atol=2e-4)
    assert (lazy.obs["leiden"] == held.obs["leiden"]).mean() > 0.98
    assert "normalize_total → log1p → scale" in repr(lazy)


def test_a_verb_leaves_copies_alone(stores, small):
    adata = cm.read_lazy(stores / "small.zarr")
    kept = adata.copy()
    cm.pp.normalize_total(adata, target_sum=1)
    np.testing.assert_array_equal(dense(kept.X.to_memory()), dense(small.X))
    np.testing.assert_allclose(adata.X.sum(axis=1), 1, rtol=1e-6)


def test_slices(stores, small):
    adata = cm.read_lazy(stores / "small.h5ad")
    mask = np.arange(adata.n_obs) % 3 == 1
    genes = ["MS4A1", "CD3D", "LYZ"]
    for index in (mask, slice(10, 50), slice(0, 700, 7), [5, 2, 2], adata.obs_names[[3, 1]]):
        part, expected = adata[index], small[index]
        assert list(part.obs_names) == list(expected.obs_names)
        np.testing.assert_array_equal(dense(part.X.to_memory()), dense(expected.X))
    part = adata[mask, genes]
    np.testing.assert_array_equal(dense(part.X.to_memory()), dense(small[mask, genes].X))
    assert adata[5, "LYZ"].shape == (1, 1)
    again = part[::2, ::-1]
    np.testing.assert_array_equal(dense(again.X.to_memory()), dense(small[mask, genes][::2, ::-1].X))
    with pytest.raises((KeyError, IndexError)):
        adata[:, "nothing of that name"]


def test_centred_values_stay_sparse_until_they_are_wanted(stores, logged):
    adata = cm.read_lazy(stores / "small.zarr")
    cm.pp.normalize_total(adata, target_sum=1e4)
    cm.pp.log1p(adata)
    adata, logged = adata[:, :500], logged[:, :500].copy()
    cm.pp.scale(adata, max_value=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.scale(logged, max_value=5)
    np.testing.assert_allclose(adata.X.to_memory(), logged.X, rtol=2e-5, atol=5e-6)
    cm.pp.pca(adata, n_comps=10)
    sc.pp.pca(logged, n_comps=10, svd_solver="arpack")
    np.testing.assert_allclose(adata.uns["pca"]["variance"], logged.uns["pca"]["variance"], rtol=1e-5)


@pytest.mark.parametrize("suffix", ["zarr", "h5ad"])
def test_writing(stores, small, tmp_path, suffix):
    adata = cm.read_lazy(stores / "small.zarr")
    adata.obsm["o"] = np.arange(2.0 * adata.n_obs).reshape(-1, 2)
    adata.layers["l"] = adata.X
    cm.pp.log1p(adata)
    part = adata[adata.obs["batch"] == "a"]
    path = tmp_path / f"out.{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        getattr(part, f"write_{suffix}")(path)
        back = ad.read_zarr(path) if suffix == "zarr" else ad.read_h5ad(path)
    expected = small[small.obs["batch"] == "a"]
    np.testing.assert_allclose(dense(back.X), np.log1p(dense(expected.X)), rtol=1e-6)
    np.testing.assert_array_equal(dense(back.layers["l"]), dense(expected.X))
    np.testing.assert_array_equal(back.obsm["o"], part.obsm["o"])
    assert list(back.obs_names) == list(expected.obs_names)


@pytest.mark.parametrize("join", ["inner", "outer"])
def test_several_files_are_one(small, tmp_path, join):
    parts = [small[:300, :2000].copy(), small[300:, 1000:].copy()]
    paths = []
    for i, part in enumerate(parts):
        paths.append(tmp_path / f"part{i}.h5ad")
        part.write_h5ad(paths[-1])
    adata = cm.read_lazy(paths, join=join, label="file", keys=["x", "y"], index_unique="-")
    expected = ad.concat(parts, join=join, label="file", keys=["x", "y"], index_unique="-")
    assert list(adata.var_names) == list(expected.var_names) and list(adata.obs_names) == list(expected.obs_names)
    assert list(adata.obs["file"]) == list(expected.obs["file"])
    np.testing.assert_array_equal(dense(adata.X.to_memory()), dense(expected.X))
    ours = cm.pp.calculate_qc_metrics(adata[50:650:3], inplace=False)
    theirs = cm.pp.calculate_qc_metrics(expected[50:650:3].copy(), inplace=False)
    same_frame(ours[0], theirs[0])


def test_several_handles_with_steps_of_their_own(stores, small):
    one, two = cm.read_lazy(stores / "small.zarr")[:100], cm.read_lazy(stores / "small.h5ad")[50:400:5]
    cm.pp.normalize_total(one, target_sum=7)
    adata = cm.concat({"a": one, "b": two}, label="k")
    np.testing.assert_allclose(adata.X.sum(axis=1)[:100], 7, rtol=1e-6)
    np.testing.assert_array_equal(dense(adata[100:].X.to_memory()), dense(small[50:400:5].X))


@pytest.mark.filterwarnings("ignore:Observation names")
def test_several_handles_keep_raw_layers_and_what_lies_beside(stores, small):
    whole = cm.read_lazy(stores / "small.zarr")
    whole.layers["same"], whole.raw = whole.X, whole
    whole.obsm["place"] = np.ones((whole.n_obs, 2))
    one, two = whole[:10, :300], whole[10:30, 100:400]
    joined = cm.concat([one, two])
    assert joined.shape == (30, 200) and joined.raw.shape == (30, small.n_vars)
    np.testing.assert_array_equal(dense(joined.raw.X.to_memory()), dense(small.X[:30]))
    assert cm.concat([one, two.to_memory()]).obsm["place"].shape == (30, 2)
    del two.layers["same"]
    assert list(cm.concat([one, two]).layers) == []
    same = dense(cm.concat([one, two], join="outer").layers["same"].to_memory())
    assert same[:10].sum() == one.X.sum() and not same[10:].any()
    del two.raw
    with pytest.warns(UserWarning, match="Only some AnnData objects have `.raw`"):
        assert cm.concat([one, two]).raw is None


def test_ten_x(tmp_path):
    h5 = cm.read_lazy(ROOT / "tests" / "data" / "10x_small" / "3.0.0" / "filtered_feature_bc_matrix.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = sc.read_10x_h5(ROOT / "tests" / "data" / "10x_small" / "3.0.0" / "filtered_feature_bc_matrix.h5")
    np.testing.assert_array_equal(dense(h5.X.to_memory()), dense(theirs.X))
    assert list(h5.var_names) == list(theirs.var_names)


def test_layers_and_other_matrices(small, tmp_path):
    adata = small.copy()
    adata.layers["counts"] = adata.X * 3
    adata.raw = adata
    adata.write_h5ad(tmp_path / "a.h5ad")
    lazy = cm.read_lazy(tmp_path / "a.h5ad")
    assert list(lazy.layers) == ["counts"]
    np.testing.assert_array_equal(dense(lazy.layers["counts"].to_memory()), 3 * dense(small.X))
    cm.pp.normalize_total(lazy, target_sum=2, layer="counts")
    np.testing.assert_allclose(lazy.layers["counts"].sum(axis=1), 2, rtol=1e-6)
    np.testing.assert_array_equal(dense(lazy[::2].layers["counts"][:5].to_memory()), dense(lazy.layers["counts"][:10:2].to_memory()))
    raw = cm.read_lazy(tmp_path / "a.h5ad", matrix="raw/X")
    np.testing.assert_array_equal(dense(raw.X.to_memory()), dense(small.X))


def test_backed_anndata_is_read_by_us(stores, small):
    backed = ad.read_h5ad(stores / "small.h5ad", backed="r")
    ours = cm.pp.calculate_qc_metrics(backed, inplace=False)
    theirs = cm.pp.calculate_qc_metrics(small, inplace=False)
    same_frame(ours[0], theirs[0])
    backed.file.close()


def test_errors_have_a_place(tmp_path):
    with pytest.raises(OSError, match="nowhere.zarr"):
        cm.read_lazy(tmp_path / "nowhere.zarr")
    (tmp_path / "text.h5ad").write_text("no store")
    with pytest.raises(ValueError, match="text.h5ad"):
        cm.read_lazy(tmp_path / "text.h5ad")
    with pytest.raises(KeyError, match="layers/nothing"):
        cm.read_lazy(PBMC, matrix="layers/nothing")


def test_values_are_looked_at_but_not_assigned(stores, small):
    adata = cm.read_lazy(stores / "small.zarr")
    assert (adata.X.max(), adata.X.min()) == (small.X.max(), small.X.min())
    np.testing.assert_array_equal(adata.X[3:9].toarray(), small.X[3:9].toarray())
    np.testing.assert_array_equal(dense(list(adata.X[:2])[1]), dense(small.X[1]))
    with pytest.raises(TypeError, match="to_memory"):
        adata[0, 0] = 1


@pytest.mark.parametrize(
    "verb",
    [
        cm.pp.log1p,
        cm.pp.sqrt,
        cm.pp.normalize_total,
        cm.pp.scale,
        cm.pp.calculate_qc_metrics,
        lambda adata: cm.pp.filter_cells(adata, min_genes=3),
        lambda adata: cm.pp.filter_genes(adata, min_cells=3),
        lambda adata: cm.pp.highly_variable_genes(adata, n_top_genes=20),
        lambda adata: cm.pp.regress_out(adata, "depth"),
        lambda adata: cm.tl.score_genes(adata, list(adata.var_names[:9])),
        lambda adata: cm.tl.rank_genes_groups(adata, "half"),
        lambda adata: cm.get.aggregate(adata, "half", "mean"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_centred_values_are_not_taken_for_zeros(stores, logged, verb):
    adata = cm.read_lazy(stores / "small.h5ad")
    adata.obs["depth"] = np.arange(adata.n_obs, dtype=float)
    adata.obs["half"] = pd.Categorical(np.where(np.arange(adata.n_obs) % 2, "a", "b"))
    cm.pp.normalize_total(adata, target_sum=1e4)
    cm.pp.log1p(adata)
    cm.pp.scale(adata)
    with pytest.raises(ValueError, match=r"centred.*do this before scale\(\)"):
        verb(adata)
    sc.pp.scale(logged)
    for axis in (None, 0, 1):
        np.testing.assert_allclose(adata.X.sum(axis=axis), logged.X.sum(axis=axis, dtype=np.float64), rtol=1e-3, atol=0.5)
        np.testing.assert_allclose(adata.X.mean(axis=axis), logged.X.mean(axis=axis, dtype=np.float64), atol=1e-3)
