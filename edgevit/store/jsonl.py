"""Files with one row per line, as JSON: how rows travel between databases and how edgevit ships some."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import os
from collections.abc import Iterable, Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple

from edgevit.errors import StoreError
from edgevit.types import Measurement
from edgevit_runtime.record import from_json, to_json


class Refusal(NamedTuple):
    """A line that was not taken, and why."""

    place: str  # "file.jsonl, line 3"
    reason: str


class Imported(NamedTuple):
    """What came of an import: rows added, rows the database had already, and lines it refused."""

    added: int
    known: int
    refused: tuple[Refusal, ...]


def parse_lines(file: Path | Traversable) -> Iterator[tuple[str, Measurement | Refusal]]:
    """Each line's place, and its row or why it is none. Blank lines are passed over.

    Raises StoreError where the file cannot be read.
    """
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    place = f"{file.name}, line {number}"
                    yield place, _parse(place, line)
    except OSError as error:
        fix = "name a file of rows that `edgevit db export` wrote"
        raise StoreError("the rows cannot be read", where=str(file), why=str(error), fix=fix) from error


def _parse(place: str, line: bytes) -> Measurement | Refusal:
    try:
        return from_json(Measurement, line)
    # ValueError: RecordError, and integers of thousands of digits; RecursionError: arrays thousands deep
    except (ValueError, RecursionError) as error:
        return Refusal(place, str(error))


def write_lines(path: Path, rows: Iterable[Measurement]) -> int:
    """Write rows to a file that appears only when it is complete and on disk; returns how many.

    Raises StoreError where the file cannot be written; then there is no new file, and an old one is as it was.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    count = 0
    try:
        with part.open("wb") as file:
            for row in rows:
                file.write(to_json(row).encode("ascii") + b"\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        fix = "make the folder, free some space, or name another file"
        raise StoreError("the rows cannot be written", where=str(path), why=str(error), fix=fix) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return count


def shipped_files() -> list[Traversable]:
    """The files of rows that come with edgevit, by name."""
    folder = importlib.resources.files("edgevit.latency_db") / "measurements"
    if not folder.is_dir():
        return []
    return sorted((file for file in folder.iterdir() if file.name.endswith(".jsonl")), key=lambda file: file.name)


def digest_of(files: Iterable[Traversable]) -> str:
    """sha256 over names and contents."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(f"{file.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())  # type: ignore[arg-type]
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last; Windows cannot open a folder, and does without."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
