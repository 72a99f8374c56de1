"""Check that an ONNX file's external weights are inside the artifact's own folder.

An ONNX file may name other files with its weights, and a loader opens any such path. This module reads the names from
the protobuf itself, with the standard library alone. So the check runs before any loader, and also on devices without
the onnx package.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

SUFFIX = ".onnx"

# onnx.proto3: for each message, the fields that lead to weights in other files, with the messages that they contain.
_CHILDREN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "tensor": {13: "entry"},
    "entry": {1: "key", 2: "value"},
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; groups, 3 and 4, are in no ONNX file
_MAX_TAG = (1 << 32) - 1


class ContainmentError(ValueError):
    """An ONNX file names weights outside its artifact."""


class UnreadableError(ContainmentError):
    """An ONNX file cannot be parsed, so the files with its weights are unknown."""


def check_contained(root: Path, *, is_onnx: bool = False) -> None:
    """Check every ONNX file of a folder, or one file. `is_onnx` marks a file as ONNX in spite of its name.

    Raises ContainmentError for a location that is absolute, contains `..` or a backslash, goes through a link, is no
    plain file in the folder, or has a second hard link. Raises UnreadableError for a file that is no protobuf.
    """
    for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
        if path.is_file() and (path.suffix.lower() == SUFFIX or (is_onnx and path == root)):
            for location in external_locations(path):
                _check(path, location)


def external_locations(path: Path) -> list[str]:
    """Return the names of the files with an ONNX file's weights. Raises UnreadableError."""
    if not path.stat().st_size:
        return []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return [location.decode("utf-8") for location in _locations(data)]
        except (ValueError, IndexError) as error:
            raise UnreadableError(f"{path.name} is no ONNX file: {error}") from error


def _locations(data: mmap.mmap) -> Iterator[bytes]:
    """Yield the locations depth first, without recursion, because the file decides how deep its graphs are nested."""
    pending = [("model", 0, len(data))]
    while pending:
        message, start, end = pending.pop()
        children = _CHILDREN[message]
        fields = [(children[number], a, b) for number, a, b in _fields(data, start, end) if number in children]
        if message != "entry":
            pending += fields
        elif any(data[a:b] == b"location" for name, a, b in fields if name == "key"):
            yield from (data[a:b] for name, a, b in fields if name == "value")


def _fields(data: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of each field with a length, and skip the others."""
    while position < end:
        tag, position = _varint(data, position)
        kind, start = tag & 7, position
        if kind == _VARINT:
            _, position = _varint(data, position)
        elif kind == _BYTES:
            size, start = _varint(data, position)
            position = start + size
        elif kind in (_FIXED32, _FIXED64):
            position += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"byte {position} starts a field of no kind")
        if position > end or not 8 <= tag <= _MAX_TAG:
            raise ValueError(f"the field at byte {start} does not fit")
        if kind == _BYTES:
            yield tag >> 3, start, position


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"the number before byte {position} has no end")


def _check(model: Path, location: str) -> None:
    why = _why_unsafe(model.parent, location)
    if why:
        raise ContainmentError(f"{model.name} wants weights from {location[:200]!r}: {why}")


def _why_unsafe(folder: Path, location: str) -> str:
    """Return why weights must not be read from a location; empty if they may."""
    windows = PureWindowsPath(location)  # parses both separators, and drives
    if not location or "\0" in location:
        return "that is no name"
    if windows.anchor or location.startswith("~"):
        return "it is not relative"
    if "\\" in location or ".." in windows.parts:
        return "it leads out of the artifact"
    path = folder / location
    if any(parent.is_symlink() for parent in (path, *path.parents) if folder in parent.parents):
        return "it goes through a link"
    if not path.is_file():
        return "there is no such file in the artifact"
    if path.stat().st_nlink != 1:
        return "the file has a second name, which may be anywhere (a hard link; copy it)"
    return ""
