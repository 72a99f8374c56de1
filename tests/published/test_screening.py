"""Tests of the screening of published rows: units, ceilings, and comparisons with other devices and models."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterator
from datetime import date, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgevit.errors import StoreError
from edgevit.published.importers.reading.names import target_of
from edgevit.published.importers.reading.units import (
    from_millions,
    ns_from_ms,
    ns_from_ns,
    ns_from_us,
    number,
    utc,
    whole,
)
from edgevit.published.screening import Claim, ClaimError, Cost, Screening
from edgevit.published.screening.ceilings import ceiling_of, least_ns
from edgevit.published.screening.residual import polish, residuals
from edgevit.published.screening.screen import COPIED
from edgevit.records.measurement import Measurement
from edgevit.store import PublishedValues, RefusalCode, RefusalReason
from edgevit.store.epochs import TimedRow, find_epochs
from edgevit.store.mixed_hardware import mixed_factor

# Units


@given(st.floats(min_value=1e-3, max_value=1e6))
def test_a_time_is_one_time_in_every_unit(milliseconds: float) -> None:
    expected = milliseconds * 1e6
    for converted in (ns_from_ms(milliseconds, "t"), ns_from_us(milliseconds * 1e3, "t"), ns_from_ns(expected, "t")):
        assert abs(converted - expected) <= 0.5 + 1e-9 * expected


@given(st.floats(min_value=1e-3, max_value=1e6))
def test_text_and_number_are_read_alike(value: object) -> None:
    assert ns_from_ms(repr(value), "t") == ns_from_ms(value, "t")


@pytest.mark.parametrize(
    "text", ["", "x", "nan", "inf", "-inf", "1_000", "1,5", "0x10", "٣", None, True, "1 ms", [1], 10**400]
)
def test_what_is_no_number_is_refused(text: object) -> None:
    with pytest.raises(ClaimError, match="not a number") as caught:
        number(text, "t")
    assert caught.value.reason.code == "not_a_number"


@pytest.mark.parametrize("value", [0, -1, "-0.5", "0.0"])
def test_what_is_not_positive_is_refused(value: object) -> None:
    with pytest.raises(ClaimError, match="not positive"):
        ns_from_ms(value, "t")


def test_the_rest_of_units() -> None:
    assert from_millions("1,014.45", "n") == pytest.approx(1.01445e9)
    assert whole("50000.0", "n") == 50_000
    assert utc("2026-02-24T21:13:57-08:00", "t") == "2026-02-25T05:13:57+00:00"
    assert utc("2026-02-24", "t") == "2026-02-24T00:00:00+00:00"
    assert utc(date(2026, 2, 24), "t") == "2026-02-24T00:00:00+00:00", "as YAML reads it"
    for wrong in ("2026-02-24T21:13:57", "yesterday", datetime(2026, 2, 24), "0001-01-01T00:00:00+14:00", None, 2026):
        with pytest.raises(ClaimError):
            utc(wrong, "t")
    for wrong in ("1.5", "-1"):
        with pytest.raises(ClaimError):
            whole(wrong, "n")
    with pytest.raises(ClaimError, match="64 bits"):
        ns_from_ms("18446744073709551615", "t")


def test_targets_go_by_our_names_where_they_are_ours() -> None:
    assert [target_of(name) for name in ("tflite", "TFLite", "Core ML", "qnn_dlc")] == [
        "litert", "litert", "coreml", "qnn_dlc",
    ]  # fmt: skip


# Ceilings


def test_ceilings_go_by_whole_names() -> None:
    assert ceiling_of("i7_12700h") is ceiling_of("Intel Core i7-12700H") is not None
    assert ceiling_of("NVIDIA A100") is not None and ceiling_of("NVIDIA A1000") is None
    assert ceiling_of("iPhone 12") is not None and ceiling_of("iPhone 12 Pro") is None


@given(st.floats(0, 1e13), st.floats(0, 1e11))
def test_more_work_is_never_faster(macs: float, weights: float) -> None:
    ceiling = ceiling_of("RTX 4090")
    assert ceiling is not None
    shortest_ns, _ = least_ns(Cost(macs, weights), ceiling)
    assert least_ns(Cost(2 * macs, weights), ceiling)[0] >= shortest_ns
    assert least_ns(Cost(macs, 2 * weights), ceiling)[0] >= shortest_ns
    assert least_ns(Cost(None, None), ceiling)[0] == 0


# Neighbours

MODELS, DEVICES = 40, 12
Times = NDArray[np.float64]


def table(seed: int = 0) -> Times:
    """Return nanoseconds of models by devices: two kinds of device with peculiarities, and 3% of noise."""
    draw = np.random.default_rng(seed)
    size, speed = draw.normal(16, 1, MODELS), draw.normal(0, 0.7, DEVICES)
    taste = np.outer(draw.normal(0, 0.15, MODELS), np.arange(DEVICES) % 2)
    kind = np.outer(np.arange(MODELS) % 2, draw.normal(0, 0.1, DEVICES))
    times: Times = np.exp(size[:, None] + speed + taste + kind + draw.normal(0, 0.03, (MODELS, DEVICES)))
    return times


def claims(times: Times, source: str = "test", started: str = "") -> Iterator[Claim]:
    """Yield a claim for each time of a table; its location has the numbers of model and device."""
    for model, device in np.ndindex(times.shape):
        row = PublishedValues(
            source=source, licence="MIT", model=f"m{model}", device=f"d{device}", device_id=f"d{device}",
            target="onnx", precision="fp32", engine="e", started=started, p50_ns=round(float(times[model, device])),
        )  # fmt: skip
        yield Claim(f"{model} {device}", b"", row)


def refusals(read: Callable[[], Iterator[Claim]]) -> dict[str, RefusalCode]:
    """Screen claims; return the code of each refused one by its location."""
    records = Screening(read).records()
    return {parsed.location: parsed.refusal.code for parsed in records if parsed.refusal is not None}


def refused(times: Times) -> dict[str, RefusalCode]:
    """Screen a table; return the code of each refused time by its numbers of model and device."""
    return refusals(lambda: claims(times))


def on_device(claim: Claim, device_id: str) -> PublishedValues:
    """Return the row of a claim on another device."""
    assert claim.row is not None
    return dataclasses.replace(claim.row, device_id=device_id)


def test_sound_rows_pass() -> None:
    assert refused(table()) == {}


@pytest.mark.parametrize(
    ("factor", "code"), [(2, "doubtful"), (0.5, "doubtful"), (1000, "another_unit"), (1e-3, "another_unit")]
)
def test_one_wrong_number_is_found_and_no_other(factor: float, code: str) -> None:
    for seed in range(5):
        times = table(seed)
        times[7, 3] *= factor
        assert refused(times) == {"7 3": code}


def test_a_device_or_a_model_that_is_slow_throughout_passes() -> None:
    times = table()
    times[:, 3] *= 20
    times[5] *= 30
    assert refused(times) == {}


@pytest.mark.parametrize(("factor", "count"), [(2, 0), (1000, 2)])
def test_a_number_that_another_run_repeats_passes_but_not_in_another_unit(factor: float, count: int) -> None:
    times = table()
    times[7, 3] *= factor

    def twice() -> Iterator[Claim]:
        for copy in range(2):
            yield from claims(times, source=f"run {copy}")

    codes = [parsed.refusal.code for parsed in Screening(twice).records() if parsed.refusal is not None]
    assert codes == count * ["another_unit"]


def test_a_table_too_small_is_counted_and_not_judged() -> None:
    times = table()[:4, :6]
    times[0, 0] *= 2
    screening = Screening(lambda: claims(times))
    assert all(parsed.record is not None for parsed in screening.records())
    assert screening.counts["without_neighbours"] == times.size


def test_a_jump_of_part_of_a_device_is_left_to_epochs() -> None:
    times = table()
    later = times.copy()
    later[:8, 3] *= 4

    def both() -> Iterator[Claim]:
        yield from claims(times, started="2026-01-01T00:00:00+00:00")
        yield from claims(later, started="2026-02-01T00:00:00+00:00")

    assert refusals(both) == {}
    later[20, 5] *= 4
    assert refusals(both) == {"20 5": "doubtful"}


def test_a_copy_stands_and_falls_with_what_it_copies() -> None:
    """Add copies: a copy does not confirm its number, and is checked like it."""
    times = table()
    times[7, 3] *= 2

    def with_copy() -> Iterator[Claim]:
        yield from (claim._replace(origin=claim.location) for claim in claims(times))
        for origin in ("7 3", "8 3"):
            [claim] = [claim for claim in claims(times) if claim.location == origin]
            yield claim._replace(location=f"copy of {origin}", origin=origin, row=on_device(claim, "twin"))

    screening = Screening(with_copy)
    records = {parsed.location: parsed.record for parsed in screening.records()}
    assert {location for location, record in records.items() if record is None} == {"7 3", "copy of 7 3"}
    rows = {location: record for location, record in records.items() if isinstance(record, Measurement)}
    assert {location for location, row in rows.items() if COPIED in row.flags} == {"8 3", "copy of 8 3"}
    assert screening.counts == {"without_ceiling": times.size + 2, COPIED: 2}


def test_copies_do_not_speak_for_each_other() -> None:
    """Copy a wrong number to two more devices: they do not confirm it."""
    times = table()
    times[7, 3] *= 2

    def with_twins() -> Iterator[Claim]:
        for claim in claims(times):
            yield claim._replace(origin=claim.location)
            for twin in ("twin", "triplet") if claim.location.endswith(" 3") else ():
                yield claim._replace(
                    location=f"{twin} {claim.location}", origin=claim.location, row=on_device(claim, twin)
                )

    assert list(refusals(with_twins)) == ["7 3", "twin 7 3", "triplet 7 3"]


def test_a_source_that_changes_while_it_is_read_is_an_error() -> None:
    lengths = iter((3, 4))
    refusal = RefusalReason("not_a_number", "x")
    screening = Screening(lambda: (Claim(str(n), b"", refusal=refusal) for n in range(next(lengths))))
    with pytest.raises(StoreError, match="changed while it was read"):
        list(screening.records())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(0.01, 100), st.randoms(use_true_random=False))
def test_a_judgement_depends_neither_on_units_nor_on_order(
    seed: int, model_factor: float, device_factor: float, draw: random.Random
) -> None:
    """Scale a device and a model, and shuffle the lines: that changes only the last digits."""
    times = table(seed)
    times[7, 3] *= 2.5
    i, j = (part.ravel() for part in np.indices(times.shape))
    times[3] *= model_factor
    times[:, 2] *= device_factor
    order = list(range(len(i)))
    draw.shuffle(order)
    agreed, _ = residuals(i[order], j[order], times.ravel()[order])
    pairs = zip(order, agreed, strict=True)
    doubtful = {(int(i[k]), int(j[k])) for k, residual in pairs if abs(residual) > math.log(1.4)}
    assert doubtful == {(7, 3)}


def test_polish_leaves_nothing_of_an_additive_table() -> None:
    i, j = (part.ravel() for part in np.indices((6, 5)))
    assert np.allclose(polish(i, j, i * 0.7 - j * 1.3), 0, atol=1e-6)


# Two kinds of board


def test_part_of_a_device_that_jumps_by_one_factor() -> None:
    draw = random.Random(0)
    same = [draw.uniform(0.97, 1.03) for _ in range(85)]
    assert mixed_factor([*same, *(draw.uniform(3.8, 4.3) for _ in range(15))]) == pytest.approx(4, rel=0.1)
    assert mixed_factor([*same, *(1 / draw.uniform(3.8, 4.3) for _ in range(15))]) == pytest.approx(0.25, rel=0.1)
    assert mixed_factor([*same, *(draw.uniform(3.8, 4.3) for _ in range(5))]) is None, "too few"
    assert mixed_factor([*same, *(math.exp(draw.uniform(0.7, 4)) for _ in range(15))]) is None, (
        "by factors of their own"
    )
    assert mixed_factor([4.0] * 15) is None, "too few rows to speak of shares"
    little = [draw.uniform(1.4, 1.9) for _ in range(10)]
    assert mixed_factor([*same, *little, *(draw.uniform(2.1, 2.5) for _ in range(15))]) is None, "no gap: software"
    assert mixed_factor([*same, *little[:3], *(draw.uniform(3.8, 4.3) for _ in range(15))]) is not None
    with_faster = [1 / ratio for ratio in [*same, *little, *(draw.uniform(2.1, 2.5) for _ in range(15))]]
    assert mixed_factor(with_faster) is None


def test_a_pool_that_gets_a_second_kind_of_board_is_a_new_epoch_once() -> None:
    draw, day_us = random.Random(0), 24 * 3600 * 10**6

    def month(number: int, slow: float) -> list[TimedRow]:
        """Return jobs of 40 models; every fifth one, another each month, takes `slow` times as long as the others."""
        times = [
            10**6 * (model + 1) * draw.uniform(0.97, 1.03) * (slow if model % 5 == number % 5 else 1)
            for model in range(40)
        ]
        return [
            TimedRow(f"{number}-{model}", "pool", 30 * number * day_us + model, (f"m{model}",), round(ns), None, None)
            for model, ns in enumerate(times)
        ]

    before = [row for number in range(3) for row in month(number, 1)]
    assert find_epochs("pool", before, None) == []
    after = [row for number in range(3, 6) for row in month(number, 4)]
    [epoch] = find_epochs("pool", [*after, *before], None)
    assert epoch.started.startswith("1970-04-01") and epoch.ratio == pytest.approx(4, rel=0.1)
    assert epoch.reason.startswith("8 of 40 published rows")
