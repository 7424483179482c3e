"""Violins of values, by groups of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._labels import categories_of
from ._axes import finish, grid
from ._column import column
from ._palette import category_colors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes

#: Dots that are drawn in a violin at most: more hide it and take long.
DOTS = 5000
#: Values that the outline of a violin is estimated from at most.
SAMPLE = 50_000


def violin(
    adata: AnnData,
    keys: str | Sequence[str],
    groupby: str | None = None,
    *,
    log: bool = False,
    use_raw: bool | None = None,
    stripplot: bool = True,
    jitter: float | bool = True,
    size: float = 1,
    layer: str | None = None,
    order: Sequence[str] | None = None,
    rotation: float | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
) -> Axes | list[Axes]:
    """Draws violins of columns of obs or of genes.

    Parameters
    ----------
    adata
        Annotated data.
    keys
        Columns of obs or names of genes, an axes each.
    groupby
        Column of obs: a violin for each of its categories.
    log
        Whether the values' axis is logarithmic.
    use_raw, layer
        Where a gene's values come from.
    stripplot, jitter, size
        Whether cells are drawn as dots (at most 5,000 a violin), their spread and size.
    order
        Categories to draw, in this order.
    rotation
        Angle of the categories' names.
    ax
        Axes to draw on, for a single key.
    show, save
        Whether the figure is shown now, and where it is saved.

    Returns
    -------
    The axes, or a list of them for several keys.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(obs={"total_counts": np.arange(50.0), "kind": ["a", "b"] * 25})
    >>> cm.pl.violin(adata, "total_counts", groupby="kind").get_ylabel()
    'total_counts'
    """
    names = [keys] if isinstance(keys, str) else list(keys)
    if ax is not None and len(names) > 1:
        msg = f"ax: one axes for {len(names)} keys, but one key is expected"
        raise ValueError(msg)
    if groupby is not None and groupby not in adata.obs:
        msg = f"groupby: there is no {groupby!r} in obs; there are: {', '.join(adata.obs)}"
        raise KeyError(msg)
    groups = None if groupby is None else categories_of(adata.obs[groupby])
    labels = None if groups is None else list(groups.categories)
    chosen = labels if order is None else list(order)
    unknown = [c for c in chosen or [] if labels is not None and c not in labels]
    if unknown:
        msg = f"order: {', '.join(map(repr, unknown))}, but {groupby} has {', '.join(map(repr, labels or []))}"
        raise ValueError(msg)
    width = 3.2 if chosen is None else max(3.2, 0.45 * len(chosen) + 1)
    # Names that stand upright take room below.
    below = 0.07 * max((len(str(c)) for c in chosen or []), default=0) if rotation else 0
    panels = [ax] if ax is not None else grid(len(names), 4, width, 3.4 + below)
    for panel, name in zip(panels, names, strict=True):
        values = column(adata, name, layer=layer, use_raw=use_raw).to_numpy(dtype=np.float64, na_value=np.nan)
        if groups is None or chosen is None or labels is None or groupby is None:
            sets, colors = [values], ["#1f77b4"]
            panel.set_xticks([])
            panel.set_xlabel(name)
            panel.set_ylabel("value")
        else:
            sets = [values[groups.codes == labels.index(c)] for c in chosen]
            table = category_colors(adata, groupby, labels, None)
            colors = [table[labels.index(c)] for c in chosen]
            panel.set_xticks(range(len(chosen)), [str(c) for c in chosen], rotation=rotation or 0)
            panel.set_ylabel(name)
        if log:
            panel.set_yscale("log")
        for i, (part, color) in enumerate(zip(sets, colors, strict=True)):
            _one(panel, i, part[np.isfinite(part)], color, float(0.4 if jitter is True else jitter) if stripplot else None, size)
    return finish(panels, show=show, save=save, name="violin")


def _one(ax: Axes, at: int, values: np.ndarray, color: str, jitter: float | None, size: float) -> None:
    """One violin: the outline, cut at the extremes, and some of the cells."""
    if not len(values):
        return
    rng = np.random.default_rng(0)
    some = values if len(values) <= SAMPLE else rng.choice(values, SAMPLE, replace=False)
    if np.ptp(some) > 0:
        bodies: Any = ax.violinplot([some], [at], widths=0.8, showextrema=False)["bodies"]
        for body in bodies:
            body.set(facecolor=color, edgecolor="black", linewidth=0.8, alpha=1)
    else:
        ax.hlines(values[0], at - 0.4, at + 0.4, color=color)
    if jitter is not None:
        dots = values if len(values) <= DOTS else rng.choice(values, DOTS, replace=False)
        x = at + rng.uniform(-jitter / 2, jitter / 2, len(dots))
        ax.scatter(x, dots, s=size, c="black", linewidths=0, rasterized=True, zorder=3)
