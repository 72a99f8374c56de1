"""Parquet files: the same records in columns, for those who analyse them elsewhere. Needs pyarrow.

A measurement has a column for each field, with its unit in its name, and samples as lists of lists of nanoseconds;
what is nested otherwise is JSON in a column whose name ends in _json. Other records are lines with a `kind` and their
own JSON. Each line carries its digest, as in JSON lines, and pages carry checksums.
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
from edgevit.store.json_records import Item, Travelling, from_fields, to_line
from edgevit.store.jsonl import appearing
from edgevit.store.partition_checksums import Part
from edgevit.store.row_checksums import as_seal
from edgevit_runtime.codec import RecordError

_BATCH_ROWS = 200
_SAMPLES = "samples_ns"
_TALLY = "edgevit_tally"  # key of the file's metadata: how many lines, and the exclusive or of their digests
_PLAIN = {str: "string", int: "int64", float: "double"}
_FIX = "pip install 'edgevit[parquet]', or a name that ends in .jsonl"


def write(path: Path, records: Iterable[Travelling]) -> int:
    """Write records to a file that appears only when it is complete; returns how many.

    Raises StoreError where it cannot be written, or pyarrow is missing.
    """
    arrow = _pyarrow(path)
    schema, tally, rest = _schema(arrow), Part(_TALLY), iter(records)
    with appearing(path) as part, arrow.parquet.ParquetWriter(
        part, schema, compression="zstd", write_page_checksum=True
    ) as writer:  # fmt: skip
        while batch := list(islice(rest, _BATCH_ROWS)):
            lines = [_columns(record) for record in batch]
            writer.write_table(arrow.Table.from_pylist(lines, schema=schema))
            tally = tally.plus(as_seal(line["row_sha256"]) for line in lines)
        writer.add_key_value_metadata({_TALLY: _says(tally)})
    return tally.lines


def _says(tally: Part) -> str:
    return f"{tally.lines} lines, {tally.digest}"


def parse(path: Path) -> Iterator[Item]:
    """Each line's place, and its record or why it is none. Raises StoreError where the file cannot be read."""
    arrow = _pyarrow(path)
    try:
        with arrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            wanted = _schema(arrow)
            if not file.schema_arrow.equals(wanted):
                strange = sorted({str(field) for field in file.schema_arrow} ^ {str(field) for field in wanted})
                raise _unreadable(path, f"its columns are not ours: {', '.join(strange[:4]) or 'in another order'}")
            tally = Part(_TALLY)
            for batch in file.iter_batches(_BATCH_ROWS):
                for number, line in enumerate(batch.to_pylist(), start=tally.lines + 1):
                    yield _item(f"{path.name}, line {number}", line)
                    tally = tally.plus([_seal(line)])
            told = (file.metadata.metadata or {}).get(_TALLY.encode(), b"no number of lines").decode(errors="replace")
            if told != _says(tally):
                # No checksum covers the footer, which says how many rows there are.
                yield Item(path.name, None, f"lines are missing: it has {_says(tally)}, and says: {told}", b"")
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error


def _seal(line: dict[str, Any]) -> int:
    try:
        return as_seal(line["row_sha256"] or "")
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
    """Field of a Measurement -> kind of its column; those that are not plain are JSON."""
    hints = typing.get_type_hints(Measurement)
    return {field.name: _kind(hints[field.name]) for field in dataclasses.fields(Measurement)}


def _kind(hint: Any) -> str:
    inner = [item for item in typing.get_args(hint) if item is not type(None)]
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


def _columns(record: Travelling) -> dict[str, Any]:
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


def _item(place: str, line: dict[str, Any]) -> Item:
    content = json.dumps(line, sort_keys=True).encode()
    try:
        record, digest = from_fields(_data(line))
    except (ValueError, RecursionError) as error:  # RecordError, and JSON that is none
        return Item(place, None, str(error), content)
    return Item(place, record, "", content, digest)


def _data(line: dict[str, Any]) -> dict[str, Any]:
    """The JSON data of a line (lines.from_fields). A file without digests was not written by us: none is taken."""
    if not line["row_sha256"]:
        raise RecordError("it has no digest")
    if line["kind"] != "measurement":
        return {str(line["kind"]): json.loads(line["other_json"] or "null"), "row_sha256": line["row_sha256"]}
    data: dict[str, Any] = {"row_sha256": line["row_sha256"], _SAMPLES: line[_SAMPLES]}
    for name, kind in _kinds().items():
        if kind != "json":
            data[name] = line[name]
        elif name != _SAMPLES:
            data[name] = json.loads(line[f"{name}_json"] or "null")
    return data
