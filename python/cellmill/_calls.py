"""Calls as older scripts make them."""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


class Returned(dict[str, Any]):
    """What scanpy's verbs return instead of changing X: a dict. numpy takes it for its ``'X'``, which is what rapids-singlecell returns."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        x = self["X"]
        x = x.compute() if hasattr(x, "compute") else x
        return np.asarray(x.toarray() if hasattr(x, "toarray") else x, dtype)


def no_verb(module: str, verbs: list[str], name: str) -> AttributeError:
    """What is said of a verb of scanpy or rapids-singlecell that is not here."""
    msg = f"module {module!r} has no attribute {name!r}"
    if name.startswith("_"):
        return AttributeError(msg)
    short = module.rpartition(".")[2]
    return AttributeError(f"{msg}; it has {', '.join(verbs)}. scanpy.{short} takes the same AnnData (a lazy handle after to_memory())")


def renamed(old: str, new: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Takes an argument by its old name, too, with scanpy's warning."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs:
                text = f"In a future version, the argument `{old}` will be gone: `{old}` was renamed to `{new}`"
                warnings.warn(text, FutureWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return wrap


#: The engine's names of arguments that are called otherwise.
_NAMES = {"seed": "random_state", "n_epochs": "maxiter", "c": "C"}


def names_fields(function: Callable[P, R]) -> Callable[P, R]:
    """Names the argument where the engine was given a number of another kind than it counts with, such as one below 0."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            if not str(error).startswith("failed to extract field"):
                raise
            field = str(error).rpartition(".")[2]
            msg = f"{_NAMES.get(field, field)}: {error.__cause__}"
            raise ValueError(msg) from None

    return call


def old_positionals(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Takes by position, with scanpy's warning, what scanpy took so before 1.10.

    Parameters
    ----------
    *names
        The arguments in their order then, behind those that are still taken by position; the keywords in their own order without.
    """

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters.values()
        function = names_fields(function)
        n = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
        old = names or tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            more = dict(zip(old, args[n:], strict=False))
            if more and len(args) <= n + len(old) and not kwargs.keys() & more:
                how = ", ".join(f"{name}={value!r}" for name, value in more.items())
                text = f"The specified parameters {tuple(more)} are no longer positional. Please specify them like `{how}`"
                warnings.warn(text, FutureWarning, stacklevel=2)
                return function(*args[:n], **kwargs, **more)  # type: ignore[arg-type]
            # Too many, or one twice: Python says so.
            return function(*args, **kwargs)

        return call

    return wrap
