"""Bad input gets one clear line, status 1, and leaves nothing behind; no input whatever makes the program panic."""

import json
import os
import shutil
import subprocess

import h5py
import numpy as np
import pytest
import zarr

import inputs
from program import cellmill, copy, files, listing, message

FLAGS = ("--min-genes", 20, "--n-top-genes", 200, "--n-comps", 20)
GIB = 1 << 30
HUGE = 1 << 50


def refused(store, tmp_path, *flags, names=(), basic=FLAGS, **how):
    """Runs on a bad store and returns the message, which must hold all of `names`; nothing may be left."""
    out = tmp_path / "refused"
    out.mkdir(exist_ok=True)
    before = listing(tmp_path)
    done = cellmill("run", store, "-o", out / "out.zarr", "--quiet", "--threads", 2, *basic, *flags, env={"TMPDIR": str(out)}, **how)
    said = message(done)
    for name in names:
        assert str(name) in said, f"'{name}' is not in: {said}"
    assert not list(out.iterdir()), f"left: {listing(out)}"
    assert listing(tmp_path) == before, "the input's folder changed"
    return said


def group(path):
    return zarr.open_group(path, mode="r+", use_consolidated=False)


@pytest.fixture(scope="session")
def stores(small, folder):
    """One good store of each kind to break copies of; several chunks each."""
    at = folder / "to_break"
    at.mkdir()
    how = {"chunks": (7001,)}
    made = {
        "v3": inputs.put_sparse(inputs.write(small, at / "v3.zarr"), small.X, how=how),
        "v2": inputs.put_sparse(inputs.write(small, at / "v2.v2.zarr"), small.X, how=how),
        "h5ad": inputs.put_sparse(inputs.write(small, at / "x.h5ad"), small.X, how=inputs.H5AD["gzip"]),
    }
    return made


@pytest.fixture(params=["v3", "v2", "h5ad"])
def broken(request, stores, tmp_path):
    """A copy of a store of each kind: (path, opener)."""
    return copy(stores[request.param], tmp_path / stores[request.param].name)


def change(path, element, edit):
    """Replaces an array by edit(array) of any length, keeping its attributes."""
    if path.suffix == ".h5ad":
        with h5py.File(path, "r+") as file:
            values, attrs = file[element][...], dict(file[element].attrs)
            del file[element]
            file.create_dataset(element, data=edit(values)).attrs.update(attrs)
    else:
        root = group(path)
        values, attrs = root[element][...], dict(root[element].attrs)
        parent, _, name = element.rpartition("/")
        del root[element]
        (root[parent] if parent else root).create_array(name, data=edit(values), attributes=attrs)
        inputs.consolidate(path)


def at(index, value):
    def edit(values):
        values = values.copy()
        values[index] = value
        return values

    return edit


# ---- what is not a store


def test_no_such_path(tmp_path):
    refused(tmp_path / "nowhere.zarr", tmp_path, names=["nowhere.zarr"])


def test_an_empty_folder(tmp_path):
    (tmp_path / "empty.zarr").mkdir()
    refused(tmp_path / "empty.zarr", tmp_path, names=["empty.zarr"])


@pytest.mark.parametrize("name", ["text.h5ad", "text.h5", "text.zarr", "text"])
def test_a_text_file(name, tmp_path):
    (tmp_path / name).write_text("barcode,gene,count\n" * 100)
    refused(tmp_path / name, tmp_path, names=[name])


@pytest.mark.parametrize("name", ["empty.h5ad", "empty.h5"])
def test_an_empty_file(name, tmp_path):
    (tmp_path / name).touch()
    refused(tmp_path / name, tmp_path, names=[name])


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_that_is_not_anndata(version, tmp_path):
    root = zarr.open_group(tmp_path / "plain.zarr", mode="w", zarr_format=version)
    root.create_array("a", data=np.arange(5))
    said = refused(tmp_path / "plain.zarr", tmp_path, names=["plain.zarr"])
    assert "AnnData" in said or "X" in said


def test_zarr_that_is_an_array(tmp_path):
    zarr.save_array(tmp_path / "array.zarr", np.arange(5))
    refused(tmp_path / "array.zarr", tmp_path, names=["array.zarr"])


def test_hdf5_that_is_not_anndata(tmp_path):
    with h5py.File(tmp_path / "plain.h5ad", "w") as file:
        file["a"] = np.arange(5)
    refused(tmp_path / "plain.h5ad", tmp_path, names=["plain.h5ad"])


def test_metadata_that_is_not_json(stores, tmp_path):
    for kind, name in (("v3", "zarr.json"), ("v3", "X/zarr.json"), ("v3", "X/data/zarr.json"), ("v2", "X/data/.zarray"), ("v2", "X/.zattrs"), ("v3", "obs/zarr.json")):
        path = copy(stores[kind], tmp_path / f"{kind}-{name.replace('/', '_')}.zarr")
        inputs.unconsolidate(path)
        (path / name).write_text('{"zarr_format": 3, "node')
        refused(path, tmp_path, names=[path.name])


@pytest.mark.parametrize("element", ["X", "obs", "var", "obs/_index", "X/indptr", "X/indices", "X/data"])
def test_missing_elements(element, broken, tmp_path):
    if broken.suffix == ".h5ad":
        with h5py.File(broken, "r+") as file:
            del file[element]
    else:
        shutil.rmtree(broken / element)
        inputs.unconsolidate(broken)
    said = refused(broken, tmp_path, names=[broken.name])
    assert element in said or element.split("/")[0] in said


def test_a_chosen_matrix_that_is_not_there(stores, tmp_path):
    refused(stores["v3"], tmp_path, "--matrix", "layers/counts", names=["v3.zarr", "counts"])
    refused(stores["h5ad"], tmp_path, "--matrix", "raw/X", names=["x.h5ad", "raw"])


# ---- damaged data


@pytest.mark.parametrize("element", ["X/data", "X/indices", "X/indptr"])
def test_a_truncated_chunk(element, stores, tmp_path):
    for kind in ("v3", "v2"):
        path = copy(stores[kind], tmp_path / stores[kind].name)
        chunk = sorted(p for p in (path / element).rglob("*") if p.is_file() and not p.name.startswith((".z", "zarr.json")))[-1]
        chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
        refused(path, tmp_path, names=[path.name, element])


def test_a_truncated_h5ad(stores, tmp_path):
    whole = stores["h5ad"].read_bytes()
    for part in (0.1, 0.5, 0.9, 0.99):
        path = tmp_path / "cut.h5ad"
        path.write_bytes(whole[: int(len(whole) * part)])
        refused(path, tmp_path, names=["cut.h5ad"])


def test_a_truncated_h5ad_is_said_to_be_cut_off(stores, tmp_path):
    path = tmp_path / "cut.h5ad"
    whole = stores["h5ad"].read_bytes()
    path.write_bytes(whole[:-100])
    said = refused(path, tmp_path, names=["cut.h5ad", len(whole) - 100, len(whole)])
    assert "cut off" in said


def test_no_cells_and_no_variable_genes(small, tmp_path):
    for n, words in ((0, "no cells"), (1, "1 cells and")):
        path = inputs.write(small[:n].copy(), tmp_path / f"few{n}.zarr")
        assert words in refused(path, tmp_path, basic=("--filter-cells", ""))


def chunk_of(path, element):
    return max((p for p in (path / element).rglob("*") if p.is_file() and not p.name.startswith((".z", "zarr.json"))), key=lambda p: p.stat().st_size)


def flip(file, position):
    data = bytearray(file.read_bytes())
    data[position] ^= 0x10
    file.write_bytes(data)


@pytest.mark.parametrize("kind, codec", [("v3", "gzip"), ("v3", "zstd-checksum"), ("v2", "gzip"), ("v2", "zlib")])
def test_a_flipped_bit_under_a_checksum(kind, codec, small, tmp_path):
    """Codecs with a checksum find every flipped bit."""
    suffix = ".v2.zarr" if kind == "v2" else ".zarr"
    good = inputs.put_sparse(inputs.write(small, tmp_path / f"good{suffix}"), small.X, how=(inputs.V2 if kind == "v2" else inputs.V3)[codec] | {"chunks": (7001,)})
    for part in (0.2, 0.6, 0.95):
        path = copy(good, tmp_path / f"flipped{suffix}")
        chunk = chunk_of(path, "X/data")
        flip(chunk, int(chunk.stat().st_size * part))
        refused(path, tmp_path, names=[path.name, "X/data"])
        shutil.rmtree(path)


def test_a_flipped_bit_in_h5ad(stores, tmp_path):
    """gzip's own checksum and fletcher32 find it."""
    path = copy(stores["h5ad"], tmp_path / "flipped.h5ad")
    with h5py.File(path) as file:
        chunk = file["X/data"].id.get_chunk_info(1)
    flip(path, chunk.byte_offset + chunk.size // 2)
    refused(path, tmp_path, names=["flipped.h5ad", "X/data"])


@pytest.mark.parametrize("kind, codec", [("v2", c) for c in ("blosc-lz4", "blosc-zstd-bits", "zstd", "lz4")] + [("v3", c) for c in ("blosc-lz4", "zstd")])
def test_any_flipped_byte_is_survived(kind, codec, small, tmp_path):
    """Without a checksum a flipped byte may pass for a count; it must never end in a panic, a signal or status 2."""
    suffix = ".v2.zarr" if kind == "v2" else ".zarr"
    good = inputs.put_sparse(inputs.write(small, tmp_path / f"good{suffix}"), small.X, how=(inputs.V2 if kind == "v2" else inputs.V3)[codec] | {"chunks": (7001,)})
    rng = np.random.default_rng(0)
    for i in range(8):
        path = copy(good, tmp_path / f"flipped{suffix}")
        for element in ("X/data", "X/indices"):
            file = chunk_of(path, element)
            data = bytearray(file.read_bytes())
            # The head of a chunk holds lengths: half of the tries are there.
            place = int(rng.integers(0, 16)) if i % 2 else int(rng.integers(0, len(data)))
            data[place] = int(rng.integers(0, 256))
            file.write_bytes(data)
        done = cellmill("run", path, "-o", tmp_path / "out.zarr", "--quiet", "--through", "qc", "--filter-cells", "", address_space=4 * GIB)
        if done.code == 0:
            shutil.rmtree(tmp_path / "out.zarr")
        else:
            message(done)
            assert not (tmp_path / "out.zarr").exists()
        shutil.rmtree(path)


@pytest.mark.parametrize("value", [600, 2**31 - 1, -1])
def test_column_index_out_of_range(value, broken, tmp_path):
    change(broken, "X/indices", at(9000, value))
    said = refused(broken, tmp_path, names=[broken.name, "X/indices", str(value)])
    assert "600" in said


def test_indptr_that_decreases(broken, tmp_path):
    change(broken, "X/indptr", lambda v: at(200, v[150])(v))
    refused(broken, tmp_path, names=[broken.name, "X/indptr"])


@pytest.mark.parametrize("edit", [lambda v: at(-1, v[-1] + 500)(v), lambda v: at(-1, v[-1] - 500)(v), lambda v: v[:-3], lambda v: np.append(v, v[-1]), lambda v: at(0, 2)(v), lambda v: at(0, -5)(v)], ids=["beyond nnz", "below nnz", "too short", "too long", "not from 0", "negative"])
def test_indptr_that_does_not_match(edit, broken, tmp_path):
    change(broken, "X/indptr", edit)
    refused(broken, tmp_path, names=[broken.name, "X/indptr"])


def test_data_and_indices_of_different_lengths(broken, tmp_path):
    change(broken, "X/data", lambda v: v[:-100])
    refused(broken, tmp_path, names=[broken.name, "X/"])


@pytest.mark.parametrize("kind", ["csc", "dense"])
@pytest.mark.parametrize("suffix", [".zarr", ".h5ad"])
def test_damage_in_other_layouts(kind, suffix, small, tmp_path):
    path = inputs.write(small, tmp_path / f"{kind}{suffix}")
    if kind == "csc":
        inputs.put_sparse(path, small.X, kind="csc")
        change(path, "X/indices", at(5000, 400))
        refused(path, tmp_path, names=[path.name, "X/indices"])
    else:
        inputs.put_dense(path, small.X, "f4")
        change(path, "X", at((300, 7), np.nan))
        refused(path, tmp_path, names=[path.name, "X"])


@pytest.mark.parametrize("element, column", [("obs", "batch"), ("var", "flagged")])
def test_columns_of_another_length(element, column, broken, tmp_path):
    name = f"{element}/{column}" + ("/codes" if column == "batch" else "")
    change(broken, name, lambda v: v[:-5])
    refused(broken, tmp_path, names=[broken.name, f"{element}/{column}"])


def test_codes_beyond_the_categories(broken, tmp_path):
    change(broken, "obs/batch/codes", at(10, 77))
    refused(broken, tmp_path, names=[broken.name, "obs/batch"])


# ---- values that are not counts


@pytest.mark.parametrize("value, word", [(-3, "-3"), (np.nan, "NaN"), (np.inf, "inf")])
def test_values_that_cannot_be_counts(value, word, broken, tmp_path):
    change(broken, "X/data", at(9000, value))
    said = refused(broken, tmp_path, names=[broken.name, "X"])
    assert word.lower() in said.lower() or "negative" in said.lower()


def test_logged_values_where_counts_are_needed(small, tmp_path):
    for suffix in (".zarr", ".h5ad"):
        path = inputs.write(inputs.log_normalized(small), tmp_path / f"logged{suffix}")
        said = refused(path, tmp_path, names=[path.name, "X"])
        assert "log" in said
        refused(path, tmp_path, "--flavor", "seurat_v3", names=[path.name])


def test_counts_where_logged_values_are_expected(stores, tmp_path):
    said = refused(stores["v3"], tmp_path, "--target-sum", "none", "--no-log1p", names=["v3.zarr", "X"])
    assert "count" in said


# ---- options that do not fit the data


def test_an_unknown_column_in_a_filter(stores, tmp_path):
    basic = ("--n-top-genes", 200, "--n-comps", 20)
    said = refused(stores["v3"], tmp_path, "--filter-cells", "n_gene_by_counts >= 20", names=["n_gene_by_counts"], basic=basic)
    assert "'n_genes_by_counts'" in said
    said = refused(stores["h5ad"], tmp_path, "--filter-genes", "n_cell_by_counts >= 20", names=["n_cell_by_counts"], basic=basic)
    assert "'n_cells_by_counts'" in said


@pytest.mark.parametrize("rule", ["n_genes_by_counts >=", "n_genes_by_counts >= 'many'", "(n_genes_by_counts > 2", "&", "n_genes_by_counts 3", "batch > 5", "n_genes_by_counts >= 20 &&& total_counts > 3"])
def test_filters_that_cannot_be_read(rule, stores, tmp_path):
    refused(stores["v3"], tmp_path, "--filter-cells", rule, basic=("--n-top-genes", 200, "--n-comps", 20))


def test_all_cells_filtered_out(stores, tmp_path):
    said = refused(stores["v3"], tmp_path, "--filter-cells", "n_genes_by_counts >= 100000", basic=("--n-top-genes", 200, "--n-comps", 20))
    assert "400" in said and "cell" in said


def test_all_genes_filtered_out(stores, tmp_path):
    assert "gene" in refused(stores["v3"], tmp_path, "--min-cells", 401)


def test_more_variable_genes_than_genes(stores, tmp_path):
    said = refused(stores["v3"], tmp_path, basic=("--min-genes", 20, "--n-top-genes", 601, "--n-comps", 20))
    assert "601" in said and "600" in said


def test_more_components_than_there_can_be(stores, tmp_path):
    said = refused(stores["v3"], tmp_path, basic=("--min-genes", 20, "--n-top-genes", 200, "--n-comps", 201))
    assert "201" in said
    said = refused(stores["v3"], tmp_path, basic=("--min-genes", 20, "--n-top-genes", 500, "--n-comps", 450))
    assert "450" in said


def test_fewer_cells_than_neighbours(stores, tmp_path):
    said = refused(stores["v3"], tmp_path, "--n-neighbors", 500)
    assert "500" in said


def test_more_components_for_neighbours_than_made(stores, tmp_path):
    said = refused(stores["v3"], tmp_path, "--n-pcs", 30)
    assert "30" in said and "20" in said


@pytest.mark.parametrize(
    "flags, word",
    [
        (("--batch-key", "batsh"), "'batch'"),
        (("--mask-var", "flaged"), "'flagged'"),
        (("--qc-var", "own=column:flaged"), "'flagged'"),
        (("--qc-var", "mt=regex:^(MT"), "MT"),
        (("--qc-var", "mt"), "--qc-var"),
        (("--metric", "euclidian"), "euclidean"),
        (("--knn", "approximate"), "exact"),
        (("--init-pos", "spectra"), "spectral"),
        (("--target-sum", "-5"), "-5"),
        (("--target-sum", "nan"), "nan"),
        (("--resolution", "-1"), "-1"),
        (("--n-neighbors", "1"), "1"),
        (("--n-comps", "0"), "0"),
        (("--memory", "lots"), "lots"),
        (("--memory", "1KiB"), "--memory"),
        (("--percent-top", "601"), "601"),
    ],
    ids=lambda x: x[1] if isinstance(x, tuple) else "",
)
def test_options(flags, word, stores, tmp_path):
    # '--name=value', so that a value may begin with a dash
    said = refused(stores["v3"], tmp_path, f"{flags[0]}={flags[1]}")
    assert word.lower() in said.lower(), said


def test_words_that_are_no_options(small_path, tmp_path):
    """The parser's own refusals: status 1 too."""
    for flags in (("--n-topgenes", 5), ("--flavor", "seurat_v4"), ("--threads", "many"), ("--through", "pcaa")):
        done = cellmill("run", small_path, "-o", tmp_path / "o.zarr", *flags)
        assert done.code == 1 and str(flags[-1]) in done.err or flags[0] in done.err, str(done)
    assert cellmill("run", small_path, "--quiet").code == 1
    assert cellmill().code != 0


# ---- where the output cannot be


def test_a_file_as_parent_folder(stores, tmp_path):
    (tmp_path / "file").write_text("x")
    for name in ("out.zarr", "out.h5ad"):
        said = message(cellmill("run", stores["v3"], "-o", tmp_path / "file" / name, "--quiet", *FLAGS))
        assert "file" in said
    assert (tmp_path / "file").read_text() == "x"


def mount(options, tmp_path, command):
    """A command prefix that runs in its own namespace with a small file system at tmp_path/mount, or None."""
    (tmp_path / "mount").mkdir(exist_ok=True)
    prefix = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else []), "sh", "-c", f'mount -t tmpfs -o {options} tmpfs "$0" && {command} "$@"', str(tmp_path / "mount")]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        return None
    return prefix


@pytest.mark.parametrize("suffix", [".zarr", ".h5ad"])
def test_no_permission(suffix, stores, tmp_path):
    if os.geteuid():
        (tmp_path / "mount").mkdir()
        (tmp_path / "mount").chmod(0o555)
        prefix = ()
    elif (prefix := mount("ro", tmp_path, "")) is None:
        pytest.skip("root may write everywhere and no read-only file system can be mounted here")
    said = message(cellmill("run", stores["v3"], "-o", tmp_path / "mount" / f"out{suffix}", "--quiet", *FLAGS, before=prefix))
    assert "mount" in said
    assert not list((tmp_path / "mount").iterdir())


@pytest.mark.parametrize("suffix", [".zarr", ".h5ad"])
def test_no_permission_to_read(suffix, stores, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = copy(stores["v3" if suffix == ".zarr" else "h5ad"], tmp_path / f"secret{suffix}")
    (path / "X" / "zarr.json" if suffix == ".zarr" else path).chmod(0)
    refused(path, tmp_path, names=[path.name])


@pytest.mark.parametrize("suffix", [".zarr", ".h5ad"])
def test_a_full_disk(suffix, stores, tmp_path):
    """The output's file system has 300 kB."""
    prefix = mount("size=300k", tmp_path, "")
    if prefix is None:
        pytest.skip("no small file system can be mounted here; test_a_file_that_may_not_grow covers part of it")
    # What is left is listed inside the namespace, after the run.
    script = prefix[:-1]
    script[-1] = 'mount -t tmpfs -o size=300k tmpfs "$0" || exit 99; "$@"; code=$?; ls -A "$0"; exit $code'
    done = cellmill("run", stores["v3"], "-o", tmp_path / "mount" / f"out{suffix}", "--quiet", "--with-x", "normalized", *FLAGS, before=[*script, prefix[-1]])
    said = message(done)
    assert "mount" in said and "space" in said.lower()
    # The journal may stay: with room made, --resume goes on.
    assert done.out.split() in ([], [f"out{suffix}.journal"]), f"left: {done.out}"


@pytest.mark.parametrize("suffix", [".zarr", ".h5ad"])
def test_a_file_that_may_not_grow(suffix, stores, tmp_path):
    """A write that fails half-way: files end at 4 kB (zarr) or 64 kB."""
    refused_at = tmp_path / "out"
    refused_at.mkdir()
    done = cellmill("run", stores["v3"], "-o", refused_at / f"out{suffix}", "--quiet", "--with-x", "normalized", *FLAGS, file_size=4096 if suffix == ".zarr" else 65536)
    said = message(done)
    assert f"out{suffix}" in said
    assert [p.name for p in refused_at.iterdir()] in ([], [f"out{suffix}.journal"])


def test_output_inside_input(stores, tmp_path):
    path = copy(stores["v3"], tmp_path / "in.zarr")
    before = files(path)
    for output in (path / "out.zarr", path / "uns" / "out.zarr", tmp_path / "x" / ".." / "in.zarr" / "out.zarr"):
        message(cellmill("run", path, "-o", output, "--quiet", *FLAGS))
        assert files(path) == before


@pytest.mark.parametrize("kind", ["v3", "h5ad"])
def test_output_over_input(kind, stores, tmp_path):
    path = copy(stores[kind], tmp_path / stores[kind].name)
    before = files(path)
    link = tmp_path / f"link{path.suffix}"
    link.symlink_to(path)
    for output in (path, link):
        message(cellmill("run", path, "-o", output, "-y", "--quiet", *FLAGS))
        assert files(path) == before


def test_input_inside_output(stores, tmp_path):
    outer = tmp_path / "outer.zarr"
    outer.mkdir()
    path = copy(stores["v3"], outer / "in.zarr")
    before = files(path)
    message(cellmill("run", path, "-o", outer, "-y", "--quiet", *FLAGS))
    assert files(path) == before


# ---- forged shapes


def forge(path, element, shape=None, chunks=None):
    """Gives an array a shape or chunks that its files do not have."""
    inputs.unconsolidate(path)
    file = path / element / "zarr.json"
    if not file.is_file():
        file = path / element / ".zarray"
    meta = json.loads(file.read_text())
    if shape:
        meta["shape"] = shape
    if chunks and file.name == ".zarray":
        meta["chunks"] = chunks
    elif chunks:
        meta["chunk_grid"]["configuration"]["chunk_shape"] = chunks
    file.write_text(json.dumps(meta))


def set_shape(path, shape):
    """Forges the shape that X's attributes tell."""
    if path.suffix == ".h5ad":
        with h5py.File(path, "r+") as file:
            file["X"].attrs["shape"] = shape
    else:
        group(path)["X"].attrs["shape"] = shape
        inputs.unconsolidate(path)


@pytest.mark.parametrize("kind", ["v2", "v3"])
@pytest.mark.parametrize("element", ["X/data", "X/indices", "X/indptr", "obs/_index", "obs/batch/codes", "var/flagged"])
def test_forged_lengths(kind, element, stores, tmp_path):
    path = copy(stores[kind], tmp_path / stores[kind].name)
    forge(path, element, [HUGE])
    refused(path, tmp_path, names=[path.name], address_space=4 * GIB, timeout=60)
    done = cellmill("info", path, "--quiet", address_space=4 * GIB, timeout=60)
    assert done.code in (0, 1), str(done)


@pytest.mark.parametrize("kind", ["v2", "v3", "h5ad"])
@pytest.mark.parametrize("shape", [[HUGE, 600], [400, HUGE], [400, 2**32 + 5], [-1, 600], [0, 0]], ids=str)
def test_forged_shape_of_x(kind, shape, stores, tmp_path):
    path = copy(stores[kind], tmp_path / stores[kind].name)
    set_shape(path, shape)
    refused(path, tmp_path, names=[path.name], address_space=4 * GIB, timeout=60)


@pytest.mark.parametrize("kind", ["v2", "v3"])
def test_forged_chunks(kind, stores, tmp_path):
    for chunks in ([HUGE], [0], [2**63 - 1]):
        path = copy(stores[kind], tmp_path / f"chunks{chunks[0]}.zarr")
        forge(path, "X/data", chunks=chunks)
        refused(path, tmp_path, names=[path.name], address_space=4 * GIB, timeout=60)


def test_forged_dense_shape(small, tmp_path):
    for suffix in (".zarr", ".v2.zarr"):
        path = inputs.put_dense(inputs.write(small, tmp_path / f"dense{suffix}"), small.X, "f4")
        forge(path, "X", [HUGE, 600])
        refused(path, tmp_path, names=[path.name], address_space=4 * GIB, timeout=60)


@pytest.mark.parametrize("element", ["X/data", "X/indptr", "obs/_index"])
def test_forged_lengths_in_h5ad(element, stores, tmp_path):
    """HDF5 allows a data set of 2^50 entries whose chunks were never written."""
    path = copy(stores["h5ad"], tmp_path / "forged.h5ad")
    with h5py.File(path, "r+") as file:
        old, attrs = file[element].dtype, dict(file[element].attrs)
        del file[element]
        file.create_dataset(element, shape=(HUGE,), dtype=old, chunks=(1024,)).attrs.update(attrs)
    refused(path, tmp_path, names=["forged.h5ad"], address_space=4 * GIB, timeout=60)


def test_forged_tenx(small, tmp_path):
    path = inputs.write_tenx_v3(small, tmp_path / "forged.h5")
    with h5py.File(path, "r+") as file:
        file["matrix/shape"][...] = [600, 2**31 - 1]
    refused(path, tmp_path, names=["forged.h5"], address_space=4 * GIB, timeout=60)


@pytest.mark.parametrize("size", [f"600 {HUGE} 5", f"{HUGE} 400 5", f"600 400 {HUGE}", "600 400", "600 400 x", "-1 400 5"])
def test_forged_mtx(size, small, tmp_path):
    path = inputs.write_mtx(small, tmp_path / "forged", version=2)
    lines = (path / "matrix.mtx").read_text().split("\n")
    lines[2] = size
    (path / "matrix.mtx").write_text("\n".join(lines))
    refused(path, tmp_path, names=["forged"], address_space=4 * GIB, timeout=60)


@pytest.mark.parametrize("line", ["601 5 1", "0 5 1", "5 401 1", "5 5 -1", "5 5", "a b c", "5 5 nan"])
def test_bad_lines_of_mtx(line, small, tmp_path):
    path = inputs.write_mtx(small, tmp_path / "bad", version=2)
    lines = (path / "matrix.mtx").read_text().split("\n")
    lines[1000] = line
    (path / "matrix.mtx").write_text("\n".join(lines))
    refused(path, tmp_path, names=["bad", "matrix.mtx"])


def test_mtx_with_missing_files(small, tmp_path):
    for name in ("matrix.mtx.gz", "barcodes.tsv.gz", "features.tsv.gz"):
        path = inputs.write_mtx(small, tmp_path / f"without_{name}")
        (path / name).unlink()
        refused(path, tmp_path, names=[path.name])


def test_forged_frame_lengths(small, tmp_path):
    """A blosc or zstd frame that claims 2 GiB and more."""
    for codec, place, value in (("blosc-lz4", 4, b"\xf0\xff\xff\x7f"), ("blosc-lz4", 8, b"\xf0\xff\xff\x7f"), ("zstd", 4, b"\xe0\xff\xff\xff\xff\xff\xff\x3f")):
        path = inputs.put_sparse(inputs.write(small, tmp_path / f"frame_{codec}_{place}.v2.zarr"), small.X, how=inputs.V2[codec] | {"chunks": (7001,)})
        file = chunk_of(path, "X/data")
        data = bytearray(file.read_bytes())
        data[place : place + len(value)] = value
        file.write_bytes(data)
        refused(path, tmp_path, names=[path.name, "X/data"], address_space=4 * GIB, timeout=60)


# ---- the other commands


def test_info_convert_and_plot_refuse_too(stores, small_path, run, tmp_path):
    for call in (
        ("info", tmp_path / "nowhere.zarr"),
        ("convert", tmp_path / "nowhere.zarr", tmp_path / "o.zarr"),
        ("plot", tmp_path / "nowhere.zarr", "-o", tmp_path / "o.png"),
        ("plan", tmp_path / "nowhere.zarr"),
        ("plot", stores["v3"], "umap", "-o", tmp_path / "o.png"),
        ("plot", run(small_path, *FLAGS), "umap", "--color", "lieden", "-o", tmp_path / "o.png"),
        ("plot", run(small_path, *FLAGS), "umap", "-o", tmp_path / "o.docx"),
        ("info", stores["v3"], "--methods"),
    ):
        message(cellmill(*call, "--quiet"))
    assert not [p for p in tmp_path.iterdir()]
    assert "'leiden'" in message(cellmill("plot", run(small_path, *FLAGS), "umap", "--color", "lieden", "-o", tmp_path / "o.png", "--quiet"))


def test_convert_leaves_nothing(stores, tmp_path):
    path = copy(stores["v3"], tmp_path / "bad.zarr")
    change(path, "X/indices", at(9000, 600))
    out = tmp_path / "out"
    out.mkdir()
    for name in ("o.zarr", "o.h5ad"):
        message(cellmill("convert", path, out / name, "--quiet"))
        assert not list(out.iterdir())
