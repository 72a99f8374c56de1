"""A model's own code, which may raise exceptions of any class: they become one class that callers expect."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

import torch

from edgevit.errors import EdgevitError

# What code raises that does not run here. Exceptions of other classes become a ModelCodeError.
FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)


class ModelCodeError(RuntimeError):
    """An exception of a class of its own, raised by a model's code or by a library that it calls."""


class ModelCode:
    """A context in which a model's code runs, without compiling it.

    Errors of edgevit pass as they are, and so does Ctrl-C.
    """

    def __enter__(self) -> ModelCode:
        # What torch.compile returned runs as it was written. Without torch's compiler, nothing was compiled.
        self._stance: AbstractContextManager[Any] = (
            torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
        )
        self._stance.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stance.__exit__(None, None, None)
        if isinstance(error, Exception) and not isinstance(error, (EdgevitError, *FAILURES)):
            raise ModelCodeError(f"{type(error).__name__}: {error}".rstrip(": ")) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or the name of its class."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()
