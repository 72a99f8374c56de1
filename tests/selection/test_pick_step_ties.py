"""Steps of the pick with ties and errors of accuracies, against `choose_among` at and between all breakpoints."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.measurement.compare import resolution
from edgevit.records.choice import Budget, Candidate
from edgevit.selection import CandidateFilter, Evidence, choose_among, pick_steps
from edgevit.selection.accuracy import Ratings
from support.measured import card, floor, measured, rated

MS = 1_000_000
CARDS = {name: card(name, 70.0) for name in "abc"}


class Drawn(NamedTuple):
    """What a row is made from: its bound in ms (None: none), size in MB, and its accuracy with the error."""

    model: str
    bound_ms: float | None
    size_mb: int
    top1: float | None
    error: float | None


DRAWN = st.builds(
    Drawn,
    st.sampled_from("abc"),
    st.sampled_from([None, 1.0, 1.01, 1.04, 2.0, 2.02, 3.0, 8.0]),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([None, 70.0, 70.3, 70.5, 71.0, 71.2, 75.0]),
    st.sampled_from([None, 0.0, 0.2, 0.5, 1.5]),
)


def answer(drawn: list[Drawn], share: float, limit: float | None) -> tuple[Candidate | None, tuple[Candidate, ...]]:
    """Return the pick and what fits, from one row of another artifact for each of these."""
    rows, accuracies = [], []
    for number, one in enumerate(drawn):
        upper_ns = None if one.bound_ms is None else round(one.bound_ms * MS)
        facts = {"model": one.model, "artifact_sha256": f"{number:064x}", "artifact_bytes": one.size_mb * MS}
        ran = dataclasses.replace(measured(), p90_upper_ns=upper_ns, threads=number + 1, **facts)  # type: ignore[arg-type]
        rows.append(dataclasses.replace(ran, measurement_id=str(number)))
        if one.top1 is not None:
            of = {"provenance": "measured", "dataset": "mine", "untold": (), "source": "folder"}
            accuracies.append(rated(one.top1, error=one.error, model=one.model, artifact_sha256=f"{number:064x}", **of))
    evidence = Evidence([floor(share)], Ratings.of(accuracies, "mine"))
    everything = CandidateFilter(unrated=True)
    choice = choose_among(rows, "pi5", Budget(limit), cards=CARDS, candidate_filter=everything, evidence=evidence)
    return choice.picked, choice.fitting


@settings(deadline=None, max_examples=100)
@given(st.lists(DRAWN, max_size=9), st.sampled_from([0.0, 0.02, 0.05, 0.6]))
def test_at_and_between_all_breakpoints_a_step_is_the_choosers_pick(drawn: list[Drawn], share: float) -> None:
    _, fitting = answer(drawn, share, None)
    steps = pick_steps(fitting, resolution([floor(share)])[0])
    assert [step.from_ms for step in steps] == sorted({step.from_ms for step in steps})
    for limit in (0.5, 1.0, 1.005, 1.01, 1.02, 1.04, 1.5, 2.0, 2.01, 2.02, 2.5, 3.0, 5.0, 8.0, 9.0):
        stepped = [step.pick for step in steps if step.from_ms <= limit]
        assert (stepped[-1] if stepped else None) == answer(drawn, share, limit)[0], limit


def test_a_pick_within_the_error_gives_way_and_returns() -> None:
    """The pick is no monotone function of the budget: at 3 ms `b` is told apart from `a`, at 5 ms neither from `c`."""
    drawn = [Drawn("a", 1.0, 1, 75.0, 0.1), Drawn("b", 3.0, 1, 75.2, 0.1), Drawn("c", 5.0, 1, 75.3, 0.5)]
    steps = pick_steps(answer(drawn, 0.0, None)[1], 0.0)
    assert [(step.from_ms, step.pick.model) for step in steps] == [(1.0, "a"), (3.0, "b"), (5.0, "a")]
