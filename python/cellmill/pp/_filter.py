"""Verbs that choose cells and genes: ``filter_cells``, ``filter_genes``, ``filter_highly_variable``, ``flag_gene_family``, ``sample``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._calls import old_positionals
from .._cellmill import quality
from .._matrix import actual, check_adata, check_writable, is_dask, is_lazy, is_sparse, matrix_of, seed_of, values_of
from .._report import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


def _bound(**given: float | None) -> tuple[str, float]:
    """The one bound that is given."""
    named = [(name, value) for name, value in given.items() if value is not None]
    if len(named) != 1:
        names = ", ".join(f"`{name}`" for name in given)
        msg = f"Only provide one of the optional parameters {names} per call."
        raise ValueError(msg)
    return named[0]


def _inside(number: np.ndarray, name: str, bound: float) -> np.ndarray:
    return number >= bound if name.startswith("min") else number <= bound


def _by_column(adata: AnnData, frame: str, name: str, low: float | None, high: float | None) -> None:
    """Keeps cells (``'obs'``) or genes (``'var'``) within bounds on a column; quality control is done for a column that it makes."""
    from ._qc import calculate_qc_metrics

    check_adata(adata)
    if name not in getattr(adata, frame):
        obs, var = calculate_qc_metrics(adata, inplace=False, percent_top=None)  # type: ignore[misc]
        made = obs if frame == "obs" else var
        if name not in made:
            msg = f"{frame}: there is no {name!r}; there are: {', '.join(map(str, getattr(adata, frame).columns))}"
            raise KeyError(msg)
        getattr(adata, frame)[name] = made[name]
    values = getattr(adata, frame)[name].to_numpy()
    mask = (values >= (-np.inf if low is None else low)) & (values <= (np.inf if high is None else high))
    say(f"filter: {np.count_nonzero(~mask)} dropped by {name}")
    actual(adata)
    (adata._inplace_subset_obs if frame == "obs" else adata._inplace_subset_var)(mask)


def _as_dask(x: Any, values: np.ndarray, axis: int) -> Any:
    """One value a row (0) or a column (1) of a Dask array, in its chunks."""
    import dask.array as da

    return da.from_array(values, chunks=(x.chunks[axis],))


def _counts(total: np.ndarray, x: Any) -> np.ndarray:
    """Sums in the type that numpy gives sums of ``x``."""
    if np.issubdtype(x.dtype, np.floating):
        return total.astype(x.dtype)
    return total.astype(np.int64)


def _detected(x: Any, found: dict[str, Any]) -> dict[str, Any]:
    """What quality control counts of the values above 0, where ``found`` may have counted others that are not 0."""
    if is_dask(x):
        if found["whole"]:
            return found
        above = x.map_blocks(lambda block: (block > 0).astype(np.float32), dtype=np.float32, meta=x._meta.astype(np.float32))
    else:
        values = x.data if is_sparse(x) else x
        if not isinstance(values, np.ndarray) or not values.size or values.min() >= 0:
            return found
        above = (x > 0).astype(np.float32)
    return quality(matrix_of(above), [], [], False)


@old_positionals()
def filter_cells(
    data: AnnData | Any,
    *,
    min_counts: int | None = None,
    min_genes: int | None = None,
    max_counts: int | None = None,
    max_genes: int | None = None,
    inplace: bool = True,
    copy: bool = False,
    verbose: bool = True,
    qc_var: str | None = None,
    min_count: float | None = None,
    max_count: float | None = None,
) -> Any:
    """Keeps cells within a bound on their counts or genes; bounds are inclusive.

    Parameters
    ----------
    data
        AnnData, or an array of cells by genes.
    min_counts, min_genes, max_counts, max_genes
        The bound; exactly one is given.
    inplace
        Whether ``data`` is cut down; else the mask and the numbers are returned.
    copy
        Whether a changed copy is returned.
    verbose
        Has no meaning.
    qc_var, min_count, max_count
        As in older versions of rapids-singlecell: a column of obs (``n_genes_by_counts`` without) and its bounds, one or both.

    Returns
    -------
    ``(mask, number)`` if ``data`` is an array or ``inplace=False``. Else sets ``adata.obs['n_genes']`` or ``adata.obs['n_counts']`` and
    drops cells.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(np.array([[1, 0], [3, 2]], dtype="float32"))
    >>> cm.pp.filter_cells(adata, min_genes=2)
    >>> adata.obs["n_genes"].tolist()
    [2]
    """
    if qc_var is not None or min_count is not None or max_count is not None:
        return _by_column(data, "obs", qc_var or "n_genes_by_counts", min_count, max_count)
    name, bound = _bound(min_counts=min_counts, min_genes=min_genes, max_counts=max_counts, max_genes=max_genes)
    by_counts = name.endswith("counts")
    is_adata = hasattr(data, "obs")
    if is_adata and inplace:
        check_writable(data.X, "filter_cells")
    adata = data.copy() if copy and is_adata else data
    x = values_of(adata) if is_adata else data
    found = quality(matrix_of(x), [], [], False)
    number = _counts(found["row_total"], x) if by_counts else _detected(x, found)["rows"].get("n_genes_by_counts", np.zeros(0)).astype(np.int64)
    mask = _inside(number, name, bound)
    if is_dask(data):
        return tuple(_as_dask(data, part, 0) for part in (mask, number))
    if not is_adata or not inplace:
        return mask, number
    say(f"filter_cells: {np.count_nonzero(~mask)} cells dropped")
    actual(adata)
    adata.obs["n_counts" if by_counts else "n_genes"] = number
    adata._inplace_subset_obs(mask)
    return adata if copy else None


@old_positionals()
def filter_genes(
    data: AnnData | Any,
    *,
    min_counts: int | None = None,
    min_cells: int | None = None,
    max_counts: int | None = None,
    max_cells: int | None = None,
    inplace: bool = True,
    copy: bool = False,
    verbose: bool = True,
    qc_var: str | None = None,
    min_count: float | None = None,
    max_count: float | None = None,
) -> Any:
    """Keeps genes within a bound on their counts or cells; bounds are inclusive.

    Parameters
    ----------
    data
        AnnData, or an array of cells by genes.
    min_counts, min_cells, max_counts, max_cells
        The bound; exactly one is given.
    inplace
        Whether ``data`` is cut down; else the mask and the numbers are returned.
    copy
        Whether a changed copy is returned.
    verbose
        Has no meaning.
    qc_var, min_count, max_count
        As in older versions of rapids-singlecell: a column of var (``n_cells_by_counts`` without) and its bounds, one or both.

    Returns
    -------
    ``(mask, number)`` if ``data`` is an array or ``inplace=False``. Else sets ``adata.var['n_cells']`` or ``adata.var['n_counts']`` and
    drops genes.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(np.array([[1, 0], [3, 2]], dtype="float32"))
    >>> cm.pp.filter_genes(adata, min_cells=2)
    >>> adata.var_names.tolist()
    ['0']
    """
    if qc_var is not None or min_count is not None or max_count is not None:
        return _by_column(data, "var", qc_var or "n_cells_by_counts", min_count, max_count)
    name, bound = _bound(min_counts=min_counts, min_cells=min_cells, max_counts=max_counts, max_cells=max_cells)
    by_counts = name.endswith("counts")
    is_adata = hasattr(data, "obs")
    if is_adata and inplace:
        check_writable(data.X, "filter_genes")
    adata = data.copy() if copy and is_adata else data
    x = values_of(adata) if is_adata else data
    found = quality(matrix_of(x), [], [], False)
    number = _counts(found["total"], x) if by_counts else _detected(x, found)["n_cells"]
    mask = _inside(number, name, bound)
    if is_dask(data):
        return tuple(_as_dask(data, part, 1) for part in (mask, number))
    if not is_adata or not inplace:
        return mask, number
    say(f"filter_genes: {np.count_nonzero(~mask)} genes dropped")
    actual(adata)
    adata.var["n_counts" if by_counts else "n_cells"] = number
    adata._inplace_subset_var(mask)
    return adata if copy else None


def filter_highly_variable(adata: AnnData) -> None:
    """Keeps the genes that ``highly_variable_genes`` has chosen.

    Parameters
    ----------
    adata
        Annotated data with ``adata.var['highly_variable']``.

    Returns
    -------
    Drops the other genes.

    Examples
    --------
    >>> import anndata, cellmill as cm, pandas as pd
    >>> adata = anndata.AnnData(var=pd.DataFrame({"highly_variable": [True, False]}, index=["CD3D", "ACTB"]))
    >>> cm.pp.filter_highly_variable(adata)
    >>> adata.var_names.tolist()
    ['CD3D']
    """
    check_adata(adata)
    if "highly_variable" not in adata.var:
        msg = "var: there is no 'highly_variable'; run `pp.highly_variable_genes` first"
        raise KeyError(msg)
    actual(adata)
    adata._inplace_subset_var(adata.var["highly_variable"].to_numpy(dtype=bool))


def flag_gene_family(adata: AnnData, *, gene_family_name: str, gene_family_prefix: str | None = None, gene_list: Sequence[str] | None = None) -> None:
    """Marks genes by a prefix of their names or a list of them.

    Parameters
    ----------
    adata
        Annotated data.
    gene_family_name
        The column of var.
    gene_family_prefix
        Prefix of the names.
    gene_list
        The names; used if no prefix is given.

    Returns
    -------
    Sets ``adata.var[gene_family_name]``, bool, `(n_vars,)`.

    Examples
    --------
    >>> import anndata, cellmill as cm, pandas as pd
    >>> adata = anndata.AnnData(var=pd.DataFrame(index=["MT-ND1", "CD3D"]))
    >>> cm.pp.flag_gene_family(adata, gene_family_name="mt", gene_family_prefix="MT-")
    >>> adata.var["mt"].tolist()
    [True, False]
    """
    check_adata(adata)
    names = adata.var_names
    if gene_family_prefix is not None:
        adata.var[gene_family_name] = names.str.startswith(gene_family_prefix).astype(bool)
    else:
        adata.var[gene_family_name] = names.isin(list(gene_list or ()))


def sample(
    data: AnnData | Any,
    fraction: float | None = None,
    *,
    n: int | None = None,
    rng: Any = None,
    random_state: Any = None,
    copy: bool = False,
    replace: bool = False,
    axis: str | int = "obs",
    p: Any = None,
) -> Any:
    """Draws cells or genes at random.

    Parameters
    ----------
    data
        AnnData, or an array of cells by genes.
    fraction, n
        How many are drawn, as a share or a number; one of them is given.
    rng, random_state
        Where random numbers start.
    copy
        Whether a changed copy is returned.
    replace
        Whether one may be drawn twice; then the values of a lazy handle are brought into memory.
    axis
        ``'obs'`` or ``'var'``.
    p
        Probabilities, flags, or a column of obs (var) that holds them.

    Returns
    -------
    ``(array, indices)`` if ``data`` is an array; a copy with ``copy=True``; else ``data`` is cut down. On a lazy handle the order of cells is
    kept.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(np.eye(100, dtype="float32"))
    >>> cm.pp.sample(adata, 0.2, rng=0)
    >>> adata.n_obs
    20
    """
    if axis not in ("obs", 0, "var", 1):
        msg = f"axis: {axis!r}, but it is 'obs' (0) or 'var' (1)"
        raise ValueError(msg)
    over_obs = axis in ("obs", 0)
    if fraction is None and n is None:
        msg = "Either `fraction` or `n` must be set."
        raise TypeError(msg)
    if fraction is not None and n is not None:
        msg = "Providing both `fraction` and `n` is not allowed."
        raise TypeError(msg)
    if fraction is not None and fraction < 0:
        msg = f"`{fraction=}` needs to be nonnegative."
        raise ValueError(msg)
    if fraction is not None and fraction > 1 and not replace:
        msg = f"If `replace=False`, `{fraction=}` needs to be within [0, 1]."
        raise ValueError(msg)
    is_adata = hasattr(data, "obs")
    if is_adata and data.isbacked and not copy:
        # scanpy's error: rows of a file are not dropped in place.
        msg = "Inplace sampling (`copy=False`) is not implemented for backed objects."
        raise NotImplementedError(msg)
    lazy = is_adata and is_lazy(data)
    most = data.shape[0 if over_obs else 1]
    n = int(fraction * most) if n is None else n
    if isinstance(p, str):
        p = (data.obs if over_obs else data.var)[p].to_numpy()
    if p is not None:
        p = np.asarray(p)
        if p.dtype != bool and not np.issubdtype(p.dtype, np.floating):
            msg = f"mask/probabilities array must be boolean or floating point, not {p.dtype}"
            raise ValueError(msg)
        p = p / p.sum() if p.dtype == bool else p.astype(np.float64)
    generator = rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng if rng is not None else seed_of(random_state))
    chosen = generator.choice(most, size=n, replace=replace, p=p)
    if not is_adata:
        return (data[chosen] if over_obs else data[:, chosen]), chosen
    if lazy and not replace:
        chosen = np.sort(chosen)
    part = data[chosen] if over_obs else data[:, chosen]
    if copy:
        return part.to_memory() if data.isbacked else part.copy()
    if data.is_view or lazy:
        data._init_as_actual(part.copy())
        return None
    (data._inplace_subset_obs if over_obs else data._inplace_subset_var)(chosen)
    return None
