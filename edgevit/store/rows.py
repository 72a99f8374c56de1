"""A Measurement as rows of the tables, and back. Reading gives exactly what was written, or a StoreError."""

from __future__ import annotations

import functools
import operator
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any

from sqlalchemy import Result, Select, select

from edgevit.errors import StoreError
from edgevit.records.identity import evidence_sha256, host_sha256
from edgevit.records.measurement import Measurement
from edgevit.store import partition_checksums
from edgevit.store.row_checksums import row_sha256
from edgevit.store.tables import artifact, device, environment, measurement, model
from edgevit_runtime.codec import from_json, to_json
from edgevit_runtime.record import Host, Snapshot, TensorSpec, VendorSummary

Values = dict[str, Any]
_HOST = ("machine", "system", "kernel", "python", "cpu_model", "cores", "memory_bytes")
# Columns that hold a field of the record under its own name.
_PLAIN = tuple(column.name for column in measurement.columns if column.name in Measurement.__dataclass_fields__)
_LISTS = ("inputs", "affinity", "flags", "untold")  # fields that a column holds as JSON
_REALS = ("rate_hz", "energy_j")
_JOINED = (
    "model", "family", "target", "artifact_sha256", "artifact_bytes", "graph_digest", "device", "device_id",
    "device_class",
)  # fmt: skip
_HOST_COLUMNS = tuple(f"host_{name}" for name in _HOST)
_FIELDS = (*_PLAIN, *_JOINED)  # what `head` gives under the name of a field
_fields_of = operator.itemgetter(*_FIELDS)
_OWN = (*_PLAIN, *(f"{name}_json" for name in _LISTS), "started_unix_us", "evidence_sha256")  # not joined
_AT_ONCE = 1000  # lines that are held of a result of any length
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class DamagedError(ValueError):
    """A row is not what was written; the message says what gives it away."""


@functools.cache
def head() -> Select[Any]:
    """The query for rows without their evidence (samples and snapshots), oldest first."""
    joined = measurement.join(artifact).join(model).join(device).outerjoin(environment)
    return (
        select(
            *(measurement.c[name] for name in _PLAIN),
            *(measurement.c[f"{name}_json"] for name in _LISTS),
            measurement.c.started_unix_us,
            measurement.c.evidence_sha256,
            measurement.c.row_sha256,
            measurement.c.device_no,
            model.c.name.label("model"),
            model.c.family,
            artifact.c.target,
            artifact.c.sha256.label("artifact_sha256"),
            artifact.c.size_bytes.label("artifact_bytes"),
            artifact.c.graph_digest,
            device.c.name.label("device"),
            device.c.device_id,
            device.c.device_class,
            *(environment.c[name].label(f"host_{name}") for name in _HOST),
        )
        .select_from(joined)
        .order_by(measurement.c.started_unix_us, measurement.c.measurement_id)
    )


def fetched(result: Result[Any]) -> Iterator[Values]:
    """What a query gives, line by line, by the names of columns."""
    names = tuple(result.keys())
    for lines in result.partitions(_AT_ONCE):
        for line in lines:
            yield dict(zip(names, line, strict=True))


def require_sealed(values: Values) -> None:
    """Raise DamagedError where the columns of a row of `head` are not those that were written."""
    if row_sha256(values) != values["row_sha256"]:
        raise DamagedError("its columns are not those that were written")


def read(values: Values, evidence: Iterable[Values] | None = None, *, sealed: bool = True) -> Measurement:
    """One Measurement from the columns of `head` and its lines of the sample table, in the order of processes.

    Without evidence the row comes without samples, told and snapshots; one that is not `sealed` has no digests yet.
    The columns are believed (require_sealed), the evidence is not: raises StoreError where something cannot be decoded
    or is not what was written, because the database is damaged.
    """
    try:
        samples, told, snapshots = ((), (), ()) if evidence is None else _read_evidence(evidence)
        if sealed and evidence is not None and evidence_sha256(samples, snapshots, told) != values["evidence_sha256"]:
            raise DamagedError("its samples or snapshots are not those that were written")
        fields = dict(zip(_FIELDS, _fields_of(values), strict=True))
        fields |= {
            "host": _host(*[values[name] for name in _HOST_COLUMNS]),
            "inputs": _inputs(values["inputs_json"]),
            "affinity": _numbers(values["affinity_json"]),
            "flags": _texts(values["flags_json"]),
            "untold": _texts(values["untold_json"]),
            "samples_ns": samples,
            "told": told,
            "snapshots": snapshots,
        }
    except (ValueError, TypeError, OverflowError, zlib.error) as error:  # RecordError and DamagedError, too
        raise damaged(values["measurement_id"], error) from error
    return _record(fields)


def _record(fields: Values) -> Measurement:
    """Measurement(**fields). A frozen dataclass sets one field after another, a third of the time of a reading."""
    row = object.__new__(Measurement)
    object.__setattr__(row, "__dict__", fields)
    return row


def damaged(measurement_id: object, why: Exception) -> StoreError:
    """What is said of a row that is not what was written."""
    name = f"measurement {str(measurement_id)[:12]}..."
    return StoreError(f"{name} is damaged", why=str(why), fix=partition_checksums.FIX)


def head_values(row: Measurement) -> Values:
    """What `head` gives of a row, but for the numbers of this database: what its digest is made of."""
    own, host = vars(row), row.host
    values = {name: own[name] for name in _FIELDS}
    for name in _REALS:  # 30 and 30.0 are one number, and two texts
        values[name] = None if values[name] is None else float(values[name])
    values |= {f"{name}_json": to_json(own[name]) if own[name] else "[]" for name in _LISTS}
    values |= {f"host_{name}": None if host is None else getattr(host, name) for name in _HOST}
    values["started_unix_us"] = unix_us(row.started)
    values["evidence_sha256"] = evidence_sha256(row.samples_ns, row.snapshots, row.told)
    return values


def model_values(row: Measurement) -> Values:
    """The row's line of the model table."""
    return {"name": row.model, "family": row.family}


def artifact_values(row: Measurement, model_no: int) -> Values:
    """The row's line of the artifact table."""
    return {
        "model_no": model_no,
        "target": row.target,
        "sha256": row.artifact_sha256,
        "size_bytes": row.artifact_bytes,
        "graph_digest": row.graph_digest,
    }


def device_values(row: Measurement) -> Values:
    """The row's line of the device table."""
    return {"device_id": row.device_id, "device_class": row.device_class, "name": row.device}


def environment_values(host: Host) -> Values:
    """The host's line of the environment table."""
    return {"sha256": host_sha256(host), **asdict(host)}


def measurement_values(row: Measurement) -> Values:
    """The row's line of the measurement table, less the numbers of the lines it refers to."""
    whole = head_values(row)
    return {name: whole[name] for name in _OWN} | {"row_sha256": row_sha256(whole)}


def unix_us(started: str) -> int:
    """Microseconds since 1970 of an ISO 8601 time with its zone. Raises ValueError or TypeError for another text."""
    return (datetime.fromisoformat(started) - _EPOCH) // timedelta(microseconds=1)


def iso_time(unix_us: int) -> str:
    """ISO 8601, UTC, of a time in microseconds since 1970."""
    return (_EPOCH + timedelta(microseconds=unix_us)).isoformat()


def sample_values(row: Measurement) -> list[Values]:
    """The row's lines of the sample table: per process its samples, or what was told in their place, and the snapshots
    before and after it."""
    pairs = [row.snapshots[i : i + 2] for i in range(0, len(row.snapshots), 2)]
    return [
        {
            "measurement_id": row.measurement_id,
            "process": process,
            "runs": None if samples is None else len(samples),
            "samples_zlib": None if samples is None else pack(samples),
            "told_json": None if told is None else to_json(told),
            "snapshots_json": to_json(pair or ()),
        }
        for process, (samples, told, pair) in enumerate(zip_longest(row.samples_ns, row.told, pairs))
    ]


def pack(samples_ns: tuple[int, ...]) -> bytes:
    """Samples as zlib over little-endian int64, all lowest bytes first, then all next ones, and so on.

    The upper bytes are nearly constant, so that this takes 2.8 bytes per sample against 3.5 without the regrouping.
    """
    plain = struct.pack(f"<{len(samples_ns)}q", *samples_ns)
    return zlib.compress(b"".join(plain[i::8] for i in range(8)))


def unpack(packed: bytes, runs: int) -> tuple[int, ...]:
    """What `pack` was given. Never expands beyond `runs` samples; raises zlib.error where it has more or fewer."""
    grouped = zlib.decompressobj().decompress(packed, 8 * runs + 1)
    if len(grouped) != 8 * runs:
        raise zlib.error(f"{runs} samples expected, {len(grouped)} bytes found")
    plain = bytearray(len(grouped))
    for i in range(8):
        plain[i::8] = grouped[i * runs : (i + 1) * runs]
    return struct.unpack(f"<{runs}q", plain)


def _read_evidence(
    evidence: Iterable[Values],
) -> tuple[tuple[tuple[int, ...], ...], tuple[VendorSummary, ...], tuple[Snapshot, ...]]:
    samples: list[tuple[int, ...]] = []
    told: list[VendorSummary] = []
    snapshots: list[Snapshot] = []
    for part in evidence:
        if part["samples_zlib"] is not None:
            samples.append(unpack(part["samples_zlib"], part["runs"]))
        if part["told_json"] is not None:
            told.append(from_json(VendorSummary, part["told_json"]))
        snapshots.extend(from_json(tuple[Snapshot, ...], part["snapshots_json"]))
    return tuple(samples), tuple(told), tuple(snapshots)


# A listing of thousands of rows repeats a handful of hosts, inputs and flags.
@functools.lru_cache(maxsize=512)
def _host(machine: str | None, *rest: Any) -> Host | None:
    return None if machine is None else Host(machine, *rest)


@functools.lru_cache(maxsize=512)
def _inputs(text: str) -> tuple[TensorSpec, ...]:
    return from_json(tuple[TensorSpec, ...], text)


@functools.lru_cache(maxsize=512)
def _numbers(text: str) -> tuple[int, ...]:
    return from_json(tuple[int, ...], text)


@functools.lru_cache(maxsize=512)
def _texts(text: str) -> tuple[str, ...]:
    return from_json(tuple[str, ...], text)
