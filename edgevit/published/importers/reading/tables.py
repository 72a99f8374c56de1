"""Published tables, read line by line, and the claims that an importer makes of the lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from edgevit.errors import StoreError
from edgevit.published.screening import Claim, ClaimError
from edgevit.store import PublishedValues

_BATCH_ROWS = 2000
# No table has a longer first line.
_HEAD_CHARACTERS = 2**16
_FIX = "name a file as its publisher wrote it"


class Line(NamedTuple):
    """A line by the names of its columns. A line with another number of cells than the head has no values."""

    location: str
    values: dict[str, Any]
    content: bytes

    def claim(self, row: PublishedValues | None, **fields: Any) -> Claim:
        """Make the claim of the line from its row; the keywords are the other fields of a Claim."""
        return Claim(self.location, self.content, row, **fields)


def claims(lines: Iterable[Line], read: Callable[[Line], Claim]) -> Iterator[Claim]:
    """Yield the claim that `read` makes of each line, or a refused claim where it raises ClaimError."""
    for line in lines:
        try:
            if not line.values:
                raise ClaimError("not_a_table_line", "it has another number of cells than the head")
            yield read(line)
        except ClaimError as error:
            yield Claim(line.location, line.content, refusal=error.reason)


def csv_head(path: Path) -> list[str]:
    """Return the names of a csv file's columns; empty where it is no text, or absent."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return next(csv.reader([file.readline(_HEAD_CHARACTERS)]), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def csv_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a csv file below its head. Raises StoreError where it cannot be read."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            head = next(reader, [])
            for cells in reader:
                values = dict(zip(head, cells, strict=True)) if len(cells) == len(head) else {}
                yield Line(f"{path.name}, line {reader.line_num}", values, json.dumps(cells).encode())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StoreError("the rows cannot be read", where=str(path), why=str(error), fix=_FIX) from error


def parquet_head(path: Path) -> list[str]:
    """Return the names of a Parquet file's columns; empty for another file. Raises StoreError without pyarrow."""
    if path.suffix != ".parquet":
        return []
    parquet, arrow_error = _pyarrow(path)
    try:
        return [str(name) for name in parquet.read_schema(path).names]
    except (arrow_error, OSError):
        return []


def parquet_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a Parquet file. Raises StoreError where it cannot be read, or pyarrow is missing."""
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
