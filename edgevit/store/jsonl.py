"""Files of JSON lines: portable records between databases, and the rows that ship with edgevit."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import importlib.resources
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path

from edgevit.concurrency.scratch import is_left_behind, mark, remove
from edgevit.errors import StoreError
from edgevit.store.json_records import ParsedRecord, PortableRecord, read_line, to_line

_LOG = logging.getLogger(__name__)

# Longer lines are read in pieces, and each piece is refused: a file of a single line must not fill the memory.
MAX_LINE_BYTES = 64 * 2**20


def parse_lines(file: Path | Traversable) -> Iterator[ParsedRecord]:
    """Parse each line into its location, and its record or the reason why it has none. Blank lines are skipped.

    Raises StoreError where the file cannot be read.
    """
    try:
        with file.open("rb") as stream:
            number = 0
            while line := stream.readline(MAX_LINE_BYTES):
                number += 1
                if line.strip():
                    yield read_line(f"{file.name}, line {number}", line)
    except OSError as error:
        fix = "name a file of rows that `edgevit db export` wrote"
        raise StoreError("the rows cannot be read", where=str(file), why=str(error), fix=fix) from error


def write_lines(path: Path, records: Iterable[PortableRecord]) -> int:
    """Write records to a file and return their number. The file appears only when it is complete and on disk.

    Raises StoreError where the file cannot be written. Then there is no new file, and an old one is unchanged.
    """
    count = 0
    with atomic_write(path) as part, part.open("wb") as file:
        for record in records:
            file.write(to_line(record).encode("ascii") + b"\n")
            count += 1
    return count


@contextmanager
def atomic_write(path: Path, contents: str = "the rows") -> Iterator[Path]:
    """Give a hidden file beside `path` that takes its name on success, once it is on disk, and is deleted otherwise.

    Raises StoreError where the file cannot be written; `contents` names in the message what it holds.
    """
    part = path.with_name(f".{path.name}.{mark()}.part")
    for other in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        if is_left_behind(other):
            remove(other)
    try:
        yield part
        with part.open("r+b") as written:
            os.fsync(written.fileno())
        part.replace(path)
        _sync_folder(path.parent)
        _LOG.debug("published: %s", path)
    except OSError as error:
        fix = "make the folder, free some space, or name another file"
        raise StoreError(f"{contents} cannot be written", where=str(path), why=str(error), fix=fix) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def shipped_files() -> list[Traversable]:
    """Return the files of rows that ship with edgevit, by name."""
    folder = importlib.resources.files("edgevit.latency_db") / "measurements"
    if not folder.is_dir():
        return []
    return sorted((file for file in folder.iterdir() if file.name.endswith(".jsonl")), key=lambda file: file.name)


def digest_of(files: Iterable[Traversable]) -> str:
    """Compute the sha256 over names and contents of files."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(f"{file.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())  # type: ignore[arg-type]
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Sync a folder, so that a rename in it lasts. Windows cannot open a folder, and does without."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
