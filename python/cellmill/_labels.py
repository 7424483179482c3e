"""Columns of labels as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def labels_of(obs: pd.DataFrame, key: str) -> tuple[np.ndarray, list[str]]:
    """Codes of a column, `(n_obs,)` int32 with −1 where nothing stands, and the names of what occurs or is a category, in their order."""
    import pandas as pd

    values = obs[key]
    if not isinstance(values.dtype, pd.CategoricalDtype):
        from natsort import natsorted

        text = values.astype(str).where(values.notna())
        values = pd.Series(pd.Categorical(text, categories=natsorted(text.dropna().unique())), index=values.index)
    codes = np.ascontiguousarray(values.cat.codes, dtype=np.int32)
    return codes, [str(name) for name in values.cat.categories]
