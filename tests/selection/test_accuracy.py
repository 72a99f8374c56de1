"""Which accuracy an answer is made by: published unless a data set is asked about, and then what was measured on it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.records.choice import Budget, Choice
from edgevit.records.identity import identify_accuracy
from edgevit.records.measurement import AGREEMENT, CLASS_ORDER, NOT_OF_MANIFEST, Accuracy, Measurement
from edgevit.records.model import IMAGENET
from edgevit.records.network import Network
from edgevit.selection import Evidence, ask, choose_among
from edgevit.selection.accuracy import Ratings
from edgevit.selection.wording import (
    NOT_AT_CARD_SIZE,
    NOT_EVALUATED_IN_INT8,
    TOP1_BOUNDED,
    TOP1_OF_FP32,
    TOP1_OF_OTHER_WEIGHTS,
    remarks,
)
from edgevit.store import LatencyDB
from edgevit_runtime.record import TensorSpec
from support.candidates import texts
from support.command_line import edgevit
from support.measured import card, measured, rated

CARDS = {"net_s": card("net_s", 75.0), "net_m": card("net_m", 80.0)}


def row(sha: str = "a", model: str = "net_s", **changes: Any) -> Measurement:
    facts = {"artifact_sha256": sha * 64, "graph_digest": "e" * 64}
    base = dataclasses.replace(measured(), model=model, **(facts | changes))
    return dataclasses.replace(base, measurement_id=repr((sha, model, sorted(changes.items()))))


def evaluated(value: float, sha: str = "a", **changes: Any) -> Accuracy:
    """Return an accuracy that was measured of one artifact."""
    facts = {"provenance": "measured", "artifact_sha256": sha * 64, "graph_digest": "e" * 64, "target": "onnx",
             "precision": "fp32", "started": "2026-11-21T10:00:00+00:00", "error": 0.4, "untold": ()}  # fmt: skip
    return rated(value, **(facts | changes))


def answer(rows: list[Measurement], known_accuracies: list[Accuracy], dataset: str | None = None) -> Choice:
    return choose_among(
        rows, "pi5", Budget(), cards=CARDS, evidence=Evidence(ratings=Ratings.of(known_accuracies, dataset))
    )


def accuracies(choice: Choice) -> dict[str, tuple[float | None, str, float | None]]:
    candidates = [*choice.fitting, *(rejection.candidate for rejection in choice.rejected)]
    return {
        candidate.model: (candidate.top1_percent, candidate.top1_provenance, candidate.top1_error_percent)
        for candidate in candidates
    }


def test_without_a_data_set_the_published_ones_count_and_others_are_mentioned() -> None:
    choice = answer([row()], [evaluated(70.0), evaluated(99.0, dataset="digits")])
    assert accuracies(choice) == {"net_s": (75.0, "published", None)} and choice.dataset == IMAGENET
    [note] = texts(choice)
    assert "measured ones are kept of digits, imagenet-1k val: --dataset NAME" in note
    assert answer([row()], [evaluated(70.0, "b")]).notes == (), "of an artifact that is none of these"


def test_what_was_measured_of_the_artifact_comes_before_what_is_published() -> None:
    rows = [row("a"), row("b", "net_m", graph_digest="f" * 64)]
    choice = answer(rows, [evaluated(77.0)], IMAGENET)
    assert accuracies(choice) == {"net_s": (77.0, "measured", 0.4), "net_m": (80.0, "published", None)}
    assert choice.picked is not None and choice.picked.model == "net_m"
    assert texts(choice) == (f"the pick was not evaluated on {IMAGENET!r}, others were: edgevit evaluate",)
    assert answer(rows, [evaluated(81.0)], IMAGENET).picked == answer(rows, [evaluated(81.0)], IMAGENET).fitting[0]
    assert accuracies(answer(rows, [evaluated(81.0)], IMAGENET))["net_s"] == (81.0, "measured", 0.4)


def test_a_data_set_of_ones_own_has_no_published_accuracies_but_those_kept() -> None:
    rows = [row("a"), row("b", "net_m", graph_digest="f" * 64)]
    kept_accuracies = [evaluated(97.0, dataset="digits"), rated(91.0, model="net_m", dataset="digits")]
    choice = answer(rows, kept_accuracies, "digits")
    assert accuracies(choice) == {"net_s": (97.0, "measured", 0.4), "net_m": (91.0, "published", None)}
    assert choice.dataset == "digits"
    none = answer(rows, kept_accuracies, "birds")
    assert none.picked is None and {rejection.reason for rejection in none.rejected} == {"not evaluated on 'birds'"}
    assert accuracies(none) == {"net_s": (None, "published", None), "net_m": (None, "published", None)}
    assert "nothing here was evaluated on 'birds'; measured ones are kept of digits" in texts(none)[-1]


def test_other_weights_in_the_same_graph_speak_where_they_are_the_only_ones() -> None:
    random = [row("r")]
    [candidate] = answer(random, [evaluated(70.0, "a")], IMAGENET).fitting
    assert (candidate.top1_percent, candidate.flags) == (70.0, (TOP1_OF_OTHER_WEIGHTS,))
    assert accuracies(answer(random, [evaluated(70.0, "a"), evaluated(60.0, "b")], IMAGENET))["net_s"][0] == 75.0


@pytest.mark.parametrize(
    ("of_row", "of_accuracy", "expected"),
    [
        ({"target": "openvino"}, {}, 75.0),
        ({"precision": "fp16"}, {}, 75.0),
        ({"precision": "fp16"}, {"precision": "fp16"}, 70.0),
        ({"graph_digest": "d" * 64}, {}, 75.0),
        ({"graph_digest": ""}, {"graph_digest": ""}, 75.0),
    ],
)
def test_another_graph_target_or_precision_says_nothing(
    of_row: dict[str, str], of_accuracy: dict[str, str], expected: float
) -> None:
    choice = answer([row("r", **of_row)], [evaluated(70.0, "a", **of_accuracy)], IMAGENET)
    assert accuracies(choice)["net_s"][0] == expected


def test_the_most_images_count_then_the_newest() -> None:
    later = {"started": "2026-11-22T10:00:00+00:00"}
    known_accuracies = [
        evaluated(70.0, examples=500, started="2026-11-23T10:00:00+00:00"),
        evaluated(71.0),
        evaluated(72.0, **later),
        evaluated(73.0, metric="top5_percent"),
    ]
    for order in (known_accuracies, known_accuracies[::-1]):
        assert accuracies(answer([row()], order, IMAGENET))["net_s"][0] == 72.0


def test_of_another_input_size_nothing_is_published() -> None:
    small = row(inputs=(TensorSpec("x", (1, 3, 160, 160)),))
    assert accuracies(answer([small], []))["net_s"][0] is None
    assert accuracies(answer([small], [evaluated(66.0)], IMAGENET))["net_s"][0] == 66.0


def test_of_int8_no_accuracy_is_published_and_the_measured_one_counts() -> None:
    small = row(precision="int8")
    unknown = answer([small], []).fitting[0]
    assert unknown.top1_percent is None and unknown.flags == (NOT_EVALUATED_IN_INT8,)
    assert answer([small], []).outcome == "no_accuracy"
    evaluated_one = answer([small], [evaluated(66.0, precision="int8")], IMAGENET).fitting[0]
    assert (evaluated_one.top1_percent, evaluated_one.flags) == (66.0, ())


@pytest.mark.parametrize("precision", ["int8", "w8", "w8a16", "uint8", "fp8", "i8"])
def test_a_precision_of_few_steps_never_has_the_cards_accuracy(precision: str) -> None:
    assert Ratings.of([], None).top1(row(precision=precision), CARDS["net_s"]).percent is None


@pytest.mark.parametrize("precision", ["fp16", "bf16", "amp", "not stated", ""])
def test_others_have_it(precision: str) -> None:
    top1 = Ratings.of([], None).top1(row(precision=precision), CARDS["net_s"])
    assert top1.percent == 75.0 and (TOP1_OF_FP32 in top1.flags) == (precision in ("not stated", ""))


@pytest.mark.parametrize(("same", "total", "bound"), [(512, 512, 74.26), (500, 512, 70.95), (8, 8, 42.56)])
def test_without_an_evaluation_a_bound_may_count(same: int, total: int, bound: float) -> None:
    """The share of images that keep their class is at least Wilson's lower end, and each other one may be lost."""
    small = row(precision="int8", flags=(f"{AGREEMENT}{same}/{total}",))
    assert Ratings.of([], None).top1(small, CARDS["net_s"]).percent is None
    top1 = Ratings.of([], None, bounded=True).top1(small, CARDS["net_s"])
    assert top1.percent == pytest.approx(bound, abs=0.01) and top1.provenance == "predicted"
    assert TOP1_BOUNDED in top1.flags
    unlike = Ratings.of([], None, bounded=True).top1(row(precision="int8"), CARDS["net_s"])
    assert unlike.percent is None, "nothing is known of its classes"


@given(
    st.permutations(
        [
            evaluated(70.0),
            evaluated(70.0, "b"),
            evaluated(71.0, "a", examples=9),
            rated(60.0),
            evaluated(9.0, dataset="x"),
        ]
    )
)
def test_the_order_of_the_accuracies_does_not_matter(known_accuracies: list[Accuracy]) -> None:
    rows = [row("a"), row("c")]
    assert answer(rows, known_accuracies, IMAGENET) == answer(
        rows, sorted(known_accuracies, key=lambda accuracy: accuracy.accuracy_id), IMAGENET
    )


# Through the database


def test_choose_reads_them_from_the_database(url: str) -> None:
    with LatencyDB.open(url, shipped=False) as db:
        kept_row = measured()
        db.add(kept_row)
        assert db.add_accuracies([evaluated(70.0, artifact_sha256=kept_row.artifact_sha256), rated(60.0)]) == 2
        published, of_dataset = (ask(db, "pi5", Budget(), cards=CARDS, dataset=name) for name in (None, IMAGENET))
    assert accuracies(published)["net_s"][0] == 75.0 and accuracies(of_dataset)["net_s"] == (70.0, "measured", 0.4)


def test_accuracies_that_belong_together_are_kept_together_or_not_at_all(url: str) -> None:
    from edgevit.errors import StoreError

    good = [evaluated(70.0), evaluated(90.0, metric="top5_percent")]
    bad = identify_accuracy(dataclasses.replace(good[1], value=101.0))
    with LatencyDB.open(url, shipped=False) as db:
        with pytest.raises(StoreError, match="the accuracy is refused"):
            db.add_accuracies([good[0], bad])
        assert db.accuracies() == []
        assert db.add_accuracies(good) == 2 and db.add_accuracies(good) == 0 and len(db.accuracies()) == 2


def test_the_command_shows_whose_accuracy_it_is(tmp_path: Path) -> None:
    database = str(tmp_path / "a.db")
    with LatencyDB.open(database, shipped=False) as db:
        kept_row = measured(model="mobilevig_ti", inputs=(TensorSpec("image", (1, 3, 224, 224)),))
        db.add(kept_row)
        db.add_accuracies([evaluated(74.125, artifact_sha256=kept_row.artifact_sha256, model="mobilevig_ti")])
    plain, of_dataset = (
        edgevit("choose", "-d", "pi5", "--db", database, *more) for more in ((), ("--dataset", IMAGENET))
    )
    assert "top-1 75.7% (published)" in plain.stdout and "--dataset NAME chooses by them" in plain.stdout
    assert (
        "top-1 74.12 ± 0.40% (measured)" in of_dataset.stdout
        and f"measured of the artifact on {IMAGENET}" in of_dataset.stdout
    )
    document = json.loads(edgevit("choose", "-d", "pi5", "--db", database, "--dataset", IMAGENET, "--json").stdout)
    assert (document["dataset"], document["picked"]["top1_error_percent"]) == (IMAGENET, 0.4)


# Published accuracies of models without a card


def stranger(source: str = "org/system", **changes: Any) -> Measurement:
    """Return a published row of a model that has no card."""
    facts = {"provenance": "published", "source": source, "artifact_sha256": "", "graph_digest": "", "inputs": ()}
    return row("p", "their_net", **(facts | changes))


def published_top1(value: float, source: str = "org/system", **changes: Any) -> Accuracy:
    """Return a published accuracy of that model."""
    return rated(value, **({"model": "their_net", "source": source} | changes))


def top1_of(
    one: Measurement, *known_accuracies: Accuracy, dataset: str | None = None
) -> tuple[float | None, tuple[str, ...]]:
    top1 = Ratings.of(known_accuracies, dataset).top1(one, CARDS.get(one.model))
    assert top1.provenance == "published"
    return top1.percent, (*top1.flags, *([top1.source] if top1.source else []))


def test_a_published_accuracy_counts_where_no_card_tells_one() -> None:
    assert top1_of(stranger(), published_top1(81.0)) == (81.0, ("org/system",))
    assert top1_of(stranger(), published_top1(81.0), dataset=IMAGENET)[0] == 81.0
    assert top1_of(stranger(), published_top1(81.0), dataset="birds") == (None, ())
    assert top1_of(stranger(), published_top1(81.0, dataset="birds"), dataset="birds")[0] == 81.0
    assert top1_of(row("a"), published_top1(81.0, model="net_s"))[0] == 75.0, "the card's"


def test_the_rows_own_source_counts_before_all_others_then_the_highest() -> None:
    known_accuracies = [
        published_top1(81.0),
        published_top1(83.0, "elsewhere", note="weights a1"),
        published_top1(82.0, "elsewhere", note="weights a2"),
    ]
    for order in (known_accuracies, known_accuracies[::-1]):
        assert top1_of(stranger(), *order)[0] == 81.0
        assert top1_of(stranger("third"), *order) == (83.0, ("elsewhere, weights a1",))


@pytest.mark.parametrize(
    ("of_row", "of_accuracy", "expected"),
    [
        ({"target": "litert"}, {"target": "openvino"}, None),
        ({"target": "litert"}, {"target": "litert"}, 81.0),
        ({"precision": "int8"}, {"precision": "fp32"}, None),
        ({"inputs": (TensorSpec("x", (1, 3, 160, 160)),)}, {"input_size": (224, 224)}, None),
        ({"inputs": (TensorSpec("x", (1, 160, 160, 3)),)}, {"input_size": (160, 160)}, 81.0),
        ({"inputs": (TensorSpec("x", (1, 160, 160, 3)),)}, {}, 81.0),
    ],
)
def test_what_differs_from_the_row_does_not_count(
    of_row: dict[str, Any], of_accuracy: dict[str, Any], expected: float | None
) -> None:
    assert top1_of(stranger(**of_row), published_top1(81.0, **of_accuracy))[0] == expected


def test_a_published_accuracy_in_float_is_not_that_of_int8() -> None:
    assert top1_of(stranger(precision="int8"), published_top1(81.0)) == (None, (NOT_EVALUATED_IN_INT8,))
    assert top1_of(stranger(precision="int8"), published_top1(81.0, precision="int8"))[0] == 81.0


def test_at_another_size_than_the_cards_only_one_that_names_it_counts() -> None:
    small = row(inputs=(TensorSpec("x", (1, 3, 160, 160)),))
    assert top1_of(small, published_top1(70.0, model="net_s")) == (None, (NOT_AT_CARD_SIZE,))
    assert top1_of(small, published_top1(70.0, model="net_s", input_size=(160, 160)))[0] == 70.0


def test_the_paper_of_a_reconstructed_model_does_not_rate_ours() -> None:
    cards = {"net_s": card("net_s", None, provenance="reconstructed")}
    top1 = Ratings.of([rated(81.0)], None).top1(row(), cards["net_s"])
    assert (top1.percent, top1.provenance) == (None, "reconstructed")


def test_choose_ranks_published_rows_by_published_accuracies(url: str) -> None:
    from edgevit.selection import CandidateFilter
    from support.measured import published

    with LatencyDB.open(url, shipped=False) as db:
        for name, value in (("their_s", 71.0), ("their_m", 76.0)):
            db.add(published(model=name, target="litert"))
            db.add_accuracy(rated(value, model=name, target="litert"))
        choice = ask(db, "pi5", Budget(percentile=50), cards=CARDS, candidate_filter=CandidateFilter(published=True))
    assert [(candidate.model, candidate.top1_percent) for candidate in choice.fitting] == [
        ("their_m", 76.0),
        ("their_s", 71.0),
    ]
    assert remarks(choice.fitting[0]) == ("top-1 from arXiv:2206.04040",)


def test_an_accuracy_that_rests_on_an_assumption_says_so_everywhere() -> None:
    assumed = evaluated(44.8, dataset="digits", assumed=("mean", "std", CLASS_ORDER))
    choice = answer([row()], [assumed], "digits")
    assert choice.picked is not None and choice.picked.top1_assumed == ("mean", "std", CLASS_ORDER)
    assert "top-1 rests on assumed preprocessing (mean, std) and class order" in remarks(choice.picked)
    assert "pick_accuracy_assumed" in [note.kind for note in choice.notes]
    assert "top-1 44.8% (assumed)" in repr(choice) and "44.8 assumed" in choice._repr_html_()


def test_an_accuracy_by_options_against_the_manifest_says_so_and_comes_last() -> None:
    against = evaluated(99.3, dataset="digits", assumed=(NOT_OF_MANIFEST,), started="2026-11-29T10:00:00+00:00")
    choice = answer([row()], [against], "digits")
    assert choice.picked is not None and choice.picked.top1_assumed == (NOT_OF_MANIFEST,)
    assert "top-1 rests on options of evaluate that the artifact's manifest contradicts" in remarks(choice.picked)
    assert "pick_accuracy_assumed" in [note.kind for note in choice.notes]
    assert accuracies(answer([row()], [against, evaluated(25.0, dataset="digits")], "digits"))["net_s"][0] == 25.0


@pytest.mark.parametrize(("other", "differ"), [("2", True), ("1", False)])
def test_accuracies_of_different_images_under_one_name_are_told_of(other: str, differ: bool) -> None:
    kept = [
        evaluated(100.0, dataset="val", dataset_sha256="1" * 64),
        evaluated(65.0, "b", dataset="val", dataset_sha256=other * 64, graph_digest="f" * 64),
    ]
    rows = [row(artifact_sha256="a" * 64), row(artifact_sha256="b" * 64, model="net_m", graph_digest="f" * 64)]
    notes = {note.kind: note.text for note in answer(rows, kept, "val").notes}
    assert ("images_differ" in notes) == differ
    assert not differ or "the accuracies on 'val' are of 2 different sets of images" in notes["images_differ"]


def test_an_accuracy_that_rests_on_nothing_assumed_counts_before_one_from_more_images() -> None:
    kept = [
        evaluated(44.8, dataset="digits", assumed=("mean",), examples=5000, started="2026-11-22T10:00:00+00:00"),
        evaluated(98.2, dataset="digits", examples=360),
    ]
    for order in (kept, kept[::-1]):
        choice = answer([row()], order, "digits")
        assert accuracies(choice) == {"net_s": (98.2, "measured", 0.4)}
        assert "pick_accuracy_assumed" not in [note.kind for note in choice.notes]


def test_a_note_names_int8_that_is_slower_than_fp32_and_is_not_picked() -> None:
    kind = "int8_is_slower"
    slow = [row("a", p90_ns=5_000_000), row("b", precision="int8", p90_ns=6_500_000)]
    choice = answer(slow, [evaluated(75.0, "a"), evaluated(75.0, "b", precision="int8")], IMAGENET)
    (found,) = [one for one in choice.notes if one.kind == kind]
    assert found.numbers == (1.3,) and found.subjects == ("net_s onnx int8", "fp32")
    assert choice.picked is not None and choice.picked.precision == "fp32"
    others = [row("a", p90_ns=5_000_000), row("b", precision="int8", p90_ns=4_000_000)]
    assert not [one for one in answer(others, [], IMAGENET).notes if one.kind == kind]
    elsewhere = [row("a", p90_ns=5_000_000), row("b", precision="int8", threads=2, p90_ns=6_500_000)]
    assert not [one for one in answer(elsewhere, [], IMAGENET).notes if one.kind == kind]


def test_in_int8_the_accuracy_of_another_file_says_nothing() -> None:
    """Its numbers came from other samples. In fp32 both files are one network."""
    for precision, expected in (("int8", None), ("fp32", 66.0)):
        network = Network("file", "a" * 64, "b" * 64, "2.13.0")
        of_a = evaluated(66.0, "a", precision=precision, network=network)
        other = answer([row("b", precision=precision, network=network)], [of_a], IMAGENET)
        assert accuracies(other)["net_s"][0] == expected, precision
    drawn = row("b", precision="int8")
    assert accuracies(answer([drawn], [evaluated(66.0, "a", precision="int8")], IMAGENET))["net_s"][0] is None
