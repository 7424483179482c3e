"""info, plan, run's reports, plot, convert, demo."""

import json
import tomllib

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
from anndata.tests.helpers import assert_equal
from PIL import Image

import inputs
from program import cellmill, message, read, succeed

FLAGS = ("--min-genes", 20, "--n-top-genes", 200, "--n-comps", 20)


@pytest.fixture(scope="session")
def full(small, folder):
    """A store with something in every slot, in three formats."""
    a = inputs.slots(inputs.rich(small))
    return {name: inputs.write(a, folder / f"full{suffix}") for name, suffix in (("v3", ".zarr"), ("v2", ".v2.zarr"), ("h5ad", ".h5ad"))}


# ---- info


@pytest.mark.parametrize("kind", ["v3", "v2", "h5ad"])
def test_info(kind, full, small):
    facts = succeed("info", full[kind], "--json").json()
    assert (facts["n_obs"], facts["n_vars"]) == small.shape
    x = next(m for m in facts["matrices"] if m["name"] == "X")
    assert x["encoding"] == "csr_matrix" and x["nnz"] == small.X.nnz and x["shape"] == list(small.shape) and "count" in x["values"]
    assert {"layers/doubled", "layers/dense", "raw/X"} <= {m["name"] for m in facts["matrices"]}
    a = read(full[kind])
    assert facts["obs"] == list(a.obs.columns) and facts["var"] == list(a.var.columns)
    assert set(facts["obsm"]) == set(a.obsm) and set(facts["varm"]) == set(a.varm) and set(facts["obsp"]) == set(a.obsp) and set(facts["uns"]) == set(a.uns)
    assert facts["run"]["peak_bytes"] > 0
    said = succeed("info", full[kind])
    for word in ("400", "600", "csr_matrix", "raw counts", "layers/doubled", "categorical", "X_old", "nested"):
        assert word in said.out, word
    assert said.err == ""


def test_info_tells_logged_values(small, folder):
    path = inputs.write(inputs.log_normalized(small), folder / "info_logged.zarr")
    x = next(m for m in succeed("info", path, "--json").json()["matrices"] if m["name"] == "X")
    assert "raw counts" not in x["values"] and "log" in x["values"]


def test_info_of_tenx(small, folder):
    for path in (inputs.write_tenx_v3(small, folder / "info.h5"), inputs.write_tenx_v2(small, folder / "info2.h5"), inputs.write_mtx(small, folder / "info_mtx")):
        facts = succeed("info", path, "--json").json()
        assert (facts["n_obs"], facts["n_vars"]) == small.shape
        succeed("info", path)


def test_info_reads_metadata_alone(folder):
    """A store of 10^12 cells by its metadata answers at once (its chunks are not there)."""
    import time

    import h5py

    path = inputs.write(inputs.synthetic(50, 60, seed=2), folder / "large.h5ad")
    n = 200_000_000
    with h5py.File(path, "r+") as file:
        for name, dtype in (("data", "f4"), ("indices", "i4")):
            del file[f"X/{name}"]
            file.create_dataset(f"X/{name}", shape=(n * 2000,), dtype=dtype, chunks=(100_000,), compression="gzip")
    start = time.monotonic()
    cellmill("info", path, "--json", address_space=2 << 30)
    assert time.monotonic() - start < 20  # well under a second on an idle machine


def test_methods(run, small_path):
    output = run(small_path, *FLAGS)
    said = succeed("info", output, "--methods").out
    for word in ("cellmill", "200", "Leiden", "UMAP"):
        assert word in said, word
    assert succeed("info", output, "--methods", "--json").json()["methods"].strip() == said.strip()
    assert str(read(output).uns["cellmill"]["methods"]).strip() == said.strip()


# ---- plan


def test_plan(small_path, tmp_path):
    flags = (*FLAGS, "--memory", "1GiB")  # what is available may change from call to call
    done = succeed("plan", small_path, *flags)
    for word in ("read 1", "memory", "time"):
        assert word in done.out, word
    plan = succeed("plan", small_path, *flags, "--json").json()
    assert plan["shape"] == [400, 600] and len(plan["reads"]) >= 1 and plan["peak_bytes"] > 0
    assert succeed("run", small_path, "-o", tmp_path / "o.zarr", *flags, "--dry-run").out == done.out
    assert not list(tmp_path.iterdir())


def test_plan_counts_reads_as_run_does(small_path, run, tmp_path):
    for flags in ((), ("--target-sum", "median"), ("--flavor", "seurat_v3"), ("--min-cells", 5)):
        plan = succeed("plan", small_path, *FLAGS, *flags, "--json").json()
        trace = tmp_path / "t.json"
        succeed("run", small_path, "-o", tmp_path / "o.zarr", "-y", "--through", "pca", *FLAGS, *flags, "--trace", trace)
        reads = json.loads(trace.read_text())["source_reads"]
        assert reads <= len(plan["reads"]), flags


def test_a_ceiling_that_is_too_low_is_refused_before_a_byte_is_read(pbmc_path, tmp_path):
    said = message(cellmill("run", pbmc_path, "-o", tmp_path / "o.zarr", "--memory", "4MiB", "--quiet"))
    assert "--memory" in said
    assert not list(tmp_path.iterdir())


# ---- recipes


def test_print_recipe_round_trip(tmp_path):
    """The recipe that is printed, read again, prints the same."""
    default = succeed("run", "--print-recipe").out
    parsed = tomllib.loads(default)
    assert "# n_top_genes = 5000" in default and parsed["hvg"]["flavor"] == "cell_ranger"
    assert "# n_comps = 100" in default and parsed["neighbors"]["n_neighbors"] == 15 and "# n_pcs = 50" in default
    assert parsed["normalize"]["target_sum"] == 10000 and parsed["scale"]["zero_center"] is False
    (tmp_path / "default.toml").write_text(default)
    assert succeed("run", "--print-recipe", "--recipe", tmp_path / "default.toml").out == default
    flags = ("--flavor", "seurat", "--n-top-genes", 1234, "--qc-var", "mt=prefix:MT-", "--resolution", "0.5,2", "--target-sum", "median", "--batch-key", "batch", "--max-value", 10, "--filter-cells", "pct_counts_mt < 5", "--seed", 9)
    printed = succeed("run", "--print-recipe", *flags).out
    assert printed != default
    (tmp_path / "own.toml").write_text(printed)
    assert succeed("run", "--print-recipe", "--recipe", tmp_path / "own.toml").out == printed


def test_a_recipe_file_does_what_flags_do(run, small_path, tmp_path):
    from program import files

    flags = ("--min-genes", 30, "--n-top-genes", 150, "--n-comps", 15, "--flavor", "seurat")
    (tmp_path / "r.toml").write_text(succeed("run", "--print-recipe", *flags).out)
    assert files(run(small_path, *flags)) == files(run(small_path, "--recipe", tmp_path / "r.toml"))


@pytest.mark.parametrize("text, words", [("[hvg]\nn_top_gene = 5\n", ["n_top_gene", "n_top_genes"]), ("[hvgs]\nflavor = 'seurat'\n", ["hvgs", "hvg"]), ("[hvg]\nflavor = 'seurrat'\n", ["seurrat"]), ("[hvg\n", ["toml"]), ("[pca]\nn_comps = 'many'\n", ["n_comps"])], ids=["key", "table", "value", "syntax", "type"])
def test_recipes_that_cannot_be_read(text, words, small_path, tmp_path):
    (tmp_path / "bad.toml").write_text(text)
    said = message(cellmill("run", small_path, "-o", tmp_path / "o.zarr", "--recipe", tmp_path / "bad.toml", "--quiet"))
    assert "bad.toml" in said
    for word in words:
        assert word in said
    assert [p.name for p in tmp_path.iterdir()] == ["bad.toml"]


def test_the_output_carries_its_recipe(run, small_path, tmp_path):
    """The recipe in uns, run again, gives the same store."""
    from program import files

    output = run(small_path, *FLAGS)
    (tmp_path / "again.toml").write_text(str(read(output).uns["cellmill"]["recipe"]))
    assert files(run(small_path, "--recipe", tmp_path / "again.toml")) == files(output)


# ---- what a run says


def test_quiet(small_path, tmp_path):
    done = succeed("run", small_path, "-o", tmp_path / "o.zarr", *FLAGS, "--quiet")
    assert done.err == "" and done.out == ""


def test_json(small_path, tmp_path):
    done = succeed("run", small_path, "-o", tmp_path / "o.zarr", *FLAGS, "--json", "--quiet")
    said = done.json()
    a = read(tmp_path / "o.zarr")
    assert said["kept"] == [a.n_obs, a.n_vars] and said["n_hvg"] == a.var["highly_variable"].sum() and said["n_comps"] == 20
    assert said["n_clusters"] == a.obs["leiden"].nunique()
    assert done.err == ""


def test_talk_goes_to_stderr(run, small_path):
    done = run.said(small_path, *FLAGS)
    assert len(done.out.splitlines()) == 1
    assert "cells" in done.out and "clusters" in done.out


def test_trace(small_path, tmp_path):
    succeed("run", small_path, "-o", tmp_path / "o.zarr", *FLAGS, "--trace", tmp_path / "t.json")
    trace = json.loads((tmp_path / "t.json").read_text())
    assert trace["source_reads"] >= 1 and trace["peak_rss_bytes"] > 1 << 20
    assert any("hash" in key for key in trace) and any("version" in key for key in trace), list(trace)
    stages = trace["stages"]
    assert len(stages) >= 4
    for stage in stages:
        assert {"stage", "wall_s", "rows", "nnz", "bytes_read", "bytes_decoded", "peak_rss_bytes"} <= set(stage), stage
        assert stage["wall_s"] >= 0
    assert max(s["rows"] for s in stages) == 400
    assert max(s["bytes_decoded"] for s in stages) > 0 and max(s["bytes_read"] for s in stages) > 0


def test_version_and_help():
    import re

    assert re.fullmatch(r"cellmill \d+\.\d+\.\d+\S*\n", succeed("--version").out)
    for command in ("info", "plan", "run", "plot", "convert", "demo"):
        assert command in succeed("--help").out
        assert "Usage" in succeed(command, "--help").out


# ---- plot


@pytest.fixture(scope="session")
def analysed(run, synthetic_path):
    return run(synthetic_path, "--min-genes", 200, "--n-top-genes", 500, "--n-comps", 30, "--with-x", "normalized", "--qc-var", "mt=prefix:MT-")


def is_drawn(path):
    """Whether a PNG is a picture: some size, and many colours."""
    image = np.asarray(Image.open(path).convert("RGB"))
    assert image.shape[0] > 200 and image.shape[1] > 200
    return len(np.unique(image.reshape(-1, 3), axis=0)) > 10


@pytest.mark.parametrize(
    "figure, flags",
    [
        ("umap", ("--color", "leiden")),
        ("umap", ("--color", "leiden,n_genes_by_counts,GENE500")),
        ("umap", ("--color", "batch", "--legend-on-data", "--size", 5)),
        ("umap", ()),
        ("pca", ("--color", "total_counts")),
        ("violin", ()),
        ("violin", ("--color", "pct_counts_mt")),
        ("hvg", ()),
        ("pca_variance_ratio", ()),
    ],
    ids=str,
)
def test_plot(figure, flags, analysed, tmp_path):
    import xml.etree.ElementTree as tree

    succeed("plot", analysed, figure, *flags, "-o", tmp_path / "f.png")
    assert is_drawn(tmp_path / "f.png")
    succeed("plot", analysed, figure, *flags, "-o", tmp_path / "f.svg", "--quiet")
    root = tree.parse(tmp_path / "f.svg").getroot()
    assert root.tag.endswith("svg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.png", "f.svg"]
    if figure == "umap" and flags:
        # text stays text
        words = "".join(root.itertext())
        for key in flags[1].split(","):
            assert key in words, key
        assert "UMAP1" in words.replace(" ", "")


def test_dpi(analysed, tmp_path):
    for dpi in (80, 160):
        succeed("plot", analysed, "umap", "--color", "leiden", "-o", tmp_path / f"{dpi}.png", "--dpi", dpi)
    small, large = (Image.open(tmp_path / f"{dpi}.png").size for dpi in (80, 160))
    assert abs(large[0] / small[0] - 2) < 0.02


def test_colours_are_scanpys(analysed, tmp_path):
    """Clusters wear the colours that scanpy would give them."""
    from scanpy.plotting._utils import _set_default_colors_for_categorical_obs

    theirs = read(analysed)
    theirs.uns.pop("leiden_colors", None)
    _set_default_colors_for_categorical_obs(theirs, "leiden")
    succeed("plot", analysed, "umap", "--color", "leiden", "-o", tmp_path / "f.svg")
    succeed("plot", analysed, "umap", "--color", "leiden", "-o", tmp_path / "f.png")
    image = np.asarray(Image.open(tmp_path / "f.png").convert("RGB")).reshape(-1, 3)
    for colour in theirs.uns["leiden_colors"][:3]:
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(image.astype(int) - rgb).max(1) <= 2).any(), colour


def test_few_cells_are_plotted(folder, tmp_path):
    a = inputs.synthetic(20, 100, seed=4)
    a.obsm["X_umap"] = np.random.default_rng(0).normal(size=(20, 2)).astype("f4")
    path = inputs.write(a, folder / "twenty.zarr")
    succeed("plot", path, "umap", "--color", "batch", "-o", tmp_path / "f.png")
    assert is_drawn(tmp_path / "f.png")


# ---- convert


@pytest.mark.parametrize("kind", ["v3", "v2", "h5ad"])
@pytest.mark.parametrize("to", ["zarr3", "zarr2", "h5ad"])
def test_convert(kind, to, full, tmp_path):
    """Every slot comes through, between all formats."""
    path = tmp_path / ("o.h5ad" if to == "h5ad" else "o.zarr")
    succeed("convert", full[kind], path, "--format", to)
    expected, output = read(full[kind]), read(path)
    assert sp.issparse(output.X) and output.X.format == "csr"
    for slot in ("X", "obs", "var", "layers", "obsm", "varm", "obsp", "uns"):
        assert_equal(getattr(output, slot), getattr(expected, slot), exact=True)
    assert_equal(output.raw.X, expected.raw.X, exact=True)
    assert_equal(output.raw.var, expected.raw.var, exact=True)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("layout", ["tenx-v2", "tenx-v3", "mtx-v2", "mtx-v3"])
def test_convert_from_tenx(layout, small, tmp_path):
    path = inputs.layouts()[layout](small, tmp_path)
    for name in ("o.zarr", "o.h5ad"):
        succeed("convert", path, tmp_path / name)
        output = read(tmp_path / name)
        assert abs(sp.csr_matrix(output.X) - small.X).max() == 0
        # As scanpy.read_10x_mtx does, names of an mtx folder are made unique.
        names = ad.utils.make_index_unique(small.var_names) if layout.startswith("mtx") else small.var_names
        assert list(output.obs_names) == list(small.obs_names) and list(output.var_names) == list(names)
        assert list(output.var["gene_ids"]) == list(inputs.gene_ids(small))


@pytest.mark.parametrize("layout", ["v3-csc", "h5ad-csc", "v3-dense-f4", "h5ad-dense-f8-gzip", "v3-untidy", "v3-i8-u8-i8", "v3-sharded"])
def test_convert_of_other_layouts(layout, small, tmp_path):
    path = inputs.layouts()[layout](small, tmp_path)
    succeed("convert", path, tmp_path / "o.zarr", "--threads", 2)
    output = ad.read_zarr(tmp_path / "o.zarr")
    assert abs(sp.csr_matrix(output.X) - small.X).max() == 0


def test_convert_keeps_types_and_large_counts(small, tmp_path):
    """Counts beyond 2^24 are not float32 numbers: they come through or are refused, never rounded."""
    a = small.copy()
    x = a.X.astype(np.int64)
    x.data[:10] = 2**24 + 1
    path = inputs.put_sparse(inputs.write(a, tmp_path / "i.zarr"), x)
    done = cellmill("convert", path, tmp_path / "o.zarr", "--quiet")
    if done.code:
        message(done)
    else:
        assert abs(sp.csr_matrix(ad.read_zarr(tmp_path / "o.zarr").X).astype(np.float64) - x.astype(np.float64)).max() == 0


@pytest.mark.parametrize("suffix", [".zarr", ".v2.zarr", ".h5ad"])
def test_convert_keeps_matrices_as_they_lie(suffix, small, tmp_path):
    """Layers, raw and an X of wide numbers: encoding, type and every bit."""
    a = small.copy()
    a.X = a.X.astype(np.float64) / 3
    a.layers.update(csr=small.X, csc=sp.csc_matrix(small.X), dense=a.X.toarray(), whole=small.X.astype(np.int64), short=small.X.astype(np.uint16))
    a.raw = ad.AnnData(sp.csc_matrix(a.X), var=a.var, obs=a.obs, varm={"loads": np.ones((a.n_vars, 2))})
    path = inputs.write(a, tmp_path / f"in{suffix}")
    for to in ("o.zarr", "o.h5ad"):
        succeed("convert", path, tmp_path / to, "-y")
        expected, output = read(path), read(tmp_path / to)
        pairs = [(output.X, expected.X), (output.raw.X, expected.raw.X), *((output.layers[name], x) for name, x in expected.layers.items())]
        for ours, theirs in pairs:
            assert type(ours) is type(theirs) and ours.dtype == theirs.dtype
            assert abs(ours - theirs).max() == 0
        assert_equal(output.raw.varm, expected.raw.varm, exact=True)


@pytest.mark.parametrize("name, edit", [("indices", lambda v: np.where(np.arange(len(v)) == 70, 10**6, v)), ("indptr", lambda v: np.where(np.arange(len(v)) == 7, v[-1] + 1, v))])
def test_convert_refuses_a_damaged_layer(name, edit, small, tmp_path):
    a = small.copy()
    a.layers["counts"] = a.X
    path = inputs.write(a, tmp_path / "in.h5ad")
    with h5py.File(path, "r+") as file:
        file[f"layers/counts/{name}"][...] = edit(file[f"layers/counts/{name}"][...])
    assert f"layers/counts/{name}" in message(cellmill("convert", path, tmp_path / "o.zarr", "--quiet"))
    assert not (tmp_path / "o.zarr").exists()


def test_convert_round_trip(full, tmp_path):
    succeed("convert", full["v3"], tmp_path / "a.h5ad")
    succeed("convert", tmp_path / "a.h5ad", tmp_path / "b.zarr", "--json", "--quiet").json()
    assert_equal(read(tmp_path / "b.zarr"), read(full["v3"]), exact=True)
    message(cellmill("convert", full["v3"], tmp_path / "b.zarr", "--quiet"))
    succeed("convert", full["v3"], tmp_path / "b.zarr", "-y", "--quiet")


def test_convert_of_a_store_without_x(full, small, tmp_path):
    """A run's result, and layers alone."""
    succeed("run", full["v3"], "-o", tmp_path / "run.zarr", "--quiet", *FLAGS)
    succeed("convert", tmp_path / "run.zarr", tmp_path / "run.h5ad", "--quiet")
    assert_equal(read(tmp_path / "run.h5ad"), read(tmp_path / "run.zarr"), exact=True)
    assert read(tmp_path / "run.h5ad").X is None
    alone = ad.AnnData(obs=small.obs, var=small.var, layers={"counts": small.X})
    alone.write_h5ad(tmp_path / "alone.h5ad")
    succeed("convert", tmp_path / "alone.h5ad", tmp_path / "alone.zarr", "--quiet")
    assert_equal(read(tmp_path / "alone.zarr"), alone, exact=True)


# ---- demo


def test_demo(tmp_path):
    done = succeed("demo", tmp_path / "demo")
    made = {p.name for p in (tmp_path / "demo").iterdir()}
    assert {"pbmc3k.h5ad", "pbmc3k_analysed.zarr", "umap.png", "qc.png", "hvg.png", "pca_variance_ratio.png", "report.html"} == made
    assert len(done.out.strip().splitlines()) == 3
    a = read(tmp_path / "demo" / "pbmc3k_analysed.zarr")
    assert 2500 < a.n_obs < 2700 and 6 <= a.obs["leiden"].nunique() <= 15
    for name in ("umap", "qc", "hvg", "pca_variance_ratio"):
        assert is_drawn(tmp_path / "demo" / f"{name}.png")
    assert "<img" in (tmp_path / "demo" / "report.html").read_text()
    from sklearn.metrics import adjusted_rand_score

    known = a.obs["seurat_annotations"].notna()
    assert adjusted_rand_score(a.obs["seurat_annotations"][known], a.obs["leiden"][known]) > 0.5
