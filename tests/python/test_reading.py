"""Every layout of the same counts gives the same bits, and obs and var go out as they came."""

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import zarr
from pandas.testing import assert_frame_equal

import inputs
import reference
from program import cellmill, message, succeed

QC = ("--through", "qc", "--filter-cells", "", "--qc-var", "mt=prefix:MT-", "--percent-top", "20,50")
OBS = ["n_genes_by_counts", "log1p_n_genes_by_counts", "total_counts", "log1p_total_counts", "total_counts_mt", "pct_counts_mt", "pct_counts_in_top_20_genes", "pct_counts_in_top_50_genes"]
VAR = ["n_cells_by_counts", "mean_counts", "log1p_mean_counts", "pct_dropout_by_counts", "total_counts", "log1p_total_counts"]


def assert_same_bits(ours, other, columns):
    for column in columns:
        assert ours[column].dtype == other[column].dtype, column
        assert ours[column].to_numpy().tobytes() == other[column].to_numpy().tobytes(), column


def assert_same_columns(output, frame):
    """Every column of the input is there, equal, of the same type and in the same order."""
    assert_frame_equal(output[list(frame.columns)], frame, check_names=True, check_categorical=True)
    assert [c for c in output.columns if c in frame.columns] == list(frame.columns)


@pytest.fixture(scope="session")
def plain(run, mixed_path):
    return run.read(mixed_path, *QC)


def anndata_unique(names):
    return list(ad.utils.make_index_unique(pd.Index(list(names))))


@pytest.mark.parametrize("layout", list(inputs.layouts()))
def test_every_layout_gives_the_same_bits(layout, plain, mixed, run, folder):
    a = mixed.copy() if layout.startswith(("v", "h5ad")) else ad.AnnData(mixed.X, obs=mixed.obs[[]], var=mixed.var[[]])
    a.strings_to_categoricals = lambda *_: None
    output = run.read(inputs.layouts()[layout](a, folder), *QC)
    assert list(output.obs_names) == list(plain.obs_names)
    # As scanpy.read_10x_mtx does, names of an mtx folder are made unique.
    expected = anndata_unique(plain.var_names) if layout.startswith("mtx") else list(plain.var_names)
    assert list(output.var_names) == expected
    assert_same_bits(output.obs, plain.obs, OBS)
    assert_same_bits(output.var, plain.var, VAR)
    if a.obs.shape[1]:
        assert_same_columns(output.obs, mixed.obs)
        assert_same_columns(output.var, mixed.var)


def test_columns_come_through(plain, mixed):
    assert_same_columns(plain.obs, mixed.obs)
    assert_same_columns(plain.var, mixed.var)
    assert plain.obs["categorical"].cat.categories.tolist() == ["c", "a", "b", "unused"]
    assert plain.obs["categorical"].isna().sum() == mixed.obs["categorical"].isna().sum() > 0
    assert plain.obs["ordered"].cat.ordered


def test_columns_of_kept_cells_come_through(run, mixed, mixed_path):
    output = run.read(mixed_path, "--through", "qc", "--filter-cells", "flag & n_genes_by_counts > 0")
    keep = mixed.obs["flag"].to_numpy() & (np.asarray((mixed.X > 0).sum(1)).ravel() > 0)
    assert_frame_equal(output.obs[list(mixed.obs.columns)], mixed.obs[keep], check_categorical=True)


def test_columns_written_by_anndata_as_h5ad_come_through(run, mixed, folder):
    path = inputs.write(mixed, folder / "columns.h5ad")
    output = run.read(path, *QC, suffix=".h5ad")
    assert_same_columns(output.obs, mixed.obs)
    assert_same_columns(output.var, mixed.var)


@pytest.mark.parametrize("suffix", [".zarr", ".v2.zarr", ".h5ad"])
def test_another_matrix_can_be_chosen(suffix, run, mixed, plain, folder):
    a = mixed.copy()
    a.layers["counts"] = mixed.X
    a.raw = a.copy()
    a.X = inputs.log_normalized(a).X
    a.strings_to_categoricals = lambda *_: None
    path = inputs.write(a, folder / f"chosen{suffix}")
    for matrix in ("layers/counts", "raw/X"):
        output = run.read(path, *QC, "--matrix", matrix)
        assert_same_bits(output.obs, plain.obs, OBS)
        assert_same_bits(output.var, plain.var, VAR)


def test_raw_with_more_genes_than_x(run, mixed, folder):
    a = mixed.copy()
    a.raw = mixed.copy()
    a = a[:, :800].copy()
    a.strings_to_categoricals = lambda *_: None
    path = inputs.write(a, folder / "raw_wider.zarr")
    output = run.read(path, *QC, "--matrix", "raw/X")
    assert output.n_vars == mixed.n_vars
    assert np.array_equal(output.obs["n_genes_by_counts"], np.asarray((mixed.X > 0).sum(1)).ravel())


def test_untidy_rows_are_summed_and_zeros_not_counted(run, mixed, folder):
    path = inputs.put_sparse(inputs.write(mixed, folder / "untidy.zarr"), mixed.X, arrays=inputs.untidy(mixed.X))
    a = ad.read_zarr(path)
    assert (a.X.data == 0).any() and not a.X.has_canonical_format
    output = run.read(path, "--through", "hvg", "--filter-cells", "", "--n-top-genes", 300, "--with-x", "raw")
    x = reference.counts(a).X
    assert abs(output.X - x).max() == 0
    assert np.array_equal(output.obs["n_genes_by_counts"], np.diff(x.indptr))


def test_layouts_agree_to_the_end(run, synthetic, synthetic_path, folder):
    """CSC, dense and a 10x file lead to the clusters that CSR leads to."""
    flags = ("--through", "leiden", "--min-genes", 1, "--n-top-genes", 500, "--n-comps", 20, "--seed", 3)
    first = run.read(synthetic_path, *flags)
    for name in ("v3-csc", "h5ad-dense-f4", "tenx-v3"):
        a = synthetic.copy()
        other = run.read(inputs.layouts()[name](a, folder_of(folder, "to_the_end")), *flags)
        assert first.obs["leiden"].tolist() == other.obs["leiden"].tolist(), name
        assert first.obsm["X_umap"].tobytes() == other.obsm["X_umap"].tobytes(), name
        assert first.obsm["X_pca"].tobytes() == other.obsm["X_pca"].tobytes(), name


def folder_of(folder, name):
    made = folder / name
    made.mkdir(exist_ok=True)
    return made


# ---- 10x


def test_tenx_names_and_columns_are_scanpys(run, mixed, folder):
    at = folder_of(folder, "tenx_columns")
    a = mixed
    for path, theirs in (
        (inputs.write_tenx_v3(a, at / "v3.h5"), sc.read_10x_h5),
        (inputs.write_tenx_v2(a, at / "v2.h5"), sc.read_10x_h5),
        (inputs.write_mtx(a, at / "mtx3", version=3), sc.read_10x_mtx),
        (inputs.write_mtx(a, at / "mtx2", version=2), sc.read_10x_mtx),
    ):
        # scanpy makes the names of an mtx folder unique by default, and so do we.
        expected = theirs(path)
        output = run.read(path, *QC)
        assert list(output.obs_names) == list(expected.obs_names), path
        assert list(output.var_names) == list(expected.var_names), path
        for column in expected.var.columns:
            assert column in output.var, (path, column)
            assert output.var[column].astype(str).tolist() == expected.var[column].astype(str).tolist(), (path, column)


@pytest.mark.parametrize("kind", ["h5", "mtx"])
def test_tenx_keeps_gene_expression_alone(kind, run, mixed, folder):
    at = folder_of(folder, f"antibodies_{kind}")
    path = inputs.write_tenx_v3(mixed, at / "a.h5", antibodies=40) if kind == "h5" else inputs.write_mtx(mixed, at / "a", antibodies=40)
    output = run.read(path, *QC)
    assert output.n_vars == mixed.n_vars - 40
    assert np.array_equal(output.obs["n_genes_by_counts"], np.asarray((mixed.X[:, :-40] > 0).sum(1)).ravel())


def test_tenx_with_two_genomes(mixed, folder, tmp_path):
    path = inputs.write_tenx_v2(mixed, folder / "two_genomes.h5", genomes=("hg19", "mm10"))
    said = message(cellmill("run", path, "-o", tmp_path / "out.zarr", "--quiet", *QC))
    assert "hg19" in said and "mm10" in said
    assert not list(tmp_path.iterdir())
    succeed("run", path, "-o", tmp_path / "out.zarr", "--genome", "mm10", *QC)
    assert ad.read_zarr(tmp_path / "out.zarr").shape == mixed.shape


# ---- odd but legal stores


def test_string_dtypes_of_zarr(run, mixed, plain, folder):
    """anndata writes text as vlen-utf8 (v2) or string (v3); fixed-width text is legal too."""
    path = inputs.write(mixed, folder / "fixed_text.zarr")
    root = zarr.open_group(path, mode="r+", use_consolidated=False)
    values = mixed.obs["text"].to_numpy(str)
    del root["obs/text"]
    array = root["obs"].create_array("text", data=values)
    array.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    inputs.consolidate(path)
    output = run.read(path, *QC)
    assert output.obs["text"].tolist() == mixed.obs["text"].tolist()
    assert_same_bits(output.obs, plain.obs, OBS)


def test_passed_over_elements_are_named(mixed, folder, tmp_path):
    """Records with a field of complex numbers are passed over with a warning that names them; others go along."""
    path = inputs.write(mixed, folder / "rec_array.h5ad")
    with h5py.File(path, "r+") as file:
        for name, kind in (("odd", "c8"), ("table", "f4")):
            table = file["uns"].create_dataset(name, data=np.array([(1, 2.0, True)], dtype=[("a", "i4"), ("b", kind), ("c", "?")]))
            table.attrs.update({"encoding-type": "rec-array", "encoding-version": "0.2.0"})
    done = succeed("convert", path, tmp_path / "out.zarr")
    assert "uns/odd" in done.err and "uns/table" not in done.err
    output = ad.read_zarr(tmp_path / "out.zarr")
    assert output.shape == mixed.shape
    succeed("convert", path, tmp_path / "out.h5ad")
    for table in (output.uns["table"], ad.read_h5ad(tmp_path / "out.h5ad").uns["table"]):
        assert table.tolist() == [(1, 2.0, True)] and table.dtype == np.dtype([("a", "i4"), ("b", "f4"), ("c", "?")])


@pytest.mark.parametrize("kind", ["dense", "csr"])
@pytest.mark.parametrize("suffix", [".zarr", ".v2.zarr", ".h5ad"])
def test_float16_is_read_as_float32(suffix, kind, run, folder, tmp_path):
    """X, layers, columns and obsm of float16 keep their values, in results and in what `convert` writes."""
    counts = sp.random(60, 40, density=0.3, format="csr", random_state=0, dtype=np.float32)
    counts.data = np.ceil(counts.data * 9)
    a = ad.AnnData(counts.toarray(), layers={"half": (counts.toarray() / 7).astype("f2")})
    a.X = a.X.astype("f2")
    a.obs["half"] = np.linspace(-3, 3, 60).astype("f2")
    a.obsm["X_half"] = np.arange(120).reshape(60, 2).astype("f2") / 3
    path = inputs.write(a, folder / f"half_{kind}{suffix}")
    if kind == "csr":
        # scipy has no sparse float16: its values are written by themselves.
        root = h5py.File(path, "r+") if suffix == ".h5ad" else zarr.open_group(path, mode="r+", use_consolidated=False)
        del root["X"]
        group = root.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(counts.shape)})
        for name, values in (("data", counts.data.astype("f2")), ("indices", counts.indices), ("indptr", counts.indptr)):
            group.create_dataset(name, data=values) if suffix == ".h5ad" else group.create_array(name, data=values)
        root.close() if suffix == ".h5ad" else inputs.consolidate(path)
    output = run.read(path, *QC[:4])
    np.testing.assert_array_equal(output.obs["total_counts"], np.asarray(counts.sum(1)).ravel())
    np.testing.assert_array_equal(output.obs["half"], a.obs["half"].astype("f4"))
    np.testing.assert_array_equal(output.obsm["X_half"], a.obsm["X_half"].astype("f4"))
    for out in (tmp_path / "out.zarr", tmp_path / "out.h5ad"):
        succeed("convert", path, out)
        copy = ad.read_zarr(out) if out.suffix == ".zarr" else ad.read_h5ad(out)
        np.testing.assert_array_equal(copy.X.toarray(), counts.toarray())
        layer = copy.layers["half"]
        assert layer.dtype == np.float32
        np.testing.assert_array_equal(layer, a.layers["half"].astype("f4"))


def test_soft_links_are_followed(plain, mixed, run, folder, tmp_path):
    path = inputs.write(mixed, folder / "soft_links.h5ad")
    with h5py.File(path, "r+") as file:
        file.move("X", "hidden")
        file["X"] = h5py.SoftLink("/hidden")
        file["layers/counts"] = h5py.SoftLink("/X")
        file["layers/dangling"] = h5py.SoftLink("/nothing")
        file["uns/self"] = h5py.SoftLink("/uns")
    for matrix in ("X", "layers/counts"):
        output = run.read(path, *QC, "--matrix", matrix)
        assert_same_bits(output.obs, plain.obs, OBS)
        assert_same_columns(output.obs, mixed.obs)
    done = succeed("convert", path, tmp_path / "out.h5ad")
    assert "layers/dangling" in done.err and "uns/self" in done.err
    output = ad.read_h5ad(tmp_path / "out.h5ad")
    assert list(output.layers) == ["counts"] and (output.layers["counts"] != mixed.X).nnz == 0
    assert "nothing is there" in message(cellmill("run", path, "-o", tmp_path / "none.zarr", "--matrix", "layers/dangling"))


def test_external_links_name_their_file(plain, mixed, run, folder, tmp_path):
    path = inputs.write(mixed, folder / "external_link.h5ad")
    with h5py.File(path, "r+") as file:
        file.move("X", "layers/counts")
        file["X"] = h5py.ExternalLink("other.h5ad", "/X")
    for command in (("run", path, "-o", tmp_path / "none.zarr"), ("convert", path, tmp_path / "none.h5ad")):
        found = message(cellmill(*command))
        assert "external link" in found and "open other.h5ad" in found
    output = run.read(path, *QC, "--matrix", "layers/counts")
    assert_same_bits(output.obs, plain.obs, OBS)


def test_unknown_encoding_is_passed_over(run, mixed, folder, tmp_path):
    path = inputs.write(mixed, folder / "unknown_encoding.zarr")
    root = zarr.open_group(path, mode="r+", use_consolidated=False)
    root["uns"].create_group("strange", attributes={"encoding-type": "from-the-future", "encoding-version": "9"})
    inputs.consolidate(path)
    done = succeed("convert", path, tmp_path / "out.zarr")
    assert "uns/strange" in done.err


@pytest.mark.parametrize("suffix", [".zarr", ".h5ad"])
def test_no_genes_expressed_in_a_chunk(suffix, run, folder):
    """Long stretches of empty cells, and a store whose first and last cells are empty."""
    a = inputs.synthetic(300, 200, seed=9)
    x = a.X.tolil()
    x[:120] = 0
    x[-50:] = 0
    a.X = x.tocsr()
    output = run.read(inputs.write(a, folder / f"stretches{suffix}"), "--through", "qc", "--filter-cells", "")
    assert np.array_equal(output.obs["n_genes_by_counts"], np.diff(a.X.indptr))
