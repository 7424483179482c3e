"""Handles of programs that never import anndata: they do without it, and become an AnnData when one is wanted."""

from __future__ import annotations

import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from kinds import dense

import cellmill as cm

VERBS = """
import sys
import cellmill as cm
adata = cm.read_lazy(sys.argv[1])
adata.layers["counts"] = adata.X
cm.pp.calculate_qc_metrics(adata)
adata = adata[(adata.obs["n_genes_by_counts"] >= 300) & (adata.obs["n_genes_by_counts"] <= 10_000)]
cm.pp.filter_genes(adata, min_cells=3)
cm.pp.normalize_total(adata, target_sum=1e4)
cm.pp.log1p(adata)
cm.pp.highly_variable_genes(adata, n_top_genes=400, flavor="cell_ranger")
adata = adata[:, adata.var["highly_variable"]]
cm.pp.scale(adata, zero_center=False)
cm.pp.pca(adata, n_comps=10, mask_var=None)
cm.pp.neighbors(adata, n_neighbors=10)
cm.tl.umap(adata, maxiter=20)
cm.tl.leiden(adata)
if sys.argv[3] == "whole":
    import anndata
    assert isinstance(adata, anndata.AnnData) and adata.obs_keys()
else:
    assert "anndata" not in sys.modules, "anndata was imported"
(adata.write_zarr if sys.argv[2].endswith("zarr") else adata.write_h5ad)(sys.argv[2])
"""


def script(code: str, *args: object) -> None:
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def same(a: ad.AnnData, b: ad.AnnData) -> None:
    pd.testing.assert_frame_equal(a.obs, b.obs)
    pd.testing.assert_frame_equal(a.var, b.var)
    np.testing.assert_array_equal(dense(a.X), dense(b.X))
    for name in ("layers", "obsm", "varm", "obsp"):
        one, two = getattr(a, name), getattr(b, name)
        assert set(one) == set(two)
        for key in one:
            assert type(one[key]) is type(two[key])
            np.testing.assert_array_equal(dense(one[key]), dense(two[key]))
    assert repr(a.uns) == repr(b.uns)


@pytest.mark.parametrize("suffix", ["zarr", "h5ad"])
def test_all_verbs_without_anndata(stores, tmp_path, suffix):
    """The same bytes of results with and without it, and as an AnnData of this process writes them."""
    read = ad.read_zarr if suffix == "zarr" else ad.read_h5ad
    for how in ("light", "whole"):
        script(VERBS, stores / f"small.{suffix}", tmp_path / f"{how}.{suffix}", how)
    same(read(tmp_path / f"light.{suffix}"), read(tmp_path / f"whole.{suffix}"))


BECOMES = """
import sys
import cellmill as cm
adata = cm.read_lazy(sys.argv[1])
adata.uns["hue_colors"] = ["red"]
uns, obsm, obs = adata.uns, adata.obsm, adata.obs
obs["n"] = range(adata.n_obs)
obsm["flat"] = obs["n"].to_numpy()
try:
    obsm["wrong"] = obs["n"].to_numpy()[:5]
except ValueError as error:
    assert "Value had shape (5,) while it should have had (700,)" in str(error)
else:
    raise AssertionError
assert "anndata" not in sys.modules
import anndata
assert type(adata) is not anndata.AnnData and isinstance(adata, anndata.AnnData) and isinstance(adata, cm.AnnData)
assert type(adata) is not cm.AnnData and adata.obs_keys() == ["batch", "n"] and type(adata) is cm.AnnData
assert adata.obs is obs and adata.uns is uns
obsm["later"] = obs[["n"]].to_numpy()
assert set(adata.obsm) == {"flat", "later"} and adata.obsm["flat"].shape == (700, 1)
assert "Lazy AnnData object with n_obs × n_vars = 700 × 3060" in repr(adata)
"""


def test_a_handle_becomes_an_anndata(stores):
    script(BECOMES, stores / "small.zarr")


SLICES = """
import sys
import cellmill as cm
def opened():
    adata = cm.read_lazy(sys.argv[1])
    adata.obs["kind"] = adata.obs["batch"].astype("category")
    return adata
adata = opened()
mask = (adata.obs["batch"] == "a").to_numpy()
part = adata[mask, list(adata.var_names == "LYZ")]
assert part.shape == (mask.sum(), 1) and list(part.obs["kind"].cat.categories) == ["a"]
other = adata.copy()
other.obs["x"] = 1
other.uns["x"] = 1
assert "x" not in adata.obs and "x" not in adata.uns
assert "anndata" not in sys.modules
for index in ((slice(3, 9), ["LYZ", "CD3D"]), "AAACATACAACCAC-1", [5, 2], mask[:5]):
    adata = opened()
    try:
        part = adata[index]
    except (IndexError, KeyError):
        assert index is not mask and len(index) == 5
    else:
        assert part.shape[0] == {2: 6, 16: 1}.get(len(index), 2) or part.shape[0] == 2
adata = opened()
adata.obs_names = [f"c{i}" for i in range(adata.n_obs)]
assert adata.obs_names[3] == "c3"
"""


def test_slices_without_anndata(stores):
    script(SLICES, stores / "small.h5ad")


def test_odd_columns_and_elements(stores, tmp_path):
    """What the engine writes is what anndata writes; what it has no element for anndata writes."""
    adata = cm.read_lazy(stores / "small.zarr")[:50]
    n = adata.n_obs
    adata.obs["text"] = [f"t{i % 12}" for i in range(n)]
    adata.obs["each"] = [f"e{i}" for i in range(n)]
    adata.obs["gaps"] = [None if i % 5 == 0 else f"g{i % 3}" for i in range(n)]
    adata.obs["whole"] = pd.array([None, *range(1, n)], dtype="Int16")
    adata.obs["flag"] = pd.array([None, True] * (n // 2), dtype="boolean")
    adata.obs["ordered"] = pd.Categorical(["lo", "hi"] * (n // 2), categories=["lo", "hi"], ordered=True)
    adata.obs["number"] = pd.Categorical([3, 1] * (n // 2))
    adata.obs["small"] = np.arange(n, dtype=np.uint8)
    adata.uns["deep"] = {"a": {"b": [1, 2], "none": None, "text": "x", "list": ["p", "q"], "f": np.float32(1.5), "yes": True}}
    adata.uns["frame"] = pd.DataFrame({"v": [1.0, 2.0]}, index=["r", "s"])
    adata.uns["numbered"] = {"whole": pd.DataFrame({"v": ["a", "b"]}), "broken": pd.DataFrame({"v": [1, 2]}, index=pd.Index([0.5, 2], name="dose"))}
    adata.obsp["csc"] = sp.csc_matrix((np.ones(3), ([0, 1, 2], [2, 1, 0])), shape=(n, n))
    adata.obsm["frame"] = pd.DataFrame({"v": np.arange(n)}, index=adata.obs_names)
    for suffix in ("zarr", "h5ad"):
        ours, theirs = tmp_path / f"ours.{suffix}", tmp_path / f"theirs.{suffix}"
        getattr(adata, f"write_{suffix}")(ours)
        frames = adata.to_memory()
        getattr(frames, f"write_{suffix}")(theirs)
        read = ad.read_zarr if suffix == "zarr" else ad.read_h5ad
        same(read(ours), read(theirs))
        assert cm.read_lazy(ours).uns["numbered"]["broken"].index.equals(adata.uns["numbered"]["broken"].index)
    # Complex numbers are beyond the engine.
    adata.uns["complex"] = np.array([1j])
    adata.write_h5ad(tmp_path / "complex.h5ad", compression="gzip")
    back = ad.read_h5ad(tmp_path / "complex.h5ad")
    assert back.uns["complex"][0] == 1j and back.X.nnz > 0
    adata.write_h5ad(tmp_path / "no_x.h5ad", with_x=False)
    assert ad.read_h5ad(tmp_path / "no_x.h5ad").X is None


def test_raw_of_a_handle_goes_along(stores, tmp_path):
    """The tutorial's way: logarithms stay in raw while chosen genes are scaled."""
    adata = cm.read_lazy(stores / "small.h5ad")
    cm.pp.normalize_total(adata, target_sum=1e4)
    cm.pp.log1p(adata)
    adata.raw = adata
    part = adata[::2, :200]
    cm.pp.scale(part, max_value=10)
    assert part.raw.shape == (350, adata.n_vars)
    cm.tl.rank_genes_groups(part, "batch", method="wilcoxon")
    whole = adata[::2].to_memory()
    cm.tl.rank_genes_groups(whole, "batch", method="wilcoxon", use_raw=False)
    for name in ("names", "scores"):
        assert part.uns["rank_genes_groups"][name].tolist() == whole.uns["rank_genes_groups"][name].tolist()
    cm.tl.score_genes(part, ["LYZ", "CD3D"])
    assert np.isfinite(cm.get.obs_df(part, ["LYZ"], use_raw=True)["LYZ"]).all()
    np.testing.assert_array_equal(dense(part.to_memory().raw.X), dense(whole.X))
    other = adata[::2]
    for suffix in ("zarr", "h5ad"):
        getattr(other, f"write_{suffix}")(tmp_path / f"a.{suffix}")
        back = (ad.read_zarr if suffix == "zarr" else ad.read_h5ad)(tmp_path / f"a.{suffix}")
        np.testing.assert_array_equal(dense(back.raw.X), dense(whole.X))
        assert list(back.raw.var_names) == list(adata.var_names)
    # anndata writes complex numbers; what is there is replaced as a whole.
    other.uns["complex"] = np.array([1j])
    for path, read, write in ((tmp_path / "a.zarr", ad.read_zarr, other.write_zarr), (tmp_path / "a.h5ad", ad.read_h5ad, other.write_h5ad)):
        write(path)
        back = read(path)
        assert back.uns["complex"][0] == 1j and not list(tmp_path.glob(".*"))
        np.testing.assert_array_equal(dense(back.raw.X), dense(whole.X))
        # A folder that is no store is nothing to replace.
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / "mine").touch()
        with pytest.raises(ValueError, match="folder: the output exists and is no"):
            write(tmp_path / "folder")
        assert (tmp_path / "folder" / "mine").exists()


def test_layers_have_the_shape_of_x(stores):
    adata = cm.read_lazy(stores / "small.zarr")
    for handle, shape in ((adata, "(700, 3060)"), (adata[:9], "(9, 3060)"), (adata[:, :9].copy(), "(700, 9)")):
        with pytest.raises(ValueError, match=f"layers/wrong: shape (5, 5), but X has {shape}".replace("(", r"\(").replace(")", r"\)")):
            handle.layers["wrong"] = np.ones((5, 5))
        with pytest.raises(ValueError, match="layers/wrong"):
            handle.layers = {"wrong": np.ones((5, 5))}
        handle.layers = {"right": handle.X}
        assert list(handle.layers) == ["right"]


def test_single_places_and_copies(stores, small):
    from copy import deepcopy

    adata = cm.read_lazy(stores / "small.zarr")
    assert adata[-1].obs_names[0] == small.obs_names[-1]
    np.testing.assert_array_equal(dense(adata[-1, -3:].X.to_memory()), dense(small[-1, -3:].X))
    with pytest.raises(IndexError, match="700"):
        adata[700]
    other = deepcopy(adata)
    cm.pp.log1p(other)
    assert other.X.sum() != adata.X.sum()
    pd.testing.assert_frame_equal(adata[:5, :4].to_df(), small[:5, :4].to_df())
    assert adata[:5, :4].T.shape == (4, 5)


RAW = """
import sys
import cellmill as cm
adata = cm.read_lazy(sys.argv[1])
part = adata[adata.obs["batch"] == "a"]
assert "anndata" not in sys.modules, "anndata was imported"
assert part.raw.shape == (part.n_obs, int(sys.argv[2])) and list(part.raw.var_names) == list(cm.read_lazy(sys.argv[1]).raw.var_names)
assert "_cellmill_matrix" not in vars(part.raw.X), "raw was opened"
part.write_zarr(sys.argv[3])
"""


@pytest.mark.parametrize("suffix", ["zarr", "h5ad"])
def test_raw_of_a_store_is_raw(small, tmp_path, suffix):
    whole = small.copy()
    whole.raw = small
    whole.raw.varm["two"] = np.ones((small.n_vars, 2))
    whole = whole[:, 100:200].copy()
    (whole.write_zarr if suffix == "zarr" else whole.write_h5ad)(tmp_path / f"raw.{suffix}")
    adata = cm.read_lazy(tmp_path / f"raw.{suffix}")
    assert adata.raw.shape == small.shape and adata.shape == whole.shape and adata.raw.varm["two"].shape == (small.n_vars, 2)
    np.testing.assert_array_equal(dense(adata[5:50].raw.X), dense(small.X[5:50]))
    cm.tl.rank_genes_groups(adata, "batch", n_genes=5)
    assert adata.uns["rank_genes_groups"]["params"]["use_raw"] and not set(adata.uns["rank_genes_groups"]["names"]["a"]) <= set(adata.var_names)
    script(RAW, tmp_path / f"raw.{suffix}", small.n_vars, tmp_path / "part.zarr")
    np.testing.assert_array_equal(dense(ad.read_zarr(tmp_path / "part.zarr").raw.X), dense(small.X[(small.obs["batch"] == "a").to_numpy()]))


@pytest.mark.parametrize("suffix", ["zarr", "h5ad"])
def test_a_handle_is_not_written_over_what_it_reads(small, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    (small.write_zarr if suffix == "zarr" else small.write_h5ad)(path)
    adata = cm.read_lazy(path)
    cm.pp.log1p(adata)
    joined = cm.concat([cm.read_lazy(path), adata], index_unique="-")
    for handle in (adata, joined, adata[:20]):
        for with_x in (True, False):
            with pytest.raises(ValueError, match=f"a.{suffix}: this handle reads its rows from there"):
                (handle.write_zarr if suffix == "zarr" else handle.write_h5ad)(path, with_x=with_x)
    adata.X = adata.X.to_memory()
    (adata.write_zarr if suffix == "zarr" else adata.write_h5ad)(path)
    np.testing.assert_allclose(dense(cm.read_lazy(path).X), np.log1p(dense(small.X)), rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_raw_of_a_handle_is_used_by_scanpy(small, tmp_path):
    import matplotlib as mpl
    import scanpy as sc

    mpl.use("agg")
    whole = small.copy()
    whole.raw = small
    whole.obs["batch"] = whole.obs["batch"].astype("category")
    whole = whole[:, 100:200].copy()
    whole.obsm["X_umap"] = np.arange(2 * whole.n_obs).reshape(-1, 2) % 97
    whole.write_h5ad(tmp_path / "raw.h5ad")
    adata, gene = cm.read_lazy(tmp_path / "raw.h5ad"), small.var_names[7]
    assert isinstance(adata.obs_vector("batch"), pd.Categorical)
    np.testing.assert_array_equal(adata.raw.obs_vector(gene), whole.raw.obs_vector(gene))
    np.testing.assert_array_equal(adata.raw.var_vector(adata.obs_names[3]), whole.raw.var_vector(adata.obs_names[3]))
    same(adata.raw.to_adata().to_memory(), whole.raw.to_adata())
    pd.testing.assert_frame_equal(sc.get.obs_df(adata, [gene, "batch"], use_raw=True), sc.get.obs_df(whole, [gene, "batch"], use_raw=True))
    sc.pl.umap(adata, color=[gene, "batch"], show=False)
    # What the engine has no element for is written by anndata, raw as well.
    adata.uns["odd"] = np.array([{"a": 1}["a"], 2], dtype="complex64")
    adata[:50].write_h5ad(tmp_path / "part.h5ad")
    np.testing.assert_array_equal(dense(ad.read_h5ad(tmp_path / "part.h5ad").raw.X), dense(small.X[:50]))
