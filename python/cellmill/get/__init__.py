"""Where data live, and how to get at them."""

from __future__ import annotations

from ._device import X_to_CPU, X_to_GPU, anndata_to_CPU, anndata_to_GPU

__all__ = ["X_to_CPU", "X_to_GPU", "anndata_to_CPU", "anndata_to_GPU"]
