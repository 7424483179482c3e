"""Writes the AnnData stores that the tests of the store crate read.

    python make.py [FOLDER]

Needs anndata >= 0.12 and zarr >= 3. Numbers follow formulas that the tests know: entry k of row i of X lies in column
(7 i + 3 k) mod 40 and has the value 1 + (i + k) mod 5, for k < i mod 6.
"""

import json
import shutil
import sys
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

warnings.simplefilter("ignore")
ad.settings.allow_write_nullable_strings = True
N_OBS, N_VARS = 90, 40


def counts():
    rows, columns, values = [], [], []
    for i in range(N_OBS):
        for k in range(i % 6):
            rows.append(i)
            columns.append((7 * i + 3 * k) % N_VARS)
            values.append(1 + (i + k) % 5)
    return sp.csr_matrix((np.array(values, "f4"), (rows, columns)), shape=(N_OBS, N_VARS))


def everything():
    """Every encoding that the crate holds."""
    i = np.arange(N_OBS)
    obs = pd.DataFrame(
        {
            "f32": (i / 4).astype("f4"),
            "f64": i / 3,
            "i8": i.astype("i1"),
            "i64": i.astype("i8") * 10**10,
            "u16": i.astype("u2"),
            "flag": i % 3 == 0,
            "name": [f"Zelle {k} ä€𝄞"[: 7 + k % 5] for k in i],
            "kind": pd.Categorical([None if k % 7 == 6 else "abc"[k % 3] for k in i], categories=list("cab"), ordered=True),
            "batch": pd.Categorical(i // 30),
            "nullable int": pd.array([None if k % 4 == 0 else k for k in i], dtype="Int32"),
            "nullable bool": pd.array([None if k % 5 == 0 else bool(k % 2) for k in i], dtype="boolean"),
            "nullable text": pd.array([None if k % 6 == 0 else f"t{k}" for k in i], dtype="string"),
        },
        index=[f"cell{k}" for k in i],
    )
    var = pd.DataFrame({"mt": np.arange(N_VARS) < 5}, index=pd.Index([f"g{k // 2}" for k in range(N_VARS)], name="gene"))
    x = counts()
    a = ad.AnnData(x, obs=obs, var=var)
    a.strings_to_categoricals = lambda *_: None
    a.layers["csc"] = sp.csc_matrix(x)
    a.layers["dense"] = x.toarray()
    a.layers["dense f64"] = x.toarray().astype("f8")
    a.layers["counts"] = x.astype("i8")
    a.raw = a.copy()
    a.obsm["X_pca"] = np.outer(i, [1, 2, 3]).astype("f4")
    a.obsm["frame"] = pd.DataFrame({"q": i}, index=obs.index)
    a.varm["PCs"] = np.arange(N_VARS * 3, dtype="f8").reshape(N_VARS, 3)
    a.obsp["graph"] = sp.csr_matrix(sp.eye(N_OBS, dtype="f4"))
    a.uns["nested"] = {
        "int": 3,
        "float": 2.5,
        "text": "grüße",
        "flag": True,
        "none": None,
        "empty": {},
        "vector": np.array([1, 2, 3], dtype="u4"),
        "cube": np.arange(24, dtype="i2").reshape(2, 3, 4),
        "texts": np.array(["a", "", "ccc"]),
        "table": pd.DataFrame({"x": [1.0, np.nan]}, index=["r", "s"]),
        "no entries": np.zeros((0, 3), dtype="f4"),
        "categories": pd.Categorical(["u", "v", "u"]),
    }
    return a


def write_small(path):
    """X, obs and var alone: the codecs are what matters."""
    ad.AnnData(counts()).write_zarr(path)
    for name in ("layers", "obsm", "varm", "obsp", "varp", "uns", "raw"):
        shutil.rmtree(path / name, ignore_errors=True)


def rewrite(group, path, version, **how):
    """Replaces X/indices and X/data by arrays of other chunks and codecs."""
    for name in ("indices", "data"):
        values = group[path][name][:]
        del group[path][name]
        group[path].create_array(name, data=values, **how)


def main(folder):
    from numcodecs import LZ4, Blosc, GZip, Zlib, Zstd

    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.zarr"):
        shutil.rmtree(old)
    ad.settings.zarr_write_format = 2
    everything().write_zarr(folder / "v2.zarr")
    ad.settings.zarr_write_format = 3
    everything().write_zarr(folder / "v3.zarr")
    v2 = {
        "blosc-zstd-bit": Blosc(cname="zstd", clevel=5, shuffle=2),
        "blosc-lz4hc-no": Blosc(cname="lz4hc", clevel=5, shuffle=0),
        "blosc-zlib": Blosc(cname="zlib", clevel=5, shuffle=1),
        "blosc-blosclz": Blosc(cname="blosclz", clevel=9, shuffle=1),
        "zstd": Zstd(3),
        "gzip": GZip(5),
        "zlib": Zlib(5),
        "lz4": LZ4(),
        "none": None,
    }
    ad.settings.zarr_write_format = 2
    for name, codec in v2.items():
        path = folder / f"v2-{name}.zarr"
        write_small(path)
        group = zarr.open_group(path, mode="r+", use_consolidated=False)
        rewrite(group, "X", 2, chunks=(128,), compressors=codec)
        (path / ".zmetadata").unlink()
    v3 = {
        "blosc-zstd-bit": dict(chunks=(128,), compressors=BloscCodec(cname="zstd", shuffle="bitshuffle", typesize=4)),
        "gzip": dict(chunks=(128,), compressors=GzipCodec()),
        "none": dict(chunks=(128,), compressors=None),
        "sharded": dict(chunks=(16,), shards=(128,), compressors=ZstdCodec()),
        "sharded-blosc": dict(chunks=(32,), shards=(96,), compressors=BloscCodec(cname="lz4", shuffle="shuffle", typesize=4)),
    }
    ad.settings.zarr_write_format = 3
    for name, how in v3.items():
        path = folder / f"v3-{name}.zarr"
        write_small(path)
        group = zarr.open_group(path, mode="r+", use_consolidated=False)
        rewrite(group, "X", 3, **how)
        meta = json.loads((path / "zarr.json").read_text())
        meta.pop("consolidated_metadata", None)
        (path / "zarr.json").write_text(json.dumps(meta))
    # Types and orders of the generic arrays.
    path = folder / "arrays.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2)
    cube = np.arange(60).reshape(3, 4, 5)
    for dtype in (">i4", ">f8", "<u2", "|i1", ">u8"):
        group.create_array("t" + dtype[1:] + ("b" if dtype[0] == ">" else ""), data=cube.astype(dtype), chunks=(2, 3, 2))
    group.create_array("fortran", data=cube.astype("f4"), chunks=(2, 3, 2), order="F")
    group.create_array("fixed", data=np.array(["ab", "äöü", ""], dtype="<U5"), chunks=(2,))
    filled = group.create_array("filled", shape=(5,), chunks=(2,), dtype="f4", fill_value=1.5)
    filled[2:4] = 7
    not_a_number = group.create_array("nan", shape=(3,), chunks=(2,), dtype="f8", fill_value=np.nan)
    not_a_number[0:2] = 1


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
