"""The answer for all rows in any order: the pick fits, nothing better fits, and every row is accounted for."""

from __future__ import annotations

import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.records.choice import Budget, Rejection
from edgevit.records.measurement import Measurement
from edgevit.selection import choose_among
from edgevit.selection.wording import OLDER_ENGINE
from support.candidates import BOUND, BUDGETS, CARDS, MS, ROWS
from support.measured import INPUT


def breaks(one: Measurement, budget: Budget) -> bool:
    """Return whether a row breaks a limit, by the row alone."""
    of_card = one.inputs in ((INPUT,), ()) and one.precision != "int8"
    top1 = CARDS[one.model].top1_percent if of_card else None
    bound, size = getattr(one, BOUND[budget.percentile]), one.artifact_bytes
    return (
        (budget.max_latency_ms is not None and (bound is None or bound > budget.max_latency_ms * MS))
        or (budget.max_size_mb is not None and (not size or size > budget.max_size_mb * MS))
        or (budget.min_top1_percent is not None and (top1 is None or top1 < budget.min_top1_percent))
    )


def usable(one: Measurement) -> bool:
    ours = one.provenance == "measured"  # nobody asks for others
    return ours and one.status == "ok" and one.batch == 1 and one.parity_status in ("passed", "evaluated")


@settings(deadline=None)
@given(ROWS, BUDGETS)
def test_every_row_is_accounted_for(rows: list[Measurement], budget: Budget) -> None:
    choice = choose_among(rows, "pi5", budget, cards=CARDS)
    ids = [one.measurement_id for one in (*choice.fitting, *(rejection.candidate for rejection in choice.rejected))]
    assert sorted(ids) == sorted(one.measurement_id for one in rows)
    assert choice.picked == (choice.fitting[0] if choice.fitting else None)
    assert all(rejection.reason for rejection in choice.rejected)
    assert set(choice.unmeasured) == set(CARDS) - {one.model for one in rows if one.provenance == "measured"}
    assert choice.picked is None or choice.nearest_misses == ()
    assert set(choice.nearest_misses) <= set(choice.rejected) and len(choice.nearest_misses) <= 3


@settings(deadline=None)
@given(ROWS, BUDGETS)
def test_what_fits_fits_and_what_does_not_has_a_cause(rows: list[Measurement], budget: Budget) -> None:
    by_id = {one.measurement_id: one for one in rows}
    choice = choose_among(rows, "pi5", budget, cards=CARDS)
    for candidate in choice.fitting:
        one = by_id[candidate.measurement_id]
        assert usable(one) and not breaks(one, budget)
    for rejection in choice.rejected:
        one = by_id[rejection.candidate.measurement_id]
        assert has_cause(one, rejection, rows, budget)


def has_cause(one: Measurement, rejection: Rejection, rows: list[Measurement], budget: Budget) -> bool:
    if "superseded" not in rejection.reason:
        return not usable(one) or breaks(one, budget)
    rivals = [other for other in rows if configuration(other) == configuration(one) and other is not one]
    if "slower unit" in rejection.reason:
        return any(other.device_id != one.device_id for other in rivals)
    rivals = [other for other in rivals if other.device_id == one.device_id]
    if "older engine" in rejection.reason:
        return any(other.engine_version != one.engine_version for other in rivals)
    return any(other.started >= one.started for other in rivals)


def configuration(one: Measurement) -> tuple[object, ...]:
    return (one.model, one.target, one.precision, one.threads, one.batch, one.provenance)


@settings(deadline=None)
@given(ROWS, BUDGETS)
def test_nothing_better_fits(rows: list[Measurement], budget: Budget) -> None:
    choice = choose_among(rows, "pi5", budget, cards=CARDS)
    ranks = [rank(candidate.top1_percent, candidate.latency_upper_ms) for candidate in choice.fitting]
    assert ranks == sorted(ranks)
    for one in rows:
        alone = sum(configuration(other) == configuration(one) for other in rows) == 1
        if alone and usable(one) and not breaks(one, budget):  # nothing can speak in its place
            assert one.measurement_id in {candidate.measurement_id for candidate in choice.fitting}


def rank(top1: float | None, upper: float | None) -> tuple[float, float]:
    return (1.0 if top1 is None else -top1, math.inf if upper is None else upper)


@settings(deadline=None)
@given(ROWS, BUDGETS)
def test_an_older_row_or_engine_is_never_used_in_silence(rows: list[Measurement], budget: Budget) -> None:
    by_id = {one.measurement_id: one for one in rows}
    versions = ["", "1.9", "1.10rc1", "1.10"]
    for candidate in choose_among(rows, "pi5", budget, cards=CARDS).fitting:
        one = by_id[candidate.measurement_id]
        same_unit = [other for other in rows if other.device_id == one.device_id]
        rerun = [
            other for other in same_unit if configuration(other) == configuration(one) and other.inputs == one.inputs
        ]
        rerun = [other for other in rerun if other.provider == one.provider and other.status != "throttled"]
        assert not any(same_version(other, one) and other.started > one.started for other in rerun)
        newest = max((other.engine_version for other in same_unit if other.target == one.target), key=versions.index)
        older = bool(one.engine_version) and versions.index(one.engine_version) < versions.index(newest)
        assert older == (OLDER_ENGINE in candidate.flags)
        if one.engine_version:
            assert not any(versions.index(other.engine_version) > versions.index(one.engine_version) for other in rerun
                           if not superseded(other, rows))  # fmt: skip


def same_version(one: Measurement, other: Measurement) -> bool:
    return one.engine_version == other.engine_version


def superseded(one: Measurement, rows: list[Measurement]) -> bool:
    """Return whether a newer row of the same configuration and unit exists: then it may not decide about others."""
    rivals = (
        other for other in rows if configuration(other) == configuration(one) and other.device_id == one.device_id
    )
    return any(other.started >= one.started and other is not one for other in rivals)


@settings(deadline=None)
@given(ROWS, BUDGETS, st.randoms(use_true_random=False))
def test_order_does_not_matter(rows: list[Measurement], budget: Budget, noise: random.Random) -> None:
    shuffled = noise.sample(rows, len(rows))
    assert choose_among(rows, "pi5", budget, cards=CARDS) == choose_among(shuffled, "pi5", budget, cards=CARDS)


@settings(deadline=None)
@given(ROWS, BUDGETS, BUDGETS)
def test_a_tighter_budget_never_gives_more(rows: list[Measurement], one: Budget, other: Budget) -> None:
    def tighter(a: float | None, b: float | None) -> float | None:
        return min((limit for limit in (a, b) if limit is not None), default=None)

    floors = [limit for limit in (one.min_top1_percent, other.min_top1_percent) if limit is not None]
    tight = Budget(
        tighter(one.max_latency_ms, other.max_latency_ms),
        one.percentile,
        max(floors, default=None),
        tighter(one.max_size_mb, other.max_size_mb),
    )
    wide_choice, tight_choice = (choose_among(rows, "pi5", budget, cards=CARDS) for budget in (one, tight))
    assert set(tight_choice.fitting) <= set(wide_choice.fitting)
    if tight_choice.picked and wide_choice.picked:
        assert (tight_choice.picked.top1_percent or 0) <= (wide_choice.picked.top1_percent or 0)
