"""Scan of a checkpoint's pickles, before torch reads them: which classes they name, and what they call.

torch refuses a file only after it has written what it refuses into a message, which it then searches. A text that is
called like a function, or a name without end, keeps that search busy for minutes. Such a file is refused here.
"""

from __future__ import annotations

import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

# A file of the older format is a magic number, a version, a description of the system, the content and its storages.
_LEGACY_PICKLES = 5
_LONGEST_NAME = 1_000  # characters of a class with its modules
# A tuple is hashed with all that is in it, and a part that is named again counts again.
_LARGEST_SHARE = 100  # objects of a tuple for each operation of the pickle
_SMALLEST_LIMIT = 10_000
_ENCODERS = frozenset({"_codecs.encode", "builtins.bytearray"})
# What pickle itself writes. Other encodings take a time that grows with the square of the text.
_ENCODINGS = frozenset({"latin1", "latin-1", "ascii", "utf-8"})
_LONGEST_ENCODING = 20


def global_names(path: Path) -> set[str]:
    """Return the dotted names of all that a file's pickles want to import.

    Raises UnpicklingError for a call of something that is no class, an endless name, or a tuple without measure.
    """
    names: set[str] = set()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith("data.pkl"):
                    names.update(_Machine().names_in(pickletools.genops(archive.read(member))))
        return names
    with path.open("rb") as file:
        for _ in range(_LEGACY_PICKLES):
            names.update(_Machine().names_in(pickletools.genops(file)))
    return names


class _Value(NamedTuple):
    """An object on the stack of a pickle. name: of a class. text: a short one. parts: of a tuple; None: it is no tuple.

    size: objects of a tuple, each as often as it is named.
    """

    name: str = ""
    text: str = ""
    parts: Sequence[_Value] | None = None
    size: int = 1


class _Machine:
    """Follows the stack of a pickle without making any object."""

    def __init__(self) -> None:
        self._stack: list[_Value] = []
        self._marks: list[int] = []
        self._memo: dict[int, _Value] = {}
        self._operations = 0

    def names_in(self, operations: Iterable[tuple[pickletools.OpcodeInfo, Any, int | None]]) -> Iterator[str]:
        """Yield the dotted name of each class. Raises as global_names does, IndexError for a pickle without sense."""
        for operation, argument, _ in operations:
            self._operations += 1
            match operation.name:
                case "MARK":
                    self._marks.append(len(self._stack))
                case "GLOBAL":
                    yield (name := _class_name(str(argument)))
                    self._stack.append(_Value(name=name))
                case "PUT" | "BINPUT" | "LONG_BINPUT":
                    self._memo[argument] = self._stack[-1]
                case "MEMOIZE":
                    self._memo[len(self._memo)] = self._stack[-1]
                case "GET" | "BINGET" | "LONG_BINGET":
                    self._stack.append(self._memo[argument])
                case _:
                    self._change_stack(operation, argument)

    def _change_stack(self, operation: pickletools.OpcodeInfo, argument: Any) -> None:
        """Take from the stack what an operation takes, and put its result there."""
        before, after = operation.stack_before, operation.stack_after
        taken: list[_Value] = []
        if pickletools.markobject in before:
            start = self._marks.pop()
            taken = self._stack[start:]
            del self._stack[start:]
            before = before[: before.index(pickletools.markobject)]
        if len(before) > len(self._stack):
            raise IndexError("the pickle takes more than it has")
        owners = self._stack[len(self._stack) - len(before) :]
        del self._stack[len(self._stack) - len(before) :]
        if operation.name in ("REDUCE", "NEWOBJ"):
            _require_call(*owners)
        if not after:
            return
        if operation.name.startswith("TUPLE") or operation.name == "EMPTY_TUPLE":
            self._stack.append(self._tuple([*owners, *taken]))
        elif operation.name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"):
            self._stack.append(owners[0])
        else:
            is_short = isinstance(argument, str) and len(argument) <= _LONGEST_ENCODING
            self._stack.extend(_Value(text=argument if is_short else "") for _ in after)

    def _tuple(self, parts: Sequence[_Value]) -> _Value:
        size = 1 + sum(part.size for part in parts)
        if size > max(_SMALLEST_LIMIT, _LARGEST_SHARE * self._operations):
            raise UnpicklingError(f"it holds a tuple of {size} objects, most of which are the same")
        return _Value(parts=parts, size=size)


def _require_call(called: _Value, arguments: _Value) -> None:
    """Raise UnpicklingError for a call that torch refuses, but not at once."""
    if not called.name:
        raise UnpicklingError("it calls something that is no class")
    if called.name in _ENCODERS:
        parts = arguments.parts
        if parts is None or any(part.text not in _ENCODINGS for part in parts[1:]):
            raise UnpicklingError(f"it calls {called.name} with an encoding that no checkpoint has")


def _class_name(argument: str) -> str:
    """Return the dotted name of the class that an operation names, as Python 3 has it."""
    module, _, name = argument.partition(" ")
    if len(name) + len(module) > _LONGEST_NAME:
        # torch's own refusal searches such a name in a time that grows with the square of its length.
        raise UnpicklingError(f"it asks for a class whose name has {len(name) + len(module)} characters")
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"
