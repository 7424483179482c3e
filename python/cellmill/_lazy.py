"""The lazy handle: an AnnData whose X and layers stay in the store, with the steps that are to happen to them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd

from ._cellmill import Matrix, Store
from ._matrix import matrix_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    import scipy.sparse as sp

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

    def __getitem__(self, index: Any) -> LazyMatrix:
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        return LazyMatrix(_cut(self._cellmill_matrix, rows, columns))

    def copy(self) -> LazyMatrix:
        """The same; steps that are recorded later don't show here."""
        return LazyMatrix(self._cellmill_matrix)

    def to_memory(self, *, dense: bool = False) -> sp.csr_matrix | np.ndarray:
        """The values: CSR float32; an array if values were centred, or with ``dense``."""
        return self._rows(0, self.shape[0], dense=dense)

    compute = to_memory

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

    def to_dask(self, chunks: int = ROWS) -> Any:
        """A Dask array of blocks of ``chunks`` rows, CSR float32, which the engine reads."""
        from .dask import of_matrix

        return of_matrix(self._cellmill_matrix, chunks)

    def sum(self, axis: int | None = None) -> Any:
        """Sums in float64: of all, of each gene (0) or of each cell (1)."""
        from ._cellmill import quality

        found = quality(self._cellmill_matrix, [], [], False)
        return found["total"].sum() if axis is None else found["total"] if axis == 0 else found["row_total"]

    def mean(self, axis: int | None = None) -> Any:
        """Means in float64: of all, of each gene (0) or of each cell (1)."""
        n_obs, n_vars = self.shape
        return self.sum(axis) / (n_obs * n_vars if axis is None else n_obs if axis == 0 else n_vars)


def _flags(index: Any, n: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """A mask for an index over ``n`` places (None: all), and the order of what it keeps where that isn't the places' own."""
    if isinstance(index, slice) and index == slice(None):
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


def _cut(matrix: Matrix, rows: Any, columns: Any) -> Matrix:
    """Rows and columns of a matrix. In their own order they are recorded; in another, or twice, what is chosen is brought into memory."""
    row_mask, row_order = _flags(rows, matrix.shape[0])
    column_mask, column_order = _flags(columns, matrix.shape[1])
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

    def __getitem__(self, name: str) -> LazyMatrix:
        if name not in self._layers:
            msg = f"layers: there is no {name!r}; there are: {', '.join(self._layers)}"
            raise KeyError(msg)
        matrix = self._layers[name]
        if matrix is None:
            matrix = self._layers[name] = self._open(name)
        return LazyMatrix(matrix)

    def __setitem__(self, name: str, x: Any) -> None:
        self._layers[name] = matrix_of(x)

    def __delitem__(self, name: str) -> None:
        del self._layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        return f"Layers with keys: {', '.join(self._layers)}"


class AnnData(anndata.AnnData):
    """An AnnData whose X and layers stay in their store; :func:`cellmill.read_lazy` makes it.

    Verbs of :mod:`cellmill.pp` and :mod:`cellmill.tl` take it as they take an AnnData in memory: steps on values are recorded, results land in
    obs, var, obsm, varm, obsp and uns. Slices are handles of their own, not views.
    """

    _cellmill_x: Matrix

    def __init__(self, matrix: Matrix, obs: pd.DataFrame, var: pd.DataFrame, *, layers: Layers | None = None, **mappings: Any) -> None:
        super().__init__(obs=obs, var=var, **mappings)
        self._cellmill_x = matrix
        self._cellmill_layers = layers or Layers(_no_layer, {})
        if matrix.shape != (self.n_obs, self.n_vars):
            msg = f"X: {matrix.shape[0]} x {matrix.shape[1]}, but obs has {self.n_obs} rows and var {self.n_vars}"
            raise ValueError(msg)

    @classmethod
    def _of_store(cls, store: Store, matrix: Matrix, obs: pd.DataFrame, var: pd.DataFrame, found: dict[str, dict[str, Any]], layers: dict[str, None]) -> AnnData:
        opened = Layers(lambda name: store.other_matrix(f"layers/{name}"), dict(layers))
        return cls(matrix, obs, var, layers=opened, **found)

    @property
    def X(self) -> LazyMatrix:
        """The values, lazily."""
        return LazyMatrix(self._cellmill_x)

    @X.setter
    def X(self, x: Any) -> None:
        matrix = matrix_of(x)
        if matrix.shape != self.shape:
            msg = f"X: {matrix.shape[0]} x {matrix.shape[1]}, but obs has {self.n_obs} rows and var {self.n_vars}"
            raise ValueError(msg)
        self._cellmill_x = matrix

    @property
    def layers(self) -> Layers:
        """The layers, lazily."""
        return self._cellmill_layers

    @layers.setter
    def layers(self, layers: Any) -> None:
        if hasattr(self, "_cellmill_layers"):
            self._cellmill_layers = Layers(_no_layer, {name: matrix_of(x) for name, x in (layers or {}).items()})

    @property
    def isbacked(self) -> bool:
        """Values are read by the engine, not from a file that anndata holds open."""
        return False

    @property
    def is_view(self) -> bool:
        """Slices of a handle are handles of their own."""
        return False

    def _frames(self) -> anndata.AnnData:
        """All but the values, in an AnnData that shares them."""
        return anndata.AnnData(obs=self.obs, var=self.var, uns=self.uns, obsm=dict(self.obsm), varm=dict(self.varm), obsp=dict(self.obsp), varp=dict(self.varp))

    def _with(self, frames: anndata.AnnData, matrix: Matrix, layers: Layers) -> AnnData:
        return AnnData(
            matrix, frames.obs, frames.var, layers=layers, uns=frames.uns, obsm=dict(frames.obsm), varm=dict(frames.varm),
            obsp=dict(frames.obsp), varp=dict(frames.varp),
        )  # fmt: skip

    def __getitem__(self, index: Any) -> AnnData:
        rows, columns = self._normalize_indices(index)
        rows = slice(rows, rows + 1) if isinstance(rows, (int, np.integer)) else rows
        columns = slice(columns, columns + 1) if isinstance(columns, (int, np.integer)) else columns
        frames = self._frames()[rows, columns].copy()
        layers = self._cellmill_layers
        cut = {name: None if m is None else _cut(m, rows, columns) for name, m in layers._layers.items()}
        open_layer = layers._open
        return self._with(frames, _cut(self._cellmill_x, rows, columns), Layers(lambda name: _cut(open_layer(name), rows, columns), cut))

    def copy(self, filename: Any = None) -> AnnData:
        """A handle of its own on the same store."""
        layers = self._cellmill_layers
        return self._with(self._frames().copy(), self._cellmill_x, Layers(layers._open, dict(layers._layers)))

    def _init_as_actual(self, X: Any = None, *args: Any, **kwargs: Any) -> None:
        if isinstance(X, AnnData):
            self._take(X)
        else:
            super()._init_as_actual(X, *args, **kwargs)

    def _take(self, other: AnnData) -> None:
        """Becomes ``other``."""
        super()._init_as_actual(other._frames())
        self._cellmill_x, self._cellmill_layers = other._cellmill_x, other._cellmill_layers

    def _inplace_subset_obs(self, index: Any) -> None:
        self._take(self[np.asarray(index)])

    def _inplace_subset_var(self, index: Any) -> None:
        self._take(self[:, np.asarray(index)])

    def _gen_repr(self, n_obs: int, n_vars: int) -> str:
        text = super()._gen_repr(n_obs, n_vars).replace("AnnData object", "Lazy AnnData object", 1)
        steps = _said(self._cellmill_x)
        layers = f"\n    layers: {', '.join(map(repr, self._cellmill_layers))}" if len(self._cellmill_layers) else ""
        return text + layers + (f"\n    X: {steps}" if steps else "")

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(repr(self))}</pre>"

    def to_memory(self, copy: bool = False) -> anndata.AnnData:
        """An AnnData in memory: X is CSR float32 (an array if it was centred)."""
        frames = self._frames().copy()
        frames.X = self.X.to_memory()
        for name in self.layers:
            frames.layers[name] = self.layers[name].to_memory()
        return frames

    def to_dask(self, chunks: int = ROWS) -> anndata.AnnData:
        """An AnnData whose X is a Dask array of blocks of ``chunks`` rows."""
        frames = self._frames().copy()
        frames.X = self.X.to_dask(chunks)
        for name in self.layers:
            frames.layers[name] = self.layers[name].to_dask(chunks)
        return frames

    def write_zarr(self, path: str | os.PathLike[str], *_: Any, **__: Any) -> None:
        """Writes a zarr store; values are streamed.

        Parameters
        ----------
        path
            The new store.
        """
        import zarr

        self._frames().write_zarr(path)
        group = zarr.open_group(str(path), mode="r+", use_consolidated=False)
        self._write_values(group)
        with warnings.catch_warnings():
            # zarr says of version 3 that others may not read consolidated metadata yet; anndata writes them all the same.
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(group.store)

    def write_h5ad(self, path: str | os.PathLike[str] | None = None, *_: Any, **options: Any) -> None:
        """Writes an h5ad file; values are streamed.

        Parameters
        ----------
        path
            The new file.
        **options
            Options of ``anndata.AnnData.write_h5ad``, such as ``compression``.
        """
        import h5py

        if path is None:
            msg = "filename: nothing, but a lazy handle is written to a new file"
            raise ValueError(msg)
        self._frames().write_h5ad(path, **options)
        with h5py.File(path, "r+") as file:
            self._write_values(file, **options)

    write = write_h5ad

    def _write_values(self, group: Any, **options: Any) -> None:
        from anndata.io import sparse_dataset, write_elem

        kept = {k: v for k, v in options.items() if k in ("compression", "compression_opts")}
        layers = group.require_group("layers")
        for group, name, x in [(group, "X", self.X), *((layers, name, self.layers[name]) for name in self.layers)]:
            if x._cellmill_matrix.base() is not None:
                write_elem(group, name, x.to_memory(), dataset_kwargs=kept)
                continue
            write_elem(group, name, x._rows(0, min(ROWS, len(x))), dataset_kwargs=kept)
            data = sparse_dataset(group[name])
            for start in range(ROWS, len(x), ROWS):
                data.append(x._rows(start, min(start + ROWS, len(x))))

    def obs_vector(self, k: str, *, layer: str | None = None) -> np.ndarray:
        """A column of obs, or the values of a gene: `(n_obs,)`."""
        if k in self.obs:
            return self.obs[k].to_numpy()
        if k not in self.var_names:
            msg = f"Could not find key {k} in .var_names or .obs.columns."
            raise KeyError(msg)
        x = self.X if layer is None else self.layers[layer]
        return np.ravel(x[:, self.var_names == k].to_memory(dense=True)[:, :1])

    def var_vector(self, k: str, *, layer: str | None = None) -> np.ndarray:
        """A column of var, or the values of a cell: `(n_vars,)`."""
        if k in self.var:
            return self.var[k].to_numpy()
        if k not in self.obs_names:
            msg = f"Could not find key {k} in .obs_names or .var.columns."
            raise KeyError(msg)
        x = self.X if layer is None else self.layers[layer]
        return np.ravel(x[self.obs_names == k].to_memory(dense=True)[:1])


def _no_layer(name: str) -> Matrix:
    raise KeyError(name)


def _said(matrix: Matrix) -> str:
    """The recorded steps in words."""
    import json

    words = {"NormalizeTotal": "normalize_total", "Log1p": "log1p", "Sqrt": "sqrt", "Scale": "scale"}
    # A step is its name, or its name with what it was given.
    names = (step if isinstance(step, str) else next(iter(step)) for step in json.loads(matrix.recorded()))
    return " → ".join(words[name] for name in names if name in words)


def concat(
    adatas: Sequence[AnnData] | dict[str, AnnData],
    *,
    join: str = "inner",
    label: str | None = None,
    keys: Sequence[str] | None = None,
    index_unique: str | None = None,
    merge: str | None = None,
) -> AnnData:
    """Cells of several handles as one, without reading them.

    Parameters
    ----------
    adatas
        Handles, or a mapping of keys to handles.
    join
        Whether genes of all (``'inner'``) or of any (``'outer'``) are kept.
    label
        Column of obs for the keys.
    keys
        The keys; ``'0'``, ``'1'``, … without.
    index_unique
        What joins a cell's name with its key.
    merge
        What becomes of var: as in ``anndata.concat``.

    Returns
    -------
    A handle over all of them; obs, var, obsm and uns are those of ``anndata.concat``.
    """
    if isinstance(adatas, Mapping):
        keys, adatas = list(adatas), list(adatas.values())
    frames = [a._frames() if isinstance(a, AnnData) else anndata.AnnData(obs=a.obs, var=a.var) for a in adatas]
    joined = anndata.concat(frames, join=join, label=label, keys=keys, index_unique=index_unique, merge=merge)
    places = pd.Index(joined.var_names)
    matrices = [a._cellmill_x if isinstance(a, AnnData) else matrix_of(a.X) for a in adatas]
    columns = [places.get_indexer(a.var_names).astype(np.int64).tolist() for a in frames]
    matrix = Matrix.concat(matrices, columns, len(places))
    shared = [name for name in adatas[0].layers if all(name in a.layers for a in adatas)]
    layers: dict[str, Matrix | None] = {name: Matrix.concat([matrix_of(a.layers[name]) for a in adatas], columns, len(places)) for name in shared}
    return AnnData(matrix, joined.obs, joined.var, layers=Layers(_no_layer, layers), uns=joined.uns, obsm=dict(joined.obsm), varm=dict(joined.varm))
