"""Networks as candidates: checkpoints of one function and changes of its code are told apart in any order."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.records.choice import Budget, Choice
from edgevit.records.identity import identify_accuracy
from edgevit.records.measurement import Accuracy, Measurement
from edgevit.records.network import Network
from edgevit.selection import Evidence, choose_among, choose_jointly, predicted_cells
from edgevit.selection.accuracy import Ratings
from edgevit.selection.candidates import EVERYTHING
from edgevit.selection.wording import TOP1_OF_OFFICIAL, TOP1_OF_OTHER_FILE, TOP1_OF_OTHER_LABELS, TOP1_OF_OTHER_WEIGHTS
from support.candidates import CARDS, DAYS, row, texts
from support.measured import rated

OWN, IMAGES, GRAPH = "mine.py:net", "pictures", "9" * 64


def network(digit: str, file: str = "best.pt", **changes: Any) -> Network:
    """Return the network of a checkpoint, by a digit that stands for its digests."""
    return Network("file", digit * 64, digit * 64, "2.9.0", file=file, **changes)


RANDOM = Network("random", "0" * 64, "0" * 64, "2.9.0", seed=0)


def of(one: Network | None, upper_ms: float = 5, artifact: str = "", **changes: Any) -> Measurement:
    """Return a row of a network; its artifact is another one for each network, of the same graph."""
    digit = artifact or (one.weights_sha256[0] if one else "f")
    facts = {"model": OWN, "artifact_sha256": digit * 64, "graph_digest": GRAPH, "network": one}
    return row(**{"upper_ms": upper_ms, **facts, **changes})


def accuracy(one: Measurement, percent: float, **changes: Any) -> Accuracy:
    """Return the measured accuracy of a row's artifact."""
    facts = {
        "provenance": "measured", "model": one.model, "dataset": IMAGES, "error": 0.5, "examples": 1000, "untold": (),
        "target": one.target, "precision": one.precision, "artifact_sha256": one.artifact_sha256,
        "graph_digest": one.graph_digest, "network": one.network, "started": DAYS[0], "source": IMAGES,
    }  # fmt: skip
    return identify_accuracy(rated(percent, **(facts | changes)))


def answer(rows: list[Measurement], accuracies: list[Accuracy] | None = None, **budget: Any) -> Choice:
    evidence = Evidence(ratings=Ratings.of(accuracies or [], IMAGES if accuracies else None))
    return choose_among(rows, "pi5", Budget(**budget), cards=CARDS, evidence=evidence)


@pytest.mark.parametrize("days", [(0, 1), (1, 0)])
def test_the_better_checkpoint_is_picked_whichever_was_measured_last(days: tuple[int, int]) -> None:
    good, bad = (of(network(digit), started=DAYS[day]) for digit, day in zip("12", days, strict=True))
    choice = answer([good, bad], [accuracy(good, 98), accuracy(bad, 61)])
    assert choice.picked and choice.picked.network == good.network and choice.picked.top1_percent == 98
    assert len(choice.fitting) == 2 and choice.rejected == ()


def test_two_keys_and_two_forms_of_one_file_are_candidates_of_their_own() -> None:
    networks = [network("1", key="model"), network("2", key="ema"), network("1", unfolded=True, key="model")]
    rows = [of(one, artifact=digit) for one, digit in zip(networks, "345", strict=True)]
    assert len(answer(rows).fitting) == 3
    assert {one.network_id for one in answer(rows).fitting} == {"1" * 64, "2" * 64, f"{'1' * 64} unfolded"}


def test_the_newest_row_counts_among_files_of_one_network() -> None:
    old, new = of(network("1"), 3, started=DAYS[0]), of(network("1"), 9, artifact="4", started=DAYS[1])
    [candidate] = answer([old, new]).fitting
    assert candidate.measurement_id == new.measurement_id
    # An older edgevit measured the same file and kept no network.
    unknown = of(None, 3, artifact="0", started=DAYS[0])
    known = of(network("1"), 9, artifact="0", started=DAYS[1])
    other_file = of(network("1"), 8, artifact="4", started=DAYS[2])
    assert len(answer([unknown, known, other_file]).fitting) == 1


def test_own_rows_without_a_network_are_told_apart_by_their_artifacts() -> None:
    rows = [of(None, artifact="4", started=DAYS[0]), of(None, artifact="5", started=DAYS[1])]
    assert len(answer(rows).fitting) == 2
    zoo = [dataclasses.replace(one, model="a", measurement_id=one.started) for one in rows]
    assert len(answer(zoo).fitting) == 1, "random weights of the zoo stand for its official ones"


def test_no_checkpoint_has_the_accuracy_of_another_one() -> None:
    evaluated, other = of(network("1")), of(network("2"))
    choice = answer([other], [accuracy(evaluated, 98)])
    assert choice.picked is None and choice.outcome == "unmeasured"
    [rejection] = choice.rejected
    assert rejection.candidate.top1_percent is None and rejection.reasons[0].code == "not_evaluated"


def test_another_file_of_the_network_has_its_accuracy_and_says_so() -> None:
    evaluated, timed = of(network("1")), of(network("1"), artifact="4")
    [candidate] = answer([timed], [accuracy(evaluated, 98)]).fitting
    assert candidate.top1_percent == 98 and candidate.flags == (TOP1_OF_OTHER_FILE,)
    assert (candidate.artifact_sha256, candidate.top1_artifact_sha256) == ("4" * 64, "1" * 64)
    others = [accuracy(of(network("1"), artifact=digit), percent) for digit, percent in (("5", 90), ("6", 95))]
    for day in (0, 4):
        both = [others[0], identify_accuracy(dataclasses.replace(others[1], started=DAYS[day]))]
        assert answer([timed], both).fitting[0].top1_percent == 90, "the lower one, whichever came last"
    int8 = accuracy(evaluated, 98, precision="int8")
    assert answer([timed], [int8]).picked is None


def test_an_accuracy_of_other_labels_is_that_of_the_file_that_has_them() -> None:
    plain, named, swapped = (network("1", labels_sha256=digit * 64 if digit else "") for digit in ("", "a", "b"))
    timed = of(plain)
    evaluated = [of(named, artifact="4"), of(swapped, artifact="5")]
    [candidate] = answer([timed], [accuracy(evaluated[0], 98)]).fitting
    assert candidate.flags == (TOP1_OF_OTHER_LABELS,) and candidate.network == named
    assert (candidate.top1_percent, candidate.top1_artifact_sha256) == (98, "4" * 64)
    both = [accuracy(one, percent) for one, percent in zip(evaluated, (98, 4), strict=True)]
    for one, percent in ((named, 98), (swapped, 4)):
        [candidate] = answer([of(one, artifact="6")], both).fitting
        assert candidate.flags == (TOP1_OF_OTHER_FILE,) and candidate.top1_percent == percent, "its own order counts"


def test_a_row_of_random_weights_stands_for_the_only_checkpoint_that_was_evaluated() -> None:
    evaluated, other = of(network("1")), of(network("2"))
    for model in (OWN, "a"):
        timed = of(RANDOM, model=model)
        named = [dataclasses.replace(one, model=model) for one in (evaluated, other)]
        [candidate] = answer([timed], [accuracy(named[0], 98)]).fitting
        assert candidate.flags == (TOP1_OF_OTHER_WEIGHTS,) and candidate.network == evaluated.network
        assert candidate.top1_artifact_sha256 == evaluated.artifact_sha256
        both = answer([timed], [accuracy(named[0], 98), accuracy(named[1], 61)])
        assert both.picked is None, "it cannot stand for two"


def test_a_published_accuracy_of_other_weights_says_so() -> None:
    [candidate] = answer([of(network("1"), model="a")]).fitting
    assert candidate.top1_percent == CARDS["a"].top1_percent and TOP1_OF_OFFICIAL in candidate.flags
    [random] = answer([of(RANDOM, model="a")]).fitting
    assert TOP1_OF_OFFICIAL not in random.flags and random.network_id == ""


def test_notes_tell_of_networks_under_one_name_and_of_a_pick_that_is_not_the_newest() -> None:
    best, last = of(network("1", "best.pt")), of(network("2", "last.pt"))
    assert texts(answer([best, last], [accuracy(best, 98)]))[0] == (
        "mine.py:net is here as 2 networks, each a candidate of its own: best.pt, last.pt"
    )
    before, after = of(network("1"), started=DAYS[0]), of(network("2"), started=DAYS[1])
    choice = answer([before, after], [accuracy(before, 98), accuracy(after, 61)])
    kinds = [note.kind for note in choice.notes]
    assert kinds == ["several_networks", "network_changed", "pick_earlier_network"]
    assert "best.pt (11111111), best.pt (22222222)" in choice.notes[0].text and DAYS[0] in choice.notes[2].text
    better = answer([before, after], [accuracy(before, 61), accuracy(after, 98)])
    assert [note.kind for note in better.notes] == kinds[:2]
    sizes = [before, of(network("2"), inputs=(dataclasses.replace(before.inputs[0], shape=(1, 3, 64, 64)),))]
    assert texts(answer(sizes)) == texts(answer(sizes[:1])), "a function at two sizes has two digests, and is one"


def test_predictions_of_each_checkpoint_have_its_own_accuracy() -> None:
    rows = [of(network(digit), threads=1, started=day) for digit, day in zip("12", DAYS, strict=False)]
    rows.append(of(network("1"), threads=2))
    cells = predicted_cells(rows, {}, EVERYTHING, 90, 0.9)
    [cell] = [one.cell for one in cells if one.cell.threads == 2]
    assert cell.network == network("2") and cell.artifact_sha256 == "2" * 64
    ratings = Ratings.of([accuracy(rows[0], 98), accuracy(rows[1], 61)], IMAGES)
    choice = choose_among(rows, "pi5", Budget(), cards={}, evidence=Evidence(ratings=ratings, predicted=cells))
    seen = {(one.network_id[0], one.threads): one.top1_percent for one in choice.fitting}
    assert seen == {("1", 1): 98, ("1", 2): 98, ("2", 1): 61, ("2", 2): 61}


def test_an_artifact_for_two_devices_is_of_one_network() -> None:
    accuracies = [accuracy(of(network("1")), 98), accuracy(of(network("2")), 61)]
    first, second = (answer([of(network(digit))], accuracies) for digit in "12")
    assert first.picked and second.picked and choose_jointly([first, second]).picked == ()
    assert choose_jointly([first, first]).picked == (first.picked, first.picked)


NETWORKS = [network("1"), network("2"), network("3", "last.pt"), network("3", unfolded=True), RANDOM, None]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(NETWORKS), st.sampled_from("456789ab"), st.sampled_from([1, 2]),
            st.sampled_from([2.0, 4.0, 4.1]), st.sampled_from([None, 61.0, 90.0, 90.3]),
        ),
        min_size=1, max_size=7, unique_by=lambda one: one[1],
    ),
    st.data(),
    st.sampled_from([None, 3.0, 4.05]),
)  # fmt: skip
def test_the_order_of_measurements_never_changes_the_pick(facts: Any, data: st.DataObject, limit: float | None) -> None:
    # Of one network the newest row counts, so that each has one row in a configuration.
    alone = {(one.weights_sha256 + one.form if one else file, threads): (one, file, threads, ms, percent)
             for one, file, threads, ms, percent in facts}  # fmt: skip

    def pick(order: list[int]) -> Any:
        rows = [
            of(
                one,
                ms,
                file,
                threads=threads,
                started=f"2026-01-{10 + place}T00:00:00+00:00",
                measurement_id=str(place),
            )
            for place, (one, file, threads, ms, _) in zip(order, alone.values(), strict=True)
        ]
        numbers = [percent for *_, percent in alone.values()]
        rating = [
            accuracy(one, percent, started=one.started)
            for one, percent in zip(rows, numbers, strict=True)
            if percent is not None
        ]
        choice = answer(rows, rating, max_latency_ms=limit)
        return [
            (one.network_id, one.threads, one.latency_upper_ms, one.top1_percent, one.top1_artifact_sha256)
            for one in choice.fitting
        ]

    places = list(range(len(alone)))
    assert pick(places) == pick(data.draw(st.permutations(places)))
