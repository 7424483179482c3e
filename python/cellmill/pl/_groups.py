"""Marker genes: scores of each group's best, and dots for groups by genes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._labels import categories_of
from ._axes import finish, grid, new_figure
from ._column import genes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes

#: Area in points² of the dot of a gene that all cells of a group express.
LARGEST = 120.0


def rank_genes_groups(
    adata: AnnData,
    groups: str | Sequence[str] | None = None,
    *,
    n_genes: int = 20,
    key: str = "rank_genes_groups",
    fontsize: float = 8,
    ncols: int = 4,
    sharey: bool = True,
    show: bool | None = None,
    save: str | bool | None = None,
) -> Axes | list[Axes]:
    """Draws the scores of each group's best marker genes, with their names.

    Parameters
    ----------
    adata
        Annotated data after ``tl.rank_genes_groups``.
    groups
        Groups to draw; all without.
    n_genes
        Genes a group.
    key
        Where the results are in uns.
    fontsize
        Size of the genes' names in points.
    ncols
        Panels side by side.
    sharey
        Whether all panels have one scale.
    show, save
        Whether the figure is shown now, and where it is saved.

    Returns
    -------
    The axes, or a list of them for several groups.
    """
    found = _ranked(adata, key)
    names = list(found["names"].dtype.names)
    wanted = names if groups is None else [groups] if isinstance(groups, str) else list(groups)
    unknown = [g for g in wanted if g not in names]
    if unknown:
        msg = f"groups: {', '.join(map(repr, unknown))}, but {key} has {', '.join(map(repr, names))}"
        raise ValueError(msg)
    panels = grid(len(wanted), ncols, 3.2, 3)
    scores = {g: np.asarray(found["scores"][g][:n_genes], dtype=np.float64) for g in wanted}
    finite = np.concatenate([s[np.isfinite(s)] for s in scores.values()]) if wanted else np.empty(0)
    for panel, group in zip(panels, wanted, strict=True):
        for i, (gene, score) in enumerate(zip(found["names"][group][:n_genes], scores[group], strict=False)):
            panel.text(i, score, str(gene), rotation="vertical", va="bottom", ha="center", fontsize=fontsize)
        mine = finite if sharey else scores[group][np.isfinite(scores[group])]
        low, high = (mine.min(), mine.max()) if len(mine) else (0.0, 1.0)
        room = (high - low) * 0.35 or 1.0
        panel.set(xlim=(-0.9, n_genes - 0.1), ylim=(low - 0.05 * room, high + room))
        panel.set(title=f"{group} vs. {found['params']['reference']}", xlabel="ranking", ylabel="score")
    return finish(panels, show=show, save=save, name="rank_genes_groups")


def _ranked(adata: AnnData, key: str) -> Any:
    if key not in adata.uns:
        msg = f"{key}: there is none in uns; run tl.rank_genes_groups first"
        raise KeyError(msg)
    return adata.uns[key]


def dotplot(
    adata: AnnData,
    var_names: str | Sequence[str] | Mapping[str, Sequence[str]],
    groupby: str,
    *,
    use_raw: bool | None = None,
    layer: str | None = None,
    expression_cutoff: float = 0.0,
    mean_only_expressed: bool = False,
    standard_scale: str | None = None,
    cmap: str = "Reds",
    vmin: float | None = None,
    vmax: float | None = None,
    swap_axes: bool = False,
    show: bool | None = None,
    save: str | bool | None = None,
) -> Axes | list[Axes]:
    """Draws a dot for each group and gene: its size is the share of cells that express the gene, its colour the mean.

    Parameters
    ----------
    adata
        Annotated data.
    var_names
        Genes, or a mapping of labels to genes.
    groupby
        Column of obs with the groups.
    use_raw, layer
        Where values come from; as in scanpy raw, if there is one.
    expression_cutoff
        A gene is expressed in a cell where its value is larger.
    mean_only_expressed
        Whether the mean is that of the cells that express the gene.
    standard_scale
        ``'var'`` or ``'group'``: means are shifted and scaled to 0…1 over the groups or over the genes.
    cmap, vmin, vmax
        Colour map and its ends.
    swap_axes
        Whether genes are rows.
    show, save
        Whether the figure is shown now, and where it is saved.

    Returns
    -------
    The axes of the dots.
    """
    if isinstance(var_names, Mapping):
        labels = {label: [names] if isinstance(names, str) else list(names) for label, names in var_names.items()}
        names = [name for part in labels.values() for name in part]
    else:
        labels, names = {}, [var_names] if isinstance(var_names, str) else list(var_names)
    if groupby not in adata.obs:
        msg = f"groupby: there is no {groupby!r} in obs; there are: {', '.join(adata.obs)}"
        raise KeyError(msg)
    share, mean = group_means(adata, names, groupby, use_raw, layer, expression_cutoff, only_expressed=mean_only_expressed)
    if standard_scale == "var":
        mean = ((mean - mean.min()) / (mean.max() - mean.min())).fillna(0)
    elif standard_scale == "group":
        mean = mean.sub(mean.min(axis=1), axis=0).div(mean.max(axis=1) - mean.min(axis=1), axis=0).fillna(0)
    elif standard_scale is not None:
        msg = f"standard_scale: {standard_scale!r}, but 'var', 'group' or None are expected"
        raise ValueError(msg)
    return _dots(share, mean, labels, (cmap, vmin, vmax), swap_axes, show, save)


def group_means(adata: AnnData, names: Sequence[str], groupby: str, use_raw: bool | None, layer: str | None, cutoff: float, *, only_expressed: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Share of cells that express each gene, and mean of its values, by group: two frames `(groups, genes)`."""
    values = genes(adata, list(dict.fromkeys(names)), layer=layer, use_raw=use_raw)
    groups = categories_of(adata.obs[groupby])
    seen = values > cutoff
    by = {"by": np.asarray(groups.codes), "sort": True}
    share = seen.groupby(**by).mean()
    mean = values.where(seen).groupby(**by).mean().fillna(0) if only_expressed else values.groupby(**by).mean()
    there = [code for code in share.index if code >= 0]
    share, mean = share.loc[there], mean.loc[there]
    share.index = mean.index = [groups.categories[code] for code in there]
    return share[list(names)], mean[list(names)]


def _dots(share: pd.DataFrame, mean: pd.DataFrame, labels: dict[str, list[str]], scale: tuple[str, Any, Any], swap: bool, show: bool | None, save: Any) -> Any:
    groups, names = [str(g) for g in share.index], list(share.columns)
    x, y = np.meshgrid(np.arange(len(names)), np.arange(len(groups)))
    rows, columns = groups, names
    if swap:
        x, y, rows, columns = y, x, names, groups
    figure = new_figure(0.32 * len(columns) + 3.2, 0.32 * len(rows) + 1.6)
    panel, side = figure.subplots(1, 2, width_ratios=[max(1.0, 0.32 * len(columns)), 1.3])
    low, high = scale[1], scale[2]
    dots = panel.scatter(x, y, s=share.to_numpy() * LARGEST, c=mean.to_numpy(), cmap=scale[0], vmin=low, vmax=high, edgecolors="black", linewidths=0.3)
    panel.set_xticks(range(len(columns)), columns, rotation=90)
    panel.set_yticks(range(len(rows)), rows)
    panel.set(xlim=(-0.6, len(columns) - 0.4), ylim=(len(rows) - 0.4, -0.6))
    at = 0
    upright = any(len(label) >= 4 * len(part) for label, part in labels.items())
    for label, part in labels.items():
        middle, ends = at + (len(part) - 1) / 2, (at - 0.3, at + len(part) - 0.7)
        if swap:
            panel.plot([len(columns) - 0.3] * 2, ends, color="black", linewidth=1, clip_on=False)
            panel.text(len(columns) - 0.1, middle, label, va="center", ha="left")
        else:
            panel.plot(ends, [-0.75, -0.75], color="black", linewidth=1, clip_on=False)
            panel.text(middle, -0.95, label, va="bottom", ha="center", rotation=90 if upright else 0)
        at += len(part)
    side.set_axis_off()
    figure.colorbar(dots, ax=side, label="mean expression", location="right", fraction=0.3)
    for percent in (20, 40, 60, 80, 100):
        side.scatter([], [], s=percent / 100 * LARGEST, c="gray", edgecolors="black", linewidths=0.3, label=f"{percent} %")
    side.legend(title="cells", frameon=False, loc="center left", labelspacing=1)
    return finish([panel], show=show, save=save, name="dotplot")


def rank_genes_groups_dotplot(adata: AnnData, groups: Sequence[str] | None = None, *, n_genes: int = 10, groupby: str | None = None, key: str = "rank_genes_groups", **options: Any) -> Axes | list[Axes]:
    """:func:`dotplot` of each group's best marker genes.

    Parameters
    ----------
    adata
        Annotated data after ``tl.rank_genes_groups``.
    groups
        Groups whose genes are drawn; all without.
    n_genes
        Genes a group.
    groupby
        Column of obs; that of the ranking without.
    key
        Where the results are in uns.
    **options
        As for :func:`dotplot`.
    """
    found = _ranked(adata, key)
    wanted = list(found["names"].dtype.names) if groups is None else list(groups)
    best = {group: [str(name) for name in found["names"][group][:n_genes]] for group in wanted}
    return dotplot(adata, best, groupby or found["params"]["groupby"], **options)
