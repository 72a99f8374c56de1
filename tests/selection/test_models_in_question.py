"""The models in question: patterns, tasks, and the zoo beside networks of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edgevit
from edgevit.cards import load_cards
from edgevit.errors import UnknownNameError
from edgevit.records.choice import Budget, Choice
from edgevit.records.measurement import Measurement
from edgevit.selection import CandidateFilter, ask
from edgevit.store import LatencyDB
from support.candidates import CARDS, MS, answer, picked, reasons, row, texts
from support.measured import measured, published, rated

OWN = {"small": "/home/me/mine.py:small", "large": "/home/me/mine.py:large", "other": "other.py:net"}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[LatencyDB]:
    """A board with three networks of a person's own, and another device with the zoo."""
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as database:
        for number, model in enumerate(OWN.values()):
            database.add(own(model, 5 + number))
        for number, model in enumerate(load_cards()):
            database.add(own(model, 2 + number, device="pi4", device_id="pi-4", device_class="raspberry-pi-4"))
        yield database


def own(model: str, ms: float, **changes: Any) -> Measurement:
    """Return a measured row of a model."""
    sha = f"{sum(map(ord, model)):064x}"
    return measured([[round(ms * MS)] * 3] * 2, model=model, artifact_sha256=sha, nonce=model, **changes)


def models(choice: Choice) -> set[str]:
    """Return all models of an answer."""
    return {one.model for one in (*choice.fitting, *(rejection.candidate for rejection in choice.rejected))}


# The zoo


def test_own_networks_are_not_accompanied_by_the_zoo(db: LatencyDB) -> None:
    choice = edgevit.choose("pi5", db=db)
    assert models(choice) == set(OWN.values()) and choice.unmeasured == ()


def test_the_zoo_is_in_question_where_it_was_measured_or_is_named(db: LatencyDB) -> None:
    named = edgevit.choose("pi5", models=["mobilevig_*", "*.py:small"], db=db)
    zoo = {name for name in load_cards() if name.startswith("mobilevig_")}
    assert models(named) == {*OWN.values(), *zoo} and set(named.unmeasured) == zoo
    assert {one.reasons[0].code for one in named.rejected if one.candidate.model == OWN["large"]} == {"other_model"}
    db.add(own("affnet", 9))
    choice = edgevit.choose("pi5", db=db)
    assert models(choice) >= {*OWN.values(), *load_cards()} and set(choice.unmeasured) == {*load_cards()} - {"affnet"}


def test_a_device_without_a_measured_row_is_asked_about_the_zoo() -> None:
    theirs = published(model="c", p50_ns=5 * MS)
    assert answer(theirs).unmeasured == tuple(CARDS)
    assert answer(theirs, row("mine.py:net")).unmeasured == ()


# Patterns


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("mine.py:*",), {"small", "large"}),
        (("*:large", "other.py:net"), {"large", "other"}),
        (("/home/me/*",), {"small", "large"}),
        (("mine.py:sm?ll",), {"small"}),
    ],
)
def test_a_pattern_names_models_with_their_folder_or_without(
    db: LatencyDB, patterns: tuple[str, ...], expected: set[str]
) -> None:
    choice = edgevit.choose("pi5", models=patterns, task="any", predict=False, db=db)
    assert {one.model for one in choice.fitting} == {OWN[name] for name in expected}
    others = [
        one for one in choice.rejected if one.candidate.model in {*OWN.values()} - {OWN[name] for name in expected}
    ]
    assert len(others) == len(OWN) - len(expected)
    assert {(one.reasons[0].code, one.kind) for one in others} == {("other_model", "not_asked")}


def test_a_pattern_that_no_model_has_names_near_ones(db: LatencyDB) -> None:
    with pytest.raises(UnknownNameError, match=r"other\.py:net") as caught:
        edgevit.choose("pi5", models="othr.py:net", db=db)
    assert caught.value.exit_code == 2
    with pytest.raises(UnknownNameError, match="mobilevig_s"):
        edgevit.choose("pi5", models=["mine.py:*", "mobilvig_s"], db=db)


def test_rows_of_models_that_are_not_named_still_help_to_predict(db: LatencyDB) -> None:
    for number, model in enumerate(("mobilevig_s", "mobilevig_m", "affnet", "hiera_tiny")):
        db.add(own(model, 4 + number))
    all_models, named = edgevit.choose("pi5", db=db), edgevit.choose("pi5", models="vanillanet_5", db=db)
    predictions = [
        [one.latency_upper_ms for one in choice.fitting if one.model == "vanillanet_5"]
        for choice in (all_models, named)
    ]
    assert predictions[0] == predictions[1] and len(predictions[0]) == 1


# Tasks


def theirs(model: str, **changes: Any) -> Measurement:
    """Return a row of another source for a model without a card."""
    return published(model=model, p50_ns=5 * MS, p90_ns=6 * MS, **changes)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[LatencyDB]:
    """A device of which others published rows: a classifier, a detector, and a network of unknown task."""
    with LatencyDB.open(str(tmp_path / "shelf.db"), shipped=False) as database:
        for model, flags in (("resnet50", ()), ("yolo", ("task:detect",)), ("whisper", ())):
            database.add(theirs(model, flags=flags))
        database.add_accuracy(rated(76.1, model="resnet50"))
        database.add(own("mine.py:net", 3))
        yield database


def asked(db: LatencyDB, **more: Any) -> Choice:
    """Return the answer for pi5 with published rows."""
    question = CandidateFilter(published=True, **more)
    return ask(db, "pi5", Budget(), cards={}, candidate_filter=question)


def test_published_rows_of_other_tasks_stay_out(shelf: LatencyDB) -> None:
    choice = asked(shelf)
    assert {one.model: one.task for one in choice.fitting} == {"resnet50": "classify", "mine.py:net": ""}
    assert picked(choice) == "resnet50" and choice.outcome == "chosen"
    told = {model: text for model, text in reasons(choice).items() if model in ("yolo", "whisper")}
    assert told == {"yolo": "not asked for: task detect", "whisper": "not asked for: task unknown"}
    assert "2 published row(s) left out, whose models have another task" in " ".join(texts(choice))


def test_a_task_takes_in_what_its_source_calls_so(shelf: LatencyDB) -> None:
    detectors = asked(shelf, task="detect")
    assert {one.model for one in detectors.fitting} == {"yolo", "mine.py:net"} and detectors.outcome == "no_accuracy"
    question = CandidateFilter(models=("*",), task="detect")
    zoo = ask(shelf, "pi5", Budget(), cards=load_cards(), candidate_filter=question)
    assert zoo.unmeasured == () and not models(zoo) & load_cards().keys(), "all of the zoo are classifiers"
    assert {one.model for one in asked(shelf, task="any").fitting} == {"resnet50", "yolo", "whisper", "mine.py:net"}


def test_an_evaluated_network_is_a_classifier(shelf: LatencyDB) -> None:
    net = own("mine.py:net", 3)
    shelf.add_accuracy(
        rated(90.0, model=net.model, provenance="measured", dataset="birds", artifact_sha256=net.artifact_sha256,
              target="onnx", precision="fp32", examples=100, error=1.0, started=net.started, untold=())
    )  # fmt: skip
    assert {one.model for one in asked(shelf, task="detect").fitting} == {"yolo"}
    assert {one.task for one in asked(shelf).fitting if one.model == net.model} == {"classify"}


def test_predictions_of_published_models_stay_out_by_their_task(shelf: LatencyDB) -> None:
    elsewhere = {"device": "phone", "device_id": "phone-1", "device_class": "phone"}
    for number, model in enumerate(("net_1", "net_2", "net_3")):
        shelf.add(own(model, 3 + number))
        shelf.add(own(model, 6 + 2 * number, **elsewhere))
    shelf.add(theirs("sam", threads=4, target="onnx", precision="fp32", **elsewhere))
    sam = [one for one in asked(shelf).rejected if one.candidate.model == "sam"]
    assert sam and {one.reasons[0].code for one in sam} == {"other_task"}
    others = asked(shelf, task="any")
    assert not [one for one in others.rejected if one.candidate.model == "sam" and one.reasons[0].code == "other_task"]
