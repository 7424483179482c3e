"""The handle that :func:`cellmill.read_lazy` gives where nobody has imported anndata: the same as :class:`cellmill.AnnData`, without the import."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._elements import table
from ._rows import Layers, cut
from ._write import Written

if TYPE_CHECKING:
    import pandas as pd

    from ._cellmill import Matrix
    from ._rows import Later

_CLASS: Any = object.__dict__["__class__"]
_ALL = slice(None)


class Aligned(dict[str, Any]):
    """obsm, varm, obsp or varp: each value has the length of its axes."""

    def __init__(self, name: str, lengths: tuple[int, ...], values: Mapping[str, Any]) -> None:
        self._name, self._lengths = name, lengths
        super().__init__()
        for key, value in values.items():
            self[key] = value

    def __setitem__(self, key: str, value: Any) -> None:
        value = value if hasattr(value, "shape") else np.asarray(value)
        value = value[:, None] if isinstance(value, np.ndarray) and value.ndim == 1 else value
        found = tuple(value.shape[: len(self._lengths)])
        if found != self._lengths:
            # anndata's words.
            dims = (self._name[:3],) * len(self._lengths)
            rule = f"Values of {self._name} must match dimensions {dims} of parent."
            msg = f"Value passed for key {key!r} is of incorrect shape. {rule} Value had shape {found} while it should have had {self._lengths}."
            raise ValueError(msg)
        super().__setitem__(key, value)


class Handle(Written):
    """X and layers in their store, the rest in memory. Its class is :class:`cellmill.AnnData` for whoever asks (``isinstance``), and it becomes one,
    in its place, as soon as something is asked of it that it doesn't know.

    Half a second of imports is a tenth of what all verbs up to the components take on 130,000 cells.
    """

    _OWN = frozenset({"_raw", "X", "_cellmill_x", "_cellmill_layers", "_parts", "uns", "obsm", "varm", "obsp", "varp"})

    def __init__(self, matrix: Matrix, parts: dict[str, Any], layers: Layers, mappings: dict[str, Any], raw: tuple[Later, Any, Any] | None = None) -> None:
        # Values, var and varm of raw, which is one where somebody asks for it.
        self._raw = raw
        self._cellmill_x, self._cellmill_layers = matrix, layers
        # obs and var: frames, or calls that give what frames are made of, until they are looked at.
        self._parts = parts
        n_obs, n_vars = matrix.shape
        self.uns = mappings.get("uns", {})
        lengths = {"obsm": (n_obs,), "varm": (n_vars,), "obsp": (n_obs, n_obs), "varp": (n_vars, n_vars)}
        self.obsm, self.varm, self.obsp, self.varp = (Aligned(name, at, mappings.get(name, {})) for name, at in lengths.items())

    def _class(self) -> Any:
        if "anndata" not in sys.modules:
            return type(self)
        from ._lazy import AnnData

        return AnnData

    __class__ = property(_class, _CLASS.__set__)

    def _whole(self) -> Any:
        """Becomes an AnnData; frames and mappings that were handed out stay those of it."""
        from ._lazy import AnnData

        obs, var, mappings = self.obs, self.var, {name: getattr(self, name) for name in ("uns", "obsm", "varm", "obsp", "varp")}
        matrix, layers, raw = self._cellmill_x, self._cellmill_layers, self._raw
        self.__dict__.clear()
        _CLASS.__set__(self, AnnData)
        whole: Any = self
        whole.__init__(matrix, obs, var, layers=layers, **mappings)
        whole._obs, whole._var = obs, var
        if raw is not None:
            from ._lazy import raw_with

            whole._raw = raw_with(whole, *raw)
        return whole

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._whole(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._whole(), name, value)

    def _frame(self, name: str) -> pd.DataFrame:
        frame = self._parts[name]
        if callable(frame):
            frame = self._parts[name] = table(frame())
        return frame

    @property
    def raw(self) -> Any:
        return None if self._raw is None else self._whole().raw

    @property
    def obs(self) -> pd.DataFrame:
        return self._frame("obs")

    @property
    def var(self) -> pd.DataFrame:
        return self._frame("var")

    @property
    def obs_names(self) -> pd.Index:
        return self.obs.index

    @property
    def var_names(self) -> pd.Index:
        return self.var.index

    @property
    def shape(self) -> tuple[int, int]:
        return self._cellmill_x.shape

    @property
    def n_obs(self) -> int:
        return self.shape[0]

    @property
    def n_vars(self) -> int:
        return self.shape[1]

    def __len__(self) -> int:
        return self.n_obs

    def __repr__(self) -> str:
        return repr(self._whole())

    def __eq__(self, other: object) -> bool:
        return self._whole() == other

    __hash__ = None  # type: ignore[assignment]

    @property
    def layers(self) -> Layers:
        return self._cellmill_layers._of(self.shape)

    def __getitem__(self, index: Any) -> Any:
        rows, columns = index if isinstance(index, tuple) and len(index) == 2 else (index, _ALL)
        flags = _flags(rows, self.n_obs), _flags(columns, self.n_vars)
        # anndata looks after names, numbers, and colours of categories.
        if any(f is NotImplemented for f in flags) or any(name.endswith("_colors") for name in self.uns):
            return self._whole()[index]
        return self._part(*flags)

    def _part(self, rows: Any, columns: Any) -> Handle:
        """The rows and columns whose flag is true; a handle of its own."""
        from copy import deepcopy

        at = {"obs": _places(rows), "var": _places(columns)}

        def pick(name: str, value: Any) -> Any:
            places = at[name[:3]]
            if hasattr(value, "iloc"):
                return value.iloc[places].copy()
            part = value[places]
            part = part[:, places] if name.endswith("p") else part
            return part.copy() if places is _ALL else part

        mappings = {name: {k: pick(name, v) for k, v in getattr(self, name).items()} for name in ("obsm", "varm", "obsp", "varp")}
        frames = {name: _used(pick(name, self._frame(name))) for name in ("obs", "var")}
        rows, columns = (_ALL if flags is None else flags for flags in (rows, columns))
        layers = self._cellmill_layers._part(rows, columns)
        raw = self._raw and (self._raw[0][rows], *self._raw[1:])
        return Handle(cut(self._cellmill_x, rows, columns), frames, layers, mappings | {"uns": deepcopy(self.uns)}, raw)

    def copy(self, filename: Any = None) -> Any:
        """A handle of its own on the same store."""
        return self._part(None, None)

    def _subset(self, rows: Any, columns: Any) -> None:
        part = self[rows, columns]
        if type(self) is Handle:
            self.__dict__.update(part.__dict__)
        else:
            self._take(part)

    def _inplace_subset_obs(self, index: Any) -> None:
        self._subset(np.asarray(index), _ALL)

    def _inplace_subset_var(self, index: Any) -> None:
        self._subset(_ALL, np.asarray(index))


def _flags(index: Any, n: int) -> Any:
    """A mask over `n` places, None for all of them; NotImplemented for another index."""
    if isinstance(index, slice) and index == _ALL:
        return None
    if isinstance(index, (str, slice)) or not hasattr(index, "__len__"):
        return NotImplemented
    index = np.asarray(index)
    return index if index.dtype == bool and index.shape == (n,) else NotImplemented


def _places(flags: np.ndarray | None) -> Any:
    return _ALL if flags is None else np.flatnonzero(flags)


def _used(frame: pd.DataFrame) -> pd.DataFrame:
    """Categories that are left, as anndata keeps them."""
    for name, dtype in frame.dtypes.items():
        if hasattr(dtype, "categories"):
            frame[name] = frame[name].cat.remove_unused_categories()
    return frame


def import_pandas() -> None:
    """Imports pandas beside the first read."""
    if "pandas" in sys.modules:
        return
    thread = threading.Thread(target=__import__, args=("pandas",), name="cellmill-import")
    thread.start()
    if hasattr(os, "register_at_fork"):
        # A child would wait for ever for a module that nobody imports there.
        os.register_at_fork(before=thread.join)
