"""Columns and results as data frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._matrix import home, is_lazy, is_sparse

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from anndata import AnnData


def obs_df(
    adata: AnnData,
    keys: str | Iterable[str] = (),
    obsm_keys: Iterable[tuple[str, int]] = (),
    *,
    layer: str | None = None,
    gene_symbols: str | None = None,
    use_raw: bool = False,
) -> pd.DataFrame:
    """Columns of obs and values of genes, cells as rows.

    Parameters
    ----------
    adata
        Annotated data.
    keys
        Columns of obs and names of genes.
    obsm_keys
        Names in obsm, each with a column's number.
    layer
        Where genes' values come from instead of X.
    gene_symbols
        Column of var to look genes up in.
    use_raw
        Whether genes' values come from raw.

    Returns
    -------
    `(n_obs, len(keys) + len(obsm_keys))`.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(np.eye(3, dtype="float32"), obs={"n": [3, 2, 1]})
    >>> cm.get.obs_df(adata, ["n", "1"])["1"].tolist()
    [0.0, 1.0, 0.0]
    """
    if use_raw and layer is not None:
        msg = "Cannot specify use_raw=True and a layer at the same time."
        raise AssertionError(msg)
    source = adata.raw if use_raw else adata
    if source is None:
        msg = "Received `use_raw=True`, but `adata.raw` is empty."
        raise ValueError(msg)
    where = "adata.raw.var" if use_raw else "adata.var"
    names = source.var_names if gene_symbols is None else source.var[gene_symbols]
    where = f"{where}_names" if gene_symbols is None else f"{where}[{gene_symbols!r}]"
    x = source.X if use_raw or layer is None else adata.layers[layer]
    lazy = hasattr(x, "_cellmill_matrix")
    return _frame(adata.obs, _Other(x, names, where, lazy, axis=1), keys, "obs", adata.obsm, obsm_keys)


def var_df(adata: AnnData, keys: str | Iterable[str] = (), varm_keys: Iterable[tuple[str, int]] = (), *, layer: str | None = None) -> pd.DataFrame:
    """Columns of var and values of cells, genes as rows.

    Parameters
    ----------
    adata
        Annotated data.
    keys
        Columns of var and names of cells.
    varm_keys
        Names in varm, each with a column's number.
    layer
        Where cells' values come from instead of X.

    Returns
    -------
    `(n_vars, len(keys) + len(varm_keys))`.
    """
    x = adata.X if layer is None else adata.layers[layer]
    return _frame(adata.var, _Other(x, adata.obs_names, "adata.obs_names", is_lazy(adata), axis=0), keys, "var", adata.varm, varm_keys)


class _Other:
    """Rows or columns of a matrix by name.

    Parameters
    ----------
    x
        The matrix.
    names, where
        Names along ``axis``, and what users call them.
    lazy
        Whether the matrix stays in its store.
    axis
        0: rows, 1: columns.
    """

    def __init__(self, x: Any, names: Any, where: str, lazy: bool, *, axis: int) -> None:
        import pandas as pd

        self.x, self.names, self.where, self.lazy, self.axis = x, pd.Index(names), where, lazy, axis

    def values(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Values of each name, which stands there once."""
        if not keys:
            return {}
        places = np.array([self.names.get_loc(key) for key in keys])
        # Stores are read in their order.
        order, back = np.unique(places, return_inverse=True)
        part = self.x[order] if self.axis == 0 else self.x[:, order]
        if self.lazy:
            part = part.to_memory(dense=True)
        part = part.compute() if hasattr(part, "compute") else home(part)
        part = part.toarray() if is_sparse(part) else np.asarray(part)
        part = part if self.axis == 0 else part.T
        return {key: part[i] for key, i in zip(keys, back, strict=True)}


def _frame(own: pd.DataFrame, other: _Other, keys: str | Iterable[str], side: str, mapping: Any, mapping_keys: Iterable[tuple[str, int]]) -> pd.DataFrame:
    """Columns of a frame, values of the other side's names, and columns of a mapping."""
    import pandas as pd

    keys = [keys] if isinstance(keys, str) else list(keys)
    if not own.columns.is_unique:
        twice = own.columns[own.columns.duplicated()].tolist()
        msg = f"adata.{side} contains duplicated columns. Please rename or remove these columns first.\nDuplicated columns {twice}"
        raise ValueError(msg)
    by_name = other.where.endswith("_names")
    if by_name and not other.names.is_unique:
        msg = f"{other.where} contains duplicated items\nPlease rename these first for example using `{other.where}_make_unique`"
        raise ValueError(msg)
    both = [key for key in keys if key in own.columns and key in other.names]
    if both:
        msg = f"The key {both[0]!r} is found in both adata.{side} and {other.where}."
        raise KeyError(msg)
    wanted = [key for key in dict.fromkeys(keys) if key not in own.columns]
    missing = [key for key in wanted if key not in other.names]
    if missing:
        msg = f"Could not find keys {sorted(missing)!r} in columns of `adata.{side}` or in {other.where}."
        raise KeyError(msg)
    twice = [key for key in wanted if not isinstance(other.names.get_loc(key), int)]
    if twice:
        msg = f"Found duplicate entries in {other.where}: {twice!r}"
        raise KeyError(msg)
    found: dict[str, Any] = {key: own[key].array for key in keys if key in own.columns} | other.values(wanted)
    frame = pd.DataFrame({key: found[key] for key in dict.fromkeys(keys)}, index=own.index)[keys]
    for name, number in mapping_keys:
        whole = mapping[name]
        column = whole.loc[:, number] if hasattr(whole, "loc") else whole[:, [number]]
        frame[f"{name}-{number}"] = np.ravel(column.toarray() if is_sparse(column) else np.asarray(column))
    return frame


def rank_genes_groups_df(
    adata: AnnData,
    group: str | Sequence[str] | None,
    *,
    key: str = "rank_genes_groups",
    pval_cutoff: float | None = None,
    log2fc_min: float | None = None,
    log2fc_max: float | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Marker genes of some groups as a data frame.

    Parameters
    ----------
    adata
        Annotated data after ``tl.rank_genes_groups``.
    group
        A group or several; all with ``None``.
    key
        Where the results are in uns.
    pval_cutoff
        Rows with a smaller adjusted p-value are kept.
    log2fc_min, log2fc_max
        Rows with a larger, or smaller, logarithm of the fold change are kept.
    gene_symbols
        Column of var to add.

    Returns
    -------
    Columns ``group`` (for several), ``names``, ``scores``, ``logfoldchanges``, ``pvals``, ``pvals_adj``, and the shares ``pct_nz_group`` and
    ``pct_nz_reference`` where they were asked for.
    """
    import pandas as pd

    found = adata.uns[key]
    groups = [group] if isinstance(group, str) else list(found["names"].dtype.names) if group is None else list(group)
    unknown = [name for name in groups if name not in found["names"].dtype.names]
    if unknown:
        msg = f"group: {', '.join(map(repr, unknown))}, but {key} has {', '.join(found['names'].dtype.names)}"
        raise KeyError(msg)
    tested = found["params"].get("method") != "logreg"
    fields = ["names", "scores", *(["logfoldchanges", "pvals", "pvals_adj"] if tested else [])]
    parts = []
    for name in groups:
        part = pd.DataFrame({field: found[field][name] for field in fields})
        if gene_symbols is not None:
            part = part.join(adata.var[gene_symbols], on="names")
        for field, column in (("pts", "pct_nz_group"), ("pts_rest", "pct_nz_reference")):
            if field in found and name in found[field]:
                part[column] = found[field][name].reindex(part["names"]).to_numpy()
        part.insert(0, "group", name)
        parts.append(part)
    frame = pd.concat(parts, ignore_index=True)
    frame["group"] = pd.Categorical(frame["group"], categories=groups)
    if tested and pval_cutoff is not None:
        frame = frame[frame["pvals_adj"] < pval_cutoff]
    if tested and log2fc_min is not None:
        frame = frame[frame["logfoldchanges"] > log2fc_min]
    if tested and log2fc_max is not None:
        frame = frame[frame["logfoldchanges"] < log2fc_max]
    return (frame.drop(columns="group") if len(groups) == 1 else frame).reset_index(drop=True)
