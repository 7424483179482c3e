"""``score_genes`` and ``score_genes_cell_cycle``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _cellmill
from .._calls import old_positionals
from .._crew import workers
from .._matrix import check_adata, is_sparse, matrix_of, seed_of, values_of
from .._report import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


@old_positionals("ctrl_size", "gene_pool", "n_bins", "score_name", "random_state", "copy", "use_raw")
def score_genes(
    adata: AnnData,
    gene_list: Sequence[str] | str,
    *,
    ctrl_as_ref: bool = True,
    ctrl_size: int = 50,
    gene_pool: Sequence[str] | None = None,
    n_bins: int = 25,
    score_name: str = "score",
    random_state: Any = 0,
    copy: bool = False,
    use_raw: bool | None = None,
    layer: str | None = None,
) -> AnnData | None:
    """Scores cells by a set of genes: their mean less that of control genes of like expression.

    Parameters
    ----------
    adata
        Annotated data.
    gene_list
        The genes; those that are not there are left out, with a warning.
    ctrl_as_ref
        Whether genes of the set may be drawn, and are left out afterwards.
    ctrl_size
        Control genes drawn from each bin.
    gene_pool
        Genes that control genes are drawn from; all without.
    n_bins
        Bins of expression.
    score_name
        Column of obs for the score.
    random_state
        Where drawing starts; the same genes as scanpy's are drawn.
    copy
        Whether a changed copy is returned.
    use_raw, layer
        Where values come from; raw, if there is one and no layer is named.

    Returns
    -------
    Sets ``adata.obs[score_name]`` (float64).

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(np.random.default_rng(0).random((20, 80), dtype="float32"))
    >>> cm.tl.score_genes(adata, ["3", "4"], ctrl_size=5, n_bins=5)
    >>> adata.obs["score"].dtype
    dtype('float64')
    """
    check_adata(adata)
    adata = adata.copy() if copy else adata
    if use_raw is None:
        use_raw = adata.raw is not None and layer is None
    gene_list = [gene_list] if isinstance(gene_list, str) else list(gene_list)
    names = adata.raw.var_names if use_raw else adata.var_names
    missing = [gene for gene in gene_list if gene not in names]
    if missing:
        from .._report import logger

        logger.warning("genes are not in var_names and ignored: %s", missing)
    wanted = [gene for gene in dict.fromkeys(gene_list) if gene in names]
    if not wanted:
        msg = "No valid genes were passed for scoring."
        raise ValueError(msg)
    pool = None
    if gene_pool is not None:
        pool = np.flatnonzero(names.isin(list(gene_pool))).tolist()
        if not pool:
            msg = "No valid genes were passed for reference set."
            raise ValueError(msg)
        known = set(gene_pool)
        outside = [gene for gene in wanted if gene not in known]
        if outside:
            msg = f"gene_pool: it lacks {', '.join(outside)}, which gene_list has"
            raise KeyError(msg)
    x = values_of(adata, layer, use_raw=use_raw)
    genes = np.flatnonzero(names.isin(wanted)).tolist()
    draw = dict(ctrl_size=ctrl_size, n_bins=n_bins, ctrl_as_ref=ctrl_as_ref, pool=pool, seed=seed_of(random_state))
    try:
        if _has_gaps(x):
            adata.obs[score_name] = _with_gaps(x, genes, draw)
        else:
            with workers() as crew:
                adata.obs[score_name] = _cellmill.score_genes(matrix_of(x), genes, draw, crew)
    except ValueError as error:
        # scanpy's kind of error.
        if str(error).startswith("No control genes"):
            raise RuntimeError(str(error)) from None
        raise
    say(f"score_genes: {len(wanted)} genes")
    return adata if copy else None


def _has_gaps(x: Any) -> bool:
    """Whether an array in memory has missing values."""
    values = x.data if is_sparse(x) else x if isinstance(x, np.ndarray) else np.empty(0)
    return values.dtype.kind == "f" and bool(np.isnan(values).any())


def _with_gaps(x: Any, genes: list[int], draw: dict[str, Any]) -> np.ndarray:
    """Scores by the means of what is not missing, as scanpy's: `(n_obs,)`."""
    control = _cellmill.control_genes(_means(x, 0), genes, draw)
    x = x.tocsc() if is_sparse(x) else x
    return _means(x[:, genes], 1) - _means(x[:, control], 1)


def _means(x: Any, axis: int) -> np.ndarray:
    """Means of what is not missing."""
    if is_sparse(x):
        gaps, filled = x.copy(), x.copy()
        gaps.data, filled.data = np.isnan(x.data), np.nan_to_num(x.data)
    else:
        gaps, filled = np.isnan(x), np.nan_to_num(x)
    sums, missing = (np.asarray(part.sum(axis=axis, dtype=kind)).ravel() for part, kind in ((filled, np.float64), (gaps, np.int64)))
    with np.errstate(invalid="ignore"):
        return sums / (x.shape[axis] - missing)


@old_positionals()
def score_genes_cell_cycle(adata: AnnData, *, s_genes: Sequence[str], g2m_genes: Sequence[str], copy: bool = False, **kwargs: Any) -> AnnData | None:
    """Scores the phases S and G2M, and names each cell's phase.

    Parameters
    ----------
    adata
        Annotated data.
    s_genes, g2m_genes
        Genes of the two phases.
    copy
        Whether a changed copy is returned.
    **kwargs
        As for :func:`score_genes`, but ``ctrl_size``, which is the smaller set's size.

    Returns
    -------
    Sets ``S_score``, ``G2M_score`` (float64) and ``phase`` (``S``, ``G2M`` or ``G1``) in obs.
    """
    adata = adata.copy() if copy else adata
    size = min(len(s_genes), len(g2m_genes))
    for genes, name in ((s_genes, "S_score"), (g2m_genes, "G2M_score")):
        score_genes(adata, genes, score_name=name, ctrl_size=size, **kwargs)
    s, g2m = adata.obs["S_score"].to_numpy(), adata.obs["G2M_score"].to_numpy()
    phase = np.where(g2m > s, "G2M", "S").astype(object)
    phase[(s < 0) & (g2m < 0)] = "G1"
    adata.obs["phase"] = phase
    return adata if copy else None
