"""Columns of labels as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def categories_of(values: pd.Series) -> pd.Categorical:
    """Values as categories; text in natural order, as scanpy puts it."""
    import pandas as pd

    if isinstance(values.dtype, pd.CategoricalDtype):
        return values.array
    from natsort import natsorted

    text = values.astype(str).where(values.notna())
    return pd.Categorical(text, categories=natsorted(text.dropna().unique()))


def labels_of(obs: pd.DataFrame, key: str) -> tuple[np.ndarray, list[str]]:
    """Codes of a column, `(n_obs,)` int32 with −1 where nothing stands, and the names of its categories, in their order."""
    labels = categories_of(obs[key])
    return np.ascontiguousarray(labels.codes, dtype=np.int32), [str(name) for name in labels.categories]
