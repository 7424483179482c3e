"""Axes: given or new, shown or saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure: inches."""
    import matplotlib.pyplot as plt

    return plt.figure(figsize=(width, height), layout="constrained")


def grid(n: int, n_columns: int, width: float, height: float) -> list[Axes]:
    """``n`` axes of ``width`` by ``height`` inches, at most ``n_columns`` side by side."""
    columns = max(1, min(n, n_columns))
    rows = -(-n // columns)
    figure = new_figure(columns * width, rows * height)
    return [figure.add_subplot(rows, columns, i + 1) for i in range(n)]


def finish(axes: list[Axes], *, show: bool | None, save: str | bool | None, name: str) -> Any:
    """Saves and shows as asked; gives the axes, or the list of them if there are several.

    Parameters
    ----------
    axes
        What was drawn on.
    show
        Whether the figure is shown now; in a notebook it is shown anyway when the cell ends.
    save
        A file, or ``True`` for ``{name}.pdf``.
    name
        The plot's name.
    """
    if save:
        figure: Any = axes[0].get_figure(root=True)
        figure.savefig(f"{name}.pdf" if save is True else save, dpi=200, bbox_inches="tight")
    if show:
        import matplotlib.pyplot as plt

        plt.show()
    return axes[0] if len(axes) == 1 else axes
