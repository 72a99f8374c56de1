"""Strict JSON codec for frozen dataclasses, which travel between host and device and stand in manifests and rows.

The codec refuses a missing key, an extra key, a wrong type and NaN. A record that one side reads loosely would become a
wrong number on the other side.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

RecordT = TypeVar("RecordT")
# NaN is beyond it as well, and an integer that no float holds.
_LARGEST = sys.float_info.max
# Metadata of a field that a record got later. JSON has it only where it is not the default, so that digests of older
# records hold.
LATER = {"later": True}
_PLAIN = frozenset({str, int, float, bool, type(None)})


class RecordError(ValueError):
    """A JSON document does not match its record; the message names the field."""


def to_data(record: Any) -> Any:
    """Convert a record to JSON data: dataclasses to objects, tuples to arrays, paths to strings."""
    kind = type(record)
    if kind in _PLAIN:
        return record
    if (names := _names(typing.cast(Hashable, kind))) is not None:
        return {name: to_data(value) for name, value in _told(record, kind, names).items()}
    if isinstance(record, Mapping):
        return {str(key): to_data(value) for key, value in record.items()}
    if isinstance(record, (tuple, list)):
        return [to_data(value) for value in record]
    return str(record) if isinstance(record, Path) else record


@functools.cache
def _names(kind: Hashable) -> tuple[str, ...] | None:
    """Return the names of a dataclass's fields; None for any other class."""
    return tuple(member.name for member in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


@functools.cache
def _later_defaults(kind: Hashable) -> dict[str, Any]:
    """Return the fields of a dataclass that came later, with their defaults."""
    return {member.name: member.default for member in dataclasses.fields(kind) if "later" in member.metadata}  # type: ignore[arg-type]


def _told(record: Any, kind: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of a dataclass that JSON has."""
    if not (defaults := _later_defaults(kind)):
        return {name: getattr(record, name) for name in names}
    values = {name: getattr(record, name) for name in names}
    return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}


def to_json(record: Any, *, indent: int | None = None) -> str:
    """Return canonical JSON: sorted keys, no NaN. Equal records give equal texts, so the text can be hashed."""
    if indent is None:
        return _CANONICAL.encode(record)
    return json.dumps(record, sort_keys=True, allow_nan=False, indent=indent, default=_one_level)


def _one_level(record: Any) -> Any:
    """Convert the outer level of an object that JSON cannot represent; the encoder then visits its values."""
    kind = type(record)
    if (names := _names(typing.cast(Hashable, kind))) is not None:
        return _told(record, kind, names)
    if isinstance(record, Mapping):
        return dict(record)
    if isinstance(record, Path):
        return str(record)
    raise TypeError(f"{kind.__name__} has no JSON representation")


# The encoder visits tuples, lists and dicts itself, in C, in half the time of to_data. Records are frozen, so they
# contain no circle.
_CANONICAL = json.JSONEncoder(
    sort_keys=True, allow_nan=False, separators=(",", ":"), check_circular=False, default=_one_level
)


def from_json(kind: type[RecordT], text: str | bytes) -> RecordT:
    """Read a record of this kind. Raises RecordError with the path of the first mismatch."""
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except RecordError:
        raise
    # ValueError: also integers of thousands of digits
    except ValueError as error:
        raise RecordError(f"not JSON: {error}") from error
    except RecursionError:
        raise RecordError("not JSON that can be read: its values are nested too deep") from None
    return from_data(kind, data)


def from_data(kind: type[RecordT], data: Any, label: str = "") -> RecordT:
    """Build a record of this kind from JSON data. Raises RecordError with the path of the first mismatch.

    `label` begins that path in place of the record's name.
    """
    try:
        return typing.cast(RecordT, _reader(typing.cast(Hashable, kind))(data))
    except _MismatchError as error:
        raise RecordError(f"{label or kind.__name__}{error.path}: {error.problem}") from None
    except RecursionError:
        raise RecordError(f"{label or kind.__name__}: its values are nested too deep") from None


def _refuse_constant(name: str) -> Any:
    raise RecordError(f"{name} is not a number that a record may contain")


class _MismatchError(Exception):
    """Data does not match its type; the error carries the problem and its path below the reader's value."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem, self.path = problem, ""

    def below(self, step: str) -> _MismatchError:
        """Return the same error with its path extended by one level."""
        self.path = step + self.path
        return self


_Reader = Callable[[Any], Any]


@functools.cache
def _reader(kind: Any) -> _Reader:
    """Return the reader of this type. It is cached, because inspecting a type is slower than reading its data."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda data: data
    if dataclasses.is_dataclass(kind):
        return _dataclass_reader(typing.cast(type, kind))
    if origin in (typing.Union, types.UnionType):
        return _union_reader(arguments)
    if origin is Literal:
        choices = f"one of {', '.join(map(repr, arguments))}"
        return lambda data: _expect(data in arguments, data, choices)
    if origin is tuple:
        return _tuple_reader(arguments)
    if origin is dict:
        return _dict_reader(_reader(arguments[1]))
    if kind is Path:
        return lambda data: Path(_expect(isinstance(data, str), data, "a path"))
    return _read_float if kind is float else _plain_reader(kind)


def _plain_reader(kind: type) -> _Reader:
    def read(data: Any) -> Any:
        if type(data) is kind:
            return data
        return _expect(isinstance(data, kind) and not isinstance(data, bool), data, kind.__name__)

    return read


def _read_float(data: Any) -> float:
    good = isinstance(data, (int, float)) and not isinstance(data, bool) and -_LARGEST <= data <= _LARGEST
    return float(_expect(good, data, "a finite number"))


def _dataclass_reader(kind: type) -> _Reader:
    hints, fields = typing.get_type_hints(kind), dataclasses.fields(kind)
    readers = {member.name: _reader(hints[member.name]) for member in fields}
    unchanged = {member.name: _unchanged_types(hints[member.name]) for member in fields}
    absent = (dataclasses.MISSING, dataclasses.MISSING)
    needed = {member.name for member in fields if (member.default, member.default_factory) == absent}

    def read(data: Any) -> Any:
        _expect(isinstance(data, dict), data, "an object")
        if extra := data.keys() - readers.keys():
            raise _MismatchError(f"unknown {', '.join(sorted(extra))}; a newer edgevit may have written it")
        if missing := needed - data.keys():
            raise _MismatchError(f"{', '.join(sorted(missing))} missing")
        values = {}
        for name, value in data.items():
            if type(value) in unchanged[name]:
                values[name] = value
                continue
            try:
                values[name] = readers[name](value)
            except _MismatchError as error:
                raise error.below(f".{name}") from None
        return kind(**values)

    return read


def _unchanged_types(hint: Any) -> frozenset[type]:
    """Return the types of data that a field takes without conversion, so that most fields need no reader."""
    arguments = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return frozenset(kind for kind in arguments if kind in (str, int, bool, type(None)))


def _union_reader(arguments: tuple[Any, ...]) -> _Reader:
    readers = [_reader(kind) for kind in arguments if kind is not type(None)]
    may_be_null = len(readers) < len(arguments)

    def read(data: Any) -> Any:
        if data is None and may_be_null:
            return None
        for reader in readers[:-1]:
            try:
                return reader(data)
            except _MismatchError:
                continue
        return readers[-1](data)

    return read


def _tuple_reader(arguments: tuple[Any, ...]) -> _Reader:
    any_length = arguments[-1] is Ellipsis
    readers = [_reader(kind) for kind in arguments if kind is not Ellipsis]

    def read(data: Any) -> Any:
        _expect(isinstance(data, list), data, "an array")
        if not any_length:
            _expect(len(data) == len(readers), data, f"{len(readers)} items")
        values: list[Any] = []
        try:
            for reader, value in zip(readers * len(data) if any_length else readers, data, strict=True):
                values.append(reader(value))
        except _MismatchError as error:
            raise error.below(f"[{len(values)}]") from None
        return tuple(values)

    return read


def _dict_reader(reader: _Reader) -> _Reader:
    def read(data: Any) -> Any:
        _expect(isinstance(data, dict), data, "an object")
        values = {}
        for key, value in data.items():
            try:
                values[key] = reader(value)
            except _MismatchError as error:
                raise error.below(f".{key}") from None
        return values

    return read


def _expect(good: bool, data: Any, expected: str) -> Any:
    if not good:
        raise _MismatchError(f"expected {expected}, found {str(data)[:60]!r}")
    return data
