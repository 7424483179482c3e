"""Values of a handle, and writing it: by the engine, or by anndata where something is there that only anndata writes."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ._cellmill import write_store
from ._elements import parts, parts_of_frame
from ._matrix import matrix_of
from ._rows import LazyMatrix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._cellmill import Matrix
    from ._rows import Layers

_MAPPINGS = ("obsp", "obsm", "varm", "varp", "uns")


class Written:
    """X of a store, and what writes it."""

    _cellmill_x: Matrix
    _cellmill_layers: Layers

    #: Values are read by the engine, not from a file that anndata holds open.
    isbacked = False
    #: Slices of a handle are handles of their own.
    is_view = False

    def __deepcopy__(self, _: dict[int, Any]) -> Any:
        # Values lie in the store; handles share them.
        return self.copy()  # type: ignore[attr-defined]

    def __reduce__(self) -> tuple[Any, ...]:
        # By the store's place, the recorded steps, and what was found so far.
        adata: Any = self
        mappings = {name: dict(getattr(adata, name)) for name in _MAPPINGS}
        raw = None if adata.raw is None else (adata.raw.X, adata.raw.var, dict(adata.raw.varm))
        return restored, (self._cellmill_x, adata.obs, adata.var, self._cellmill_layers, mappings, raw)

    def __setitem__(self, *_: Any) -> None:
        msg = "values of a handle stay as their store has them, but for what verbs do; assign to those of to_memory()"
        raise TypeError(msg)

    @property
    def X(self) -> LazyMatrix:
        """The values, lazily."""
        return LazyMatrix(self._cellmill_x)

    @X.setter
    def X(self, x: Any) -> None:
        matrix, shape = matrix_of(x), self._cellmill_x.shape
        if matrix.shape != shape:
            msg = f"X: {matrix.shape[0]} x {matrix.shape[1]}, but obs has {shape[0]} rows and var {shape[1]}"
            raise ValueError(msg)
        self._cellmill_x = matrix

    def write_zarr(self, path: str | os.PathLike[str], *_: Any, with_x: bool = True, **__: Any) -> None:
        """Writes a zarr store; values are streamed.

        Parameters
        ----------
        path
            The new store; one of that name is replaced.
        with_x
            Whether X and layers are written, too.
        """
        _write(self, path, "zarr", with_x, {})

    def write_h5ad(self, path: str | os.PathLike[str] | None = None, *_: Any, with_x: bool = True, **options: Any) -> None:
        """Writes an h5ad file; values are streamed.

        Parameters
        ----------
        path
            The new file; one of that name is replaced.
        with_x
            Whether X and layers are written, too.
        **options
            Options of ``anndata.AnnData.write_h5ad``, such as ``compression``; anndata writes then.
        """
        if path is None:
            msg = "filename: nothing, but a lazy handle is written to a new file"
            raise ValueError(msg)
        _write(self, path, "h5ad", with_x, options)

    write = write_h5ad


def restored(matrix: Matrix, obs: Any, var: Any, layers: Layers, mappings: dict[str, Any], raw: Any) -> Any:
    """A handle that was pickled."""
    from ._handle import Handle

    handle = Handle(matrix, {"obs": obs, "var": var}, layers, mappings, raw)
    return handle._whole() if "anndata" in sys.modules else handle


def _write(adata: Any, path: Any, format: str, with_x: bool, options: dict[str, Any]) -> None:
    layers = {f"layers/{name}": adata.layers[name] for name in adata.layers}
    matrices = {name: x._cellmill_matrix for name, x in ({"X": adata.X} | layers).items()} if with_x else {}
    raw = adata.raw if with_x else None
    _check_apart(path, [matrix_of(x) for x in (adata.X, *layers.values(), *([] if raw is None else [raw.X]))])
    try:
        if options or not isinstance(path, (str, os.PathLike)) or any(m.base() is not None for m in matrices.values()):
            raise TypeError
        tables = parts_of_frame(adata.obs), parts_of_frame(adata.var)
        elements = {f"{group}/{name}": parts(value) for group in _MAPPINGS for name, value in getattr(adata, group).items()}
        if raw is not None:
            matrices["raw/X"] = matrix_of(raw.X)
            elements |= {"raw/var": ("table", parts_of_frame(raw.var)), "raw/varm": parts(dict(raw.varm))}
        if any(name.count("/") > 1 for name in (*elements, *layers)):
            raise TypeError
    except TypeError:
        with _in_place_of(path, format) as new:
            adata._write(new, format, with_x, options)
    else:
        write_store(os.fspath(path), format, *tables, list(elements.items()), list(matrices.items()))


@contextmanager
def _in_place_of(path: Any, format: str) -> Iterator[Any]:
    """A name beside ``path`` that takes its place once all is written; what is no path is written to as it is."""
    if not isinstance(path, (str, os.PathLike)) or "://" in os.fspath(path):
        yield path
        return
    is_store = any(os.path.exists(os.path.join(path, name)) for name in ("zarr.json", ".zgroup"))
    if os.path.isdir(path) and not (format == "zarr" and is_store):
        msg = f"{os.fspath(path)}: the output exists and is no {format} store, but only a store of its kind is replaced by one"
        raise ValueError(msg)
    path = os.path.abspath(path)
    with tempfile.TemporaryDirectory(prefix=".cellmill-", dir=os.path.dirname(path)) as folder:
        new = os.path.join(folder, os.path.basename(path))
        yield new
        if os.path.isdir(path) or (os.path.isdir(new) and os.path.exists(path)):
            os.rename(path, os.path.join(folder, "old"))
        os.replace(new, path)


def _check_apart(path: Any, matrices: list[Matrix]) -> None:
    """Rows that are still to be read must not be written over."""
    read = {place for matrix in matrices for place in matrix.locations}
    if isinstance(path, (str, os.PathLike)) and os.path.exists(path) and any(os.path.exists(place) and os.path.samefile(place, path) for place in read):
        msg = f"{os.fspath(path)}: this handle reads its rows from there, but it can only be written to another path"
        raise ValueError(msg)
