"""What a row must be to enter the database. A row from elsewhere is a claim, and a wrong one poisons every answer."""

from __future__ import annotations

import math
import statistics
import types
import typing
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, get_args

from edgevit.errors import StoreError
from edgevit.records.identity import validate_identity
from edgevit.records.measurement import MEAN_ONLY, SUMMARY_ONLY, Measurement, NoiseFloor
from edgevit.records.model import Provenance
from edgevit.store.tables import LOADING_NS, ORDERED_NS, SPREADS_NS, TIMES_NS
from edgevit_runtime.record import Status, VendorSummary

_INT64, _INT32 = 2**63, 2**31
_COUNTS = ("batch", "threads", "processes", "runs", "missed", "discarded", "protocol_version")
PERCENTILES = ("p90_ns", "p99_ns")
# A run reads its artifact at least once. The fastest memory of an accelerator gives 8 TB/s, so that this leaves room;
# it finds nanoseconds that are none, and no more: what a device can really do is not known here.
FASTEST_BYTES_PER_NS = 20_000
_FROM_SAMPLES = tuple(name for name in TIMES_NS if name not in LOADING_NS)
_HEADLINE = ("p50_ns", "p50_low_ns", "p50_high_ns")
_FROM_SAMPLES_ALONE = ("p90_ns", "p99_ns", "p99_upper_ns", "iqr_ns", "mad_ns")  # no summary of a process gives these


def validate(measurement: Measurement) -> None:
    """Check one row, with its samples, before it enters the database.

    Raises StoreError with the first thing wrong: values that no database holds (NaN, beyond 64 bits, half a surrogate),
    times that are not positive or out of order, a headline that its samples contradict, a key or id of another row.
    """
    if problem := next(_problems(measurement), ""):
        fix = "measure again, or leave it out"
        raise StoreError("the row is refused", where=_name(measurement), why=problem, fix=fix)
    validate_identity(measurement)


def validate_noise(floor: NoiseFloor) -> None:
    """Check a noise floor before it enters the database. Raises StoreError for one that is no share of anything."""
    why = next(unstorable(floor, "floor"), "") if isinstance(floor.share, (int, float)) else "no number"
    if not why and (not 0 <= floor.share < math.inf or not floor.device_id):
        why = f"its share is {floor.share}"
    if why:
        raise StoreError("the noise floor is refused", where=floor.device, why=why, fix="edgevit devices noise")


def _name(row: Measurement) -> str:
    return f"measurement {str(row.measurement_id)[:12]} of {row.model} on {row.device}"


def _problems(row: Measurement) -> Iterator[str]:
    yield from _types(row)
    yield from unstorable({**vars(row), "samples_ns": ()}, "row")  # of samples see below
    yield from _times(row)
    yield from _labels(row)
    yield from _counts(row)
    yield from _origin(row)
    yield from _samples(row)
    yield from _told(row)


def unstorable(record: Any, where: str) -> Iterator[str]:
    """What of a record or its JSON data no database holds: NaN, beyond 64 bits, NUL, half a surrogate."""
    if not _is_plain(record):
        yield from (f"{where}{found}" for found in [_unstorable(record)] if found)


def _is_plain(record: Any) -> bool:
    """Whether numbers are in range, and all text is ASCII without NUL: quick, and true of nearly every record."""
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
    """The place and what is wrong there; empty for what can be stored."""
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
        for index, item in enumerate(value):
            if found := _unstorable(item):
                return f"[{index}]{found}"
        return ""
    for key, item in (value if isinstance(value, dict) else getattr(value, "__dict__", {})).items():
        if found := _unstorable(item):
            return f".{key}{found}"
    return ""


def _kinds_of(hint: Any) -> tuple[type, ...]:
    """The classes that a value of this type may be of, looked at from outside: what is in a tuple is not told."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(kind for item in inner for kind in _kinds_of(item))
    if typing.get_origin(hint) is typing.Literal:
        return (str,)
    return (float, int) if hint is float else (typing.get_origin(hint) or hint,)


_KINDS = {name: _kinds_of(hint) for name, hint in typing.get_type_hints(Measurement).items()}


def _types(row: Measurement) -> Iterator[str]:
    """A row that code made may hold what no column does; it would come back as something else, and count as damaged."""
    for name, value in vars(row).items():
        if not isinstance(value, _KINDS[name]) or isinstance(value, bool):
            yield f"{name} is {value!r}, which is not of its type"


def _times(row: Measurement) -> Iterator[str]:
    for name in TIMES_NS + SPREADS_NS:
        value = getattr(row, name)
        if value is not None and value < (0 if name in SPREADS_NS else 1):
            yield f"{name} is {value}, not positive"
    for low, high in ORDERED_NS:
        small, large = getattr(row, low), getattr(row, high)
        if small is not None and large is not None and small > large:
            yield f"{low} ({small}) is above {high} ({large})"
    if row.p50_ns and row.artifact_bytes > FASTEST_BYTES_PER_NS * row.p50_ns:
        yield f"{row.artifact_bytes} bytes in {row.p50_ns} ns: no memory is as fast, so this is another unit"


def _labels(row: Measurement) -> Iterator[str]:
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
    try:
        offset = datetime.fromisoformat(row.started).utcoffset()
    except ValueError:
        yield f"started is {row.started!r}, not an ISO 8601 time"
    else:
        if offset != timedelta(0):
            yield f"started is {row.started!r}, which does not say UTC"


def _counts(row: Measurement) -> Iterator[str]:
    cores = row.host.cores if row.host else 0
    for name, value in (*((name, getattr(row, name) or 0) for name in _COUNTS), ("cores", cores)):
        if not value < _INT32:
            yield f"{name} is {value}, which does not fit into 32 bits"


def _origin(row: Measurement) -> Iterator[str]:
    """A published row says where it is from and what is not told there; nobody fills in what a source leaves out."""
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


def _samples(row: Measurement) -> Iterator[str]:
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
        yield from _headline(row)


def _told(row: Measurement) -> Iterator[str]:
    """A row without samples must say so, and hold what its processes told and no more."""
    if row.status == "ok" and (SUMMARY_ONLY in row.flags) != bool(row.told):
        yield f"the flag {SUMMARY_ONLY} is that of a row with what a program told, and of no other"
    if not row.told:
        return
    if row.samples_ns:
        yield "a row has samples, or what a program told of them, never both"
    for item in row.told:
        yield from _one_told(item)
    if row.status == "ok":
        yield from _told_headline(row)


def _one_told(item: VendorSummary) -> Iterator[str]:
    times = [value for value in (item.min_ns, item.median_ns, item.p95_ns, item.max_ns) if value is not None]
    ordered = times == sorted(times) and item.min_ns <= item.mean_ns <= item.max_ns
    if not ordered or item.min_ns < 1 or (item.runs or 0) < 1:
        yield f"what a program told cannot be true: {item}"


def _told_headline(row: Measurement) -> Iterator[str]:
    medians = [item.median_ns for item in row.told if item.median_ns is not None]
    told_median = len(medians) == len(row.told)
    if (MEAN_ONLY in row.flags) == told_median or (row.p50_ns is not None) != told_median:
        yield f"p50_ns and the flag {MEAN_ONLY} do not follow from what was told"
    if len(row.told) != row.processes or sum(item.runs or 0 for item in row.told) != row.runs:
        yield f"{row.processes} processes and {row.runs} runs are not those that were told"
    if invented := [name for name in _FROM_SAMPLES_ALONE if getattr(row, name) is not None]:
        yield f"{', '.join(invented)} cannot be known without samples"
    low, high = min(item.min_ns for item in row.told), max(item.max_ns for item in row.told)
    for name in _FROM_SAMPLES:
        value = getattr(row, name)
        if value is not None and not low - 1 <= value <= high + 1:
            yield f"{name} is {value}, outside what was told ({low} to {high} ns): another unit, or another row's"
    if row.p90_upper_ns is not None and row.p90_upper_ns != max(item.p95_ns or 0 for item in row.told):
        yield "p90_upper_ns is not the largest 95th percentile that was told"


def _headline(row: Measurement) -> Iterator[str]:
    """A measured row's summary must follow from its samples; a wrong unit does not."""
    if missing := [name for name in _HEADLINE if getattr(row, name) is None]:
        yield f"the row is measured and {', '.join(missing)} missing"
    if len(row.samples_ns) != row.processes or sum(map(len, row.samples_ns)) != row.runs:
        yield f"{row.processes} processes and {row.runs} runs are not those of the samples"
    every = [value for process in row.samples_ns for value in process]
    if not every:
        yield "the row is measured and has no samples"
        return
    low, high = min(every), max(every)
    for name in _FROM_SAMPLES:
        value = getattr(row, name)
        # one nanosecond of room: a summary is rounded
        if value is not None and not low - 1 <= value <= high + 1:
            yield f"{name} is {value}, outside its samples ({low} to {high} ns): another unit, or another row's"
    medians = [statistics.median(process) for process in row.samples_ns if process]
    follows = {"p50_ns": statistics.median(medians), "p50_low_ns": min(medians), "p50_high_ns": max(medians)}
    for name, expected in {**follows, "min_ns": low}.items():
        value = getattr(row, name)
        if value is not None and abs(value - expected) > 1:
            yield f"{name} is {value}, and its samples give {expected:.0f}"
