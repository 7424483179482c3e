"""Dask arrays of blocks of rows.

An array that comes from a store is not computed block by block: its graph is run once on stand-ins that only note which rows and columns are
wanted and which of our steps they pass, and the engine reads the store itself. Any other array is computed by Dask, block by block, when the
engine asks for its rows. Blocks are never changed.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ._cellmill import Matrix
from ._matrix import _DATA, _INDEX, _plain
from ._matrix import apply as apply_in_memory

if TYPE_CHECKING:
    from collections.abc import Callable

#: Matrices that arrays of late stood for, each with the one that it was made of: verbs that follow each other share packed rows and what is
#: known of the genes. The other is held because its place in memory is part of the key.
_RECENT: OrderedDict[Any, tuple[Matrix, Any]] = OrderedDict()
_MOST = 16


class Untraceable(Exception):
    """The graph has something that stand-ins can't pass."""


class StandIn:
    """Rows and columns of a stored matrix, and what has happened to them: it passes through a graph in place of a block.

    Parameters
    ----------
    rows
        Rows of the store, `(n,)`.
    columns
        Number of columns at this point.
    steps
        What has happened to columns and values: ``("columns", indices)`` or a step's name with its arguments.
    """

    ndim = 2

    def __init__(self, rows: np.ndarray, columns: int, steps: tuple[Any, ...] = ()) -> None:
        self.rows, self.columns, self.steps = rows, columns, steps

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), self.columns

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> StandIn:
        index = index if isinstance(index, tuple) else (index,)
        rows, columns = (*index, slice(None), slice(None))[:2]
        out = StandIn(self.rows[_vector(rows)], self.columns, self.steps)
        if isinstance(columns, slice) and columns == slice(None):
            return out
        chosen = np.arange(self.columns)[_vector(columns)]
        if len(chosen) == self.columns and np.array_equal(chosen, np.arange(self.columns)):
            return out
        return StandIn(out.rows, len(chosen), (*self.steps, ("columns", tuple(chosen.tolist()))))

    def __array_function__(self, function: Any, _: Any, args: Any, kwargs: Any) -> StandIn:
        if function is np.concatenate:
            parts = list(args[0])
            axis = kwargs.get("axis", args[1] if len(args) > 1 else 0)
            if axis == 0 and all(p.steps == parts[0].steps for p in parts):
                return StandIn(np.concatenate([p.rows for p in parts]), parts[0].columns, parts[0].steps)
        if function is np.take:
            axis = kwargs.get("axis", args[2] if len(args) > 2 else None)
            if axis == 0:
                return args[0][args[1]]
            if axis == 1:
                return args[0][:, args[1]]
        raise Untraceable(function.__name__)


def _vector(index: Any) -> Any:
    """An index that keeps the axis."""
    if isinstance(index, (int, np.integer)):
        return [index]
    if isinstance(index, slice):
        return index
    index = np.asarray(index)
    return np.ravel(index)


class Step:
    """One of our steps on a block.

    Parameters
    ----------
    name, args
        Method of the engine's matrix, and its arguments.
    dtype
        Type of the values.
    """

    def __init__(self, name: str, args: tuple[Any, ...], dtype: np.dtype) -> None:
        self.name, self.args, self.dtype = name, args, dtype

    def key(self) -> tuple[Any, ...]:
        """The step as something that can be compared."""
        return (self.name, *(tuple(a.tolist()) if isinstance(a, np.ndarray) else a for a in self.args))

    def __call__(self, block: Any) -> Any:
        if isinstance(block, StandIn):
            return StandIn(block.rows, block.columns, (*block.steps, self.key()))
        return apply_in_memory(block, self.name, *self.args, dtype=self.dtype)


def apply(x: Any, name: str, args: tuple[Any, ...], dtype: np.dtype) -> Any:
    """A Dask array after one step, lazily; ``x`` stays as it is."""
    if name in ("normalize_total", "scale") and len(x.chunks[1]) > 1:
        # These look at whole rows.
        x = x.rechunk({1: -1})
    centred = name == "scale" and len(args) > 1 and args[1] is not None
    meta = np.empty((0, 0), dtype) if centred else x._meta.astype(dtype)
    return x.map_blocks(Step(name, args, dtype), dtype=dtype, meta=meta)


def by_rows(x: Any, change: Callable[[Any, slice], Any], dtype: np.dtype, *, dense: bool) -> Any:
    """A Dask array whose blocks are changed, lazily, by a function that is told which rows they have."""

    def block(values: Any, block_info: Any = None) -> Any:
        start, stop = block_info[0]["array-location"][0]
        return change(values, slice(start, stop))

    x = x.rechunk({1: -1}) if len(x.chunks[1]) > 1 else x
    return x.map_blocks(block, dtype=dtype, meta=np.empty((0, 0), dtype) if dense else x._meta.astype(dtype))


def _root(graph: Any) -> tuple[str, Matrix | tuple[str, str]] | None:
    """The one layer of a graph that reads rows, and what it reads: a matrix of ours, or file and element of one that anndata reads."""
    roots = [name for name, needs in graph.dependencies.items() if not needs]
    if len(roots) != 1:
        return None
    task = next(iter(dict(graph.layers[roots[0]]).values()))
    if isinstance(getattr(task, "value", task), Matrix):
        readers = [name for name, needs in graph.dependencies.items() if roots[0] in needs]
        return (readers[0], getattr(task, "value", task)) if len(readers) == 1 else None
    for node in getattr(task, "args", task if isinstance(task, tuple) else ()):
        function = getattr(node, "value", node)
        if isinstance(function, partial) and function.func.__name__ == "make_dask_chunk" and len(function.args) >= 2:
            place = _place(function.args[0], function.args[1])
            return None if place is None else (roots[0], place)
    return None


def _place(store: Any, name: str) -> tuple[str, str] | None:
    """File and element behind a block of anndata."""
    from pathlib import Path

    from ._open import place_of

    if isinstance(store, Path):
        return str(store), name.strip("/")
    return place_of(store)


def _location(task: Any) -> list[tuple[int, int]]:
    """Rows and columns of a block that anndata reads."""
    for node in task.args:
        value = getattr(node, "value", node)
        if isinstance(value, dict) and None in value:
            return value[None]["array-location"]
    raise Untraceable("block_info")


def trace(x: Any) -> tuple[Matrix | tuple[str, str], StandIn] | None:
    """The matrix or store behind a Dask array, and what is wanted of it; None if there is none or it can't be told."""
    graph = x.__dask_graph__()
    if not hasattr(graph, "layers"):
        return None
    try:
        root = _root(graph)
        if root is None:
            return None
        tasks = dict(graph)
        for key in [k for k in tasks if isinstance(k, tuple) and k[0] == root[0]]:
            (start, stop), (first, last) = _location(tasks[key])
            if first != 0:
                return None
            tasks[key] = StandIn(np.arange(start, stop), last)
        from dask.local import get_sync

        blocks = [block for row in get_sync(tasks, x.__dask_keys__()) for block in row]
        if not all(isinstance(block, StandIn) for block in blocks):
            return None
        whole: Any = np.concatenate(blocks, axis=0)  # StandIn.__array_function__
        return root[1], whole
    except Exception:  # Whatever a graph may hold: what can't be told is computed by Dask.
        return None


def matrix_of_dask(x: Any) -> Matrix:
    """The engine's matrix of a Dask array of cells by genes."""
    found = trace(x)
    if found is not None:
        place, wanted = found
        if len(wanted) < 2 or np.all(np.diff(wanted.rows) > 0):
            matrix = _replay(place, wanted)
            if matrix is not None and matrix.shape == x.shape:
                return matrix
    return _remembered(("blocks", x.name), lambda: _blocks(x))


def _remembered(key: Any, make: Any, of: Any = None) -> Matrix:
    if key not in _RECENT:
        _RECENT[key] = make(), of
    _RECENT.move_to_end(key)
    while len(_RECENT) > _MOST:
        _RECENT.popitem(last=False)
    return _RECENT[key][0]


def forget() -> None:
    """Gives back the packed rows that are kept for verbs that follow."""
    from . import _open

    _RECENT.clear()
    _open._BACKED.clear()


def _replay(place: Matrix | tuple[str, str], wanted: StandIn) -> Matrix | None:
    """The matrix with the rows and steps that are wanted."""
    from ._open import store_matrix

    base = matrix = place if isinstance(place, Matrix) else store_matrix(*place)
    if len(wanted.rows) and wanted.rows[-1] >= matrix.shape[0]:
        return None
    key: tuple[Any, ...] = ("store", id(base))
    if len(wanted.rows) != matrix.shape[0]:
        mask = np.zeros(matrix.shape[0], bool)
        mask[wanted.rows] = True
        key = (*key, hash(mask.tobytes()))
        matrix = _remembered(key, lambda: base.keep_rows(mask), base)
    for step in wanted.steps:
        key = (*key, hash(step))
        before = matrix
        matrix = _remembered(key, lambda before=before, step=step: _after(before, step), base)
    return matrix


def _after(matrix: Matrix, step: tuple[Any, ...]) -> Matrix:
    name, *args = step
    if name != "columns":
        return getattr(matrix, name)(*args)
    from ._rows import cut

    return cut(matrix, slice(None), np.array(args[0], dtype=np.int64))


class Computed:
    """Blocks of a Dask array, computed when rows are needed, in the thread that needs them; what workers hold is fetched from them."""

    def __init__(self, x: Any) -> None:
        self.x = x
        held = _held(x.__dask_graph__())
        self.client = next(iter(held.values())).client if held else None
        if held:
            from distributed import wait

            # Not later: threads of this process that wait could be those that a worker in it waits for.
            wait(list(held.values()))

    def __reduce__(self) -> tuple[Any, ...]:
        return Computed, (self.x,)

    def __call__(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        import scipy.sparse as sp

        block = self._block(self.x.blocks[i, 0])
        if not (sp.issparse(block) and block.format == "csr"):
            block = sp.csr_matrix(block)
        return _plain(block.indptr, _INDEX), _plain(block.indices, _INDEX), _plain(block.data, _DATA)

    def _block(self, x: Any) -> Any:
        if self.client is None:
            return x.compute(scheduler="synchronous")
        from dask.local import get_sync

        tasks = dict(x.__dask_graph__().cull({key for row in x.__dask_keys__() for key in row}))
        ((block,),) = get_sync(tasks | self.client.gather(_held(tasks)), x.__dask_keys__())
        return block


def _held(graph: Any) -> dict[Any, Any]:
    """What workers hold of a graph: their futures, by key."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return {}
    values = {key: getattr(node, "value", node) for key, node in dict(graph).items()}
    return {key: value for key, value in values.items() if isinstance(value, distributed.Future)}


def _blocks(x: Any) -> Matrix:
    """A Dask array whose blocks are computed by Dask, one after the other as rows are needed."""
    if len(x.chunks[1]) != 1:
        x = x.rechunk({1: -1})
    return Matrix.blocks(Computed(x), np.cumsum(x.chunks[0]).tolist(), x.shape[1])


def _rows(matrix: Matrix, block_info: Any = None) -> Any:
    """A block of rows of a matrix."""
    from ._rows import LazyMatrix

    (start, stop), _ = block_info[None]["array-location"]
    return LazyMatrix(matrix)._rows(start, stop)


def of_matrix(matrix: Matrix, chunks: int) -> Any:
    """A Dask array of blocks of rows of an engine's matrix."""
    import dask.array as da
    import scipy.sparse as sp
    from dask.delayed import delayed

    n_obs, n_vars = matrix.shape
    sizes = tuple(min(chunks, n_obs - start) for start in range(0, n_obs, chunks)) or (0,)
    meta = np.empty((0, 0), np.float32) if matrix.base() is not None else sp.csr_matrix((0, 0), dtype=np.float32)
    # A task of its own: a worker is sent it once, not with each block.
    one = delayed(matrix, traverse=False)
    return da.map_blocks(_rows, chunks=(sizes, (n_vars,)), dtype=np.float32, meta=meta, matrix=one)


def from_rows(values: np.ndarray, chunks: tuple[int, ...]) -> Any:
    """Rows in memory as a Dask array, cut as ``chunks``."""
    import dask.array as da

    return da.from_array(values, chunks=(chunks, (values.shape[1],)))
