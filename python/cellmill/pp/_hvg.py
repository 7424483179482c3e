"""``highly_variable_genes``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._calls import old_positionals
from .._cellmill import Matrix, highly_variable, highly_variable_pearson, highly_variable_v3, quality
from .._matrix import check_adata, matrix_of, values_of
from .._report import _outside, say

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_DISPERSIONS = ("means", "dispersions", "mean_bin", "dispersions_norm", "highly_variable")


@old_positionals()
def highly_variable_genes(
    adata: AnnData,
    *,
    layer: str | None = None,
    n_top_genes: int | None = None,
    min_disp: float = 0.5,
    max_disp: float = np.inf,
    min_mean: float = 0.0125,
    max_mean: float = 3,
    span: float = 0.3,
    n_bins: int = 20,
    flavor: Literal["seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper", "pearson_residuals"] = "seurat",
    subset: bool = False,
    inplace: bool = True,
    batch_key: str | None = None,
    check_values: bool = True,
    theta: float = 100,
    clip: float | None = None,
    chunksize: int | None = None,
    n_samples: int | None = None,
) -> pd.DataFrame | None:
    """Chooses the genes that vary most; all batches in one pass.

    Parameters
    ----------
    adata
        Cells by genes, `n_obs` × `n_vars`: logarithms for ``seurat`` and ``cell_ranger``, counts for the others.
    layer
        Layer to look at instead of X.
    n_top_genes
        How many; without, the four bounds choose (``seurat_v3``: 2000; ``pearson_residuals`` needs it).
    min_disp, max_disp, min_mean, max_mean
        Strict bounds on the mean and the normalised dispersion.
    span
        Share of the genes in each local fit of ``seurat_v3``.
    n_bins
        Bins of the mean, ``seurat``.
    flavor
        How genes are compared.
    subset
        Whether the other genes are dropped.
    inplace
        Whether columns are written to var; else they are returned.
    batch_key
        Column of obs: genes are chosen in each batch, then joined.
    check_values
        Whether values that are no counts are warned of where counts are expected.
    theta, clip
        Overdispersion and largest residual of ``pearson_residuals``; the root of the number of cells without ``clip``.
    chunksize, n_samples
        Have no meaning.

    Returns
    -------
    A data frame with ``inplace=False``. Else sets the following fields, each `(n_vars,)`:

    ``adata.var['highly_variable']`` : bool
        The choice.
    ``adata.var['means']``, ``['dispersions']``, ``['dispersions_norm']`` : float64, float64, float32
        For ``seurat`` and ``cell_ranger``.
    ``adata.var['variances']``, ``['variances_norm']``, ``['highly_variable_rank']`` : float64, float64, float32
        For ``seurat_v3`` and ``seurat_v3_paper``.
    ``adata.var['variances']``, ``['residual_variances']``, ``['highly_variable_rank']`` : float64, float64, float32
        For ``pearson_residuals``.
    ``adata.var['highly_variable_nbatches']``, ``['highly_variable_intersection']`` : int64, bool
        With ``batch_key``.
    ``adata.uns['hvg']``
        ``{'flavor': flavor}``; for ``pearson_residuals`` also ``computed_on``.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> x = np.random.default_rng(0).poisson(1.0, (100, 400)).astype("float32")
    >>> adata = anndata.AnnData(np.log1p(x))
    >>> cm.pp.highly_variable_genes(adata, n_top_genes=40)
    >>> int(adata.var["highly_variable"].sum())
    40
    """
    import pandas as pd

    check_adata(adata)
    if flavor == "pearson_residuals":
        return _by_residuals(adata, layer, n_top_genes, subset, inplace, batch_key, check_values, theta, clip)
    if n_top_genes is not None and (n_top_genes != int(n_top_genes) or n_top_genes < 1):
        msg = f"n_top_genes: {n_top_genes}, but a number of genes is expected: 1 or more"
        raise ValueError(msg)
    v3 = flavor in ("seurat_v3", "seurat_v3_paper")
    if v3 and n_top_genes is None:
        n_top_genes = 2000
    matrix, batch = _batched(adata, layer, batch_key)
    if v3:
        n_top_genes = min(n_top_genes, matrix.shape[1])  # type: ignore[type-var]
    if not v3 and n_top_genes is not None and n_top_genes > matrix.shape[1]:
        # scanpy chooses all genes then.
        warnings.warn("`n_top_genes` > `adata.n_vars`, returning all genes.", UserWarning, stacklevel=_outside())
        n_top_genes = matrix.shape[1]
    cutoffs = dict(n_top_genes=None if n_top_genes is None else int(n_top_genes), min_mean=min_mean, max_mean=max_mean, min_disp=min_disp, max_disp=max_disp, n_bins=n_bins, span=span)
    if v3:
        if check_values and not _whole(matrix):
            warnings.warn(f"`{flavor=}` expects raw count data, but non-integers were found.", UserWarning, stacklevel=_outside())
        columns, notes = highly_variable_v3(matrix, flavor, cutoffs, batch)
    else:
        base = adata.uns.get("log1p", {}).get("base")
        names = None if batch is None else [str(name) for name in adata.var_names]
        columns, notes = highly_variable(matrix, flavor, cutoffs, base, batch, names)
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=_outside())
    found = pd.DataFrame(columns, index=adata.var_names)
    if not inplace and not v3 and batch is None:
        found.insert(3, "mean_bin", _bins(found["means"], flavor, n_bins))
    return _land(adata, found, {"flavor": flavor}, subset, inplace)


def _whole(matrix: Matrix) -> bool:
    """Whether all values are whole numbers: what quality control has seen, or a pass sees now."""
    return matrix.whole if matrix.whole is not None else quality(matrix, [], [], False)["whole"]


def _by_residuals(
    adata: AnnData, layer: str | None, n_top_genes: int | None, subset: bool, inplace: bool, batch_key: str | None, check_values: bool,
    theta: float, clip: float | None,
) -> pd.DataFrame | None:  # fmt: skip
    """``pearson_residuals``, as in ``scanpy.experimental``."""
    import pandas as pd

    if n_top_genes is None:
        msg = "`pp.highly_variable_genes` requires the argument `n_top_genes` for `flavor='pearson_residuals'`"
        raise ValueError(msg)
    if not theta > 0:
        msg = "Pearson residuals require theta > 0"
        raise ValueError(msg)
    if clip is not None and not clip >= 0:
        msg = "Pearson residuals require `clip>=0` or `clip=None`."
        raise ValueError(msg)
    matrix, batch = _batched(adata, layer, batch_key)
    if check_values and not _whole(matrix):
        text = "`flavor='pearson_residuals'` expects raw count data, but non-integers were found."
        warnings.warn(text, UserWarning, stacklevel=_outside())
    if clip is None:
        # scanpy settles it in the batch whose name comes first, and keeps it for the others.
        n = adata.n_obs if batch_key is None else np.unique(adata.obs[batch_key].to_numpy(), return_counts=True)[1][0]
        clip = float(np.sqrt(n))
    columns, _ = highly_variable_pearson(matrix, min(n_top_genes, adata.n_vars), float(theta), clip, batch)
    if batch is None:
        # Genes of equal variance in the order that numpy gives them, as in scanpy.
        rank = np.argsort(np.argsort(-columns["residual_variances"]))
        columns["highly_variable"] = rank < n_top_genes
        columns["highly_variable_rank"] = np.where(rank < n_top_genes, rank, np.nan).astype(np.float32)
    found = pd.DataFrame(columns, index=adata.var_names)
    return _land(adata, found, {"flavor": "pearson_residuals", "computed_on": layer or "adata.X"}, subset, inplace)


def _land(adata: AnnData, found: pd.DataFrame, said: dict[str, str], subset: bool, inplace: bool) -> pd.DataFrame | None:
    """Puts columns into var, or returns them."""
    say(f"highly_variable_genes: {int(found['highly_variable'].sum())} genes")
    if not inplace:
        found = found[[*_order(found)]]
        return found.loc[found["highly_variable"]] if subset else found
    adata.uns["hvg"] = said
    for name in found:
        adata.var[name] = found[name].to_numpy()
    if subset:
        adata._inplace_subset_var(found["highly_variable"].to_numpy())
    return None


def _bins(means: pd.Series, flavor: str, n_bins: int) -> pd.Series:
    """Bins of the mean in which dispersions are compared."""
    import pandas as pd

    if flavor == "seurat":
        return pd.cut(means, bins=n_bins)
    return pd.cut(means, bins=np.unique(np.r_[-np.inf, np.percentile(means, np.arange(10, 105, 5)), np.inf]))


def _order(found: Any) -> list[str]:
    """Columns as scanpy orders them in a data frame that it returns."""
    first = [name for name in _DISPERSIONS if name in found] if "dispersions" in found else []
    return first + [name for name in found if name not in first]


def _batched(adata: AnnData, layer: str | None, key: str | None) -> tuple[Matrix, np.ndarray | None]:
    """The values, and the batch of each cell in the order of the categories: `(n_obs,)` uint32. Cells without a batch are left out."""
    import pandas as pd

    matrix = matrix_of(values_of(adata, layer))
    if key is None:
        return matrix, None
    if key not in adata.obs:
        msg = f"obs: there is no {key!r}; there are: {', '.join(map(str, adata.obs.columns))}"
        raise KeyError(msg)
    if not adata.is_view:
        # Text becomes categories, as in scanpy.
        adata.strings_to_categoricals()
    column = adata.obs[key]
    if not isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype("category")
    codes = column.cat.remove_unused_categories().cat.codes.to_numpy()
    there = codes >= 0
    if not there.all():
        matrix, codes = matrix.keep_rows(there), codes[there]
    return matrix, codes.astype(np.uint32)
