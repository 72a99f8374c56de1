"""Times of operators, and tunings that follow from them: their validation, and their tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import get_args

from edgevit.records.identity import operator_time_id, tuning_id
from edgevit.records.tuning import OperatorTime, OperatorTimeKind, SiteForm, TimeRatio, TriedForm, TriedVerdict, Tuning
from edgevit.store import closed_lists, tables
from edgevit.store.content_table import ContentTable
from edgevit.store.validate import moment_problems

_MAX_TRIED = 100_000


def _time_problems(time: OperatorTime) -> Iterator[str]:
    if time.kind not in get_args(OperatorTimeKind):
        yield f"its kind is {time.kind!r}"
    if not 0 < time.p50_low_ns <= time.p50_ns <= time.p50_high_ns:
        yield f"its times are {time.p50_low_ns}, {time.p50_ns} and {time.p50_high_ns} ns"
    if min(time.threads, time.batch, time.processes, time.runs) < 1:
        yield f"it has {time.threads} threads, batch {time.batch}, {time.processes} processes and {time.runs} runs"
    if any(number is not None and number < 0 for number in (time.macs, time.moved_bytes)):
        yield f"it costs {time.macs} MACs and moves {time.moved_bytes} bytes"
    if not time.site or not time.operator or not time.device_id:
        yield "it does not say which operator on which device it is of"
    yield from closed_lists.measured_problems(time)
    yield from moment_problems(time.started)


def _tuning_problems(tuning: Tuning) -> Iterator[str]:
    if len(tuning.graph_digest) != 64:
        yield f"its graph_digest is {tuning.graph_digest!r}, which is no digest"
    if len(tuning.tried) > _MAX_TRIED:
        yield f"it tried {len(tuning.tried)} forms"
    ratios = [tuning.gain, tuning.over_default, *(tried.ratio for tried in tuning.tried)]
    for ratio in ratios:
        if ratio is not None and not 0 < ratio.low <= ratio.value <= ratio.high < math.inf:
            yield f"a ratio is {ratio.value}, from {ratio.low} to {ratio.high}"
    if (tuning.gain is None) != (not tuning.forms):
        yield "it has forms without a gain, or a gain without forms"
    if len({one.site for one in tuning.forms}) < len(tuning.forms):
        yield "it has two forms for one kind of site"
    if any(tried.verdict not in get_args(TriedVerdict) for tried in tuning.tried):
        yield "a verdict of it is none"
    yield from closed_lists.measured_problems(tuning)
    yield from moment_problems(tuning.started)


OPERATOR_TIMES = ContentTable(
    tables.operator_time,
    "operator_time",
    OperatorTime,
    operator_time_id,
    {},
    _time_problems,
    location=lambda time: f"{time.operator} in {time.target} {time.precision} on {time.device}",
    fix="measure again, or leave it out",
)
TUNINGS = ContentTable(
    tables.tuning,
    "tuning",
    Tuning,
    tuning_id,
    {
        "forms": tuple[SiteForm, ...],
        "gain": TimeRatio | None,
        "over_default": TimeRatio | None,
        "tried": tuple[TriedForm, ...],
    },
    _tuning_problems,
    location=lambda tuning: f"tuning of {tuning.model} for {tuning.target} {tuning.precision} on {tuning.device}",
    fix="tune again, or leave it out",
    pack={"complete": int},
    unpack={"complete": bool},
)
