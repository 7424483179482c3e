"""Columns and results as data frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._matrix import is_lazy, is_sparse

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
    import pandas as pd

    keys = [keys] if isinstance(keys, str) else list(keys)
    source = adata.raw if use_raw else adata
    if source is None:
        msg = "use_raw: the data have no raw"
        raise ValueError(msg)
    names = source.var_names if gene_symbols is None else pd.Index(source.var[gene_symbols])
    of_genes = [key for key in keys if key not in adata.obs]
    at = _places(names, of_genes, adata.obs.columns, "var_names" if gene_symbols is None else f"var[{gene_symbols!r}]")
    x = source.X if use_raw or layer is None else adata.layers[layer]
    values = _cut(x, slice(None), at, lazy=is_lazy(adata) and not use_raw)
    columns = {key: adata.obs[key] for key in keys if key in adata.obs}
    columns |= {key: values[:, i] for i, key in enumerate(of_genes)}
    frame = pd.DataFrame({key: columns[key] for key in keys}, index=adata.obs_names)
    for name, number in obsm_keys:
        whole = adata.obsm[name]
        frame[f"{name}-{number}"] = whole.loc[:, number] if hasattr(whole, "loc") else np.asarray(whole[:, number]).ravel()
    return frame


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
    import pandas as pd

    keys = [keys] if isinstance(keys, str) else list(keys)
    of_cells = [key for key in keys if key not in adata.var]
    at = _places(adata.obs_names, of_cells, adata.var.columns, "obs_names")
    x = adata.X if layer is None else adata.layers[layer]
    values = _cut(x, at, slice(None), lazy=is_lazy(adata))
    columns = {key: adata.var[key] for key in keys if key in adata.var}
    columns |= {key: values[i] for i, key in enumerate(of_cells)}
    frame = pd.DataFrame({key: columns[key] for key in keys}, index=adata.var_names)
    for name, number in varm_keys:
        frame[f"{name}-{number}"] = np.asarray(adata.varm[name][:, number]).ravel()
    return frame


def _places(names: pd.Index, wanted: Sequence[str], columns: pd.Index, where: str) -> np.ndarray:
    """Places of names; a name that isn't there or stands there twice is an error."""
    missing = [key for key in wanted if key not in names]
    if missing:
        msg = f"Could not find keys {missing} in columns {list(columns)[:20]} or in {where}."
        raise KeyError(msg)
    twice = [key for key in wanted if not isinstance(names.get_loc(key), int)]
    if twice:
        msg = f"{where}: {', '.join(map(repr, twice))} stand there more than once; make names unique first"
        raise KeyError(msg)
    return names.get_indexer(wanted)


def _cut(x: Any, rows: Any, columns: Any, *, lazy: bool) -> np.ndarray:
    """Some rows or columns of a matrix, dense."""
    at = columns if isinstance(rows, slice) else rows
    if not len(at):
        return np.empty((0, 0))
    if lazy:
        return x[rows, columns].to_memory(dense=True)
    part = x[rows, columns]
    part = part.compute() if hasattr(part, "compute") else part
    return part.toarray() if is_sparse(part) else np.asarray(part)


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
