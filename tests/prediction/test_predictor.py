"""The predictor: each level, its intervals, and the properties that hold for all rows."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.errors import UsageError
from edgevit.prediction import LEAST_ANCHORS, Predictor, Row
from edgevit.prediction.predictor import MOST_COLUMNS
from support.columns import BOARDS, MODELS, MS, hold_out_column, numbers, points, sized, world

# Levels


def test_a_measured_model_is_its_row() -> None:
    rows = [*world(0), Row("m00", "new", 7 * MS)]
    prediction = Predictor(rows).predict("new")["m00"]
    assert prediction.level == "measured" and prediction.anchors == 1
    assert numbers(prediction) == pytest.approx((7 * MS,) * 4, rel=1e-12)


def test_of_several_rows_of_one_cell_the_median_counts() -> None:
    rows = [Row("a", "x", value * MS) for value in (3, 100, 2)]
    assert numbers(Predictor(rows).predict("x")["a"])[0] == pytest.approx(3 * MS)


def test_other_weights_of_one_graph_take_the_same_time() -> None:
    graphs = {"a": "g", "b": "g", "c": "g", "d": "other"}
    predictions = Predictor([Row("a", "x", 4 * MS), Row("b", "x", 5 * MS)], graphs=graphs).predict("x", "abcd")
    assert predictions["c"].level == "same graph" and predictions["c"].anchors == 2
    point, lower, upper, at_most = numbers(predictions["c"])
    assert point == pytest.approx(math.sqrt(4 * 5) * MS)
    assert upper / point == pytest.approx(1.1) == point / lower and point < at_most < upper
    assert predictions["d"].level == "refused"


def test_models_without_a_graph_share_none() -> None:
    assert Predictor([Row("a", "x", MS)], graphs={}).predict("x", ["b"])["b"].level == "refused"


@pytest.mark.parametrize("seed", range(3))
def test_transfer_is_near_and_says_what_it_rests_on(seed: int) -> None:
    known_rows, truth = hold_out_column(world(seed), "board0", MODELS[::3])
    predictions = Predictor(known_rows).predict("board0", truth)
    assert {prediction.level for prediction in predictions.values()} == {"transfer"}
    assert {prediction.anchors for prediction in predictions.values()} == {10}
    assert {prediction.nearest for prediction in predictions.values()} <= set(BOARDS[1:])
    errors = [abs(point / truth[name] - 1) for name, point in points(predictions).items()]
    assert np.mean(errors) < 0.12


def test_the_nearest_column_is_named() -> None:
    rows = world(1)
    twin = [Row(row.model, "new", row.latency_ns * 3) for row in rows if row.column == "board3"][:6]
    assert Predictor([*rows, *twin]).predict("new")["m29"].nearest == "board3"


def test_a_model_measured_nowhere_is_predicted_from_its_features() -> None:
    rows, features = sized(noise=0.02)
    predictions = Predictor(rows[:30], features=features).predict("x", [row.model for row in rows[30:]])
    assert {prediction.level for prediction in predictions.values()} == {"features"}
    assert {prediction.nearest for prediction in predictions.values()} == {""}
    for row in rows[30:]:
        assert points(predictions)[row.model] == pytest.approx(row.latency_ns, rel=0.1)


def test_features_serve_a_new_column_through_others() -> None:
    rows, features = sized()
    other = [Row(row.model, "y", row.latency_ns * 7) for row in rows[:30]]
    predictions = Predictor([*rows[:4], *other], features=features).predict("x", ["s35"])
    assert predictions["s35"].level == "features" and predictions["s35"].anchors == 4
    assert points(predictions)["s35"] == pytest.approx(rows[35].latency_ns, rel=0.15)


def test_without_data_it_refuses_and_says_what_is_missing() -> None:
    rows = world(0)
    assert Predictor([]).predict("x") == {}
    nowhere = Predictor(rows).predict("board0", ["never"])["never"]
    assert nowhere.level == "refused" and nowhere.latency_ns is None and "measured nowhere" in nowhere.why
    few = Predictor([*rows, *(Row(name, "new", MS) for name in MODELS[: LEAST_ANCHORS - 1])]).predict("new", ["m20"])
    assert few["m20"].level == "refused" and "new has 2 rows" in few["m20"].why
    unlinked = [Row(name, "island", MS) for name in "abc"]
    alone = Predictor([*rows, *unlinked]).predict("island", ["m00"])["m00"]
    assert alone.level == "refused" and "share" in alone.why


@pytest.mark.parametrize("latency", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_latency_is_refused(latency: float) -> None:
    with pytest.raises(UsageError, match="a on x"):
        Predictor([Row("a", "x", latency)])


@pytest.mark.parametrize("confidence", [0.0, 1.0, 1.5, math.nan])
def test_what_is_no_confidence_is_refused(confidence: float) -> None:
    with pytest.raises(UsageError, match="confidence"):
        Predictor(world(0)).predict("board0", confidence=confidence)


def test_a_feature_that_is_not_finite_is_refused() -> None:
    with pytest.raises(UsageError, match="'macs' of a"):
        Predictor([], features={"a": {"macs": math.nan}, "b": {"macs": 1.0}})


# Properties that hold for all rows


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(LEAST_ANCHORS, 8), st.floats(0.01, 100), st.booleans())
def test_a_device_that_is_another_at_another_clock(seed: int, count: int, clock: float, gaps: bool) -> None:
    """Predicted to rounding, from few anchors, gaps in other columns or not."""
    rows = world(seed)
    picker = random.Random(seed)
    anchors = picker.sample(MODELS, count)
    new = {row.model: row.latency_ns * clock for row in rows if row.column == "board2"}
    if gaps:
        rows = [row for row in rows if row.column == "board2" or picker.random() < 0.8]
    predictions = Predictor([*rows, *(Row(name, "new", new[name]) for name in anchors)]).predict("new")
    for name, value in new.items():
        assert points(predictions)[name] == pytest.approx(value, rel=1e-5)


def renamed(rows: Sequence[Row], models: dict[str, str], columns: dict[str, str]) -> list[Row]:
    return [Row(models.get(row.model, row.model), columns.get(row.column, row.column), row.latency_ns) for row in rows]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_order_and_names_do_not_matter(seed: int) -> None:
    known_rows, truth = hold_out_column(world(seed), "board1", MODELS[::4])
    predictions = Predictor(known_rows).predict("board1", truth)
    shuffled = random.Random(seed).sample(known_rows, len(known_rows))
    assert Predictor(shuffled).predict("board1", list(reversed(list(truth)))) == predictions
    models = dict(zip(MODELS, reversed(MODELS), strict=True))
    columns = dict(zip(BOARDS, reversed(BOARDS), strict=True))
    other = Predictor(renamed(known_rows, models, columns)).predict(columns["board1"], [models[name] for name in truth])
    for name, prediction in predictions.items():
        assert numbers(other[models[name]]) == pytest.approx(numbers(prediction), rel=1e-3)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-3, 1e3, 7.3]))
def test_units_do_not_matter(seed: int, unit: float) -> None:
    known_rows, truth = hold_out_column(world(seed), "board1", MODELS[::4])
    predictions = Predictor(known_rows).predict("board1", truth)
    scaled = Predictor([row._replace(latency_ns=row.latency_ns * unit) for row in known_rows]).predict("board1", truth)
    for name, prediction in predictions.items():
        assert numbers(scaled[name]) == pytest.approx([value * unit for value in numbers(prediction)], rel=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([3, 5, 10, 20]))
def test_intervals_hold_the_point_and_grow_with_confidence(seed: int, count: int) -> None:
    known_rows, truth = hold_out_column(world(seed), "board0", MODELS[:count])
    graphs = {"m00": "g", "twin": "g"}
    predictor = Predictor(known_rows, graphs=graphs)
    by_confidence = [predictor.predict("board0", [*truth, "twin"], confidence=c) for c in (0.5, 0.8, 0.9, 0.99, 0.999)]
    for predictions in by_confidence:
        for prediction in predictions.values():
            point, lower, upper, _ = numbers(prediction)
            assert 0 < lower <= point <= upper < math.inf
    for before, after in itertools.pairwise(by_confidence):
        for name in before:
            assert numbers(after[name])[1] <= numbers(before[name])[1]
            assert numbers(after[name])[2] >= numbers(before[name])[2]
            assert numbers(after[name])[3] >= numbers(before[name])[3]
    width = [
        np.median([math.log(numbers(predictions[name])[2] / numbers(predictions[name])[0]) for name in truth])
        for predictions in by_confidence
    ]
    assert width[0] < 0.7 * width[2] and width[2] < 0.9 * width[4]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(LEAST_ANCHORS, 10), st.floats(0.1, 3))
def test_a_device_unlike_the_rest_does_not_explode(seed: int, count: int, chaos: float) -> None:
    """Latencies at random: no model is further off some other column, or their mean, than the anchors are."""
    rows = world(seed)
    rng = np.random.default_rng(seed)
    logs = {(row.model, row.column): math.log(row.latency_ns) for row in rows}
    logs |= {(name, "mean"): float(np.mean([logs[name, column] for column in BOARDS])) for name in MODELS}
    anchors = {name: logs[name, "mean"] + chaos * rng.normal() for name in MODELS[:count]}
    predictions = Predictor([*rows, *(Row(name, "new", math.exp(value)) for name, value in anchors.items())]).predict(
        "new"
    )
    low, high = dict.fromkeys(MODELS, math.inf), dict.fromkeys(MODELS, -math.inf)
    for column in (*BOARDS, "mean"):
        off = [anchors[name] - logs[name, column] for name in anchors]
        slack = 0.5 * (max(off) - min(off)) + math.log(1.25) + 1e-9
        for name in MODELS:
            low[name] = min(low[name], logs[name, column] + min(off) - slack)
            high[name] = max(high[name], logs[name, column] + max(off) + slack)
    for name in MODELS[count:]:
        assert low[name] <= math.log(points(predictions)[name]) <= high[name]


def test_two_calls_say_the_same() -> None:
    known_rows, truth = hold_out_column(world(3), "board0", MODELS[::3])
    predictor = Predictor(known_rows)
    assert predictor.predict("board0", truth) == predictor.predict("board0", truth)
    assert predictor.predict("board0", truth) == Predictor(known_rows).predict("board0", truth)


def test_what_is_asked_for_changes_no_point_much() -> None:
    """Rehearsals look at the models that are asked for; the points of one stay where they are."""
    known_rows, truth = hold_out_column(world(3), "board0", MODELS[::3])
    together = points(Predictor(known_rows).predict("board0", truth))
    alone = {name: points(Predictor(known_rows).predict("board0", [name]))[name] for name in truth}
    assert alone == pytest.approx(together, rel=0.1)


# Intervals


def test_intervals_cover_what_they_say() -> None:
    """Known noise, many worlds: 90% of the models are inside, and below the bound; no fewer, and not all of them."""
    inside, below = [], []
    for seed in range(30):
        known_rows, truth = hold_out_column(world(seed, noise=0.05), "board0", random.Random(seed).sample(MODELS, 10))
        for name, prediction in Predictor(known_rows).predict("board0", truth).items():
            _, lower, upper, at_most = numbers(prediction)
            inside.append(lower <= truth[name] <= upper)
            below.append(truth[name] <= at_most)
    assert 0.86 <= np.mean(inside) <= 0.95
    assert 0.86 <= np.mean(below) <= 0.95


def test_a_family_without_an_anchor_has_wider_intervals() -> None:
    """Families differ by a factor that only an anchor tells."""
    rng = np.random.default_rng(0)
    families = {f"{family}{i}": family for family in "abcdefgh" for i in range(6)}
    factor = {family: float(np.exp(0.5 * rng.normal())) for family in "abcdefgh"}
    features = {name: {"log macs": float(rng.normal())} for name in families}
    times = {name: MS * math.exp(features[name]["log macs"]) * factor[family] for name, family in families.items()}
    rows = [Row(name, "x", times[name]) for name in families if name[1] in "012" and name[0] != "h"]
    predictions = Predictor(rows, features=features, families=families).predict("x", ["a5", "h5"])
    width = {name: numbers(prediction)[2] / numbers(prediction)[1] for name, prediction in predictions.items()}
    assert width["h5"] > 1.5 * width["a5"]


# Odd rows


def test_anchors_that_agree_to_the_bit_break_nothing() -> None:
    """All errors are zero, and still no answer is a point."""
    other = [Row(name, "other", 5e6 + i) for i, name in enumerate(MODELS)]
    for rows in (other, [*other, *(row._replace(column="third") for row in other)]):
        twin = [row._replace(column="new") for row in other[:4]]
        for confidence in (0.9, 0.99):
            point, lower, upper, at_most = numbers(
                Predictor([*rows, *twin]).predict("new", confidence=confidence)["m29"]
            )
            assert point == pytest.approx(5e6 + 29) and lower < point < at_most < upper < 1.1 * point


def test_one_wrong_anchor_does_not_decide() -> None:
    """A device at another clock, and an anchor that took ten times as long as it should."""
    rows = world(6)
    new = {row.model: 2 * row.latency_ns for row in rows if row.column == "board2"}
    anchors = {name: new[name] * (10 if name == "m03" else 1) for name in MODELS[:10]}
    predictions = points(
        Predictor([*rows, *(Row(name, "new", value) for name, value in anchors.items())]).predict("new")
    )
    assert np.median([abs(math.log(predictions[name] / new[name])) for name in MODELS[10:]]) < 0.1


def test_of_many_columns_those_are_used_that_explain_the_anchors() -> None:
    columns = [f"c{i:02d}" for i in range(40)]
    rows = world(7, columns=columns)
    twin = [Row(row.model, "new", 3 * row.latency_ns) for row in rows if row.column == "c39"][:6]
    predictor = Predictor([*rows, *twin])
    assert predictor.sources("new").logs.shape == (len(MODELS), MOST_COLUMNS)
    truth = {row.model: 3 * row.latency_ns for row in rows if row.column == "c39"}
    assert points(predictor.predict("new"))["m29"] == pytest.approx(truth["m29"], rel=1e-3)


def test_columns_without_a_common_model_say_nothing_of_each_other() -> None:
    """Two sets of models, each on its own columns: no row tells how fast one set is on the other's columns."""
    here = [
        Row(f"a{i}", column, 1e6 * speed * (1 + i)) for i in range(12) for column, speed in (("pi5", 1), ("pi4", 3))
    ]
    there = [Row(f"b{i}", column, 1e6 * speed * (1 + i)) for i in range(12) for column, speed in (("m1", 1), ("m2", 2))]
    unlinked = Predictor([*here, *there]).predict("pi5")
    assert {prediction.level for name, prediction in unlinked.items() if name.startswith("b")} == {"refused"}
    assert "share a column or features with it" in unlinked["b0"].why
    few = [Row(f"b{i}", "pi4", 3e6 * (1 + i)) for i in range(2)]
    assert Predictor([*here, *there, *few]).predict("pi5")["b5"].level == "refused", "two are not enough"
    chain = [Row(f"b{i}", "pi4", 3e6 * (1 + i)) for i in range(3)]
    prediction = Predictor([*here, *there, *chain]).predict("pi5")["b11"]
    assert prediction.level == "transfer", "m1 by way of pi4"
    assert prediction.latency_ns == pytest.approx(12e6, rel=0.1)


def test_a_column_that_is_not_linked_hardly_changes_a_prediction() -> None:
    known_rows = [Row(f"a{i}", "pi4", 3e6 * (1 + i) ** 0.9) for i in range(12)]
    known_rows += [Row(f"a{i}", "pi5", 1e6 * (1 + i)) for i in range(0, 12, 2)]
    stranger = [Row(f"b{i}", "m1", 7e6 / (1 + i)) for i in range(12)]
    names = [f"a{i}" for i in range(12)]
    with_it, without = (Predictor(rows).predict("pi5", names) for rows in ([*known_rows, *stranger], known_rows))
    for name in names:
        assert with_it[name].latency_ns == pytest.approx(without[name].latency_ns, rel=0.005)
        assert with_it[name].nearest == without[name].nearest
