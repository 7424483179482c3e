"""``calculate_qc_metrics``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._cellmill import quality
from .._matrix import check_adata, is_sparse, matrix_of, values_of

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd
    from anndata import AnnData

_SCANPY = (50, 100, 200, 500)
_UNSET: tuple[int, ...] = (-1,)


def calculate_qc_metrics(
    adata: AnnData,
    *,
    expr_type: str = "counts",
    var_type: str = "genes",
    qc_vars: Collection[str] | str | None = (),
    percent_top: Collection[int] | None = _UNSET,
    layer: str | None = None,
    use_raw: bool = False,
    inplace: bool | None = None,
    log1p: bool = True,
    parallel: bool | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Quality control of cells and genes, in one pass.

    Parameters
    ----------
    adata
        Cells by genes, `n_obs` × `n_vars`, counts.
    expr_type, var_type
        Words in the names of the columns.
    qc_vars
        Boolean columns of ``var``: sets of genes whose share of a cell's counts is wanted.
    percent_top
        Sizes of the lists of a cell's most expressed genes whose share is wanted: 50, 100, 200, 500, as in scanpy. With neither this nor
        ``inplace`` given, none of values that are streamed, as in rapids-singlecell, and none beyond the number of genes.
    layer
        Layer to look at instead of X.
    use_raw
        Whether to look at ``adata.raw``.
    inplace
        True: columns are written. False: they are returned. Not given: both.
    log1p
        Whether columns with ln(1 + x) are wanted.
    parallel
        Has no meaning.

    Returns
    -------
    ``(obs, var)``: data frames of the columns, unless ``inplace=True``. Sets the following fields:

    ``adata.obs['n_genes_by_counts']`` : int32
        Genes with a count, of each cell.
    ``adata.obs['total_counts']`` : float32
        Sum of each cell.
    ``adata.obs['total_counts_V']``, ``adata.obs['pct_counts_V']`` : float32
        Sum over the genes of a set V, and its share in percent.
    ``adata.obs['pct_counts_in_top_N_genes']`` : float64
        Share of the N most expressed genes in percent.
    ``adata.var['n_cells_by_counts']``, ``['mean_counts']``, ``['pct_dropout_by_counts']``, ``['total_counts']``
        Cells with a count, mean over all cells, percentage of cells without, sum.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(np.array([[1, 0, 3], [0, 0, 2]], dtype="float32"))
    >>> obs, var = cm.pp.calculate_qc_metrics(adata)
    >>> adata.obs["total_counts"].tolist(), adata.var["n_cells_by_counts"].tolist()
    ([4.0, 2.0], [1, 0, 2])
    """
    check_adata(adata)
    qc_vars = [qc_vars] if isinstance(qc_vars, str) else list(qc_vars or ())
    x = values_of(adata, layer, use_raw=use_raw)
    matrix = matrix_of(x)
    if 0 in matrix.shape:
        msg = f"X: {matrix.shape[0]} cells by {matrix.shape[1]} genes, but there is nothing to look at"
        raise ValueError(msg)
    if percent_top is _UNSET:
        # Without a word about it: scanpy's for arrays in memory, none of what is streamed, as in rapids-singlecell.
        held = is_sparse(x) or isinstance(x, np.ndarray)
        percent_top = _SCANPY if inplace is not None else [n for n in _SCANPY if held and n <= matrix.shape[1]]
    percent_top = sorted(percent_top or ())
    if percent_top and not (percent_top[0] > 0 and percent_top[-1] <= matrix.shape[1]):
        msg = "Positions outside range of features."
        raise IndexError(msg)
    # Frames are made after the read where they are not needed for it: pandas is imported meanwhile.
    frame: Any = adata.raw.var if use_raw and adata.raw is not None else adata.var if qc_vars else None
    sets = []
    for name in qc_vars:
        if name not in frame:
            msg = f"var: there is no {name!r}; there are: {', '.join(map(str, frame.columns))}"
            raise KeyError(msg)
        sets.append((name, frame[name].to_numpy().astype(bool).tolist()))
    found = quality(matrix, sets, percent_top, log1p)

    import pandas as pd

    frame = adata.var if frame is None else frame

    def named(column: str) -> str:
        return column.replace("_genes_by_counts", f"_{var_type}_by_{expr_type}").replace("_counts", f"_{expr_type}").replace("_genes", f"_{var_type}")

    plain = (expr_type, var_type) == ("counts", "genes")
    wide, whole = np.dtype(x.dtype) == np.float64, np.issubdtype(x.dtype, np.integer)
    # Sums of whole numbers are whole numbers in numpy.
    sums = np.uint64 if np.issubdtype(x.dtype, np.unsignedinteger) else np.int64
    n_name, total_name = f"n_{var_type}_by_{expr_type}", f"total_{expr_type}"
    obs = {}
    for column, values in found["rows"].items():
        name = column if plain else named(column) if not column.endswith(tuple(f"_{v}" for v in qc_vars)) else column.replace("_counts_", f"_{expr_type}_")
        obs[name] = values.astype(np.float64) if wide and values.dtype == np.float32 else values
    if wide:
        obs[total_name] = found["row_total"]
        if log1p:
            obs[f"log1p_{total_name}"] = np.log1p(obs[total_name])
    elif whole:
        for suffix in ("", *(f"_{name}" for name in qc_vars)):
            obs[total_name + suffix] = (obs[total_name + suffix] if suffix else found["row_total"]).astype(sums)
            if log1p:
                obs[f"log1p_{total_name}{suffix}"] = np.log1p(obs[total_name + suffix])
            if suffix:
                with np.errstate(invalid="ignore"):
                    obs[f"pct_{expr_type}{suffix}"] = obs[total_name + suffix] / obs[total_name] * 100
    # numpy counts in 64 bits, scipy along its own axis in the type of indptr.
    along = {"csr": 1, "csc": 0}.get(x.format) if is_sparse(x) else None
    obs[n_name] = obs[n_name].astype(x.indptr.dtype if along == 1 else np.int32 if along is None and not isinstance(x, np.ndarray) else np.int64)
    if log1p:
        # numpy's logarithm, to the last bit.
        obs[f"log1p_{n_name}"] = np.log1p(obs[n_name])
    n_cells = found["n_cells"].astype(x.indptr.dtype) if along == 0 else found["n_cells"]
    obs = pd.DataFrame(obs, index=adata.obs_names)
    n = matrix.shape[0]
    total = found["total"] if wide else found["total"].astype(sums if whole else np.float32)
    var = pd.DataFrame({f"n_cells_by_{expr_type}": n_cells}, index=frame.index)
    with np.errstate(invalid="ignore", divide="ignore"):
        var[f"mean_{expr_type}"] = found["total"] / n
        if log1p:
            var[f"log1p_mean_{expr_type}"] = np.log1p(var[f"mean_{expr_type}"])
        var[f"pct_dropout_by_{expr_type}"] = (1 - found["n_cells"] / n) * 100
        var[f"total_{expr_type}"] = total
        if log1p:
            var[f"log1p_total_{expr_type}"] = np.log1p(total)
    if inplace is not False:
        adata.obs[obs.columns] = obs
        if not use_raw or len(frame) == adata.n_vars:
            adata.var[var.columns] = var.set_axis(adata.var_names)
    return None if inplace else (obs, var)
