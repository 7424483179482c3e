"""What a long call says: progress bars, warnings, log lines."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

logger = logging.getLogger("cellmill")
_bar: Any = None
_stage = ""


def warn(messages: list[str]) -> None:
    """Passes the engine's notes on as warnings, at the caller's line."""
    for message in messages:
        warnings.warn(message, UserWarning, stacklevel=_outside())


def _outside() -> int:
    """The stack level of the first caller that is not this package."""
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and frame.f_globals.get("__name__", "").startswith("cellmill"):
        frame, level = frame.f_back, level + 1
    return level


def _wanted() -> bool:
    from ._settings import settings

    if settings.verbosity < 1 or os.environ.get("CI"):
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def progress(stage: str, done: int, total: int) -> None:
    """Shows how far a stage has come; called a few times a second."""
    global _bar, _stage
    if not _wanted():
        return
    if _bar is not None and stage != _stage:
        finish()
    if _bar is None:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            return
        _bar, _stage = tqdm(total=total, desc=stage, leave=False), stage
    _bar.total = total
    _bar.n = done
    _bar.refresh()


def finish() -> None:
    """Takes the bar away."""
    global _bar
    if _bar is not None:
        _bar.close()
        _bar = None


done = finish


def say(text: str) -> None:
    """A log line of a verb."""
    from ._settings import settings

    logger.log(logging.INFO if settings.verbosity >= 2 else logging.DEBUG, text)
