"""rapids-singlecell's words for where arrays live. Arrays of cellmill stay in main memory: the engine moves what it needs by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._report import say

if TYPE_CHECKING:
    from anndata import AnnData


def anndata_to_GPU(adata: AnnData, layer: str | None = None, *, convert_all: bool = False, copy: bool = False) -> AnnData | None:
    """Accepts a script's wish for a GPU; nothing is moved.

    Parameters
    ----------
    adata
        Annotated data.
    layer, convert_all
        As in rapids-singlecell.
    copy
        Whether a copy is returned.
    """
    say("anndata_to_GPU: arrays stay in main memory")
    return adata.copy() if copy else None


def anndata_to_CPU(adata: AnnData, layer: str | None = None, *, convert_all: bool = False, copy: bool = False) -> AnnData | None:
    """Accepts a script's wish for main memory, where arrays are already.

    Parameters
    ----------
    adata
        Annotated data.
    layer, convert_all
        As in rapids-singlecell.
    copy
        Whether a copy is returned.
    """
    return adata.copy() if copy else None


def X_to_GPU(X: Any, *_: Any, **__: Any) -> Any:
    """Returns ``X`` as it is."""
    return X


def X_to_CPU(X: Any, *_: Any, **__: Any) -> Any:
    """Returns ``X`` as it is."""
    return X
