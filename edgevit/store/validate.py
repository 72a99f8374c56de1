"""Validation of a row before it enters the database. A foreign row is a claim, and a wrong one spoils answers."""

from __future__ import annotations

import math
import statistics
import types
import typing
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from edgevit.errors import RowRefusedError, StoreError
from edgevit.records.identity import validate_identity
from edgevit.records.measurement import MEAN_ONLY, SUMMARY_ONLY, Measurement, NoiseFloor
from edgevit.records.model import Provenance
from edgevit.store import closed_lists
from edgevit.store.tables import LOADING_NS, ORDERED_NS, SPREADS_NS, TIMES_NS
from edgevit_runtime.record import Status, VendorSummary

_INT64, _INT32 = 2**63, 2**31
_COUNTS = ("batch", "threads", "processes", "runs", "missed", "discarded", "protocol_version")
PERCENTILES = ("p90_ns", "p99_ns")
# A run reads its artifact at least once. The fastest memory of an accelerator gives 8 TB/s, and this leaves room. It
# detects other units in place of nanoseconds, and no more: the limits of the device are not known here.
FASTEST_BYTES_PER_NS = 20_000
_FROM_SAMPLES = tuple(name for name in TIMES_NS if name not in LOADING_NS)
_HEADLINE = ("p50_ns", "p50_low_ns", "p50_high_ns")
_FIRST = datetime(2015, 1, 1, tzinfo=UTC)  # no machine measured for edgevit before
_AHEAD = timedelta(days=1)  # by which another machine's clock may be wrong
_LONGEST_VERSION = 200  # characters
_ROUNDED = 1e-6
# No summary of a process gives these.
_FROM_SAMPLES_ALONE = ("p90_ns", "p99_ns", "p99_upper_ns", "iqr_ns", "mad_ns")


def validate_measurement(measurement: Measurement) -> None:
    """Check one row, with its samples, before it enters the database.

    Raises RowRefusedError with the first problem. Some values no database holds: NaN, beyond 64 bits, half a surrogate.
    Times may be negative or out of order, samples may contradict the headline, and a key or id may be of another row.
    """
    if problem := next(_problems(measurement), ""):
        fix = "measure again, or leave it out"
        raise RowRefusedError("the row is refused", where=_name(measurement), why=problem, fix=fix)
    validate_identity(measurement)


def _now() -> datetime:
    return datetime.now(UTC)


def validate_noise(floor: NoiseFloor) -> None:
    """Check a noise floor before it enters the database. Raises StoreError for one that is no share."""
    why = next(unstorable(floor, "floor"), "") if isinstance(floor.share, (int, float)) else "no number"
    if not why and (not 0 <= floor.share < math.inf or not floor.device_id):
        why = f"its share is {floor.share}"
    if not why and floor.p50s_ns:
        range_share = (max(floor.p50s_ns) - min(floor.p50s_ns)) / statistics.median(floor.p50s_ns)
        if not math.isclose(floor.share, range_share, abs_tol=_ROUNDED):
            why = f"its share is {floor.share}, and its medians give {range_share:.4g}"
    if why:
        raise StoreError("the noise floor is refused", where=floor.device, why=why, fix="edgevit devices noise")


def _name(row: Measurement) -> str:
    return f"measurement {str(row.measurement_id)[:12]} of {row.model} on {row.device}"


def _problems(row: Measurement) -> Iterator[str]:
    yield from _type_problems(row)
    # _sample_problems checks the samples.
    yield from unstorable({**vars(row), "samples_ns": ()}, "row")
    yield from _time_problems(row)
    yield from _label_problems(row)
    yield from _count_problems(row)
    yield from _origin_problems(row)
    yield from _sample_problems(row)
    yield from _summary_problems(row)


def moment_problems(started: str, *, is_measured: bool = True) -> Iterator[str]:
    """Yield what cannot be true of a moment. One of a measurement is after this program began, and not ahead of us."""
    try:
        offset = datetime.fromisoformat(started).utcoffset()
    except ValueError:
        yield f"started is {started!r}, which is not an ISO 8601 time"
        return
    if offset != timedelta(0):
        yield f"started is {started!r}, which is not in UTC"
    elif is_measured and not _FIRST <= datetime.fromisoformat(started) < _now() + _AHEAD:
        yield f"started is {started!r}, before this program or more than a day ahead of this machine's clock"


def unstorable(record: Any, name: str) -> Iterator[str]:
    """Yield the first value of a record or its JSON data that no database holds.

    Such values are NaN, integers beyond 64 bits, NUL, and half a surrogate. `name` is that of the record.
    """
    if not _is_plain(record) and (problem := _unstorable(record)):
        yield f"{name}{problem}"


def _is_plain(record: Any) -> bool:
    """Return whether numbers are in range, and text is ASCII without NUL: quick, and true of nearly every record."""
    todo, texts = [record], []
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, int):
            if not -_INT64 <= value < _INT64:
                return False
        elif isinstance(value, float):
            if not math.isfinite(value):
                return False
        elif isinstance(value, (tuple, list)):
            todo += value
        elif value is not None:
            todo += (value if isinstance(value, dict) else getattr(value, "__dict__", {})).values()
    text = "".join(texts)
    return text.isascii() and "\0" not in text


def _unstorable(value: Any) -> str:
    """Return the path of the first value that no database holds, with the problem; empty: all can be stored."""
    if value is None:
        return ""
    if isinstance(value, str):
        bad = "\0" in value or (not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value))
        return " holds a NUL or half a surrogate pair" if bad else ""
    if isinstance(value, int):
        return "" if -_INT64 <= value < _INT64 else " does not fit into 64 bits"
    if isinstance(value, float):
        return "" if math.isfinite(value) else f" is {value}"
    if isinstance(value, (tuple, list)):
        for index, element in enumerate(value):
            if problem := _unstorable(element):
                return f"[{index}]{problem}"
        return ""
    for key, field in (value if isinstance(value, dict) else getattr(value, "__dict__", {})).items():
        if problem := _unstorable(field):
            return f".{key}{problem}"
    return ""


def _kinds_of(hint: Any) -> tuple[type, ...]:
    """Return the classes that a value of this type may have. Elements of a tuple are not considered."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(kind for member in inner for kind in _kinds_of(member))
    if typing.get_origin(hint) is typing.Literal:
        return (str,)
    return (float, int) if hint is float else (typing.get_origin(hint) or hint,)


_KINDS = {name: _kinds_of(hint) for name, hint in typing.get_type_hints(Measurement).items()}


def _type_problems(row: Measurement) -> Iterator[str]:
    """Yield values of another type than their column: they would come back as something else, and count as damaged."""
    for name, value in vars(row).items():
        if not isinstance(value, _KINDS[name]) or isinstance(value, bool):
            yield f"{name} is {value!r}, which has another type"


def _time_problems(row: Measurement) -> Iterator[str]:
    for name in TIMES_NS + SPREADS_NS:
        value = getattr(row, name)
        if value is not None and value < (0 if name in SPREADS_NS else 1):
            yield f"{name} is {value}, not positive"
    for low, high in ORDERED_NS:
        small, large = getattr(row, low), getattr(row, high)
        if small is not None and large is not None and small > large:
            yield f"{low} ({small}) is above {high} ({large})"
    if row.p50_ns and row.artifact_bytes > FASTEST_BYTES_PER_NS * row.p50_ns:
        yield f"{row.artifact_bytes} bytes in {row.p50_ns} ns: no memory is as fast: another unit"


def _label_problems(row: Measurement) -> Iterator[str]:
    if row.status not in get_args(Status):
        yield f"the status is {row.status!r}"
    if row.provenance not in get_args(Provenance):
        yield f"the provenance is {row.provenance!r}"
    if row.batch < 1 or min(row.threads, row.processes, row.runs, row.artifact_bytes) < 0:
        yield "batch, threads, processes, runs and artifact_bytes cannot be negative, nor batch zero"
    if row.discarded < 0 or (row.missed or 0) < 0 or (row.missed is not None and row.rate_hz is None):
        yield "discarded and missed cannot be negative, and frames can be missed at a rate only"
    for name in ("rate_hz", "energy_j"):
        if (value := getattr(row, name)) is not None and not value > 0:
            yield f"{name} is {value}, not positive: what was not measured is null"
    if row.artifact_sha256 and len(row.artifact_sha256) != 64:
        yield f"artifact_sha256 is {row.artifact_sha256!r}"
    yield from moment_problems(row.started, is_measured=row.provenance == "measured")
    if row.parity_status not in closed_lists.PARITY_STATUSES:
        names = ", ".join(filter(None, closed_lists.PARITY_STATUSES))
        yield f"the parity status is {row.parity_status!r}, which is none of {names}"
    yield from closed_lists.problems(row)
    if len(row.engine_version) > _LONGEST_VERSION:
        yield f"engine_version has {len(row.engine_version)} characters, more than any version"
    if row.status == "ok" and row.provenance == "measured" and not row.artifact_bytes:
        yield "an artifact of 0 bytes ran"
    if any(size == 0 for spec in row.inputs for size in spec.shape):
        yield f"an input is empty: {', '.join(str(spec.shape) for spec in row.inputs)}"


def _count_problems(row: Measurement) -> Iterator[str]:
    cores = row.host.cores if row.host else 0
    for name, value in (*((name, getattr(row, name) or 0) for name in _COUNTS), ("cores", cores)):
        if not value < _INT32:
            yield f"{name} is {value}, which does not fit into 32 bits"


def _origin_problems(row: Measurement) -> Iterator[str]:
    """Yield problems of a published row: it names its source and what the source leaves out, and fills nothing in."""
    if row.graph_digest and len(row.graph_digest) != 64:
        yield f"graph_digest is {row.graph_digest!r}"
    if row.provenance != "published":
        return
    if not row.source:
        yield "the provenance is published and no source is named"
    if not row.licence and "licence" not in row.untold:
        yield "the licence is empty, and `untold` does not say that the source names none"
    if row.samples_ns or row.told or row.snapshots or row.host is not None:
        yield "the provenance is published, and samples, told, snapshots and host are those of a measurement"
    if missing := [name for name in PERCENTILES if getattr(row, name) is None and name not in row.untold]:
        yield f"{', '.join(missing)} missing, and `untold` does not say so"


def _sample_problems(row: Measurement) -> Iterator[str]:
    for process in row.samples_ns:
        for value in process:
            if type(value) is not int or not 0 < value < _INT64:
                yield f"a sample is {value!r}, not a positive number of nanoseconds"
                return
    if row.status != "ok":
        return
    if row.p50_ns is None and (row.mean_ns is None or not (row.told or MEAN_ONLY in row.flags)):
        yield "the status is ok and p50_ns is missing"
    if row.provenance == "measured" and not row.told:
        yield from _headline_problems(row)


def _summary_problems(row: Measurement) -> Iterator[str]:
    """Yield problems of vendors' summaries: a row without samples is flagged, and agrees with its summaries."""
    if row.status == "ok" and (SUMMARY_ONLY in row.flags) != bool(row.told):
        yield f"the flag {SUMMARY_ONLY} is of rows with summaries of a vendor's program, and of no others"
    if not row.told:
        return
    if row.samples_ns:
        yield "a row has samples, or a vendor's summaries of them, never both"
    for summary in row.told:
        yield from _one_summary_problems(summary)
    if row.status == "ok":
        yield from _summary_headline_problems(row)


def _one_summary_problems(summary: VendorSummary) -> Iterator[str]:
    stated = (summary.min_ns, summary.median_ns, summary.p95_ns, summary.max_ns)
    times = [value for value in stated if value is not None]
    ordered = times == sorted(times) and summary.min_ns <= summary.mean_ns <= summary.max_ns
    if not ordered or summary.min_ns < 1 or (summary.runs or 0) < 1:
        yield f"the summary of a program cannot be true: {summary}"


def _summary_headline_problems(row: Measurement) -> Iterator[str]:
    medians = [summary.median_ns for summary in row.told if summary.median_ns is not None]
    has_median = len(medians) == len(row.told)
    if (MEAN_ONLY in row.flags) == has_median or (row.p50_ns is not None) != has_median:
        yield f"p50_ns and the flag {MEAN_ONLY} do not follow from the summaries"
    if len(row.told) != row.processes or sum(summary.runs or 0 for summary in row.told) != row.runs:
        yield f"{row.processes} processes and {row.runs} runs are not those of the summaries"
    if invented := [name for name in _FROM_SAMPLES_ALONE if getattr(row, name) is not None]:
        yield f"{', '.join(invented)} cannot be known without samples"
    low, high = min(summary.min_ns for summary in row.told), max(summary.max_ns for summary in row.told)
    for name in _FROM_SAMPLES:
        value = getattr(row, name)
        if value is not None and not low - 1 <= value <= high + 1:
            yield f"{name} is {value}, outside its summaries ({low} to {high} ns): another unit, or another row's"
    if row.p90_upper_ns is not None and row.p90_upper_ns != max(summary.p95_ns or 0 for summary in row.told):
        yield "p90_upper_ns is not the largest 95th percentile of the summaries"


def _headline_problems(row: Measurement) -> Iterator[str]:
    """Yield columns of a measured row that do not follow from its samples: those of a wrong unit do not."""
    if missing := [name for name in _HEADLINE if getattr(row, name) is None]:
        yield f"the row is measured and {', '.join(missing)} missing"
    if len(row.samples_ns) != row.processes or sum(map(len, row.samples_ns)) != row.runs:
        yield f"{row.processes} processes and {row.runs} runs are not those of the samples"
    samples = [value for process in row.samples_ns for value in process]
    if not samples:
        yield "the row is measured and has no samples"
        return
    low, high = min(samples), max(samples)
    for name in _FROM_SAMPLES:
        value = getattr(row, name)
        # A summary is rounded: one nanosecond of room.
        if value is not None and not low - 1 <= value <= high + 1:
            yield f"{name} is {value}, outside its samples ({low} to {high} ns): another unit, or another row's"
    medians = [statistics.median(process) for process in row.samples_ns if process]
    follows = {"p50_ns": statistics.median(medians), "p50_low_ns": min(medians), "p50_high_ns": max(medians)}
    for name, expected in {**follows, "min_ns": low}.items():
        value = getattr(row, name)
        if value is not None and abs(value - expected) > 1:
            yield f"{name} is {value}, and its samples give {expected:.0f}"
