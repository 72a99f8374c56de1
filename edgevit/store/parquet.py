"""Parquet files: portable records in columns, for analysis with other programs. Needs pyarrow.

A measurement has a column for each field, with its unit in its name, and samples as lists of lists of nanoseconds.
Other nested fields are JSON in columns whose names end in _json. Other records are rows with a `kind` and their own
JSON. Each row carries its checksum, as in JSON lines, and pages carry checksums.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from edgevit.errors import StoreError
from edgevit.records.measurement import Measurement
from edgevit.store.json_records import ParsedRecord, PortableRecord, from_fields, to_line
from edgevit.store.jsonl import atomic_write
from edgevit.store.partition_checksums import PartitionChecksum
from edgevit.store.refusals import RefusalCode, RefusalReason
from edgevit.store.row_checksums import LATER, shorten
from edgevit_runtime.codec import RecordError

_BATCH_ROWS = 200
_SAMPLES = "samples_ns"
# Key of the file's metadata with the number of rows, and the exclusive or of their checksums.
_CHECKSUM_KEY = "edgevit_tally"
_PLAIN = {str: "string", int: "int64", float: "double"}
_FIX = "pip install 'edgevit[parquet]', or a name that ends in .jsonl"


def write(path: Path, records: Iterable[PortableRecord]) -> int:
    """Write records to a file and return their number. The file appears only when it is complete.

    Raises StoreError where it cannot be written, or pyarrow is missing.
    """
    arrow = _pyarrow(path)
    schema, partition, remaining = _schema(arrow), PartitionChecksum(_CHECKSUM_KEY), iter(records)
    with atomic_write(path) as part, arrow.parquet.ParquetWriter(
        part, schema, compression="zstd", write_page_checksum=True
    ) as writer:  # fmt: skip
        while batch := list(islice(remaining, _BATCH_ROWS)):
            rows = [_columns(record) for record in batch]
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
            partition = partition.plus(shorten(row["row_sha256"]) for row in rows)
        writer.add_key_value_metadata({_CHECKSUM_KEY: _checksum_text(partition)})
    return partition.rows


def _checksum_text(partition: PartitionChecksum) -> str:
    """Format the value under _CHECKSUM_KEY. Files have this text, so that it never changes."""
    return f"{partition.rows} lines, {partition.checksum}"


def parse(path: Path) -> Iterator[ParsedRecord]:
    """Parse each row into its location, and its record or the reason why it has none.

    Raises StoreError where the file cannot be read.
    """
    arrow = _pyarrow(path)
    try:
        with arrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            _require_columns(path, file.schema_arrow, _schema(arrow))
            partition = PartitionChecksum(_CHECKSUM_KEY)
            for batch in file.iter_batches(_BATCH_ROWS):
                for number, row in enumerate(batch.to_pylist(), start=partition.rows + 1):
                    yield _parse_row(f"{path.name}, line {number}", row)
                    partition = partition.plus([_checksum(row)])
            metadata = file.metadata.metadata or {}
            stated = metadata.get(_CHECKSUM_KEY.encode(), b"no number of lines").decode(errors="replace")
            # No checksum covers the footer, which says how many rows there are.
            if stated != _checksum_text(partition):
                why = f"lines are missing: it has {_checksum_text(partition)}, and says: {stated}"
                yield _refused(path.name, "missing_rows", why, b"")
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error


def _require_columns(path: Path, actual: Any, expected: Any) -> None:
    # A file of an earlier edgevit has no column for what its rows could not say.
    absent = [name for name in LATER if name in expected.names and name not in actual.names]
    expected = _without(expected, absent)
    if not actual.equals(expected):
        different = sorted({str(field) for field in actual} ^ {str(field) for field in expected})
        raise _unreadable(path, f"its columns are not ours: {', '.join(different[:4]) or 'in another order'}")


def _without(schema: Any, names: Iterable[str]) -> Any:
    for name in names:
        schema = schema.remove(schema.get_field_index(name))
    return schema


def _refused(location: str, code: RefusalCode, why: str, content: bytes) -> ParsedRecord:
    return ParsedRecord(location, None, RefusalReason(code, why), content)


def _checksum(row: dict[str, Any]) -> int:
    try:
        return shorten(row["row_sha256"] or "")
    except ValueError:
        return 0


def _unreadable(path: Path, why: str) -> StoreError:
    fix = "name a file that `edgevit db export` wrote"
    return StoreError("the rows cannot be read", where=str(path), why=why, fix=fix)


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise StoreError("Parquet needs pyarrow", where=str(path), why=str(error), fix=_FIX) from error
    return pyarrow


def _kinds() -> dict[str, str]:
    """Return the kind of the column of each field of a Measurement; fields that are not plain are JSON."""
    hints = typing.get_type_hints(Measurement)
    return {field.name: _kind(hints[field.name]) for field in dataclasses.fields(Measurement)}


def _kind(hint: Any) -> str:
    inner = [member for member in typing.get_args(hint) if member is not type(None)]
    if typing.get_origin(hint) is typing.Literal:
        return "string"
    if hint not in _PLAIN and len(inner) == 1:
        hint = inner[0]
    return _PLAIN.get(hint, "json")


def _schema(arrow: Any) -> Any:
    fields = [("kind", arrow.string())]
    for name, kind in _kinds().items():
        if name == _SAMPLES:
            fields.append((name, arrow.list_(arrow.list_(arrow.int64()))))
        elif kind == "json":
            fields.append((f"{name}_json", arrow.string()))
        else:
            fields.append((name, getattr(arrow, {"double": "float64"}.get(kind, kind))()))
    return arrow.schema([*fields, ("other_json", arrow.string()), ("row_sha256", arrow.string())])


def _columns(record: PortableRecord) -> dict[str, Any]:
    data = json.loads(to_line(record))
    if not isinstance(record, Measurement):
        digest = data.pop("row_sha256")
        [kind] = data
        return {"kind": kind, "other_json": json.dumps(data[kind], sort_keys=True), "row_sha256": digest}
    columns: dict[str, Any] = {"kind": "measurement", "row_sha256": data["row_sha256"], _SAMPLES: data[_SAMPLES]}
    for name, kind in _kinds().items():
        if kind != "json":
            columns[name] = data[name]
        elif name != _SAMPLES:
            columns[f"{name}_json"] = json.dumps(data[name], sort_keys=True)
    return columns


def _parse_row(location: str, row: dict[str, Any]) -> ParsedRecord:
    content = json.dumps(row, sort_keys=True).encode()
    try:
        record, checksum = from_fields(_data(row))
    # ValueError: RecordError, and text that is not JSON
    except (ValueError, RecursionError) as error:
        return _refused(location, "malformed", str(error), content)
    return ParsedRecord(location, record, None, content, checksum)


def _data(row: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON data of a row (json_records.from_fields). A row without a checksum was not written by edgevit."""
    if not row["row_sha256"]:
        raise RecordError("it has no digest")
    if row["kind"] != "measurement":
        return {str(row["kind"]): json.loads(row["other_json"] or "null"), "row_sha256": row["row_sha256"]}
    data: dict[str, Any] = {"row_sha256": row["row_sha256"], _SAMPLES: row[_SAMPLES]}
    for name, kind in _kinds().items():
        if kind != "json":
            data[name] = row[name]
        elif name != _SAMPLES:
            data[name] = json.loads(row.get(f"{name}_json") or "null")
    return data
