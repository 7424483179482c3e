"""rapids-singlecell's words for where arrays live. Arrays of cellmill stay in main memory: the engine moves what it needs by itself, to the
device that ``cellmill.settings.device`` names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._settings import settings

if TYPE_CHECKING:
    from anndata import AnnData


def anndata_to_GPU(adata: AnnData, layer: str | None = None, *, convert_all: bool = False, copy: bool = False) -> AnnData | None:
    """Has the verbs that follow compute on a GPU if there is one; else nothing changes.

    Sets ``cellmill.settings.device`` to ``"auto"``, unless a GPU has been named there. Arrays stay in main memory.

    Parameters
    ----------
    adata
        Annotated data.
    layer, convert_all
        As in rapids-singlecell.
    copy
        Whether a copy is returned.
    """
    if settings.device == "cpu":
        settings.device = "auto"
    return adata.copy() if copy else None


def anndata_to_CPU(adata: AnnData, layer: str | None = None, *, convert_all: bool = False, copy: bool = False) -> AnnData | None:
    """Has the verbs that follow compute on the CPU: sets ``cellmill.settings.device`` to ``"cpu"``. Arrays are in main memory anyway.

    Parameters
    ----------
    adata
        Annotated data.
    layer, convert_all
        As in rapids-singlecell.
    copy
        Whether a copy is returned.
    """
    settings.device = "cpu"
    return adata.copy() if copy else None


def X_to_GPU(X: Any, *_: Any, **__: Any) -> Any:
    """Returns ``X`` as it is."""
    return X


def X_to_CPU(X: Any, *_: Any, **__: Any) -> Any:
    """Returns ``X`` as it is."""
    return X
