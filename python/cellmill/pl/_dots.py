"""Many dots as a picture: matplotlib draws a marker a cell, which takes a minute for a million."""

from __future__ import annotations

import numpy as np

#: From this many cells on, dots are painted.
MANY = 100_000

#: Dots a inch of a painted picture.
DPI = 300


def paint(xy: np.ndarray, rgba: np.ndarray, box: tuple[float, float, float, float], pixels: tuple[int, int], radius: float) -> np.ndarray:
    """Paints discs, later ones over earlier ones: `(height, width, 4)` uint8, transparent where there is none.

    Parameters
    ----------
    xy
        Places: `(n, 2)`.
    rgba
        Colours: `(n, 4)` uint8.
    box
        Left, right, bottom and top of the picture, in the units of ``xy``.
    pixels
        Width and height.
    radius
        Radius of a disc in pixels; one pixel at least is painted.
    """
    width, height = pixels
    left, right, bottom, top = box
    with np.errstate(invalid="ignore"):
        column = np.floor((xy[:, 0] - left) / (right - left) * width)
        row = np.floor((top - xy[:, 1]) / (top - bottom) * height)
    there = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = column[there].astype(np.int64), row[there].astype(np.int64)
    number = np.flatnonzero(there)
    # The dot on top of each pixel is the last one: of equal places numpy keeps the value that is written last.
    top_dot = np.full(width * height, -1, np.int64)
    reach = int(radius)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dx * dx + dy * dy > radius * radius + 0.25:
                continue
            x, y = column + dx, row + dy
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            place = y[inside] * width + x[inside]
            layer = np.full(width * height, -1, np.int64)
            layer[place] = number[inside]
            np.maximum(top_dot, layer, out=top_dot)
    picture = np.zeros((width * height, 4), np.uint8)
    seen = top_dot >= 0
    picture[seen] = rgba[top_dot[seen]]
    return picture.reshape(height, width, 4)
