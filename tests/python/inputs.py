"""Makes inputs: two data sets, and writers for every layout of a counts matrix that the program reads."""

import gzip
import json
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
import zarr
from numcodecs import LZ4, Blosc, GZip, Zlib, Zstd
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from program import REPO

ad.settings.allow_write_nullable_strings = True


def pbmc(n_obs=None, seed=0):
    """PBMC 3k, or a sample of its cells in file order, raw counts as float32."""
    a = ad.read_h5ad(REPO / "data" / "pbmc3k.h5ad")
    if n_obs:
        a = a[np.sort(np.random.default_rng(seed).permutation(a.n_obs)[:n_obs])].copy()
    return a


def synthetic(n_obs=2000, n_vars=3000, seed=1):
    """Negative-binomial counts: 8 cell types in 3 batches, 10 mitochondrial genes, two empty cells, three silent genes, repeated gene names."""
    rng = np.random.default_rng(seed)
    kind, batch = rng.choice(8, n_obs, p=[0.3, 0.2, 0.15, 0.1, 0.1, 0.07, 0.05, 0.03]), rng.choice(3, n_obs, p=[0.5, 0.3, 0.2])
    base = rng.gamma(0.3, 1.0, n_vars)
    markers = np.where(rng.random((8, n_vars)) < 0.06, rng.gamma(2.0, 3.0, (8, n_vars)), 1.0)
    shift = rng.lognormal(0, 0.15, (3, n_vars))
    profile = base * markers[kind] * shift[batch]
    depth = rng.lognormal(np.log(1500), 0.4, n_obs)
    mu = profile / profile.sum(1, keepdims=True) * depth[:, None]
    x = rng.poisson(rng.gamma(2.0, mu / 2.0)).astype(np.float32)
    x[[17, n_obs // 2]] = 0
    x[:, [5, n_vars // 2, n_vars - 1]] = 0
    names = [f"MT-{i}" if i < 10 else f"RPL{i}" if i < 40 else f"GENE{i}" for i in range(n_vars)]
    if n_vars > 103:
        names[101] = names[103] = names[100]
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(np.array(["b1", "b2", "b3"])[batch]),
            "kind": pd.Categorical(np.array(list("ABCDEFGH"))[kind]),
        },
        index=[f"cell{i}" for i in range(n_obs)],
    )
    var = pd.DataFrame({"flagged": np.arange(n_vars) % 7 == 0}, index=names)
    return ad.AnnData(sp.csr_matrix(x), obs=obs, var=var)


def rich(a):
    """Gives a data set obs and var columns of every kind that AnnData writes."""
    a = a.copy()
    i = np.arange(a.n_obs)
    a.obs = pd.DataFrame(
        {
            "float32": (i / 4).astype("f4"),
            "float64": np.where(i % 9 == 0, np.nan, i / 3),
            "int8": (i % 100).astype("i1"),
            "int64": i * 10**10,
            "uint16": (i % 60000).astype("u2"),
            "flag": i % 3 == 0,
            "text": np.array([f"Zelle {k} ä€𝄞"[: 7 + k % 5] for k in i], dtype=object),
            "categorical": pd.Categorical([None if k % 7 == 6 else "abc"[k % 3] for k in i], categories=["c", "a", "b", "unused"]),
            "ordered": pd.Categorical([["low", "mid", "high"][k % 3] for k in i], categories=["low", "mid", "high"], ordered=True),
            "numbers as categories": pd.Categorical(i % 4),
            "nullable integer": pd.array([None if k % 4 == 0 else k for k in i], dtype="Int32"),
            "nullable boolean": pd.array([None if k % 5 == 0 else bool(k % 2) for k in i], dtype="boolean"),
            "nullable text": pd.array([None if k % 6 == 0 else f"t{k}" for k in i], dtype="string"),
        },
        index=pd.Index([f"c{k}" for k in i], name="barcode"),
    )
    j = np.arange(a.n_vars)
    a.var["gene_ids"] = [f"ENSG{k:011}" for k in j]
    a.var["even"] = j % 2 == 0
    a.var["length"] = pd.array([None if k % 11 == 0 else k for k in j], dtype="Int64")
    a.strings_to_categoricals = lambda *_: None  # keep text as text
    return a


def slots(a):
    """Fills layers, raw, obsm, varm, obsp and uns."""
    a = a.copy()
    a.layers["doubled"] = a.X * 2
    a.layers["dense"] = a.X.toarray()
    a.raw = a[:, : a.n_vars // 2].copy()
    rng = np.random.default_rng(0)
    a.obsm["X_old"] = rng.normal(size=(a.n_obs, 3)).astype("f4")
    a.obsm["frame"] = pd.DataFrame({"q": np.arange(a.n_obs)}, index=a.obs_names)
    a.varm["loads"] = rng.normal(size=(a.n_vars, 4))
    a.obsp["graph"] = sp.random(a.n_obs, a.n_obs, 0.01, format="csr", dtype="f4", rng=0)
    a.uns["nested"] = {"int": 3, "float": 2.5, "text": "grüße", "flag": True, "empty": {}, "vector": np.arange(3, dtype="u4"), "texts": np.array(["a", "", "ccc"])}
    a.strings_to_categoricals = lambda *_: None
    return a


def log_normalized(a):
    """The same cells after normalize_total(1e4) and log1p."""
    a, x = a.copy(), sp.csr_matrix(a.X, dtype=np.float64)
    sums = np.asarray(x.sum(1)).ravel()
    x = sp.diags(1e4 / np.where(sums == 0, 1, sums)) @ x
    x.data = np.log1p(x.data)
    a.X = sp.csr_matrix(x, dtype=np.float32)
    return a


def write(a, path):
    """Writes as anndata does: zarr v3, zarr v2 (`.v2.zarr`) or h5ad, by the name."""
    path = Path(path)
    if path.suffix == ".h5ad":
        a.write_h5ad(path)
    else:
        ad.settings.zarr_write_format = 2 if path.name.endswith(".v2.zarr") else 3
        a.write_zarr(path)
    return path


def consolidate(path):
    """Writes the root's copy of all metadata anew: anndata makes one and reads it."""
    zarr.consolidate_metadata(path)
    return path


def unconsolidate(path):
    """Removes that copy: what the single files say is what counts."""
    path = Path(path)
    (path / ".zmetadata").unlink(missing_ok=True)
    root = path / "zarr.json"
    if root.is_file():
        meta = json.loads(root.read_text())
        if meta.pop("consolidated_metadata", None):
            root.write_text(json.dumps(meta))
    return path


def arrays_of(x, kind="csr"):
    """(data, indices, indptr) of a matrix, sorted, without explicit zeros."""
    m = (sp.csr_matrix if kind == "csr" else sp.csc_matrix)(x)
    m.sort_indices()
    return m.data, m.indices, m.indptr


def put_sparse(path, x, kind="csr", dtypes=(None, None, None), how=None, arrays=None, at="X"):
    """Replaces a matrix in a store by arrays of the given dtypes, chunks and codecs; `arrays` are written as they are."""
    arrays = arrays or arrays_of(x, kind)
    named = {name: values if dtype is None else values.astype(dtype) for name, values, dtype in zip(("data", "indices", "indptr"), arrays, dtypes)}
    attrs = {"encoding-type": f"{kind}_matrix", "encoding-version": "0.1.0", "shape": [int(n) for n in x.shape]}
    if Path(path).suffix == ".h5ad":
        with h5py.File(path, "r+") as file:
            del file[at]
            group = file.create_group(at)
            group.attrs.update(attrs)
            for name, values in named.items():
                options = dict(how or {})
                if options.get("chunks") not in (None, True):
                    options["chunks"] = tuple(min(c, max(1, n)) for c, n in zip(options["chunks"], values.shape))
                group.create_dataset(name, data=values, **options)
    else:
        root = zarr.open_group(path, mode="r+", use_consolidated=False)
        del root[at]
        group = root.create_group(at, attributes=attrs)
        for name, values in named.items():
            group.create_array(name, data=values, **fitting(how, len(values)))
        consolidate(path)
    return path


def fitting(how, n):
    """Chunks no longer than the array, unless shards tell otherwise."""
    how = dict(how or {})
    if "chunks" in how and "shards" not in how:
        how["chunks"] = (min(how["chunks"][0], n),)
    return how


def put_dense(path, x, dtype, how=None, at="X"):
    """Replaces a matrix in a store by a dense array."""
    values, attrs = x.toarray().astype(dtype), {"encoding-type": "array", "encoding-version": "0.2.0"}
    if Path(path).suffix == ".h5ad":
        with h5py.File(path, "r+") as file:
            del file[at]
            file.create_dataset(at, data=values, **(how or {})).attrs.update(attrs)
    else:
        root = zarr.open_group(path, mode="r+", use_consolidated=False)
        del root[at]
        root.create_array(at, data=values, **(how or {})).attrs.update(attrs)
        consolidate(path)
    return path


def untidy(x, seed=0):
    """The same counts with explicit zeros, unsorted columns and entries cut in two: (data, indices, indptr)."""
    rng, (data, indices, indptr) = np.random.default_rng(seed), arrays_of(x)
    rows = []
    for i in range(x.shape[0]):
        v, c = data[indptr[i] : indptr[i + 1]], indices[indptr[i] : indptr[i + 1]]
        cut = (v >= 2) & (rng.random(len(v)) < 0.3)
        free = np.setdiff1d(rng.choice(x.shape[1], 20), c)
        v = np.concatenate([v - cut, np.ones(cut.sum(), v.dtype), np.zeros(len(free), v.dtype)])
        c = np.concatenate([c, c[cut], free.astype(c.dtype)])
        order = rng.permutation(len(v))
        rows.append((v[order], c[order]))
    lengths = np.cumsum([0] + [len(v) for v, _ in rows]).astype(indptr.dtype)
    return np.concatenate([v for v, _ in rows]), np.concatenate([c for _, c in rows]), lengths


V2 = {
    "none": dict(compressors=None),
    "blosc-lz4": dict(compressors=Blosc(cname="lz4", clevel=5, shuffle=1)),
    "blosc-zstd-bits": dict(compressors=Blosc(cname="zstd", clevel=3, shuffle=2)),
    "zstd": dict(compressors=Zstd(3)),
    "gzip": dict(compressors=GZip(3)),
    "zlib": dict(compressors=Zlib(3)),
    "lz4": dict(compressors=LZ4()),
}
V3 = {
    "none": dict(compressors=None),
    "blosc-lz4": dict(compressors=BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")),
    "blosc-zstd-bits": dict(compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")),
    "zstd": dict(compressors=ZstdCodec(level=3)),
    "zstd-checksum": dict(compressors=[ZstdCodec(level=3, checksum=True), Crc32cCodec()]),
    "gzip": dict(compressors=GzipCodec(level=3)),
}
CHUNK = 7001  # entries: odd, so that chunks begin and end inside rows
H5AD = {
    "none": {},
    "gzip": dict(chunks=(CHUNK,), compression="gzip"),
    "gzip-shuffle": dict(chunks=(CHUNK,), compression="gzip", shuffle=True),
    "lzf": dict(chunks=(CHUNK,), compression="lzf"),
    "lzf-shuffle-fletcher": dict(chunks=(CHUNK,), compression="lzf", shuffle=True, fletcher32=True),
    "chunks": dict(chunks=(CHUNK,)),
}


def layouts():
    """Name -> function(data set, folder) that writes its counts in one layout and returns the path."""
    made = {}

    def sparse(name, suffix, **options):
        def make(a, folder):
            return put_sparse(write(a, folder / f"{name}{suffix}"), a.X, **options)

        made[name] = make

    def dense(name, suffix, dtype, how):
        def make(a, folder):
            return put_dense(write(a, folder / f"{name}{suffix}"), a.X, dtype, how)

        made[name] = make

    for codec, how in V2.items():
        sparse(f"v2-{codec}", ".v2.zarr", how=how | {"chunks": (CHUNK,)})
    for codec, how in V3.items():
        sparse(f"v3-{codec}", ".zarr", how=how | {"chunks": (CHUNK,)})
    sparse("v3-sharded", ".zarr", how=V3["zstd"] | {"chunks": (1000,), "shards": (20000,)})
    sparse("v3-sharded-blosc", ".zarr", how=V3["blosc-lz4"] | {"chunks": (1000,), "shards": (20000,)})
    for codec, how in H5AD.items():
        sparse(f"h5ad-{codec}", ".h5ad", how=how)
    for values, columns, rows in (("i4", "i8", "i8"), ("f8", "i4", "i4"), ("u2", "u4", "u8"), ("i8", "u8", "i8"), ("u1", "i4", "i4")):
        if values == "u1":  # counts above 255 do not fit
            continue
        sparse(f"v3-{values}-{columns}-{rows}", ".zarr", dtypes=(values, columns, rows))
        sparse(f"h5ad-{values}-{columns}-{rows}", ".h5ad", dtypes=(values, columns, rows), how=H5AD["gzip"])
    for name, suffix in (("v2", ".v2.zarr"), ("v3", ".zarr"), ("h5ad", ".h5ad")):
        sparse(f"{name}-csc", suffix, kind="csc")
        sparse(f"{name}-csc-int64", suffix, kind="csc", dtypes=("f8", "i8", "i8"))
    dense("v3-dense-f4", ".zarr", "f4", dict(chunks=(101, 700)))
    dense("v3-dense-f8-sharded", ".zarr", "f8", dict(chunks=(50, 100), shards=(100, 1000)))
    dense("v2-dense-i4", ".v2.zarr", "i4", dict(chunks=(64, 333)))
    dense("h5ad-dense-f4", ".h5ad", "f4", {})
    dense("h5ad-dense-f8-gzip", ".h5ad", "f8", dict(chunks=(37, 501), compression="gzip"))
    dense("h5ad-dense-u2-lzf", ".h5ad", "u2", dict(chunks=(37, 501), compression="lzf"))
    for name, suffix in (("v2", ".v2.zarr"), ("v3", ".zarr"), ("h5ad", ".h5ad")):

        def make(a, folder, name=name, suffix=suffix):
            return put_sparse(write(a, folder / f"{name}-untidy{suffix}"), a.X, arrays=untidy(a.X))

        made[f"{name}-untidy"] = make
    made["v3-unconsolidated"] = lambda a, folder: unconsolidate(write(a, folder / "v3-unconsolidated.zarr"))
    made["v2-unconsolidated"] = lambda a, folder: unconsolidate(write(a, folder / "v2-unconsolidated.v2.zarr"))
    made["tenx-v2"] = lambda a, folder: write_tenx_v2(a, folder / "v2.h5")
    made["tenx-v3"] = lambda a, folder: write_tenx_v3(a, folder / "v3.h5")
    made["mtx-v2"] = lambda a, folder: write_mtx(a, folder / "mtx-v2", version=2)
    made["mtx-v3"] = lambda a, folder: write_mtx(a, folder / "mtx-v3", version=3)

    def one_of_two(a, folder):
        """As archives keep the samples of a study: all in one folder, each with its prefix."""
        write_mtx(a[:10], folder / "mtx-study", version=2, prefix="GSM1_")
        return write_mtx(a, folder / "mtx-study", version=3, prefix="GSM2_") / "GSM2_matrix.mtx.gz"

    made["mtx-one-of-two"] = one_of_two
    return made


def gene_ids(a):
    return np.array([f"ENSG{k:011}" for k in range(a.n_vars)])


def feature_types(a, antibodies=0):
    return np.array(["Gene Expression"] * (a.n_vars - antibodies) + ["Antibody Capture"] * antibodies)


def write_tenx_v3(a, path, antibodies=0, genome="GRCh38"):
    """A matrix as Cell Ranger 3 and later write it."""
    data, indices, indptr = arrays_of(a.X)
    with h5py.File(path, "w") as file:
        file.attrs["filetype"], file.attrs["version"] = "matrix", 2
        m = file.create_group("matrix")
        text = dict(chunks=True, compression="gzip")
        m.create_dataset("barcodes", data=np.char.encode(a.obs_names.to_numpy(str)), **text)
        m.create_dataset("data", data=data.astype("i4"), chunks=(CHUNK,), compression="gzip", shuffle=True)
        m.create_dataset("indices", data=indices.astype("i8"), chunks=(CHUNK,), compression="gzip", shuffle=True)
        m.create_dataset("indptr", data=indptr.astype("i8"), chunks=True, compression="gzip")
        m.create_dataset("shape", data=np.array([a.n_vars, a.n_obs], "i4"))
        f = m.create_group("features")
        f.create_dataset("_all_tag_keys", data=np.array([b"genome"]))
        f.create_dataset("id", data=np.char.encode(gene_ids(a)), **text)
        f.create_dataset("name", data=np.char.encode(a.var_names.to_numpy(str)), **text)
        f.create_dataset("feature_type", data=np.char.encode(feature_types(a, antibodies)), **text)
        f.create_dataset("genome", data=np.array([genome.encode()] * a.n_vars), **text)
    return path


def write_tenx_v2(a, path, genomes=("hg19",)):
    """A matrix as Cell Ranger 1 and 2 write it: one group a genome."""
    data, indices, indptr = arrays_of(a.X)
    with h5py.File(path, "w") as file:
        for genome in genomes:
            m = file.create_group(genome)
            m.create_dataset("barcodes", data=np.char.encode(a.obs_names.to_numpy(str)))
            m.create_dataset("data", data=data.astype("i4"), chunks=(CHUNK,), compression="gzip")
            m.create_dataset("indices", data=indices.astype("i8"), chunks=(CHUNK,), compression="gzip")
            m.create_dataset("indptr", data=indptr.astype("i8"))
            m.create_dataset("shape", data=np.array([a.n_vars, a.n_obs], "i4"))
            m.create_dataset("genes", data=np.char.encode(gene_ids(a)))
            m.create_dataset("gene_names", data=np.char.encode(a.var_names.to_numpy(str)))
    return path


def write_mtx(a, folder, version=3, antibodies=0, prefix=""):
    """A folder as Cell Ranger writes it: matrix, features (genes) and barcodes; version 3 is compressed."""
    folder.mkdir(exist_ok=bool(prefix))
    begin = f"{folder}/{prefix}"
    opened = (lambda name: gzip.open(f"{begin}{name}.gz", "wt", compresslevel=1)) if version == 3 else (lambda name: open(f"{begin}{name}", "w"))
    m = sp.coo_matrix(sp.csr_matrix(a.X))
    order = np.lexsort((m.col, m.row))
    with opened("matrix.mtx") as file:
        file.write('%%MatrixMarket matrix coordinate integer general\n%metadata_json: {"format_version": 2}\n')
        file.write(f"{a.n_vars} {a.n_obs} {m.nnz}\n")
        np.savetxt(file, np.c_[m.col[order] + 1, m.row[order] + 1, m.data[order].astype(int)], fmt="%d")
    with opened("barcodes.tsv") as file:
        file.writelines(f"{name}\n" for name in a.obs_names)
    with opened("features.tsv" if version == 3 else "genes.tsv") as file:
        for gene, name, kind in zip(gene_ids(a), a.var_names, feature_types(a, antibodies)):
            file.write(f"{gene}\t{name}\t{kind}\n" if version == 3 else f"{gene}\t{name}\n")
    return folder
