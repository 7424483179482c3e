"""``rank_genes_groups``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _cellmill
from .._calls import old_positionals
from .._crew import workers
from .._elements import element
from .._labels import labels_of
from .._matrix import check_adata, mask_of, matrix_of, values_of
from .._report import _outside, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

#: Steps of the values' range for ``wilcoxon_binned``, as in rapids-singlecell.
BINS = 200


@old_positionals(
    "mask_var",
    "use_raw",
    "groups",
    "reference",
    "n_genes",
    "rankby_abs",
    "pts",
    "key_added",
    "copy",
    "method",
    "corr_method",
    "tie_correct",
    "layer",
)
def rank_genes_groups(
    adata: AnnData,
    groupby: str,
    *,
    mask_var: np.ndarray | str | None = None,
    use_raw: bool | None = None,
    groups: str | Sequence[str] = "all",
    reference: str = "rest",
    n_genes: int | None = None,
    rankby_abs: bool = False,
    pts: bool = False,
    key_added: str | None = None,
    copy: bool = False,
    method: str | None = None,
    corr_method: str = "benjamini-hochberg",
    tie_correct: bool = False,
    use_continuity: bool = False,
    return_u_values: bool = False,
    layer: str | None = None,
    mean_in_log_space: bool = True,
    n_bins: int | None = None,
    bin_range: str | None = None,
    chunk_size: int | None = None,
    pre_load: bool = False,
    multi_gpu: Any = None,
    skip_empty_groups: bool = False,
    **kwds: Any,
) -> AnnData | None:
    """Ranks the genes that tell groups of cells apart. Values are expected to be logarithms.

    Parameters
    ----------
    adata
        Annotated data.
    groupby
        Column of obs with the groups.
    mask_var
        Genes that are ranked: a column of var, or flags `(n_vars,)`.
    use_raw
        Whether raw is used; without, if there is raw and no layer is named.
    groups
        Groups that are tested; all with ``'all'``.
    reference
        ``'rest'``, or the group that the others are compared with.
    n_genes
        Genes that are listed for each group; all without.
    rankby_abs
        Whether genes are ordered by the size of the score.
    pts
        Whether the shares of cells that express a gene are added.
    key_added
        Where in uns results go instead of ``rank_genes_groups``.
    copy
        Whether a changed copy is returned.
    method
        ``'t-test'`` (default), ``'t-test_overestim_var'``, ``'wilcoxon'``, ``'wilcoxon_binned'`` or ``'logreg'``.
    corr_method
        ``'benjamini-hochberg'`` or ``'bonferroni'``.
    tie_correct
        Whether ties lower the variance of rank sums.
    use_continuity
        Whether rank sums are brought half a rank nearer to what is expected, as ``scipy.stats.mannwhitneyu`` does.
    return_u_values
        Whether scores of ``'wilcoxon'`` are Mann and Whitney's U, not z.
    layer
        Layer to use instead of X.
    mean_in_log_space
        Whether fold changes are of means of logarithms, as in scanpy 1. Else they, and t-tests, are of means of the values before the logarithm,
        which costs ``'wilcoxon'`` a further pass.
    n_bins
        Bins of ``wilcoxon_binned``; 200 without.
    bin_range, chunk_size, pre_load, multi_gpu
        Have no meaning: bins span the values that there are, and genes are streamed.
    skip_empty_groups
        Whether groups of fewer than two cells are left out; else they are an error.
    **kwds
        Options of the regression: ``C``, ``tol``, ``max_iter``.

    Returns
    -------
    Sets the following fields:

    ``adata.uns['rank_genes_groups']``
        Records ``names``, ``scores``, ``pvals``, ``pvals_adj``, ``logfoldchanges`` with one field a group, best gene first; data frames ``pts`` and
        ``pts_rest`` `(n_vars, groups)` if asked for; ``params``.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> x = np.random.default_rng(0).poisson(1, (60, 5)).astype("float32")
    >>> x[:30, 3] += 4
    >>> adata = anndata.AnnData(np.log1p(x), obs={"kind": ["a"] * 30 + ["b"] * 30})
    >>> cm.tl.rank_genes_groups(adata, "kind", method="wilcoxon")
    >>> str(adata.uns["rank_genes_groups"]["names"]["a"][0])
    '3'
    """
    check_adata(adata)
    raw = adata.raw
    if use_raw is None:
        use_raw = raw is not None and layer is None
    if groupby not in adata.obs:
        msg = f"groupby: there is no {groupby!r} in obs; there are: {', '.join(adata.obs)}"
        raise KeyError(msg)
    method = method or "t-test"
    known = ("logreg", "t-test", "wilcoxon", "t-test_overestim_var", "wilcoxon_binned")
    if method not in known:
        msg = f"Method must be one of {known}."
        raise ValueError(msg)
    corrections = ("benjamini-hochberg", "bonferroni")
    if corr_method not in corrections:
        msg = f"corr_method must be either {' or '.join(map(repr, corrections))}, but it was {corr_method!r}"
        raise ValueError(msg)
    if chunk_size is not None and chunk_size < 1:
        msg = f"chunk_size must be a positive integer, but it was {chunk_size}"
        raise ValueError(msg)
    if return_u_values and method != "wilcoxon":
        msg = "return_u_values is only supported for method='wilcoxon'."
        raise ValueError(msg)
    adata = adata.copy() if copy else adata
    if adata.is_view:
        adata._init_as_actual(adata.copy())
    # Text becomes categories, as scanpy makes it.
    adata.strings_to_categoricals()
    codes, names = labels_of(adata.obs, groupby)
    # Categories may be numbers.
    given, reference = reference, str(reference)
    if reference != "rest" and reference not in names:
        msg = f"reference = {reference} needs to be one of groupby = {names}."
        raise ValueError(msg)
    wanted = names if isinstance(groups, str) and groups == "all" else [str(g) for g in groups]
    if isinstance(groups, str) and groups != "all":
        msg = "Specify a sequence of groups"
        raise ValueError(msg)
    unknown = [g for g in wanted if g not in names]
    if unknown:
        msg = f"groups: {', '.join(map(repr, unknown))}, but {groupby} has {', '.join(map(repr, names))}"
        raise ValueError(msg)
    if reference != "rest" and reference not in wanted:
        wanted = [*wanted, reference]
    few = [name for name, n in zip(names, np.bincount(codes[codes >= 0], minlength=len(names)), strict=True) if n < 2 and name in wanted]
    if skip_empty_groups:
        if reference in few:
            msg = f"reference = {reference} has fewer than two samples"
            raise ValueError(msg)
        wanted = [g for g in wanted if g not in few]
        if not wanted:
            msg = "No groups with at least two samples remain"
            raise ValueError(msg)
    elif few:
        hint = "skip_empty_groups=True leaves out groups of fewer than two samples."
        msg = f"Could not calculate statistics for groups {', '.join(few)} since they only contain one sample. {hint}"
        raise ValueError(msg)
    matrix = matrix_of(values_of(adata, layer, use_raw=use_raw))
    var = adata.raw.var if use_raw else adata.var
    genes = np.asarray(var.index, dtype=str)
    if mask_var is not None:
        # Where raw has X's genes, the mask is one of var, as in scanpy.
        mask = mask_of(adata.var if len(var) == adata.n_vars else var, mask_var, "var")
        matrix, genes = matrix.keep_columns(mask), genes[mask]
    if "return_format" in kwds:
        msg = "return_format has been removed: results are records, one field a group"
        raise TypeError(msg)
    unnatural = set(kwds) - {"C", "tol", "max_iter"}
    if unnatural:
        msg = f"rank_genes_groups() got an unexpected keyword argument {sorted(unnatural)[0]!r}"
        raise TypeError(msg)
    base = adata.uns.get("log1p", {}).get("base")
    binned = method == "wilcoxon_binned"
    if binned and "log1p" not in adata.uns:
        warnings.warn("wilcoxon_binned expects log-normalized data (adata.uns['log1p'] not found).", UserWarning, stacklevel=_outside())
    # In the order in which they were named.
    places = list(dict.fromkeys(names.index(g) for g in wanted))
    ask = dict(
        method="wilcoxon" if binned else method, groupby=groupby, groups=places,
        reference=None if reference == "rest" else names.index(reference), n_genes=n_genes, rankby_abs=rankby_abs, pts=pts,
        corr_method=corr_method, tie_correct=tie_correct, use_continuity=use_continuity, return_u_values=return_u_values,
        mean_in_log_space=mean_in_log_space, n_bins=(n_bins or BINS) if binned else None, log_base=base, use_raw=bool(use_raw),
        layer=layer, c=float(kwds.get("C", 1.0)), tol=float(kwds.get("tol", 1e-4)), max_iter=int(kwds.get("max_iter", 100)),
        order=_best_first,
    )  # fmt: skip
    result: dict[str, Any] = {}
    # Where groups were left out, the reference may be all that is left.
    if not skip_empty_groups or set(wanted) - {reference}:
        with workers() as crew:
            found, said = _cellmill.rank_genes_groups(matrix, codes, names, genes.tolist(), ask, crew)
        for text in said:
            warnings.warn(text, UserWarning, stacklevel=_outside())
        result = element(found)
    params = dict(groupby=groupby, reference=given, method=method, use_raw=bool(use_raw), layer=layer, corr_method=corr_method)
    if method == "wilcoxon":
        params["tie_correct"] = tie_correct
    if not mean_in_log_space:
        params["mean_in_log_space"] = False
    if return_u_values:
        params["return_u_values"] = True
    adata.uns[key_added or "rank_genes_groups"] = {**result, "params": params}
    say(f"rank_genes_groups: {len(wanted)} groups of {groupby}")
    return adata if copy else None


def _best_first(scores: np.ndarray, count: int) -> np.ndarray:
    """Places of the best genes; those of equal score in the order that numpy gives them, as in scanpy."""
    if count == 0:
        return np.zeros(0, np.uint32)
    best = np.argpartition(scores, -count)[-count:]
    return best[np.argsort(scores[best])[::-1]].astype(np.uint32)


def rank_genes_groups_logreg(
    adata: AnnData,
    groupby: str,
    *,
    groups: str | Sequence[str] = "all",
    use_raw: bool | None = None,
    reference: str = "rest",
    n_genes: int | None = None,
    key_added: str | None = None,
    layer: str | None = None,
    **kwds: Any,
) -> None:
    """Ranks genes by a logistic regression: :func:`rank_genes_groups` with ``method="logreg"``, by rapids-singlecell's name.

    Parameters
    ----------
    adata, groupby, groups, use_raw, reference, n_genes, key_added, layer, **kwds
        As for :func:`rank_genes_groups`.
    """
    rank_genes_groups(
        adata, groupby, groups=groups, use_raw=use_raw, reference=reference, n_genes=n_genes, key_added=key_added, layer=layer, method="logreg",
        **kwds,
    )  # fmt: skip
