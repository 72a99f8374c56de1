"""Tables of others, a line at a time, and the claims that an importer makes of the lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from edgevit.errors import StoreError
from edgevit.published.screening import Claim, ClaimError

_BATCH_ROWS = 2000
_HEAD_CHARACTERS = 2**16  # no table has a longer first line
_FIX = "name a file as its publisher wrote it"


class Line(NamedTuple):
    """A line by the names of its columns. One that has another number of cells than the head has no values."""

    place: str
    values: dict[str, Any]
    content: bytes

    def claim(self, row: dict[str, Any] | None, **more: Any) -> Claim:
        """What the line says, as an importer reads it; the keywords are the other fields of a Claim."""
        return Claim(self.place, self.content, row, **more)


def claims(lines: Iterable[Line], read: Callable[[Line], Claim]) -> Iterator[Claim]:
    """What `read` makes of each line; a claim with the reason in place of each for which it raises ClaimError."""
    for line in lines:
        try:
            if not line.values:
                raise ClaimError("not a line of the table: it has another number of cells than the head")
            yield read(line)
        except ClaimError as error:
            yield Claim(line.place, line.content, reason=str(error))


def csv_head(path: Path) -> list[str]:
    """The names of a csv file's columns; empty where it is no text, or not there."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return next(csv.reader([file.readline(_HEAD_CHARACTERS)]), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def csv_lines(path: Path) -> Iterator[Line]:
    """The lines of a csv file below its head. Raises StoreError where it cannot be read."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            head = next(reader, [])
            for cells in reader:
                values = dict(zip(head, cells, strict=True)) if len(cells) == len(head) else {}
                yield Line(f"{path.name}, line {reader.line_num}", values, json.dumps(cells).encode())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StoreError("the rows cannot be read", where=str(path), why=str(error), fix=_FIX) from error


def parquet_head(path: Path) -> list[str]:
    """The names of a Parquet file's columns; empty where it is none. Raises StoreError where pyarrow is missing."""
    if path.suffix != ".parquet":
        return []
    parquet, arrow_error = _pyarrow(path)
    try:
        return [str(name) for name in parquet.read_schema(path).names]
    except (arrow_error, OSError):
        return []


def parquet_lines(path: Path) -> Iterator[Line]:
    """The lines of a Parquet file. Raises StoreError where it cannot be read, or pyarrow is missing."""
    parquet, arrow_error = _pyarrow(path)
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(_BATCH_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield Line(f"{path.name}, row {number}", values, json.dumps(values, default=str).encode())
    except (arrow_error, OSError) as error:
        raise StoreError("the rows cannot be read", where=str(path), why=str(error), fix=_FIX) from error


def _pyarrow(path: Path) -> tuple[Any, type[Exception]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        fix = "pip install 'edgevit[parquet]'"
        raise StoreError("Parquet needs pyarrow", where=str(path), why=str(error), fix=fix) from error
    return pyarrow.parquet, pyarrow.ArrowException
