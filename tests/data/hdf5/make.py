"""Makes the small HDF5 files beside it. Needs h5py, numpy, numcodecs. Run: python make.py"""

import struct

import h5py
import numcodecs
import numpy as np

numbers = (np.arange(1000) * 7 % 251).astype(np.float32)
table = (np.arange(23 * 17) % 97).astype(np.int32).reshape(23, 17)

with h5py.File("filters.h5", "w", libver=("earliest", "v110")) as f:
    for name, options in {
        "gzip": dict(compression="gzip", compression_opts=4),
        "gzip_shuffle": dict(compression="gzip", compression_opts=9, shuffle=True),
        "lzf": dict(compression="lzf"),
        "lzf_shuffle": dict(compression="lzf", shuffle=True),
        "fletcher32": dict(fletcher32=True),
        "all": dict(compression="gzip", shuffle=True, fletcher32=True),
        "none": dict(),
    }.items():
        f.create_dataset(f"one/{name}", data=numbers, chunks=(300,), **options)
        f.create_dataset(f"two/{name}", data=table, chunks=(5, 4), **options)
        f.create_dataset(f"grows/{name}", data=numbers, chunks=(30,), maxshape=(None,), **options)
    f["contiguous"] = table
    f["big_endian"] = numbers.astype(">f4")
    f.create_dataset("big_endian_gzip", data=numbers.astype(">f8"), chunks=(300,), compression="gzip")
    f.create_dataset("rank3", data=np.arange(7 * 5 * 3).reshape(7, 5, 3), chunks=(2, 3, 2), compression="gzip")
    # Noise does not shrink: LZF leaves such chunks alone and says so in their filter mask.
    f.create_dataset("noise", data=np.random.default_rng(0).integers(0, 255, 2000, dtype=np.uint8), chunks=(500,), compression="lzf", shuffle=True)
    for name, dtype in {"i8": "i1", "u16": "u2", "i64": "i8", "u64": "u8", "f64": "f8", "bool": "?"}.items():
        f[f"types/{name}"] = np.array([0, 1, 1, 0, 1]).astype(dtype)
    f["types/f16"] = np.zeros(3, "f2")

with h5py.File("latest.h5", "w", libver=("v110", "v114")) as f:
    f.create_dataset("single", data=table, chunks=table.shape, compression="gzip")
    f.create_dataset("fixed", data=table, chunks=(5, 4), compression="gzip", shuffle=True)
    f.create_dataset("fixed_plain", data=table, chunks=(5, 4))
    f.create_dataset("extensible", data=numbers, chunks=(30,), maxshape=(None,), compression="gzip")
    f.create_dataset("extensible_plain", data=numbers, chunks=(30,), maxshape=(None,))
    f.create_dataset("tree2", data=table, chunks=(5, 4), maxshape=(None, None), compression="gzip")
    g = f.create_group("many")
    for i in range(40):
        g[f"n{i}"] = i
        g.attrs[f"a{i}"] = i

# What HDF5 2.0 calls its latest format (data layout messages of version 5 where there is a filter); trees of more than one level.
with h5py.File("newest.h5", "w", libver="latest", userblock_size=512) as f:
    f.create_dataset("single", data=table, chunks=table.shape, compression="gzip")
    f.create_dataset("fixed", data=table, chunks=(5, 4), compression="gzip", shuffle=True)
    f.create_dataset("fixed_plain", data=table, chunks=(5, 4))
    f.create_dataset("extensible", data=numbers, chunks=(30,), maxshape=(None,), compression="gzip")
    f.create_dataset("tree2", data=table, chunks=(5, 4), maxshape=(None, None), compression="gzip")
    f.create_dataset("tree2_deep", data=table, chunks=(1, 2), maxshape=(None, None), compression="gzip")
    f.create_dataset("tree2_plain", data=table, chunks=(2, 2), maxshape=(None, None))
    f.create_dataset("tree2_shrunk", data=np.vstack([table, table]), chunks=(5, 4), maxshape=(None, None), compression="gzip").resize(table.shape)
    p = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    p.set_chunk((30,))
    p.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    h5py.h5d.create(f.id, b"implicit", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((1000,)), p)
    f["implicit"][...] = numbers

with h5py.File("strings.h5", "w") as f:
    text = ["", "a", "gène", "x" * 300, "αβγ"] * 8
    f.create_dataset("vlen", data=text, dtype=h5py.string_dtype())
    f.create_dataset("vlen_gzip", data=text, dtype=h5py.string_dtype(), chunks=(7,), compression="gzip")
    f["fixed"] = np.array([t.encode() for t in text])
    f["scalar"] = "one"
    f["scalar_fixed"] = np.bytes_("two")
    f["number"] = 1.5
    f["yes"] = True
    f["record"] = np.array([(b"a", 1, 0.5, True, [1, 2]), (b"bc", 2, 1.5, False, [3, 4])],
                           dtype=[("index", "S4"), ("n", "i4"), ("x", ">f8"), ("flag", "?"), ("pair", "f4", 2)])
    f["null"] = h5py.Empty("f4")
    a = f.create_group("attrs").attrs
    a["text"] = "csr_matrix"
    a["texts"] = np.array(["a", "b"], dtype=object)
    a["one_text"] = np.array(["a"], dtype=object)
    a["no_texts"] = np.array([], dtype=h5py.string_dtype())
    a["none"] = np.array([])
    a["shape"] = [3, 4]
    a["ordered"] = True
    a["x"] = 0.5
    a["bytes"] = np.bytes_("old")
    c = f.create_dataset("obs/cell_type", data=np.array([0, 1, 0], "i1"))
    f["obs/__categories/cell_type"] = ["B", "T"]
    c.attrs["categories"] = f["obs/__categories/cell_type"].ref


def filtered(f, name, number, values, chunk, encode):
    """A dataset with a filter that h5py does not have: chunks are encoded here and written raw."""
    space = h5py.h5s.create_simple((len(values),))
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((chunk,))
    plist.set_filter(number, h5py.h5z.FLAG_OPTIONAL, (0,))
    data = h5py.h5d.create(f.id, name, h5py.h5t.py_create(values.dtype), space, plist)
    for start in range(0, len(values), chunk):
        piece = np.zeros(chunk, values.dtype)
        piece[: len(values[start : start + chunk])] = values[start : start + chunk]
        data.write_direct_chunk((start,), encode(piece), 0)


def lz4(piece, block=700):
    raw = piece.tobytes()
    out = struct.pack(">QI", len(raw), block)
    for i in range(0, len(raw), block):
        packed = numcodecs.LZ4().encode(raw[i : i + block])[4:]
        if len(packed) >= len(raw[i : i + block]):
            packed = raw[i : i + block]
        out += struct.pack(">I", len(packed)) + packed
    return out


with h5py.File("plugins.h5", "w") as f:
    for dtype in ["f4", "i8", "u1"]:
        values = (np.arange(4000) * 7 % 251 // 9).astype(dtype)
        for code in ["blosclz", "lz4", "lz4hc", "zlib", "zstd"] if dtype == "f4" else ["lz4"]:
            for shuffle in [0, 1, 2]:
                codec = numcodecs.Blosc(code, 5, shuffle, 4096 if shuffle == 1 else 0)
                filtered(f, f"{dtype}_{code}_{shuffle}".encode(), 32001, values, 1600, codec.encode)
        filtered(f, f"{dtype}_zstd".encode(), 32015, values, 1600, numcodecs.Zstd(3).encode)
        filtered(f, f"{dtype}_lz4".encode(), 32004, values, 1600, lz4)
    noise = np.random.default_rng(0).integers(0, 2**31, 3000).astype("i4")
    filtered(f, b"noise", 32001, noise, 1000, numcodecs.Blosc("lz4", 5, 1).encode)
    wide = np.random.default_rng(1).integers(0, 40, 12000).astype("u1")
    far = np.concatenate([wide, wide])
    filtered(f, b"far", 32001, far, len(far), numcodecs.Blosc("blosclz", 9, 0, 1 << 18).encode)

with h5py.File("half.h5", "w") as f:
    # A large one, a small one, one that has no short form, and zeros.
    half = np.tile(np.array([0, 1, -2.5, 65504, 6e-8, 1 / 3], "f2"), 10).reshape(12, 5)
    f["contiguous"] = half
    f["vector"] = half[:, 0]
    f["big_endian"] = half.astype(">f2")
    f.create_dataset("gzip", data=half, chunks=(5, 2), compression="gzip", shuffle=True)
    f["scalar"] = np.float16(0.5)
    f["record"] = np.array([(1, 0.5), (2, -1.5)], dtype=[("n", "i4"), ("x", ">f2")])


def links(name, **options):
    """Soft links of every kind; old files hold them in symbol tables, new ones in messages and, where there are many, in a heap."""
    with h5py.File(name, "w", **options) as f:
        g = f.create_group("g")
        g.attrs["kind"] = "group"
        g["data"] = np.array([3, 1, 4, 1], "i4")
        below = g.create_group("below")
        f["absolute"] = h5py.SoftLink("/g")
        f["chain"] = h5py.SoftLink("absolute")
        f["one"] = h5py.SoftLink("/chain/./below/sibling")
        g["relative"] = h5py.SoftLink("data")
        below["sibling"] = h5py.SoftLink("/g/relative")
        below["self"] = h5py.SoftLink("/g")
        f["dangling"] = h5py.SoftLink("/g/nothing")
        f["circle"], f["circle2"] = h5py.SoftLink("/circle2"), h5py.SoftLink("circle")
        many = f.create_group("many")
        many["hard"], many["group"] = g["data"], f["absolute"]
        for i in range(398):
            many[f"s{i}"] = h5py.SoftLink("/g/data")
        many["dangling"] = h5py.SoftLink("nothing")
        if options:
            f["far"] = h5py.ExternalLink("other.h5ad", "/X")
            f["farther"] = h5py.SoftLink("/far")


links("links.h5")
links("links_new.h5", libver="latest")
