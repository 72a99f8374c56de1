"""Tables of others, a line at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from edgevit.errors import StoreError

_BATCH_ROWS = 2000
_FIX = "name a file as its publisher wrote it"


class Line(NamedTuple):
    """A line by the names of its columns; None where it has another number of them than the head."""

    place: str
    values: dict[str, Any] | None
    content: bytes


def csv_head(path: Path) -> list[str]:
    """The names of a csv file's columns; empty where it is no text, or not there."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def csv_lines(path: Path) -> Iterator[Line]:
    """The lines of a csv file below its head. Raises StoreError where it cannot be read."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            head = next(reader, [])
            for cells in reader:
                values = dict(zip(head, cells, strict=True)) if len(cells) == len(head) else None
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
