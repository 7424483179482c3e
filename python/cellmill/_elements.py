"""Elements of a store as objects that anndata holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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


def table(parts: tuple[str, list[str], list[tuple[str, tuple[Any, ...]]]]) -> pd.DataFrame:
    """A data frame from its parts."""
    import pandas as pd

    name, index, columns = parts
    index = pd.Index(np.array(index, dtype=object), name=None if name in ("_index", "index") else name)
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
