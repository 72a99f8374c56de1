"""The command line's log: records of the logger `edgevit` on standard error or in a file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from edgevit.errors import UsageError
from edgevit.visible_text import visible, visible_traceback

_LOGGER = logging.getLogger("edgevit")
_LINE = "%(levelname).1s %(name)s: %(message)s"
_LINE_WITH_TIME = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_TIME = "%Y-%m-%dT%H:%M:%S%z"


class _VisibleFormatter(logging.Formatter):
    """Formats a record as one line whose characters are all visible; lines of its traceback follow."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name that logging calls)
        """Return the record's line."""
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Return the record's traceback."""
        return visible_traceback(super().formatException(ei)).rstrip("\n")


class _StandardErrorHandler(logging.StreamHandler[TextIO]):
    """Writes to what sys.stderr is at that moment, so that lines appear above a progress bar."""

    @property
    def stream(self) -> TextIO:
        """The current standard error."""
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        """Ignore a stream that was bound earlier."""


def set_verbosity(verbose: int) -> int:
    """Log on standard error: INFO for one -v, DEBUG for more, nothing without. Return the number, for Typer."""
    for handler in [one for one in _LOGGER.handlers if isinstance(one, _StandardErrorHandler)]:
        _LOGGER.removeHandler(handler)
    if verbose:
        handler = _StandardErrorHandler()
        handler.setLevel(logging.INFO if verbose == 1 else logging.DEBUG)
        handler.setFormatter(_VisibleFormatter(_LINE))
        _LOGGER.addHandler(handler)
    _set_level()
    return verbose


def raise_verbosity(verbose: int) -> int:
    """Log what the -v after a verb requests; without one, what those before it requested. Return the number."""
    return set_verbosity(verbose) if verbose else verbose


@contextmanager
def logged_to(path: Path | None) -> Iterator[None]:
    """Append every record to a file with time stamps meanwhile; without a path do nothing.

    Raise UsageError where the file cannot be written.
    """
    if path is None:
        yield
        return
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise UsageError("the log cannot be written", where=str(path), why=str(error.strerror)) from error
    handler.setLevel(logging.DEBUG)
    handler.setFormatter(_VisibleFormatter(_LINE_WITH_TIME, _TIME))
    _LOGGER.addHandler(handler)
    _set_level()
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)
        handler.close()
        _set_level()


def is_verbose() -> bool:
    """Return whether -v was given."""
    return any(isinstance(handler, _StandardErrorHandler) for handler in _LOGGER.handlers)


def _set_level() -> None:
    """Let through what some handler writes; without one the level is inherited, as that of any library's logger."""
    levels = [handler.level for handler in _LOGGER.handlers if not isinstance(handler, logging.NullHandler)]
    _LOGGER.setLevel(min(levels, default=logging.NOTSET))
