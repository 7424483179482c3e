"""Values of a lazy handle: X and layers as they lie in the store, with the steps that are to happen to them."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ._cellmill import Matrix
from ._matrix import matrix_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import scipy.sparse as sp

    from ._cellmill import DeviceArray

_ALL = slice(None)

#: Rows that are written, or that a Dask block has, at a time.
ROWS = 20_000


class LazyMatrix:
    """Cells by genes of a store with recorded steps; rows are read when they are needed.

    Parameters
    ----------
    matrix
        The engine's matrix.

    Examples
    --------
    >>> import cellmill as cm
    >>> x = cm.read_lazy(pbmc3k).X
    >>> x
    LazyMatrix of 2700 × 32738 float32
    >>> x[:2].to_memory().sum()
    np.float32(7324.0)
    """

    __array_priority__ = 1000
    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, matrix: Matrix) -> None:
        self._cellmill_matrix = matrix

    @property
    def shape(self) -> tuple[int, int]:
        return self._cellmill_matrix.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        n_obs, n_vars = self.shape
        return f"LazyMatrix of {n_obs} × {n_vars} float32"

    def __getattr__(self, name: str) -> Any:
        hint = "" if name.startswith("_") else "; to_memory() gives the values"
        msg = f"'LazyMatrix' object has no attribute {name!r}{hint}"
        raise AttributeError(msg)

    def __getitem__(self, index: Any) -> LazyMatrix:
        rows, columns = index if isinstance(index, tuple) else (index, _ALL)
        return LazyMatrix(cut(self._cellmill_matrix, rows, columns))

    def __iter__(self) -> Iterator[Any]:
        """The rows, in memory one after the other."""
        for block in self._blocks():
            yield from block

    def _blocks(self) -> Iterator[Any]:
        for start in range(0, len(self), ROWS):
            yield self._rows(start, min(start + ROWS, len(self)))

    def copy(self) -> LazyMatrix:
        """The same; steps that are recorded later don't show here."""
        return LazyMatrix(self._cellmill_matrix)

    def to_memory(self, *, dense: bool = False) -> sp.csr_matrix | np.ndarray:
        """The values: CSR float32; an array if values were centred, or with ``dense``."""
        return self._rows(0, self.shape[0], dense=dense)

    compute = to_memory

    def toarray(self) -> np.ndarray:
        """The values in memory, as an array."""
        return self.to_memory(dense=True)

    def _rows(self, start: int, stop: int, *, dense: bool = False) -> Any:
        import scipy.sparse as sp

        matrix = self._cellmill_matrix
        indptr, indices, data = matrix.collect(start, stop)
        out = sp.csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, matrix.shape[1]), copy=False)
        out.has_sorted_indices = True
        base = matrix.base()
        if base is not None:
            return out.toarray() + base
        return out.toarray() if dense else out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        out = self.to_memory(dense=True)
        return out if dtype is None else out.astype(dtype)

    def on_device(self) -> tuple[DeviceArray, DeviceArray, DeviceArray]:
        """The values in the memory of the GPU that ``cellmill.settings.device`` names, as ``indptr`` and ``indices`` (int32) and ``data`` (float32) of a CSR
        matrix of fewer than 2³¹ entries. Rows travel packed, and main memory never holds them all unpacked. Where rows lie packed already and genes were
        chosen, the GPU unpacks, chooses and transforms them; else the threads do, some thousand rows at a time.

        Each is an object with ``__cuda_array_interface__``, of which ``cupy.asarray``, ``torch.as_tensor`` or ``numba.cuda.as_cuda_array`` make arrays
        without a copy, and ``get()``, which copies it to main memory.
        """
        from ._cellmill import on_device

        if self._cellmill_matrix.base() is not None:
            msg = "values are centred, so no entry is zero: to_memory() has them as an array"
            raise ValueError(msg)
        return on_device(self._cellmill_matrix)

    def to_gpu(self) -> Any:
        """The values as a CSR matrix of CuPy, made of what :meth:`on_device` gives without a copy."""
        from ._device import csr_on_cupy

        return csr_on_cupy(self.on_device(), self.shape)

    def to_dask(self, chunks: int = ROWS) -> Any:
        """A Dask array of blocks of ``chunks`` rows, CSR float32, which the engine reads."""
        from .dask import of_matrix

        return of_matrix(self._cellmill_matrix, chunks)

    def sum(self, axis: int | None = None) -> Any:
        """Sums in float64: of all, of each gene (0) or of each cell (1)."""
        from ._cellmill import quality

        if self._cellmill_matrix.base() is not None:
            # No value is 0: block by block.
            parts = [block.sum(axis=axis, dtype=np.float64) for block in self._blocks()]
            return np.concatenate(parts) if axis == 1 else np.sum(parts, axis=0)
        found = quality(self._cellmill_matrix, [], [], False)
        return found["total"].sum() if axis is None else found["total"] if axis == 0 else found["row_total"]

    def max(self) -> Any:
        """The largest value."""
        return max(block.max() for block in self._blocks())

    def min(self) -> Any:
        """The smallest value."""
        return min(block.min() for block in self._blocks())

    def mean(self, axis: int | None = None) -> Any:
        """Means in float64: of all, of each gene (0) or of each cell (1)."""
        n_obs, n_vars = self.shape
        return self.sum(axis) / (n_obs * n_vars if axis is None else n_obs if axis == 0 else n_vars)


class Later(LazyMatrix):
    """A matrix that is opened when its values are needed."""

    def __init__(self, open_matrix: Callable[[], Matrix], shape: tuple[int, int]) -> None:
        self._open, self._shape = open_matrix, shape

    @cached_property
    def _cellmill_matrix(self) -> Matrix:  # type: ignore[override]
        return self._open()

    @property
    def shape(self) -> tuple[int, int]:
        return self._shape

    def copy(self) -> Later:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyMatrix, (self._cellmill_matrix,)

    def __getitem__(self, index: Any) -> Later:
        rows, columns = index if isinstance(index, tuple) else (index, _ALL)
        shape = len(np.arange(self._shape[0])[rows]), len(np.arange(self._shape[1])[columns])
        return Later(lambda: cut(self._cellmill_matrix, rows, columns), shape)


def flags(index: Any, n: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """A mask for an index over ``n`` places (None: all), and the order of what it keeps where that isn't the places' own."""
    if isinstance(index, slice) and index == _ALL:
        return None, None
    if isinstance(index, (int, np.integer)):
        index = np.array([index])
    if not isinstance(index, slice):
        index = np.asarray(index)
        if index.dtype == bool:
            if index.shape != (n,):
                msg = f"a mask of {len(index)} flags, but there are {n} places"
                raise IndexError(msg)
            return np.ascontiguousarray(index), None
    places = np.arange(n)[index]
    mask = np.zeros(n, bool)
    mask[places] = True
    if len(places) < 2 or np.all(np.diff(places) > 0):
        return mask, None
    return mask, np.searchsorted(np.flatnonzero(mask), places)


def cut(matrix: Matrix, rows: Any, columns: Any) -> Matrix:
    """Rows and columns of a matrix. In their own order they are recorded; in another, or twice, what is chosen is brought into memory."""
    row_mask, row_order = flags(rows, matrix.shape[0])
    column_mask, column_order = flags(columns, matrix.shape[1])
    if row_mask is not None:
        matrix = matrix.keep_rows(row_mask)
    if column_mask is not None:
        matrix = matrix.keep_columns(column_mask)
    if row_order is None and column_order is None:
        return matrix
    x = LazyMatrix(matrix).to_memory()
    x = x if row_order is None else x[row_order]
    return matrix_of(x if column_order is None else x[:, column_order])


class Layers(MutableMapping[str, LazyMatrix]):
    """The layers of a handle; each is opened when it is asked for."""

    def __init__(self, open_layer: Callable[[str], Matrix], layers: dict[str, Matrix | None]) -> None:
        self._open = open_layer
        self._layers = layers
        self._shape: tuple[int, int] | None = None

    def __getitem__(self, name: str) -> LazyMatrix:
        if name not in self._layers:
            msg = f"layers: there is no {name!r}; there are: {', '.join(self._layers)}"
            raise KeyError(msg)
        matrix = self._layers[name]
        if matrix is None:
            matrix = self._layers[name] = self._open(name)
        return LazyMatrix(matrix)

    def __setitem__(self, name: str, x: Any) -> None:
        matrix = matrix_of(x)
        if self._shape not in (None, matrix.shape):
            msg = f"layers/{name}: shape {matrix.shape}, but X has {self._shape}"
            raise ValueError(msg)
        self._layers[name] = matrix

    def __delitem__(self, name: str) -> None:
        del self._layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def _of(self, shape: tuple[int, int]) -> Layers:
        """The same, of a handle of this shape."""
        self._shape = shape
        return self

    def _part(self, rows: Any, columns: Any) -> Layers:
        """Rows and columns of each."""
        open_layer = self._open
        return Layers(lambda name: cut(open_layer(name), rows, columns), {name: m and cut(m, rows, columns) for name, m in self._layers.items()})

    def __reduce__(self) -> tuple[Any, ...]:
        return Layers, (no_layer, {name: self[name]._cellmill_matrix for name in self})

    def _copy(self) -> Layers:
        return Layers(self._open, dict(self._layers))

    def __repr__(self) -> str:
        return f"Layers with keys: {', '.join(self._layers)}"


def no_layer(name: str) -> Matrix:
    raise KeyError(name)
