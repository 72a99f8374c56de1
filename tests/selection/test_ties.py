"""Accuracies that an evaluation cannot tell apart, and models that were not evaluated at all."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.records.choice import Budget, Candidate, Choice
from edgevit.records.measurement import Measurement
from edgevit.records.model import IMAGENET
from edgevit.selection import CandidateFilter, Evidence, choose_among, choose_jointly
from edgevit.selection.accuracy import Ratings
from edgevit.selection.constraints import latency_for_budget
from edgevit.selection.ranking import ranked, tells_apart
from support.candidates import DAYS, MS, guess, row, texts
from support.measured import card, rated

CARDS = {"a": card("a", 70.0), "b": card("b", 75.0), "c": card("c", 80.0)}


def of(top1: float | None, error: float | None, ms: float, name: str = "a", mb: float | None = 2.0) -> Candidate:
    """Return a measured candidate with this accuracy, its error, and this upper bound of its latency."""
    [base] = choose_among([row("a", 5)], "pi5", Budget(), cards=CARDS).fitting
    changes: dict[str, Any] = {"model": name, "top1_percent": top1, "top1_error_percent": error, "size_mb": mb}
    return dataclasses.replace(base, **changes, latency_upper_ms=ms, measurement_id=repr((name, top1, error, ms, mb)))


CANDIDATES = st.lists(
    st.builds(
        of,
        st.sampled_from([None, 70.0, 70.3, 70.5, 71.0, 71.2, 75.0]),
        st.sampled_from([None, 0.0, 0.2, 0.5, 1.5]),
        st.sampled_from([1.0, 1.01, 2.0, 3.0, 8.0]),
        st.sampled_from("abc"),
        st.sampled_from([None, 1.0, 3.0]),
    ),
    min_size=1,
    max_size=9,
    unique_by=lambda candidate: candidate.measurement_id,
)


# Ties


def test_of_what_the_evaluation_cannot_tell_apart_the_faster_one_is_picked() -> None:
    assert [candidate.model for candidate in ranked([of(90.0, 0.5, 9, "a"), of(89.6, 0.5, 3, "b")], 0.01)] == ["b", "a"]
    assert [candidate.model for candidate in ranked([of(90.0, 0.5, 9, "a"), of(89.4, 0.5, 3, "b")], 0.01)] == ["a", "b"]


def test_the_error_of_the_best_counts_and_without_one_only_equal_ones_tie() -> None:
    best, certain = of(90.0, 0.5, 9), of(90.0, None, 9)
    assert tells_apart(best, of(89.0, 2.0, 3)) and not tells_apart(best, of(89.6, None, 3))
    assert tells_apart(certain, of(89.9, 2.0, 3)) and not tells_apart(certain, of(90.0, 2.0, 3))
    assert tells_apart(best, of(None, None, 3)) and not tells_apart(of(None, None, 1), of(None, None, 2))


def test_ties_are_with_the_best_one_and_do_not_chain() -> None:
    """Each is within half a point of the next one, and the ends are 1.6 points apart."""
    steps = [of(90.0 - 0.4 * i, 0.5, 9.0 - i, name) for i, name in enumerate("abcde")]
    assert [candidate.model for candidate in ranked(steps, 0.01)] == ["b", "a", "d", "c", "e"]


@settings(deadline=None)
@given(CANDIDATES, st.sampled_from([0.0, 0.05]), st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(
    candidates: list[Candidate], floor: float, noise: random.Random
) -> None:
    assert ranked(noise.sample(candidates, len(candidates)), floor) == ranked(candidates, floor)
    assert sorted(map(repr, ranked(candidates, floor))) == sorted(map(repr, candidates))


@settings(deadline=None)
@given(CANDIDATES, st.sampled_from([0.0, 0.05]))
def test_no_pick_is_less_accurate_than_the_best_by_more_than_the_error(
    candidates: list[Candidate], floor: float
) -> None:
    picked = ranked(candidates, floor)[0]
    rated_ones = [candidate for candidate in candidates if candidate.top1_percent is not None]
    if rated_ones:
        assert picked.top1_percent is not None
        best = max(rated_ones, key=lambda candidate: candidate.top1_percent or 0.0)
        assert best.top1_percent is not None
        lost = best.top1_percent - picked.top1_percent
        assert lost <= max(
            (candidate.top1_error_percent or 0.0)
            for candidate in rated_ones
            if candidate.top1_percent == best.top1_percent
        )


@settings(deadline=None)
@given(CANDIDATES)
def test_what_is_picked_less_accurately_is_faster(candidates: list[Candidate]) -> None:
    picked = ranked(candidates, 0.0)[0]
    for candidate in candidates:
        if candidate.top1_percent is not None and candidate.top1_percent > (picked.top1_percent or 0.0):
            assert (latency_for_budget(picked) or 0) <= (latency_for_budget(candidate) or 0)


def evaluated(value: float, name: str, **changes: Any) -> Any:
    facts = {"provenance": "measured", "artifact_sha256": name * 64, "dataset": "birds", "error": 0.5, "model": name}
    return rated(value, **(facts | {"untold": ()} | changes))


def of_artifact(name: str, ms: float, **changes: Any) -> Measurement:
    return row(name, ms, artifact_sha256=name * 64, graph_digest="", **changes)


def answer(rows: list[Measurement], accuracies: list[Any], budget: Budget = Budget(), **more: Any) -> Choice:  # noqa: B008
    ratings = Ratings.of(accuracies, more.pop("dataset", "birds"))
    known_here = Evidence(ratings=ratings, predicted=more.pop("predicted", ()))
    return choose_among(rows, "pi5", budget, cards=CARDS, evidence=known_here, **more)


def test_a_note_says_what_a_tie_gave_away() -> None:
    rows, accuracies = [of_artifact("a", 9), of_artifact("b", 3)], [evaluated(90.0, "a"), evaluated(89.7, "b")]
    choice = answer(rows, accuracies)
    assert choice.picked is not None and choice.picked.model == "b"
    text = "a onnx fp32 is 0.30 points more accurate, which is within the error of its evaluation (0.50): the faster"
    assert texts(choice)[0].startswith(text)
    assert [candidate.model for candidate in choice.front] == ["b", "a"], "the front goes by the numbers"
    assert not any("more accurate" in note for note in texts(answer(rows, [evaluated(90.0, "a")])))


def test_of_several_devices_ties_count_too() -> None:
    accuracies = [evaluated(90.0, "a"), evaluated(89.7, "b")]
    result = choose_jointly([answer([of_artifact("a", 9), of_artifact("b", ms)], accuracies) for ms in (3, 5)])
    assert [candidate.model for candidate in result.picked] == ["b", "b"]
    assert not any("is picked" in note for note in texts(result))


def test_a_pick_without_a_known_accuracy_says_so() -> None:
    note = "the accuracy of the pick is not known, nor that of anything else that fits, so that nothing is chosen"
    alone = choose_among([row("d", 5)], "pi5", Budget(), cards=CARDS)
    assert alone.picked is not None and alone.outcome == "no_accuracy" and note in texts(alone)
    assert note not in texts(choose_among([row("d", 5), row("a", 9)], "pi5", Budget(), cards=CARDS))


# Not evaluated


def test_what_was_not_evaluated_on_the_data_set_is_no_answer() -> None:
    choice = answer([of_artifact("a", 5), of_artifact("b", 1)], [evaluated(90.0, "a")])
    assert [candidate.model for candidate in choice.fitting] == ["a"]
    [rejection] = choice.rejected
    assert (rejection.reason, rejection.kind, rejection.is_open) == ("not evaluated on 'birds'", "not_asked", True)
    alone = answer([of_artifact("b", 1)], [evaluated(90.0, "a")])
    assert alone.picked is None and alone.outcome == "unmeasured"
    unrated = answer([of_artifact("b", 1)], [evaluated(90.0, "a")], candidate_filter=CandidateFilter(unrated=True))
    assert unrated.picked is not None and unrated.picked.model == "b"


def test_on_imagenet_published_accuracies_count_and_models_without_one_are_no_answer() -> None:
    choice = answer([of_artifact("a", 5), of_artifact("d", 1)], [], dataset=IMAGENET)
    assert [candidate.model for candidate in choice.fitting] == ["a"]
    assert [rejection.reason for rejection in choice.rejected] == [f"not evaluated on {IMAGENET!r}"]


def test_evaluating_is_suggested_where_it_may_win() -> None:
    rows = [of_artifact("b", 5), of_artifact("c", 5), of_artifact("c", 6, threads=1), of_artifact("a", 5)]
    choice = answer(rows, [evaluated(90.0, "b")], Budget(10.0))
    [suggestion] = choice.measure_next
    assert (suggestion.does, suggestion.model, suggestion.why) == (
        "evaluate", "c", "it fits, and was not evaluated on 'birds'; 80% are published of it",
    )  # fmt: skip
    assert suggestion.command == "", "where the images are is not known"
    assert answer(rows, [evaluated(90.0, "b")], Budget(4.0)).outcome == "infeasible"
    assert answer(rows, [evaluated(90.0, "b")], Budget(4.0)).measure_next == ()


@pytest.mark.parametrize(("sha", "count"), [("c" * 64, 1), ("", 0)])
def test_only_an_artifact_that_exists_is_to_be_evaluated(sha: str, count: int) -> None:
    candidate = guess("c", 4, 12, artifact_sha256=sha)
    choice = answer([of_artifact("b", 5)], [evaluated(90.0, "b")], Budget(10.0), predicted=[candidate])
    assert [(one.does, one.why[:11]) for one in choice.measure_next] == [("evaluate", "it may fit,")] * count
    assert any(one.is_open for one in choice.rejected)


def test_evaluations_and_measurements_are_weighed_together() -> None:
    rows = [of_artifact("a", 5), of_artifact("b", 5)]
    candidate = guess("c", 8, 12, artifact_sha256="c" * 64)
    choice = answer(rows, [evaluated(60.0, "a"), evaluated(61.0, "c")], Budget(10.0), predicted=[candidate])
    assert [one.does for one in choice.measure_next] == ["evaluate", "measure"], "five points hoped for, one known"


def test_of_one_device_that_was_evaluated_and_one_that_was_not_the_outcome_is_open() -> None:
    accuracies, other = [evaluated(90.0, "a")], of_artifact("a", 5, started=DAYS[1])
    there = dataclasses.replace(other, artifact_sha256="f" * 64, p90_upper_ns=5 * MS)
    result = choose_jointly([answer([other], accuracies), answer([there], accuracies)])
    [rejection] = result.rejected
    assert rejection.is_open and rejection.reason == "pi5: fits; pi5: not evaluated on 'birds'"
    assert result.outcome == "unmeasured"
