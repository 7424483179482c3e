"""Outputs in every format hold the same, are whole or not there, and serve scanpy."""

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import zarr
from anndata.tests.helpers import assert_equal

import inputs
import reference
from program import cellmill, files, message, read, succeed

FLAGS = ("--min-genes", 20, "--n-top-genes", 200, "--n-comps", 20)
FORMATS = {"zarr3": ".zarr", "zarr2": ".zarr", "h5ad": ".h5ad"}


@pytest.fixture(scope="session")
def outputs(run, small_path):
    return {name: run(small_path, *FLAGS, "--with-x", "raw", "--format", name, suffix=suffix) for name, suffix in FORMATS.items()}


def test_formats_are_equal(outputs):
    first = read(outputs["zarr3"])
    for name in ("zarr2", "h5ad"):
        assert_equal(read(outputs[name]), first, exact=True)


def test_formats_are_what_was_asked_for(outputs):
    assert (outputs["zarr3"] / "zarr.json").is_file() and not (outputs["zarr3"] / ".zgroup").exists()
    assert (outputs["zarr2"] / ".zgroup").is_file() and not (outputs["zarr2"] / "zarr.json").exists()
    assert outputs["h5ad"].read_bytes()[:8] == b"\x89HDF\r\n\x1a\n"
    assert zarr.open_group(outputs["zarr3"], mode="r").metadata.zarr_format == 3


def test_zarr_is_the_default_and_h5ad_by_name(run, small_path):
    assert (run(small_path, *FLAGS) / "zarr.json").is_file()
    assert run(small_path, *FLAGS, suffix=".h5ad").is_file()


def test_writing_what_was_read(outputs, tmp_path):
    """anndata writes our output again and reads the same: every element is of a kind that it knows."""
    for name, path in outputs.items():
        a = read(path)
        a.write_h5ad(tmp_path / f"{name}.h5ad")
        assert_equal(ad.read_h5ad(tmp_path / f"{name}.h5ad"), a, exact=True)


def test_attributes_of_the_root(outputs):
    for name in ("zarr2", "zarr3"):
        attrs = dict(zarr.open_group(outputs[name], mode="r").attrs)
        assert attrs["encoding-type"] == "anndata" and attrs["encoding-version"] == "0.1.0"


def test_lazy_readers_open_it(outputs):
    from anndata.io import read_elem, sparse_dataset

    root = zarr.open_group(outputs["zarr3"], mode="r")
    assert sparse_dataset(root["X"])[:5].shape[0] == 5
    assert "leiden" in read_elem(root["obs"]).columns


def test_x_raw_is_the_counts_of_what_is_kept(run, synthetic, synthetic_path):
    output = run.read(synthetic_path, "--through", "hvg", "--n-top-genes", 300, "--min-genes", 300, "--min-cells", 50, "--with-x", "raw")
    a = reference.counts(synthetic)
    keep = np.diff(a.X.indptr) >= 300
    x = a.X[keep]
    x = x[:, np.asarray((x > 0).sum(0)).ravel() >= 50]
    assert output.shape == x.shape
    assert abs(sp.csr_matrix(output.X) - x).max() == 0


def test_x_in_other_formats(run, synthetic_path):
    flags = ("--through", "hvg", "--n-top-genes", 300, "--min-genes", 300, "--with-x", "normalized")
    first = run.read(synthetic_path, *flags)
    for name, suffix in (("zarr2", ".zarr"), ("h5ad", ".h5ad")):
        other = run.read(synthetic_path, *flags, "--format", name, suffix=suffix)
        assert (other.X != first.X).nnz == 0


@pytest.mark.parametrize("suffix", [".zarr", ".v2.zarr"])
def test_in_place(suffix, small, run, tmp_path):
    a = inputs.slots(inputs.rich(small))
    path = inputs.write(a, tmp_path / f"store{suffix}")
    before = read(path)
    flags = ("--filter-cells", "", "--n-top-genes", 200, "--n-comps", 20)
    succeed("run", path, "--in-place", *flags)
    after = read(path)
    for slot in ("X", "layers", "raw"):
        if slot == "raw":
            assert_equal(after.raw.X, before.raw.X)
        else:
            assert_equal(getattr(after, slot), getattr(before, slot))
    for slot in ("obsm", "varm", "obsp", "uns"):
        for key in getattr(before, slot):
            assert_equal(getattr(after, slot)[key], getattr(before, slot)[key])
    assert_equal(after.obs[list(before.obs.columns)], before.obs)
    output = tmp_path / f"new{suffix}"
    other = inputs.write(a, tmp_path / f"other{suffix}")
    succeed("run", other, "-o", output, *flags)
    new = read(output)
    assert after.obs["leiden"].tolist() == new.obs["leiden"].tolist()
    assert after.obsm["X_umap"].tobytes() == new.obsm["X_umap"].tobytes()
    assert set(new.var.columns) <= set(after.var.columns)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, output.name, other.name])


def test_in_place_twice(small, tmp_path):
    path = inputs.write(small, tmp_path / "store.zarr")
    flags = ("--in-place", "--filter-cells", "", "--n-top-genes", 200, "--n-comps", 20)
    succeed("run", path, *flags)
    first = read(path)
    succeed("run", path, *flags)
    assert_equal(read(path), first, exact=True)


def test_in_place_with_filtered_cells_is_one_thing_or_another(small, tmp_path):
    """Results of fewer cells do not fit the store: either it is refused, or the store stays readable."""
    path = inputs.write(small, tmp_path / "store.zarr")
    before = files(path)
    done = cellmill("run", path, "--in-place", "--quiet", "--filter-cells", "n_genes_by_counts >= 150", "--n-top-genes", 200, "--n-comps", 20)
    if done.code:
        message(done)
        assert files(path) == before
    else:
        assert read(path).X.shape[0] == read(path).n_obs


def test_in_place_failure_leaves_the_input(small, tmp_path):
    path = inputs.write(small, tmp_path / "store.zarr")
    before = files(path)
    message(cellmill("run", path, "--in-place", "--quiet", "--filter-cells", "", "--n-top-genes", 10**6))
    assert files(path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["store.zarr"]


def test_in_place_loses_no_column(small, tmp_path):
    """obs and var are written anew, so a column that can't be held is a reason to refuse."""
    a = small.copy()
    a.obs["turns"] = np.exp(1j * np.arange(a.n_obs))
    path = inputs.write(a, tmp_path / "store.zarr")
    before = files(path)
    said = message(cellmill("run", path, "--in-place", "--quiet", "--filter-cells", "", "--through", "qc"))
    assert "obs/turns" in said and "-o" in said
    assert files(path) == before
    succeed("run", path, "-o", tmp_path / "new.zarr", "--quiet", "--filter-cells", "", "--through", "qc")


def test_in_place_with_the_genes_of_raw_is_refused(small, tmp_path):
    a = small.copy()
    a.raw = a.copy()
    path = inputs.write(a[:, :100].copy(), tmp_path / "store.zarr")
    before = files(path)
    assert "raw/X" in message(cellmill("run", path, "--in-place", "--quiet", "--matrix", "raw/X", "--filter-cells", "", "--through", "qc"))
    assert files(path) == before


def test_scanpy_plots_it(outputs):
    for path in outputs.values():
        a = read(path)
        sc.pl.umap(a, color=["leiden", "n_genes_by_counts"], show=False)
        sc.pl.pca_variance_ratio(a, show=False)
        sc.pl.highly_variable_genes(a, show=False)
        plt.close("all")


def test_scanpy_goes_on_from_it(outputs):
    a = read(outputs["zarr3"])
    sc.pp.normalize_total(a)
    sc.pp.log1p(a)
    sc.tl.rank_genes_groups(a, "leiden", method="t-test")
    sc.tl.paga(a)
    sc.tl.umap(a, maxiter=3)
    sc.tl.leiden(a, flavor="igraph", n_iterations=2, key_added="again")
    assert "again" in a.obs


def test_nothing_else_is_left(small_path, tmp_path):
    for suffix in (".zarr", ".h5ad"):
        for stage in ("qc", "leiden"):
            folder = tmp_path / f"{stage}{suffix}"
            folder.mkdir()
            succeed("run", small_path, "-o", folder / f"out{suffix}", *FLAGS, "--through", stage, "--with-x", "raw", env={"TMPDIR": str(folder)})
            assert [p.name for p in folder.iterdir()] == [f"out{suffix}"]


def test_csc_scratch_is_removed(small, tmp_path):
    path = inputs.put_sparse(inputs.write(small, tmp_path / "csc.zarr"), small.X, kind="csc")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    succeed("run", path, "-o", tmp_path / "out.zarr", *FLAGS, env={"TMPDIR": str(scratch)})
    assert not list(scratch.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["csc.zarr", "out.zarr", "scratch"]


def test_the_input_is_not_touched(small, tmp_path):
    for suffix in (".zarr", ".h5ad"):
        path = inputs.write(small, tmp_path / f"in{suffix}")
        before = files(path)
        succeed("run", path, "-o", tmp_path / f"out{suffix}", *FLAGS)
        assert files(path) == before


@pytest.mark.parametrize("suffix", [".zarr", ".h5ad"])
def test_an_output_that_exists(suffix, small_path, tmp_path):
    path = tmp_path / f"out{suffix}"
    flags = (*FLAGS, "--through", "qc")
    succeed("run", small_path, "-o", path, *flags)
    before = files(path)
    said = message(cellmill("run", small_path, "-o", path, "--quiet", *flags))
    assert path.name in said
    assert files(path) == before
    succeed("run", small_path, "-o", path, "-y", "--min-genes", 50, "--through", "qc")
    assert files(path) != before
    assert list(tmp_path.iterdir()) == [path]


def test_failing_to_replace_keeps_the_old_output(small_path, tmp_path):
    path = tmp_path / "out.zarr"
    succeed("run", small_path, "-o", path, *FLAGS, "--through", "qc")
    before = files(path)
    message(cellmill("run", small_path, "-o", path, "-y", "--quiet", "--filter-cells", "n_genes_by_counts > 100000"))
    assert files(path) == before
    assert list(tmp_path.iterdir()) == [path]


def test_overwrite_does_not_remove_a_folder_that_is_no_store(small_path, tmp_path):
    """-y replaces stores; a folder of someone's papers is not one."""
    papers = tmp_path / "papers"
    papers.mkdir()
    (papers / "thesis.txt").write_text("years")
    cellmill("run", small_path, "-o", papers, "-y", "--quiet", *FLAGS, "--through", "qc")
    assert (papers / "thesis.txt").is_file()


def test_a_folder_that_is_not_there_yet(small_path, tmp_path):
    """Either the folder is made, or the message says that it is missing and nothing is left."""
    done = cellmill("run", small_path, "-o", tmp_path / "new" / "out.zarr", "--quiet", *FLAGS, "--through", "qc")
    if done.code:
        assert "new" in message(done)
        assert not list(tmp_path.iterdir())
    else:
        assert read(tmp_path / "new" / "out.zarr").n_obs


# ---- what the input says besides X


@pytest.fixture(scope="module")
def annotated(small_path, tmp_path_factory):
    """The small data set with something in every mapping."""
    rng = np.random.default_rng(1)
    a = read(small_path)
    a.var_names_make_unique()
    n, p = a.shape
    a.obsm["spatial"] = rng.normal(size=(n, 2))
    a.obsm["frame"] = a.obs.assign(score=rng.normal(size=n))[["score"]]
    a.obsm["sparse"] = sp.random(n, 7, 0.3, format="csr", random_state=1)
    a.obsm["X_pca"] = np.zeros((n, 3), dtype=np.float32)
    a.varm["loadings"] = rng.normal(size=(p, 3)).astype(np.float32)
    a.obsp["pairs"] = sp.random(n, n, 0.05, format="csr", random_state=2)
    a.obsp["dense"] = rng.normal(size=(n, n))
    a.varp["genes"] = sp.random(p, p, 0.01, format="csc", random_state=3)
    a.uns["study"] = {"title": "nuclei", "sizes": np.arange(4), "deep": {"ok": True}}
    # Data frames may have numbers for names.
    a.uns["study"]["rows"] = pd.DataFrame({"gene": list("abb"), "score": [0.5, 1.5, 2.5]})
    a.uns["study"]["doses"] = pd.DataFrame({"n": [3, 4]}, index=pd.Index([0.25, 10.0], name="dose"))
    a.uns["pca"] = {"old": 1}
    a.layers["counts"] = a.X.copy()
    folder = tmp_path_factory.mktemp("annotated")
    a.write_h5ad(folder / "a.h5ad")
    a.write_zarr(folder / "a.zarr")
    return a, {".h5ad": folder / "a.h5ad", ".zarr": folder / "a.zarr"}


@pytest.mark.parametrize("to", [".h5ad", ".zarr"])
@pytest.mark.parametrize("source", [".h5ad", ".zarr"])
def test_annotations_go_along_for_kept_cells_and_genes(source, to, annotated, run):
    a, paths = annotated
    done = read(run(paths[source], *FLAGS, "--min-cells", 3, "--with-x", "hvg", suffix=to))
    part = a[done.obs_names, done.var_names]
    assert 0 < done.n_obs < a.n_obs and done.n_vars == 200
    for slot, names in {"obsm": ["spatial", "frame", "sparse"], "varm": ["loadings"], "obsp": ["pairs", "dense"], "varp": ["genes"]}.items():
        for name in names:
            assert_equal(getattr(done, slot)[name], getattr(part, slot)[name])
    assert_equal(done.uns["study"], a.uns["study"])
    # What the run found takes the place of what was there under its name.
    assert done.obsm["X_pca"].shape == (done.n_obs, 20) and "variance" in done.uns["pca"] and "old" not in done.uns["pca"]
    assert not done.layers


def test_annotations_that_are_not_replaced_stay(annotated, run):
    a, paths = annotated
    done = read(run(paths[".zarr"], "--through", "qc", "--filter-cells", ""))
    assert done.n_obs == a.n_obs
    assert_equal(done.obsm["X_pca"], a.obsm["X_pca"])
    assert_equal(done.varp["genes"], a.varp["genes"])


def test_damaged_annotations_are_left_out_with_a_word(annotated, tmp_path):
    import shutil

    a, paths = annotated
    for name, damage in {
        "obsm/spatial": lambda g: g["obsm/spatial"].resize((a.n_obs - 1, 2)),
        "uns/study": lambda g: (tmp_path / "d.zarr/uns/study/sizes/c/0").write_bytes(b"no zstd"),
    }.items():
        path = tmp_path / "d.zarr"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(paths[".zarr"], path)
        inputs.unconsolidate(path)
        damage(zarr.open_group(path, mode="r+"))
        done = cellmill("run", path, "-o", tmp_path / "o.zarr", "-y", "--through", "qc")
        assert done.code == 0, str(done)
        assert name in done.err and "left out" in done.err
        slot, key = name.split("/")
        assert key not in getattr(read(tmp_path / "o.zarr"), slot)
    # A copy must be whole.
    assert "uns/study/sizes" in message(cellmill("convert", tmp_path / "d.zarr", tmp_path / "c.h5ad"))
    assert not (tmp_path / "c.h5ad").exists()
