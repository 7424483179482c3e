"""What a plot shows of each cell: a column of obs, or the values of a gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._matrix import home, is_sparse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


def column(adata: AnnData, key: str, *, layer: str | None = None, use_raw: bool | None = None) -> pd.Series:
    """A column of obs, or the values of a gene: `(n_obs,)`.

    Parameters
    ----------
    adata
        Annotated data.
    key
        Column of obs, or name of a gene.
    layer
        Where a gene's values are taken from instead of X.
    use_raw
        Whether they are taken from raw; without, if there is raw and no layer is named, as in scanpy.
    """
    if key in adata.obs:
        return adata.obs[key]
    return genes(adata, [key], layer=layer, use_raw=use_raw)[key]


def genes(adata: AnnData, names: Sequence[str], *, layer: str | None = None, use_raw: bool | None = None) -> pd.DataFrame:
    """Values of genes, read in one go: `(n_obs, len(names))`, of a repeated name the first gene.

    Parameters
    ----------
    adata
        Annotated data.
    names
        Names of genes.
    layer, use_raw
        As for :func:`column`.
    """
    raw: Any = getattr(adata, "raw", None)
    use_raw = (raw is not None and layer is None) if use_raw is None else use_raw
    if use_raw and raw is None:
        msg = "use_raw: the data have no raw"
        raise ValueError(msg)
    source = raw if use_raw else adata
    places: dict[str, int] = {}
    for place, name in enumerate(source.var_names):
        places.setdefault(name, place)
    missing = [name for name in names if name not in places]
    if missing:
        where = "raw.var_names" if use_raw else "var_names"
        msg = f"Could not find {', '.join(map(repr, missing))} in obs or {where}."
        raise KeyError(msg)
    x = source.X if use_raw or layer is None else adata.layers[layer]
    at = np.array([places[name] for name in names])
    if hasattr(x, "_cellmill_matrix"):
        order = np.unique(at)
        values = x[:, order].to_memory(dense=True)[:, np.searchsorted(order, at)]
    else:
        values = x[:, at]
        values = values.compute() if hasattr(values, "compute") else home(values)
        values = values.toarray() if is_sparse(values) else np.asarray(values)
    return pd.DataFrame(values, index=adata.obs_names, columns=list(names))


def is_categorical(values: pd.Series) -> bool:
    """Whether values are categories: categorical, text or truth values."""
    kind = values.dtype
    return isinstance(kind, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(kind) or not pd.api.types.is_numeric_dtype(kind)
