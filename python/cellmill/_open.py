"""Opening stores: ``cellmill.open``, ``cellmill.read_lazy``."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._cellmill import Matrix, Store
from ._elements import element
from ._report import _outside

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ._lazy import AnnData
    from ._rows import Later

_MAPPINGS = ("obsm", "varm", "obsp", "varp", "uns")


def read_lazy(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[str, str | os.PathLike[str]],
    *,
    matrix: str = "X",
    join: str = "inner",
    label: str | None = None,
    keys: Sequence[str] | None = None,
    index_unique: str | None = None,
    genome: str | None = None,
    gex_only: bool = True,
    scratch: str | os.PathLike[str] | None = None,
) -> AnnData:
    """Opens a store without reading its matrix.

    Parameters
    ----------
    path
        AnnData in zarr or h5ad, or 10x h5: a path or a URL (``s3://``, ``gs://``, ``az://``, ``http://``, ``https://``); a 10x mtx folder,
        or its ``matrix.mtx`` where several lie in a folder (``GSM123_matrix.mtx.gz``); or several of
        them (a list, or a mapping of keys to paths) as one data set.
    matrix
        ``'X'``, ``'layers/NAME'`` or ``'raw/X'``.
    join
        Of several: whether genes of all (``'inner'``) or of any (``'outer'``) are kept.
    label, keys, index_unique
        Of several: the column of obs for the keys, the keys, and what joins a cell's name with its key; as in ``anndata.concat``.
    genome
        Genome of a 10x h5 file that holds several.
    gex_only
        Whether only gene expression is read from 10x files.
    scratch
        Folder where a matrix that lies by columns is turned into rows; the system's temporary folder without.

    Returns
    -------
    A handle: obs, var, obsm, … are there, X and layers are read when rows are needed.

    Examples
    --------
    >>> import cellmill as cm
    >>> adata = cm.read_lazy(pbmc3k)
    >>> adata.shape
    (2700, 32738)
    >>> cm.pp.normalize_total(adata, target_sum=1e4)
    >>> cm.pp.log1p(adata)
    >>> adata[:3, :2].to_memory().X.shape
    (3, 2)
    """
    if isinstance(path, (str, os.PathLike)):
        return _one(os.fspath(path), matrix, genome, gex_only, scratch)
    from ._lazy import concat

    if isinstance(path, Mapping):
        keys, path = list(path), list(path.values())
        label = label or "batch"
    parts = [_one(os.fspath(p), matrix, genome, gex_only, scratch) for p in path]
    return concat(parts, join=join, label=label, keys=keys, index_unique=index_unique)


def open(path: str | Path, **options: Any) -> AnnData:
    """The same as :func:`read_lazy`."""
    return read_lazy(path, **options)


def _one(path: str, matrix: str, genome: str | None, gex_only: bool, scratch: Any) -> AnnData:
    from ._handle import Handle, import_pandas
    from ._rows import Layers

    import_pandas()
    store = Store(path, matrix, genome, gex_only, scratch)
    found: dict[str, dict[str, Any]] = {}
    for group in _MAPPINGS:
        found[group] = {}
        if group.startswith("var") and matrix.startswith("raw"):
            continue
        for name in store.names(group):
            e, notes = store.element(f"{group}/{name}")
            for note in notes:
                warnings.warn(note, UserWarning, stacklevel=_outside())
            if e is not None:
                found[group][name] = element(e)
    names = [] if matrix.startswith("raw") else store.names("layers")
    layers = Layers(lambda name: store.other_matrix(f"layers/{name}"), dict.fromkeys(names))
    opened = store.matrix()
    handle: Any = Handle(opened, {"obs": store.obs, "var": store.var}, layers, found, None if matrix.startswith("raw") else _raw(store, opened.shape[0]))
    return handle._whole() if "anndata" in sys.modules else handle


def _raw(store: Store, n_obs: int) -> tuple[Later, Any, Any] | None:
    """Values, var and varm of the store's raw, if it has one."""
    from ._rows import Later

    names = store.names("raw")
    if "X" not in names or "var" not in names:
        return None
    var, varm = (element(store.element(f"raw/{name}")[0]) if name in names else {} for name in ("var", "varm"))
    return Later(lambda: store.other_matrix("raw/X"), (n_obs, len(var))), var, varm


_BACKED: dict[tuple[str, str, float], Any] = {}


def store_matrix(path: str, name: str) -> Matrix:
    """A matrix of a store that somebody else has open; the one that was opened last is remembered, with its packed rows."""
    key = (os.path.abspath(path), name, os.path.getmtime(path))
    if key not in _BACKED:
        opened = Store(path, name)
        _BACKED.clear()
        _BACKED[key] = opened.matrix()
    return _BACKED[key]


def place_of(x: Any) -> tuple[str, str] | None:
    """File and element of an array of h5py or zarr, or of a sparse data set of anndata; None if it is no local file."""
    group = getattr(x, "group", x)
    if type(group).__module__.startswith("h5py"):
        return group.file.filename, group.name.strip("/")
    store = getattr(group, "store", None)
    root = getattr(store, "root", None) or getattr(store, "path", None)
    if root is None or not os.path.exists(root):
        return None
    return os.fspath(root), getattr(group, "path", "").strip("/")


def matrix_of_backed(x: Any) -> Matrix:
    """The engine's own view of a matrix of an open store."""
    place = place_of(x)
    if place is None:
        msg = f"{type(x).__name__} of a store that is no local file, but only these are read; load it first"
        raise ValueError(msg)
    return store_matrix(*place)
