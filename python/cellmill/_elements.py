"""Elements of a store as objects that anndata holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._matrix import is_sparse

if TYPE_CHECKING:
    import pandas as pd


def element(e: tuple[Any, ...]) -> Any:
    """The object for what the engine calls an element: a tuple that begins with its kind."""
    kind, *rest = e
    if kind == "dict":
        return {name: element(value) for name, value in rest[0].items()}
    if kind == "array":
        shape, values = rest
        return _text(values).reshape(shape)
    if kind == "scalar":
        return rest[0][0]
    if kind == "table":
        return table(rest[0])
    if kind == "sparse":
        import scipy.sparse as sp

        format, shape, indptr, indices, data = rest
        made = sp.csr_matrix if format == "csr" else sp.csc_matrix
        return made((data, indices, indptr), shape=shape, copy=False)
    if kind == "column":
        return _column(rest[0])
    if kind == "records":
        fields = {name: _text(values) for name, values in rest[0]}
        return np.rec.fromarrays(list(fields.values()), dtype=[(name, a.dtype) for name, a in fields.items()]) if fields else None
    return None


def _text(values: Any) -> np.ndarray:
    """Lists are text."""
    return np.array(values, dtype=object) if isinstance(values, list) else values


def table(parts: tuple[str, list[str] | np.ndarray, list[tuple[str, tuple[Any, ...]]]]) -> pd.DataFrame:
    """A data frame from its parts."""
    import pandas as pd

    name, index, columns = parts
    index = pd.Index(_text(index), name=None if name in ("_index", "index") else name)
    return pd.DataFrame({column: _column(values) for column, values in columns}, index=index, copy=False)


def _column(c: tuple[Any, ...]) -> Any:
    import pandas as pd

    kind, *rest = c
    if kind == "plain":
        return _text(rest[0])
    if kind == "categorical":
        codes, categories, ordered = rest
        return pd.Categorical.from_codes(codes, categories=pd.Index(_text(categories)), ordered=ordered)
    values, mask = rest
    if isinstance(values, list):
        return pd.array([None if missing else value for value, missing in zip(values, mask, strict=True)], dtype="string")
    if values.dtype == bool:
        return pd.arrays.BooleanArray(values, mask)
    if values.dtype.kind == "f":
        return pd.arrays.FloatingArray(values, mask)
    return pd.arrays.IntegerArray(values, mask)


def parts(x: Any) -> tuple[Any, ...]:
    """What :func:`element` makes ``x`` of. TypeError if the engine has no element for it."""
    if x is None:
        return ("null",)
    if isinstance(x, Mapping):
        if not all(isinstance(name, str) and name and "/" not in name for name in x):
            raise TypeError
        return ("dict", {name: parts(value) for name, value in x.items()})
    if isinstance(x, (str, bool, int, float, np.number, np.bool_)):
        return ("scalar", _flat(np.array([x])))
    if isinstance(x, (list, tuple)):
        x = np.array(x)
    if type(x) is np.ndarray and x.ndim:
        return ("array", x.shape, _flat(x))
    if is_sparse(x) and x.format in ("csr", "csc"):
        return ("sparse", x.format, x.shape, x.indptr, x.indices, _flat(x.data))
    if hasattr(x, "iloc") and hasattr(x, "columns"):
        name, columns = _parts_of_columns(x)
        index = x.index.to_numpy()
        return ("table", (name, _flat(index) if index.dtype.kind in "biuf" else _text_list(x.index), columns))
    raise TypeError


def _flat(a: np.ndarray) -> Any:
    """A flat array of numbers or flags, or a list of text."""
    if a.dtype.kind == "U" or (a.dtype.kind == "O" and all(isinstance(text, str) for text in a.flat)):
        return [str(text) for text in a.flat]
    if a.dtype.kind not in "biuf" or a.dtype.itemsize not in ((4, 8) if a.dtype.kind == "f" else (1, 2, 4, 8)):
        raise TypeError
    return np.ascontiguousarray(a).ravel().astype(a.dtype.newbyteorder("="), copy=False)


def parts_of_frame(frame: pd.DataFrame) -> tuple[str, list[str], list[tuple[str, tuple[Any, ...]]]]:
    """What :func:`table` makes obs and var of. Text that comes more than once becomes categories, as where anndata writes."""
    name, columns = _parts_of_columns(frame)
    return name, _text_list(frame.index), columns


def _parts_of_columns(frame: pd.DataFrame) -> tuple[str, list[tuple[str, tuple[Any, ...]]]]:
    """The index's name, and the columns."""
    index = frame.index
    name = index.name if index.name is not None else "_index"
    names = [name, *frame.columns]
    if index.nlevels > 1 or len(set(names)) < len(names) or not all(isinstance(n, str) and n and "/" not in n for n in names):
        raise TypeError
    return name, [(column, _parts_of_column(frame[column])) for column in frame]


def _text_list(values: Any) -> list[str]:
    text = values.tolist()
    if not all(isinstance(one, str) for one in text):
        raise TypeError
    return text


def _parts_of_column(column: pd.Series) -> tuple[Any, ...]:
    import pandas as pd

    values = column.array
    if pd.api.types.infer_dtype(column) == "string":
        from natsort import natsorted

        found = pd.Categorical(column)
        if len(found.categories) >= len(found):
            return ("plain", _text_list(column))
        values = found.reorder_categories(natsorted(found.categories))
    if isinstance(values, pd.Categorical):
        return ("categorical", values.codes.astype(np.int32), _flat(values.categories.to_numpy()), bool(values.ordered))
    if isinstance(values, (pd.arrays.BooleanArray, pd.arrays.IntegerArray)):
        there = values.to_numpy(values.dtype.numpy_dtype, na_value=0)
        return ("nullable", _flat(there), np.asarray(values.isna()))
    if isinstance(column.dtype, np.dtype):
        return ("plain", _flat(column.to_numpy()))
    raise TypeError
