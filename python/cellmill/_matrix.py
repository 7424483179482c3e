"""Between arrays of Python and the engine's matrices: what an AnnData holds is borrowed, and results land in the same kind of array."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ._cellmill import Matrix, Store
from ._report import _outside

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_DATA = (np.float32, np.float64, np.int32, np.int64)


def is_dask(x: Any) -> bool:
    """Whether ``x`` is a Dask array; Dask is not imported for the question."""
    return hasattr(x, "__dask_graph__") and hasattr(x, "map_blocks")


def is_sparse(x: Any) -> bool:
    """Whether ``x`` is a scipy matrix or array, or a view of one; scipy is not imported for the question."""
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and sparse.issparse(x)


def is_lazy(adata: Any) -> bool:
    """Whether ``adata`` is a handle of :func:`cellmill.read_lazy`."""
    return hasattr(adata, "_cellmill_x")


def is_backed(x: Any) -> bool:
    """Whether ``x`` is a matrix of an open store: anndata's sparse dataset, h5py's or zarr's array."""
    return type(x).__name__ in {"_CSRDataset", "_CSCDataset", "CSRDataset", "CSCDataset"} or type(x).__module__.startswith(("h5py", "zarr"))


def is_on_gpu(x: Any) -> bool:
    """Whether ``x`` is an array or a sparse matrix of CuPy, or a view of one; CuPy is not imported for the question."""
    return any(kind.__module__.split(".")[0] in {"cupy", "cupyx"} for kind in type(x).__mro__)


def home(x: Any) -> Any:
    """``x`` in main memory."""
    return x.get() if is_on_gpu(x) else x


def there(x: Any) -> Any:
    """An array, or a scipy matrix, on CuPy's current GPU."""
    import cupy

    if not is_sparse(x):
        return cupy.asarray(x)
    import cupyx.scipy.sparse as sparse

    return getattr(sparse, f"{x.format}_matrix")(x)


def lent(a: np.ndarray, dtype: Any = None) -> np.ndarray:
    """An array as the engine borrows it: C order, aligned, bytes in the machine's order. What comes from other processes may be neither."""
    a = np.asarray(home(a))
    return np.require(a, np.dtype(dtype or a.dtype).newbyteorder("="), ["C", "A"])


def _plain(a: np.ndarray, kinds: tuple[type, ...]) -> np.ndarray:
    """A contiguous vector of a type that the engine borrows."""
    a = np.asarray(a)
    if a.dtype.type not in kinds:
        a = a.astype(np.int64 if kinds is _INDEX else np.float32 if a.dtype.itemsize <= 4 else np.float64)
    return lent(a)


_INDEX = (np.int32, np.int64)


def matrix_of(x: Any) -> Matrix:
    """The engine's matrix of an array of cells by genes.

    Parameters
    ----------
    x
        scipy CSR, CSC or other sparse matrix, numpy array, one of CuPy, backed matrix, Dask array of blocks of rows, or a lazy matrix.
    """
    if isinstance(x, Matrix):
        return x
    if hasattr(x, "_cellmill_matrix"):
        return x._cellmill_matrix
    x = home(x)
    if is_dask(x):
        from .dask import matrix_of_dask

        return matrix_of_dask(x)
    if is_backed(x):
        from ._open import matrix_of_backed

        return matrix_of_backed(x)
    if is_sparse(x):
        _check_real(x)
        x = x if x.format == "csr" else x.tocsr()
        return Matrix.csr(_plain(x.indptr, _INDEX), _plain(x.indices, _INDEX), _plain(x.data, _DATA), x.shape)
    if type(x).__module__.startswith("pandas"):
        x = x.to_numpy()
    x = np.asarray(x)
    if x.ndim != 2:
        msg = f"X: shape {x.shape}, but cells by genes are expected"
        raise ValueError(msg)
    _check_real(x)
    if x.dtype.type not in (np.float32, np.float64):
        x = x.astype(np.float32 if x.dtype.itemsize < 4 else np.float64)
    return Matrix.dense(lent(x), x.shape)


def _check_real(x: Any) -> None:
    if np.dtype(x.dtype).kind == "c":
        msg = f"X: values of type {x.dtype}, but real numbers are expected: complex {'sparse ' if is_sparse(x) else ''}data is not supported"
        raise TypeError(msg)


def remade(origin: tuple[Any, ...], shape: tuple[int, int], keep: np.ndarray | None, steps: bytes) -> Matrix:
    """A matrix that was pickled: the same rows of the same store, after the same steps."""
    kind, *words = origin
    whole: Matrix = Store(*words).matrix() if kind == "store" else getattr(Matrix, kind)(*words)
    return whole.resumed(shape, keep, steps)


def values_of(adata: AnnData, layer: str | None = None, *, use_raw: bool = False) -> Any:
    """What stands in X, a layer, or raw: the array itself, or a copy in main memory of one on a GPU."""
    return home(held(adata, layer, use_raw=use_raw))


def held(adata: AnnData, layer: str | None = None, *, use_raw: bool = False) -> Any:
    """The same where it is."""
    if layer is not None and use_raw:
        msg = "Cannot specify `layer` and have `use_raw=True`."
        raise ValueError(msg)
    if use_raw:
        if adata.raw is None:
            msg = "Received `use_raw=True`, but `adata.raw` is empty."
            raise ValueError(msg)
        return adata.raw.X
    if layer is None:
        x = adata.X
        if x is None:
            msg = "X: there is none, but cells by genes are expected"
            raise ValueError(msg)
        return x
    if layer not in adata.layers:
        msg = f"layers: there is no {layer!r}; there are: {', '.join(name for name in adata.layers if name)}"
        raise KeyError(msg)
    return adata.layers[layer]


def put(adata: AnnData, x: Any, layer: str | None = None) -> None:
    """Sets X or a layer; on the GPU, if that is where it was."""
    if not is_lazy(adata) and is_on_gpu(adata.X if layer is None else adata.layers.get(layer)):
        x = there(x)
    if layer is None:
        adata.X = x
    else:
        adata.layers[layer] = x


def compressed(format: str, like: Any) -> Any:
    """The type of a scipy matrix in CSR or CSC; of a scipy array, if ``like`` is one."""
    import scipy.sparse as sp

    kind = {("csr", False): sp.csr_matrix, ("csc", False): sp.csc_matrix, ("csr", True): sp.csr_array, ("csc", True): sp.csc_array}
    return kind[format, isinstance(like, sp.sparray)]


def land(matrix: Matrix, like: Any, dtype: np.dtype | None = None) -> Any:
    """The values of ``matrix`` in an array of the kind that ``like`` is.

    Parameters
    ----------
    matrix
        ``like`` after some recorded steps.
    like
        The array that ``matrix`` was made from. It is never changed.
    dtype
        Type of the values; that of ``like`` if not given.
    """
    dtype = np.dtype(dtype or like.dtype)
    if is_on_gpu(like):
        return there(land(matrix, home(like), dtype))
    if hasattr(like, "_cellmill_matrix"):
        from ._rows import LazyMatrix

        return LazyMatrix(matrix)
    base = matrix.base()
    indptr, indices, data = matrix.collect()
    data = data.astype(dtype, copy=False)
    if is_sparse(like):
        format = like.format if like.format in {"csr", "csc"} else "csr"
        if like.format == "csr" and like.shape == matrix.shape and like.nnz == len(data) and like.has_canonical_format:
            indptr, indices = like.indptr, like.indices
        out = compressed("csr", like)((data, indices, indptr), shape=matrix.shape, copy=False)
        out.has_sorted_indices = out.has_canonical_format = True
        if base is not None:
            return out.toarray() + base.astype(dtype)
        return out if format == "csr" else out.tocsc()
    out = np.zeros(matrix.shape, dtype) if base is None else np.tile(base.astype(dtype), (matrix.shape[0], 1))
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(indptr))
    out[rows, indices] += data
    return out


def apply(x: Any, name: str, *args: Any, dtype: np.dtype) -> Any:
    """An array after one step of the engine's matrix; a Dask array stays lazy."""
    if is_dask(x):
        from . import dask

        return dask.apply(x, name, args, dtype)
    from . import _double

    if _double.is_double(x, dtype):
        _check_real(x)
        return getattr(_double, name)(x, *args)
    return land(getattr(matrix_of(x), name)(*args), x, dtype)


def mask_of(frame: pd.DataFrame, mask: Any, axis: str) -> np.ndarray:
    """Flags of the rows of obs or var (``axis``), given as such or as the name of a column; scanpy's errors."""
    if isinstance(mask, str):
        if mask not in frame:
            msg = f"Did not find `adata.{axis}[{mask!r}]`. Either add the mask first to `adata.{axis}`or consider using the mask argument with an array."
            raise ValueError(msg)
        mask = frame[mask]
    flags = np.asarray(mask)
    if flags.shape != (len(frame),):
        msg = "The shape of the mask do not match the data."
        raise ValueError(msg)
    if flags.dtype == object and all(isinstance(flag, (bool, np.bool_)) for flag in flags):
        flags = flags.astype(bool)
    if flags.dtype != bool:
        msg = "Mask array must be boolean."
        raise ValueError(msg)
    return np.ascontiguousarray(flags)


def check_writable(x: Any, verb: str) -> None:
    """Values of a file that anndata holds open are only read."""
    if is_backed(x):
        # scanpy's error for a file that it will not write to.
        msg = f"{verb} is not implemented for matrices of type {type(x)}; open the file with cellmill.read_lazy, or call to_memory()"
        raise NotImplementedError(msg)


def actual(adata: AnnData) -> None:
    """Makes a view a data set of its own, as scanpy does before it changes values."""
    if adata.is_view:
        from anndata import ImplicitModificationWarning

        warnings.warn("Received a view of an AnnData. Making a copy.", ImplicitModificationWarning, stacklevel=_outside())
        adata._init_as_actual(adata.copy())


def check_adata(adata: Any) -> None:
    """Verbs that set fields need an AnnData."""
    if not (is_lazy(adata) or (hasattr(adata, "obs") and hasattr(adata, "var"))):
        msg = f"{type(adata).__name__}, but an AnnData is expected"
        raise TypeError(msg)


def seed_of(random_state: Any, rng: Any = None) -> int:
    """A seed from scanpy's ``random_state`` or ``rng``: a number, None, or a generator (which gives one)."""
    chosen = rng if rng is not None else random_state
    if chosen is None:
        return 0
    if isinstance(chosen, np.random.Generator):
        return int(chosen.integers(2**31))
    if isinstance(chosen, np.random.RandomState):
        return int(chosen.randint(2**31 - 1))
    return int(chosen)
