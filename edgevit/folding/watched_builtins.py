"""`int` and `type` as a model's code sees them while its sizes are watched, or are symbols of torch.export.

Python makes a plain `int` of what `__int__` returns, and `type` gives the class that a size really has. So both are
replaced for the model's own code: `int(size)` stays watched, and `type(size) is int` holds as it does otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from edgevit.folding.sizes import WatchedQuotient, WatchedSize

Globals = dict[str, Any]
# Packages of code that asks no size for its type, or that knows sizes of this kind.
_FOREIGN = frozenset([*sys.stdlib_module_names, "torch", "edgevit"]) - {"__main__"}
# Watched sizes are torch's symbols too.
_PLAIN: dict[type, type] = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}


class _Keeping(type):
    """The class of a stand-in for a built-in class, which is equal to its only base."""

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, cls.__base__ or object)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls.__base__

    def __hash__(cls) -> int:
        return hash(cls.__base__)


class _KeepingInt(_Keeping):
    def __call__(cls, value: Any = 0, *base: Any) -> Any:
        """Return an int; of a watched number a watched one."""
        return value.__trunc__() if isinstance(value, (WatchedSize, WatchedQuotient)) else int(value, *base)


class _KeepingType(_Keeping):
    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        """Return the class that a number would have without a watch; `int` as the caller's code sees it."""
        kind = type(*arguments, **options)
        kind = next((plain for symbol, plain in _PLAIN.items() if issubclass(kind, symbol)), kind)
        return sys._getframe(1).f_globals.get("int", int) if kind is int else kind


# `int` that keeps sizes watched, and `type` to which sizes are ints.
_INT = _KeepingInt("int", (int,), {})
_TYPE = _KeepingType("type", (type,), {})


@contextmanager
def ints_watched(callers: Sequence[Globals]) -> Iterator[None]:
    """Let functions with these globals call an `int` that keeps sizes watched."""
    with _replaced("int", _INT, callers):
        yield


@contextmanager
def types_watched() -> Iterator[None]:
    """Let all code of packages that use torch call a `type` that takes sizes for ints."""
    loaded = [(name.partition(".")[0], module.__dict__) for name, module in list(sys.modules.items()) if module]
    packages = {package for package, content in loaded if content.get("torch") is torch or "nn" in content} - _FOREIGN
    with _replaced("type", _TYPE, [content for package, content in loaded if package in packages]):
        yield


@contextmanager
def _replaced(name: str, stand_in: type, callers: Sequence[Globals]) -> Iterator[None]:
    own = {id(each): each for each in callers if name not in each}
    for each in own.values():
        each[name] = stand_in
    try:
        yield
    finally:
        for each in own.values():
            del each[name]
