"""Cells of a device: predicted from its own rows, other devices' rows and operators of models, or refused."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgevit.records.choice import Budget, Reason
from edgevit.records.measurement import Measurement
from edgevit.records.model import Graph, ModelCard
from edgevit.selection import CandidateFilter, OtherDevices, PredictedCell, PredictionOptions, ask, predicted_cells
from edgevit.selection.columns import ModelAliases
from edgevit.selection.wording import describe
from edgevit.store import LatencyDB
from edgevit_runtime.record import TensorSpec
from support.measured import HOST, failed, operators, published
from support.predictable import CARDS, MS, SIZES, SLOW, costs, row, rows


def elsewhere(
    others: Sequence[Measurement] = (), graphs: Sequence[Graph] = (), made_of: Mapping[str, float] = {}
) -> OtherDevices:
    zoo = {name: costs(size) for name, size in made_of.items()}
    return OtherDevices(lambda: {row.model for row in others}, lambda models: others, lambda: graphs, lambda: zoo)


def predict(
    own_rows: Sequence[Measurement], than: OtherDevices, cards: Mapping[str, ModelCard] = CARDS, **more: Any
) -> dict[str, PredictedCell]:
    """Return the predictions by model."""
    arguments = {"wanted": CandidateFilter(), "percentile": 90, "confidence": 0.9, **more}
    predicted = predicted_cells(
        own_rows, cards, arguments["wanted"], arguments["percentile"], arguments["confidence"], than
    )
    assert len({prediction.cell.cell_id for prediction in predicted}) == len(predicted)
    return {prediction.cell.model: prediction for prediction in predicted}


# Levels


def test_from_rows_of_another_device() -> None:
    names = list(SIZES)
    predicted = predict(rows(names[::2]), elsewhere(rows(names, 3.0, **SLOW)))
    assert predicted.keys() == set(names[1::2])
    for name, prediction in predicted.items():
        assert prediction.basis.level == "transfer" and prediction.basis.anchors == 5
        assert prediction.basis.nearest == "pi4, onnx fp32, 4 thread(s)"
        value, at_most = prediction.estimate
        assert value == pytest.approx(SIZES[name] * MS, rel=0.05)
        assert at_most is not None and value is not None and value < at_most
        assert prediction.basis.lower_ms is not None and prediction.basis.upper_ms is not None
        assert prediction.basis.lower_ms < value / MS < prediction.basis.upper_ms
        assert prediction.cell.device == "pi5"
        assert prediction.cell.parity_status == "passed" and prediction.cell.artifact_bytes == 4_000_000, (
            "as it was made elsewhere"
        )


def test_from_what_models_are_made_of() -> None:
    names = list(SIZES)
    predicted = predict(rows(names[::2]), elsewhere(made_of=SIZES))
    assert {prediction.basis.level for prediction in predicted.values()} == {"features"} and predicted.keys() == set(
        names[1::2]
    )
    assert all(
        prediction.cell.parity_status == "" and prediction.cell.artifact_bytes == 0 for prediction in predicted.values()
    )
    assert all(prediction.cell.inputs == (TensorSpec("x", (1, 3, 224, 224)),) for prediction in predicted.values())


def test_operators_that_the_database_keeps_describe_models_without_a_card() -> None:
    names, digests = list(SIZES), {name: f"{number:064d}" for number, name in enumerate(SIZES)}
    graphs = [dataclasses.replace(operators(1e9, digests[name]), operators=costs(size)) for name, size in SIZES.items()]
    here = [row(name, SIZES[name], graph_digest=digests[name]) for name in names[::2]]
    there = [row(name, 3.0, target="other", graph_digest=digests[name], **SLOW) for name in names[1::2]]
    predicted = predict(here, elsewhere(there, graphs), cards={})
    assert predicted.keys() == set(names[1::2]) and {prediction.basis.level for prediction in predicted.values()} <= {
        "transfer",
        "features",
    }
    assert {prediction.cell.parity_status for prediction in predicted.values()} == {""}, "never made for this target"
    assert not any(prediction.refusal for prediction in predicted.values())


def test_other_weights_of_the_same_graph_take_the_same_time() -> None:
    mine = row("net_0", 5, graph_digest="d" * 64)
    tuned = row("tuned.py:net", 20, graph_digest="d" * 64, **SLOW)
    predicted = predict([mine], elsewhere([tuned]), cards={})
    prediction = predicted["tuned.py:net"]
    assert (prediction.basis.level, prediction.estimate[0]) == ("same graph", 5 * MS)


# What is asked of it


def test_too_few_rows_are_refused_without_the_predictor() -> None:
    here = rows(list(SIZES)[:2])
    for than in (elsewhere(), elsewhere(rows(list(SIZES), 3.0, **SLOW))):
        predicted = predict(here, than)
        assert predicted.keys() == set(list(SIZES)[2:])
        assert {prediction.refusal for prediction in predicted.values()} == {
            Reason("few_rows_of_configuration", value=2, limit=3)
        }
        assert {prediction.estimate for prediction in predicted.values()} == {(None, None)}


def test_nothing_is_read_that_cannot_tell_anything() -> None:
    def never(*arguments: object) -> Any:
        raise AssertionError("read")

    others = OtherDevices(lambda: set(SIZES), never, never, never)
    assert predict(rows(list(SIZES)), others) == {}
    assert predict([], others) == {}
    few = predict(rows(list(SIZES)[:2]), others._replace(models=lambda: set(list(SIZES)[:2])))
    assert len(few) == 8 and all(prediction.refusal for prediction in few.values())


def test_rows_that_nothing_links_are_refused_without_the_predictor() -> None:
    """Three models ran here, three others on another device, and nothing is known of what any is made of."""
    predicted = predict(rows(list(SIZES)[:3]), elsewhere(rows(list(SIZES)[5:8], 3.0, **SLOW)), cards={})
    assert predicted.keys() == set(list(SIZES)[5:8])
    assert {prediction.refusal for prediction in predicted.values()} == {Reason("no_shared_rows", limit=3)}


def test_what_ran_or_failed_there_is_not_predicted() -> None:
    names = list(SIZES)
    crashed = failed(model=names[1], engine="", nonce="crash")
    hot = failed("throttled", model=names[3], nonce="hot")
    predicted = predict([*rows(names[::2]), crashed, hot], elsewhere(rows(names, 3.0, **SLOW)))
    assert names[1] not in predicted and names[3] in predicted, "a throttled run says nothing of the model"


def test_what_is_not_comparable_says_nothing() -> None:
    names = list(SIZES)
    strange: list[dict[str, Any]] = [
        {"batch": 8}, {"flags": ("emulated",)}, {"flags": ("not_as_verified",)}, {"rate_hz": 30.0},
        {"protocol_version": 0},
    ]  # fmt: skip
    good = predict(rows(names[::2]), elsewhere(rows(names, 3.0, **SLOW)))
    noise = [row(name, 999.0, nonce=f"{change}", **change) for name in names for change in strange]
    other = [dataclasses.replace(one, device=SLOW["device"], device_id=SLOW["device_id"]) for one in noise]
    again = predict([*rows(names[::2]), *noise], elsewhere([*rows(names, 3.0, **SLOW), *other]))
    assert {name: prediction.estimate for name, prediction in again.items()} == {
        name: prediction.estimate for name, prediction in good.items()
    }


def test_only_what_is_wanted_is_predicted() -> None:
    names, others = list(SIZES), rows(list(SIZES), 3.0, **SLOW)
    here = [*rows(names[::2]), *rows(names[::2], 2.0, threads=1), *rows(names[::2], 4.0, target="other", engine="x")]
    predicted = predicted_cells(here, CARDS, CandidateFilter(targets=["onnx"], threads=1), 90, 0.9, elsewhere(others))
    assert {(prediction.cell.target, prediction.cell.threads) for prediction in predicted} == {("onnx", 1)} and len(
        predicted
    ) == 5
    predicted = predicted_cells(here, CARDS, CandidateFilter(), 90, 0.9, elsewhere(others))
    assert len(predicted) == 15


def test_of_a_device_class_the_slowest_unit_counts() -> None:
    names = list(SIZES)
    slow = rows(names[::2], 2.0, device_id="pi-0002")
    one, both = (
        predict(own_rows, elsewhere(rows(names, 3.0, **SLOW))) for own_rows in (slow, [*rows(names[::2]), *slow])
    )
    for name in names[1::2]:
        value = both[name].estimate[0]
        assert value == pytest.approx(2 * SIZES[name] * MS, rel=0.1) and both[name].cell.device_id == "pi-0002"
    assert one.keys() == both.keys()


def test_published_rows_are_sources_and_models_only_where_they_are_wanted() -> None:
    names = list(SIZES)
    theirs = [published(model=name, p50_ns=round(3 * MS * size), **SLOW) for name, size in SIZES.items()]
    theirs.append(published(model="foreign", p50_ns=9 * MS, **SLOW))
    for candidate_filter, foreign in ((CandidateFilter(), False), (CandidateFilter(published=True), True)):
        predicted = predict(rows(names[::2]), elsewhere(theirs), wanted=candidate_filter)
        assert ("foreign" in predicted) == foreign
        assert {prediction.basis.level for name, prediction in predicted.items()} == {"transfer"}


def test_a_percentile_that_rows_do_not_keep_is_predicted_at_the_next_one_above() -> None:
    names = list(SIZES)
    predicted = predict(rows(names[::2]), elsewhere(rows(names, 3.0, **SLOW)), percentile=75)
    assert {prediction.basis.percentile for prediction in predicted.values()} == {90}


def test_another_input_size_is_another_model() -> None:
    small = (TensorSpec("x", (1, 3, 192, 192)),)
    names = ModelAliases([row("own", 1, inputs=small), row("own", 1)], CARDS)
    assert names.of(row("net_0", 1)) == "net_0" == names.of(row("net_0", 1, inputs=()))
    assert names.of(row("net_0", 1, inputs=small)) == "net_0 at 1x3x192x192"
    assert {names.of(row("own", 1)), names.of(row("own", 1, inputs=small))} == {"own", "own at 1x3x224x224"}


def test_more_confidence_is_a_higher_bound_and_order_does_not_matter() -> None:
    names, noise = list(SIZES), random.Random(0)
    here = [row(name, SIZES[name] * noise.uniform(0.9, 1.1)) for name in names[::2]]
    there = [row(name, 3 * SIZES[name] * noise.uniform(0.9, 1.1), **SLOW) for name in names]
    at = {share: predict(here, elsewhere(there), confidence=share) for share in (0.5, 0.9, 0.99)}
    for name in names[1::2]:
        bounds = [at[share][name].estimate[1] or 0 for share in sorted(at)]
        assert bounds == sorted(bounds) and bounds[0] < bounds[-1]
    shuffled = predict(noise.sample(here, len(here)), elsewhere(noise.sample(there, len(there))))
    assert shuffled == at[0.9]


# Through the database


@pytest.fixture
def db(tmp_path: Path) -> Iterator[LatencyDB]:
    names = list(SIZES)
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as database:
        for measurement in (*rows(names[:6]), *rows(names, 3.0, **SLOW)):
            database.add(measurement)
        yield database


def test_an_answer_of_the_database_has_predictions(db: LatencyDB) -> None:
    budget = Budget(max_latency_ms=30)
    choice = ask(db, "pi5", budget, cards=CARDS)
    assert choice.picked and (choice.picked.model, choice.picked.latency_provenance) == ("net_8", "predicted")
    assert choice.measure_next[0].model == "net_8" and choice.picked.size_mb == 4.0
    alone = ask(db, "pi5", budget, cards=CARDS, prediction=PredictionOptions(False))
    assert alone.picked and alone.picked.model == "net_5" and not any(candidate.basis for candidate in alone.fitting)
    bound = choice.picked.latency_upper_ms
    for confidence, expected in ((0.9, "net_8"), (0.99, "net_7")):
        surer = ask(
            db, "pi5", Budget(max_latency_ms=bound), cards=CARDS, prediction=PredictionOptions(confidence=confidence)
        )
        assert surer.picked and surer.picked.model == expected, "what fits with 90% need not fit with 99%"


def test_rows_of_others_come_from_whole_devices(db: LatencyDB) -> None:
    names = db.models()
    assert names == set(SIZES)
    others = db.rows_of_other_devices
    assert len(others("pi5", names, 100)) == 10 and others("pi5", names, 9) == []
    assert len(others("pi4", ["net_5"], 6)) == 6 and others("pi4", ["net_9"], 100) == []
    assert {one.device for one in others("pi5", names, 100)} == {"pi4"}
    db.add(row("net_0", 1, device="twin", device_id="pi-9", host=HOST))
    assert [one.device for one in others("pi5", names, 10)] == ["twin"], "of the same class first"


def test_a_jump_of_the_device_takes_older_rows_out(db: LatencyDB) -> None:
    late = "2026-11-22T10:00:00+00:00"
    db.add(row("net_0", 9, nonce="jump", started=late))
    all_rows, former = db.history("pi5")
    assert len(all_rows) == 7 and len(former) == 6
    choice = ask(db, "pi5", Budget(), cards=CARDS, prediction=PredictionOptions(False))
    assert [candidate.model for candidate in choice.fitting] == ["net_0"]
    assert {rejection.kind for rejection in choice.rejected} == {"superseded"}


def test_measured_rows_alone_import_neither_numpy_nor_the_predictor(tmp_path: Path) -> None:
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as db:
        for measurement in rows(list(SIZES)):
            db.add(measurement)
    code = (
        "import sys\nfrom edgevit import LatencyDB\nfrom edgevit.selection import ask\n"
        "from edgevit.records.choice import Budget\n"
        f"db = LatencyDB.open({str(tmp_path / 'x.db')!r}, shipped=False)\n"
        "print(ask(db, 'pi5', Budget(), cards={}).picked.model)\n"
        "print(*sorted(name for name in ('numpy', 'scipy', 'torch', 'edgevit.prediction') if name in sys.modules))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[1:] == [""]


def test_of_features_alone_another_family_is_refused_until_there_are_several() -> None:
    """Nine rows of one family do not say how far another family is off."""
    names = list(SIZES)
    cards = {
        name: dataclasses.replace(card, family="other" if name == names[9] else "net") for name, card in CARDS.items()
    }
    own_rows = rows(names[:8])
    predicted = predict(own_rows, elsewhere(made_of=SIZES), cards=cards)
    assert predicted[names[8]].basis.level == "features"
    refusal = predicted[names[9]].refusal
    assert refusal == Reason("unseen_family", "pi5, onnx fp32, 4 thread(s)", value=8)
    assert describe(refusal).startswith("its family has no row of pi5, onnx fp32, 4 thread(s), and rows of 3 families")
    several = [dataclasses.replace(one, family=f"family {number % 3}") for number, one in enumerate(own_rows)]
    named = {one.model: one.family for one in several}
    cards = {name: dataclasses.replace(card, family=named.get(name, card.family)) for name, card in cards.items()}
    assert predict(several, elsewhere(made_of=SIZES), cards=cards)[names[9]].basis.level == "features"
