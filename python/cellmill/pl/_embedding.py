"""Cells on an embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._labels import categories_of
from .._matrix import home, mask_of
from ._axes import finish, grid
from ._column import column, is_categorical
from ._dots import DPI, MANY, paint
from ._palette import MISSING, category_colors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes

#: Inches of a panel, and of the room for a legend beside it.
PANEL, LEGEND = 4.0, 1.4
#: scanpy's area of all dots together, in points².
AREA = 120_000


def embedding(
    adata: AnnData,
    basis: str,
    *,
    color: str | Sequence[str] | None = None,
    layer: str | None = None,
    use_raw: bool | None = None,
    dimensions: tuple[int, int] | Sequence[tuple[int, int]] | None = None,
    components: str | Sequence[str] | None = None,
    mask_obs: np.ndarray | str | None = None,
    groups: str | Sequence[str] | None = None,
    size: float | None = None,
    alpha: float | None = None,
    palette: str | Sequence[str] | Mapping[Any, str] | None = None,
    cmap: Any = None,
    color_map: Any = None,
    vmin: float | str | None = None,
    vmax: float | str | None = None,
    vcenter: float | str | None = None,
    norm: Any = None,
    sort_order: bool = True,
    legend_loc: str | None = "right margin",
    legend_fontsize: float | None = None,
    legend_fontweight: str | int | None = None,
    legend_fontoutline: float | None = None,
    colorbar_loc: str | None = "right",
    na_in_legend: bool = True,
    title: str | Sequence[str] | None = None,
    ncols: int = 4,
    frameon: bool | None = None,
    na_color: str = MISSING,
    marker: str = ".",
    return_fig: bool | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    **others: Any,
) -> Any:
    """Draws cells where an embedding has placed them, a panel for each colour.

    Up to 100,000 cells are markers; more are painted into a picture under the axes, two million in about two seconds.

    Parameters
    ----------
    adata
        Annotated data.
    basis
        Name in obsm, with or without ``X_``.
    color
        Columns of obs or names of genes.
    layer, use_raw
        Where a gene's values come from; as in scanpy raw, if there is one.
    dimensions, components
        Which two columns of the embedding: from 0, or as text from 1 (``"1,2"``); or a pair for each panel.
    mask_obs
        Cells that are coloured, as flags or a column of obs; all others are drawn as missing.
    groups
        Categories that keep their colour; all others are drawn as missing.
    size
        Area of a dot in points², as matplotlib counts it; 120,000 divided by the number of cells without.
    alpha
        Opacity, from 0 to 1.
    palette
        Colours of categories: a colour map, a list, or a mapping.
    cmap, color_map, vmin, vmax, vcenter, norm
        Colour map of numbers (``viridis`` without), its ends and its middle, ``"p99"`` is a percentile; or a norm of matplotlib.
    sort_order
        Whether cells with large values are drawn last, over the others.
    legend_loc
        ``'right margin'``, ``'on data'`` or ``None``.
    legend_fontsize, legend_fontweight, legend_fontoutline
        Size of the legend's text in points; weight, and width of the outline, of names on the data.
    colorbar_loc
        ``'right'`` or ``None``.
    na_in_legend
        Whether the legend has missing values.
    title
        Titles of the panels; the colours' names without.
    ncols
        Panels side by side.
    frameon
        Whether axes are drawn.
    na_color
        Colour of missing values.
    marker
        Marker of matplotlib.
    return_fig
        Whether the figure is returned instead of its axes.
    ax
        Axes to draw on, for a single colour.
    show, save
        Whether the figure is shown now, and where it is saved.
    **others
        Words of scanpy: spaces between panels have no meaning; what is not drawn here (edges, arrows, outlines, 3d) is an error.

    Returns
    -------
    The axes, or a list of them for several colours. Colours of categories are kept in ``uns['{color}_colors']``.

    Examples
    --------
    >>> import anndata, cellmill as cm, numpy as np
    >>> adata = anndata.AnnData(obs={"kind": ["a", "b"] * 20}, obsm={"X_umap": np.random.default_rng(0).normal(size=(40, 2))})
    >>> cm.pl.embedding(adata, "umap", color="kind").get_title()
    'kind'
    """
    _check_words(others)
    cmap = cmap or color_map or "viridis"
    pairs = _pairs(dimensions, components)
    shown = None if mask_obs is None else mask_of(adata.obs, mask_obs, "obs")
    colors = [None] if color is None else [color] if isinstance(color, str) else list(color)
    if len(colors) != len(pairs) and min(len(colors), len(pairs)) != 1:
        msg = f"dimensions: {len(pairs)} pairs, but there are {len(colors)} colours; one of either, or as many"
        raise ValueError(msg)
    n = max(len(colors), len(pairs))
    colors = colors * n if len(colors) == 1 else colors
    pairs = pairs * n if len(pairs) == 1 else pairs
    places = [_places(adata, basis, pair) for pair in pairs]
    titles = [title] * len(colors) if title is None or isinstance(title, str) else list(title)
    if ax is not None and len(colors) > 1:
        msg = f"ax: one axes for {len(colors)} panels, but one colour is expected"
        raise ValueError(msg)
    panels = [ax] if ax is not None else grid(len(colors), ncols, PANEL + LEGEND, PANEL)
    size = AREA / max(1, adata.n_obs) if size is None else size
    for panel, name, heading, pair, (key, xy) in zip(panels, colors, titles, pairs, places, strict=True):
        label = key.removeprefix("X_").upper() if key == "X_umap" else key.removeprefix("X_")
        label = {"pca": "PC"}.get(label, label)
        panel.set(xticks=[], yticks=[], title=heading if heading is not None else name or "")
        panel.set_xlabel(f"{label}{pair[0] + 1}")
        panel.set_ylabel(f"{label}{pair[1] + 1}")
        panel.set_frame_on(frameon is not False)
        if frameon is False:
            panel.set(xlabel="", ylabel="")
        rgba, order, legend = _colours(
            adata, name, layer, use_raw, groups, palette, (cmap, norm, vmin, vcenter, vmax), na_color, sort_order, len(xy), shown
        )  # fmt: skip
        _draw(panel, xy[order], rgba[order], size, alpha, marker)
        if isinstance(legend, _Legend):
            legend.draw(panel, xy, legend_loc, legend_fontsize, legend_fontweight, legend_fontoutline, na_color if na_in_legend else None)
        elif legend is not None and colorbar_loc is not None:
            legend(panel)
    drawn = finish(panels, show=show, save=save, name=basis)
    return panels[0].get_figure(root=True) if return_fig else drawn


#: Words of scanpy for what is not drawn here, and what they say where nothing is wanted.
_NOT_DRAWN = {"edges": False, "arrows": False, "add_outline": False, "projection": "2d", "gene_symbols": None}
#: Words without a meaning here.
_NO_MEANING = {"hspace", "wspace", "scale_factor", "edges_width", "edges_color", "neighbors_key", "arrows_kwds", "outline_width", "outline_color"}


def _check_words(others: dict[str, Any]) -> None:
    for word, value in others.items():
        if word in _NO_MEANING or (word in _NOT_DRAWN and value in (None, _NOT_DRAWN[word])):
            continue
        if word in _NOT_DRAWN:
            msg = f"{word}: {value!r}, but this is not drawn here; scanpy.pl.embedding draws it"
            raise ValueError(msg)
        msg = f"embedding() got an unexpected keyword argument {word!r}"
        raise TypeError(msg)


def umap(adata: AnnData, **options: Any) -> Axes | list[Axes]:
    """Draws cells on their UMAP layout; options are those of :func:`embedding`.

    Parameters
    ----------
    adata
        Annotated data with ``obsm['X_umap']``.
    **options
        As for :func:`embedding`.
    """
    return embedding(adata, "umap", **options)


def pca(adata: AnnData, **options: Any) -> Axes | list[Axes]:
    """Draws cells on their first two principal components; options are those of :func:`embedding`.

    Parameters
    ----------
    adata
        Annotated data with ``obsm['X_pca']``.
    **options
        As for :func:`embedding`.
    """
    return embedding(adata, "pca", **options)


def _pairs(dimensions: Any, components: str | Sequence[str] | None) -> list[tuple[int, int]]:
    """Two columns of the embedding for each panel, from 0."""
    if dimensions is not None:
        pairs = [dimensions] if isinstance(dimensions[0], int | np.integer) else dimensions
        return [(int(first), int(second)) for first, second in pairs]
    texts = ["1,2"] if components is None else [components] if isinstance(components, str) else components
    return [(int(first) - 1, int(second) - 1) for first, second in (text.split(",") for text in texts)]


def _places(adata: AnnData, basis: str, dimensions: tuple[int, int]) -> tuple[str, np.ndarray]:
    """The embedding's name in obsm and its two columns, float64: `(n_obs, 2)`."""
    key = basis if basis in adata.obsm else f"X_{basis}"
    if key not in adata.obsm:
        msg = f"Could not find {basis!r} or {key!r} in .obsm; there are: {', '.join(adata.obsm)}"
        raise KeyError(msg)
    whole = home(adata.obsm[key])
    whole = whole.to_numpy() if hasattr(whole, "to_numpy") else whole
    if max(dimensions) >= whole.shape[1]:
        msg = f"dimensions: {max(dimensions)}, but {key} has {whole.shape[1]} (0 to {whole.shape[1] - 1})"
        raise ValueError(msg)
    return key, np.asarray(whole[:, list(dimensions)], dtype=np.float64)


def _colours(
    adata: AnnData, name: str | None, layer: str | None, use_raw: bool | None, groups: Any, palette: Any, scale: tuple[Any, ...],
    na_color: str, sort_order: bool, n: int, shown: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, Any]:  # fmt: skip
    """Colour of each cell `(n, 4)`, the order in which cells are drawn, and what draws the legend."""
    from matplotlib.colors import to_rgba_array

    missing = to_rgba_array([na_color])[0]
    if name is None:
        return np.tile(missing, (n, 1)), np.arange(n), None
    values = column(adata, name, layer=layer, use_raw=use_raw)
    if is_categorical(values):
        categories = categories_of(values)
        names = list(categories.categories)
        table = to_rgba_array(category_colors(adata, name, names, palette)) if names else np.empty((0, 4))
        codes = np.asarray(categories.codes).astype(np.int64)
        if shown is not None:
            codes[~shown] = -1
        if groups is not None:
            wanted = {groups} if isinstance(groups, str) else set(groups)
            unknown = wanted - set(names)
            if unknown:
                msg = f"groups: {', '.join(sorted(map(repr, unknown)))}, but {name} has {', '.join(map(repr, names))}"
                raise ValueError(msg)
            codes[~np.isin(codes, [i for i, c in enumerate(names) if c in wanted])] = -1
        rgba = np.vstack([table, missing])[codes]
        # Missing below, the rest in an order that favours no category.
        order = np.random.default_rng(0).permutation(n)
        order = order[np.argsort(codes[order] >= 0, kind="stable")]
        kept = [i for i in range(len(names)) if groups is None or names[i] in wanted]
        return rgba, order, _Legend(codes, kept, names, table)
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    if shown is not None:
        numbers = np.where(shown, numbers, np.nan)
    return _numbers(numbers, scale, missing, sort_order)


def _numbers(numbers: np.ndarray, scale: tuple[Any, ...], missing: np.ndarray, sort_order: bool) -> tuple[np.ndarray, np.ndarray, Any]:
    import matplotlib as mpl

    cmap, norm, vmin, vcenter, vmax = scale
    finite = np.isfinite(numbers)
    least, most = (_end(e, numbers[finite], low) for e, low in ((vmin, True), (vmax, False)))
    if norm is None and vcenter is not None:
        middle = _end(vcenter, numbers[finite], True)
        norm = mpl.colors.TwoSlopeNorm(middle, min(least, middle - 1e-9), max(most, middle + 1e-9))
    norm = norm or mpl.colors.Normalize(least, most)
    table = mpl.colormaps[cmap] if isinstance(cmap, str) else cmap
    rgba = table(norm(np.where(finite, numbers, least)))
    rgba[~finite] = missing
    order = np.argsort(np.where(finite, numbers, -np.inf), kind="stable") if sort_order else np.argsort(finite, kind="stable")

    def bar(ax: Axes) -> None:
        ax.figure.colorbar(mpl.cm.ScalarMappable(norm, table), cax=ax.inset_axes((1.02, 0, 0.04, 1)))

    return rgba, order, bar


def _end(end: float | str | None, numbers: np.ndarray, low: bool) -> float:
    """An end of the colour map: a number, a percentile, or the data's."""
    if not len(numbers):
        return 0.0 if low else 1.0
    if end is None:
        return float(numbers.min() if low else numbers.max())
    if isinstance(end, str):
        if not end.startswith("p"):
            msg = f"{'vmin' if low else 'vmax'}: {end!r}, but a number or a percentile such as 'p99' is expected"
            raise ValueError(msg)
        return float(np.percentile(numbers, float(end[1:])))
    return float(end)


class _Legend:
    """Names of categories beside the axes or on the cells."""

    def __init__(self, codes: np.ndarray, kept: list[int], names: list[Any], table: np.ndarray) -> None:
        self.codes, self.kept, self.names, self.table = codes, kept, names, table

    def draw(self, ax: Axes, xy: np.ndarray, where: Any, size: float | None, weight: Any, outline: float | None, missing: str | None) -> None:
        """Draws them at ``where``; ``missing``: the colour of missing values, if they are to be named."""
        if where in (None, "none"):
            return
        if where == "on data":
            from matplotlib.patheffects import withStroke

            for i in self.kept:
                mine = xy[self.codes == i]
                if len(mine):
                    effects = [withStroke(linewidth=2.5 if outline is None else outline, foreground="white")]
                    x, y = np.nanmedian(mine, axis=0)
                    text = str(self.names[i])
                    ax.text(x, y, text, weight=weight or "bold", ha="center", va="center", fontsize=size, path_effects=effects)
            return
        for i in self.kept:
            ax.scatter([], [], color=[self.table[i]], label=str(self.names[i]))
        if missing is not None and (self.codes < 0).any():
            ax.scatter([], [], color=[missing], label="NA")
        n = len(self.kept)
        columns = 1 if n <= 14 else 2 if n <= 30 else 3
        if where == "right margin":
            ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), ncols=columns, fontsize=size)
        else:
            ax.legend(loc=where, fontsize=size)


def _draw(ax: Axes, xy: np.ndarray, rgba: np.ndarray, size: float, alpha: float | None, marker: str) -> None:
    """Markers, or a picture of very many."""
    if alpha is not None:
        rgba = rgba.copy()
        rgba[:, 3] *= alpha
    finite = np.isfinite(xy).all(axis=1)
    if not finite.any():
        return
    low, high = xy[finite].min(axis=0), xy[finite].max(axis=0)
    pad = np.where(high > low, (high - low) * 0.05, 0.5)
    ax.set(xlim=(low[0] - pad[0], high[0] + pad[0]), ylim=(low[1] - pad[1], high[1] + pad[1]))
    if len(xy) <= MANY:
        ax.scatter(xy[:, 0], xy[:, 1], s=size, c=rgba, marker=marker, linewidths=0, rasterized=len(xy) > 2000)
        return
    pixels = int(PANEL * DPI)
    # matplotlib's marker "." is half as wide as its area says.
    radius = np.sqrt(size / np.pi) / 72 * DPI / 2
    box = (*ax.get_xlim(), *ax.get_ylim())
    picture = paint(xy, np.round(rgba * 255).astype(np.uint8), box, (pixels, pixels), radius)
    ax.imshow(picture, extent=box, aspect="auto", interpolation="antialiased", zorder=1)
