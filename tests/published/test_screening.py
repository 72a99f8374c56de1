"""What is asked of rows that others published: units, ceilings, and what other devices and models say."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import date, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from edgevit.store.epochs import Seen, find
from edgevit.store.mixed_hardware import mixed_factor

# Units


@given(st.floats(min_value=1e-3, max_value=1e6))
def test_a_time_is_one_time_in_every_unit(milliseconds):
    expected = milliseconds * 1e6
    for found in (ns_from_ms(milliseconds, "t"), ns_from_us(milliseconds * 1e3, "t"), ns_from_ns(expected, "t")):
        assert abs(found - expected) <= 0.5 + 1e-9 * expected


@given(st.floats(min_value=1e-3, max_value=1e6))
def test_text_and_number_are_read_alike(value):
    assert ns_from_ms(repr(value), "t") == ns_from_ms(value, "t")


@pytest.mark.parametrize(
    "text", ["", "x", "nan", "inf", "-inf", "1_000", "1,5", "0x10", "٣", None, True, "1 ms", [1], 10**400]
)
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ClaimError, match="not a number"):
        number(text, "t")


@pytest.mark.parametrize("value", [0, -1, "-0.5", "0.0"])
def test_what_is_not_positive_is_refused(value):
    with pytest.raises(ClaimError, match="not positive"):
        ns_from_ms(value, "t")


def test_the_rest_of_units():
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


def test_targets_go_by_our_names_where_they_are_ours():
    assert [target_of(name) for name in ("tflite", "TFLite", "Core ML", "qnn_dlc")] == [
        "litert", "litert", "coreml", "qnn_dlc",
    ]  # fmt: skip


# Ceilings


def test_ceilings_go_by_whole_names():
    assert ceiling_of("i7_12700h") is ceiling_of("Intel Core i7-12700H") is not None
    assert ceiling_of("NVIDIA A100") is not None and ceiling_of("NVIDIA A1000") is None
    assert ceiling_of("iPhone 12") is not None and ceiling_of("iPhone 12 Pro") is None


@given(st.floats(0, 1e13), st.floats(0, 1e11))
def test_more_work_is_never_faster(macs, weights):
    ceiling = ceiling_of("RTX 4090")
    assert ceiling is not None
    least, _ = least_ns(Cost(macs, weights), ceiling)
    assert least_ns(Cost(2 * macs, weights), ceiling)[0] >= least
    assert least_ns(Cost(macs, 2 * weights), ceiling)[0] >= least
    assert least_ns(Cost(None, None), ceiling)[0] == 0


# Neighbours

MODELS, DEVICES = 40, 12


def table(seed: int = 0) -> np.ndarray:
    """Nanoseconds of models by devices: two kinds of device, each with ways of its own, and 3% of noise."""
    draw = np.random.default_rng(seed)
    size, speed = draw.normal(16, 1, MODELS), draw.normal(0, 0.7, DEVICES)
    taste = np.outer(draw.normal(0, 0.15, MODELS), np.arange(DEVICES) % 2)
    kind = np.outer(np.arange(MODELS) % 2, draw.normal(0, 0.1, DEVICES))
    return np.exp(size[:, None] + speed + taste + kind + draw.normal(0, 0.03, (MODELS, DEVICES)))


def claims(times: np.ndarray, **more: str) -> Iterator[Claim]:
    for model, device in np.ndindex(times.shape):
        row = {
            "source": "test", "licence": "MIT", "model": f"m{model}", "device": f"d{device}", "device_id": f"d{device}",
            "target": "onnx", "precision": "fp32", "engine": "e", "started": "", "p50_ns": round(times[model, device]),
        }  # fmt: skip
        yield Claim(f"{model} {device}", b"", row | more)


def refused(times: np.ndarray) -> dict[str, str]:
    return {item.place: item.reason for item in Screening(lambda: claims(times)).items() if item.record is None}


def test_sound_rows_pass():
    assert refused(table()) == {}


@pytest.mark.parametrize(
    ("factor", "kind"), [(2, "doubtful"), (0.5, "doubtful"), (1000, "another unit"), (1e-3, "another unit")]
)
def test_one_wrong_number_is_found_and_no_other(factor, kind):
    for seed in range(5):
        times = table(seed)
        times[7, 3] *= factor
        assert {place: reason.partition(":")[0] for place, reason in refused(times).items()} == {"7 3": kind}


def test_a_device_or_a_model_that_is_slow_throughout_passes():
    times = table()
    times[:, 3] *= 20
    times[5] *= 30
    assert refused(times) == {}


@pytest.mark.parametrize(("factor", "refusals"), [(2, 0), (1000, 2)])
def test_a_number_that_another_run_repeats_passes_but_not_in_another_unit(factor, refusals):
    times = table()
    times[7, 3] *= factor
    twice = lambda: (claim for copy in range(2) for claim in claims(times, source=f"run {copy}"))  # noqa: E731
    reasons = [item.reason.partition(":")[0] for item in Screening(twice).items() if item.record is None]
    assert reasons == refusals * ["another unit"]


def test_a_table_too_small_is_counted_and_not_judged():
    times = table()[:4, :6]
    times[0, 0] *= 2
    screened = Screening(lambda: claims(times))
    assert all(item.record is not None for item in screened.items())
    assert screened.counts["without_neighbours"] == times.size


def test_a_jump_of_part_of_a_device_is_left_to_epochs():
    times = table()
    later = times.copy()
    later[:8, 3] *= 4

    def both() -> Iterator[Claim]:
        yield from claims(times, started="2026-01-01T00:00:00+00:00")
        yield from claims(later, started="2026-02-01T00:00:00+00:00")

    assert [item.reason for item in Screening(both).items() if item.record is None] == []
    later[20, 5] *= 4
    [item] = [item for item in Screening(both).items() if item.record is None]
    assert item.place == "20 5" and item.reason.startswith("doubtful")


def test_a_copy_stands_and_falls_with_what_it_copies():
    """It is no second voice for its number, and no way around what the number is asked."""
    times = table()
    times[7, 3] *= 2

    def with_copy() -> Iterator[Claim]:
        yield from (claim._replace(origin=claim.place) for claim in claims(times))
        for place in ("7 3", "8 3"):
            [claim] = [item for item in claims(times) if item.place == place]
            yield claim._replace(place=f"copy of {place}", origin=place, row={**claim.row, "device_id": "twin"})

    screened = Screening(with_copy)
    found = {item.place: item for item in screened.items()}
    assert {place for place, item in found.items() if item.record is None} == {"7 3", "copy of 7 3"}
    assert {place for place, item in found.items() if item.record and COPIED in item.record.flags} == {
        "8 3", "copy of 8 3",
    }  # fmt: skip
    assert screened.counts == {"without_ceiling": times.size + 2, COPIED: 2}


def test_copies_do_not_speak_for_each_other():
    """A wrong number that is copied to two more devices has no witnesses in those."""
    times = table()
    times[7, 3] *= 2

    def with_twins() -> Iterator[Claim]:
        for claim in claims(times):
            yield claim._replace(origin=claim.place)
            for twin in ("twin", "triplet") if claim.place.endswith(" 3") else ():
                yield claim._replace(
                    place=f"{twin} {claim.place}", origin=claim.place, row={**claim.row, "device_id": twin}
                )

    found = [item.place for item in Screening(with_twins).items() if item.record is None]
    assert found == ["7 3", "twin 7 3", "triplet 7 3"]


def test_a_source_that_changes_while_it_is_read_is_an_error():
    lengths = iter((3, 4))
    screened = Screening(lambda: (Claim(str(n), b"", reason="x") for n in range(next(lengths))))
    with pytest.raises(StoreError, match="changed while it was read"):
        list(screened.items())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(0.01, 100), st.randoms(use_true_random=False))
def test_a_judgement_knows_neither_units_nor_order(seed, model_factor, device_factor, draw):
    """A faster device, a larger model or another order of lines changes nothing but the last digits."""
    times = table(seed)
    times[7, 3] *= 2.5
    i, j = (part.ravel() for part in np.indices(times.shape))
    times[3] *= model_factor
    times[:, 2] *= device_factor
    draw.shuffle(order := list(range(len(i))))
    agreed, _ = residuals(i[order], j[order], times.ravel()[order])
    found = {(int(i[k]), int(j[k])) for k, off in zip(order, agreed, strict=True) if abs(off) > math.log(1.4)}
    assert found == {(7, 3)}


def test_polish_leaves_nothing_of_an_additive_table():
    i, j = (part.ravel() for part in np.indices((6, 5)))
    assert np.allclose(polish(i, j, i * 0.7 - j * 1.3), 0, atol=1e-6)


# Two kinds of board


def test_part_of_a_device_that_jumps_by_one_factor():
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


def test_a_pool_that_gets_a_second_kind_of_board_is_a_new_epoch_once():
    draw, day_us = random.Random(0), 24 * 3600 * 10**6

    def month(number: int, slow: float) -> list[Seen]:
        """Jobs of 40 models; of every fifth one, another each month, the time is `slow` times that of the others."""
        times = [
            10**6 * (model + 1) * draw.uniform(0.97, 1.03) * (slow if model % 5 == number % 5 else 1)
            for model in range(40)
        ]
        return [
            Seen(f"{number}-{model}", "pool", 30 * number * day_us + model, (f"m{model}",), round(ns), None, None)
            for model, ns in enumerate(times)
        ]

    before = [row for number in range(3) for row in month(number, 1)]
    assert find("pool", before, None) == []
    after = [row for number in range(3, 6) for row in month(number, 4)]
    [epoch] = find("pool", [*after, *before], None)
    assert epoch.started.startswith("1970-04-01") and epoch.ratio == pytest.approx(4, rel=0.1)
    assert epoch.reason.startswith("8 of 40 published rows")
