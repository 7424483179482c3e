"""Steps on values of float64 in memory, by numpy: the engine's values are float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._matrix import compressed, is_sparse


def is_double(x: Any, dtype: np.dtype) -> bool:
    """Whether ``x`` lies in main memory, and what comes of it is float64."""
    return dtype == np.float64 and (isinstance(x, np.ndarray) or is_sparse(x)) and x.ndim == 2


def _own(x: Any) -> Any:
    """A copy of ``x`` in float64; CSR or CSC, each place once, if it is sparse."""
    if not is_sparse(x):
        return np.array(x, np.float64)
    x = x.asformat(x.format if x.format in {"csr", "csc"} else "csr")
    out = compressed(x.format, x)((x.data.astype(np.float64), x.indices.copy(), x.indptr.copy()), shape=x.shape)
    out.sum_duplicates()
    return out


def _by_value(x: Any, function: Any) -> Any:
    """``x`` after a function that leaves zeros as they are."""
    x = _own(x)
    values = x.data if is_sparse(x) else x
    function(values, out=values)
    return x


def row_sums(x: Any, counted: np.ndarray | None = None) -> np.ndarray:
    """Sum of each row, over columns that count: `(n_obs,)`."""
    part = x if counted is None else x[:, counted]
    return np.asarray(part.sum(axis=1, dtype=np.float64)).ravel()


def moments(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (ddof 1) of each column: `(n_vars,)`."""
    n = x.shape[0]
    mean = np.asarray(x.mean(axis=0, dtype=np.float64)).ravel()
    if not is_sparse(x):
        return mean, np.square(x - mean).sum(axis=0) / max(n - 1, 1)
    x = _own(x).tocsc()
    columns = np.repeat(np.arange(x.shape[1]), np.diff(x.indptr))
    squares = np.bincount(columns, np.square(x.data - mean[columns]), x.shape[1])
    return mean, (squares + (n - np.diff(x.indptr)) * np.square(mean)) / max(n - 1, 1)


def normalize_total(x: Any, target_sum: float, counted: np.ndarray | None = None) -> Any:
    """x · target_sum / Σ row; rows without counts stay as they are."""
    sums = row_sums(x, counted)
    factor = np.divide(target_sum, sums, out=np.ones_like(sums), where=sums != 0)
    x = _own(x)
    if not is_sparse(x):
        x *= factor[:, None]
        return x
    x.data *= np.repeat(factor, np.diff(x.indptr)) if x.format == "csr" else factor[x.indices]
    return x


def log1p(x: Any, base: float | None = None) -> Any:
    """ln(1 + x) / ln(base)."""
    x = _by_value(x, np.log1p)
    if base is not None:
        x /= np.log(base)
    return x


def sqrt(x: Any) -> Any:
    """√x."""
    return _by_value(x, np.sqrt)


def scale(x: Any, std: np.ndarray, mean: np.ndarray | None = None, max_value: float | None = None) -> Any:
    """(x − mean) / std, clipped to ±max_value; without a mean only from above, and sparse values stay sparse."""
    x = _own(x)
    if mean is not None:
        x = x.toarray() if is_sparse(x) else x
        x -= mean
    if is_sparse(x):
        x.data /= std[x.indices] if x.format == "csr" else np.repeat(std, np.diff(x.indptr))
    else:
        x /= std
    if max_value is not None:
        values = x.data if is_sparse(x) else x
        np.clip(values, None if mean is None else -max_value, max_value, out=values)
    return x


def dense(x: Any) -> np.ndarray:
    """The values as an array."""
    return np.asarray(x.toarray() if is_sparse(x) else x, np.float64)


def least_squares(x: Any, regressors: np.ndarray) -> np.ndarray:
    """Coefficients that explain most of each column: `(n_regressors, n_vars)`."""
    return np.ascontiguousarray((x.T @ np.linalg.pinv(regressors).T).T)
