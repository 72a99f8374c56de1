"""predict: each level, its intervals, and what must hold whatever the rows."""

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
from edgevit.prediction import LEAST_ANCHORS, Prediction, Predictor, Row
from edgevit.prediction.predictor import MOST_COLUMNS

MS = 1_000_000
MODELS = [f"m{i:02d}" for i in range(30)]
BOARDS = [f"board{i}" for i in range(5)]


def world(
    seed: int, *, noise: float = 0.02, models: Sequence[str] = MODELS, columns: Sequence[str] = BOARDS
) -> list[Row]:
    """Latencies that follow a size and two traits of the models, which each column weighs its own way."""
    rng = np.random.default_rng(seed)
    traits = rng.normal(size=(len(models), 3)) * (1.0, 0.3, 0.2)
    weights = np.concatenate([rng.uniform(0.9, 1.1, (1, len(columns))), rng.normal(size=(2, len(columns)))])
    logs = traits @ weights + rng.normal(size=len(columns)) + noise * rng.normal(size=(len(models), len(columns)))
    times = 10 * MS * np.exp(logs)
    return [Row(m, c, float(times[i, j])) for i, m in enumerate(models) for j, c in enumerate(columns)]


def held(rows: Sequence[Row], column: str, anchors: Sequence[str]) -> tuple[list[Row], dict[str, float]]:
    """What is known once of this column only the anchors are; and the truth."""
    known = [row for row in rows if row.column != column or row.model in anchors]
    return known, {row.model: row.latency_ns for row in rows if row.column == column and row.model not in anchors}


def numbers(item: Prediction) -> tuple[float, ...]:
    """What every answered prediction has: point, lower, upper, bound."""
    found = (item.latency_ns, item.lower_ns, item.upper_ns, item.at_most_ns)
    assert None not in found, item
    return tuple(value for value in found if value is not None)


def points(said: dict[str, Prediction]) -> dict[str, float]:
    return {name: numbers(item)[0] for name, item in said.items()}


# Levels


def test_a_measured_model_is_its_row() -> None:
    rows = [*world(0), Row("m00", "new", 7 * MS)]
    item = Predictor(rows).predict("new")["m00"]
    assert item.level == "measured" and item.anchors == 1
    assert numbers(item) == pytest.approx((7 * MS,) * 4, rel=1e-12)


def test_of_several_rows_of_one_cell_the_median_counts() -> None:
    rows = [Row("a", "x", value * MS) for value in (3, 100, 2)]
    assert numbers(Predictor(rows).predict("x")["a"])[0] == pytest.approx(3 * MS)


def test_other_weights_of_one_graph_take_the_same_time() -> None:
    graphs = {"a": "g", "b": "g", "c": "g", "d": "other"}
    said = Predictor([Row("a", "x", 4 * MS), Row("b", "x", 5 * MS)], graphs=graphs).predict("x", "abcd")
    assert said["c"].level == "same graph" and said["c"].anchors == 2
    point, lower, upper, at_most = numbers(said["c"])
    assert point == pytest.approx(math.sqrt(4 * 5) * MS)
    assert upper / point == pytest.approx(1.1) == point / lower and point < at_most < upper
    assert said["d"].level == "refused"


def test_models_without_a_graph_share_none() -> None:
    assert Predictor([Row("a", "x", MS)], graphs={}).predict("x", ["b"])["b"].level == "refused"


@pytest.mark.parametrize("seed", range(3))
def test_transfer_is_near_and_says_what_it_rests_on(seed: int) -> None:
    known, truth = held(world(seed), "board0", MODELS[::3])
    said = Predictor(known).predict("board0", truth)
    assert {item.level for item in said.values()} == {"transfer"}
    assert {item.anchors for item in said.values()} == {10}
    assert {item.nearest for item in said.values()} <= set(BOARDS[1:])
    errors = [abs(point / truth[name] - 1) for name, point in points(said).items()]
    assert np.mean(errors) < 0.12


def test_the_nearest_column_is_named() -> None:
    rows = world(1)
    twin = [Row(row.model, "new", row.latency_ns * 3) for row in rows if row.column == "board3"][:6]
    assert Predictor([*rows, *twin]).predict("new")["m29"].nearest == "board3"


def sized(count: int = 40, noise: float = 0.0) -> tuple[list[Row], dict[str, dict[str, float]]]:
    """Models whose latency follows their size alone."""
    rng = np.random.default_rng(5)
    logs = rng.uniform(0, 3, count)
    features = {f"s{i:02d}": {"log macs": float(size)} for i, size in enumerate(logs)}
    times = MS * np.exp(0.8 * logs + noise * rng.normal(size=count))
    return [Row(name, "x", float(value)) for name, value in zip(features, times, strict=True)], features


def test_a_model_measured_nowhere_is_predicted_from_its_features() -> None:
    rows, features = sized(noise=0.02)
    said = Predictor(rows[:30], features=features).predict("x", [row.model for row in rows[30:]])
    assert {item.level for item in said.values()} == {"features"}
    assert {item.nearest for item in said.values()} == {""}
    for row in rows[30:]:
        assert points(said)[row.model] == pytest.approx(row.latency_ns, rel=0.1)


def test_features_serve_a_new_column_through_others() -> None:
    rows, features = sized()
    other = [Row(row.model, "y", row.latency_ns * 7) for row in rows[:30]]
    said = Predictor([*rows[:4], *other], features=features).predict("x", ["s35"])
    assert said["s35"].level == "features" and said["s35"].anchors == 4
    assert points(said)["s35"] == pytest.approx(rows[35].latency_ns, rel=0.15)


def test_without_data_it_refuses_and_says_what_is_missing() -> None:
    rows = world(0)
    assert Predictor([]).predict("x") == {}
    nowhere = Predictor(rows).predict("board0", ["never"])["never"]
    assert nowhere.level == "refused" and nowhere.latency_ns is None and "measured nowhere" in nowhere.why
    few = Predictor([*rows, *(Row(name, "new", MS) for name in MODELS[: LEAST_ANCHORS - 1])]).predict("new", ["m20"])
    assert few["m20"].level == "refused" and "new has 2 rows" in few["m20"].why
    apart = [Row(name, "island", MS) for name in "abc"]
    alone = Predictor([*rows, *apart]).predict("island", ["m00"])["m00"]
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


# What must hold whatever the rows


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
    said = Predictor([*rows, *(Row(name, "new", new[name]) for name in anchors)]).predict("new")
    for name, value in new.items():
        assert points(said)[name] == pytest.approx(value, rel=1e-5)


def renamed(rows: Sequence[Row], models: dict[str, str], columns: dict[str, str]) -> list[Row]:
    return [Row(models.get(row.model, row.model), columns.get(row.column, row.column), row.latency_ns) for row in rows]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_order_and_names_do_not_matter(seed: int) -> None:
    known, truth = held(world(seed), "board1", MODELS[::4])
    said = Predictor(known).predict("board1", truth)
    shuffled = random.Random(seed).sample(known, len(known))
    assert Predictor(shuffled).predict("board1", list(reversed(list(truth)))) == said
    models = dict(zip(MODELS, reversed(MODELS), strict=True))
    columns = dict(zip(BOARDS, reversed(BOARDS), strict=True))
    other = Predictor(renamed(known, models, columns)).predict(columns["board1"], [models[name] for name in truth])
    for name, item in said.items():
        assert numbers(other[models[name]]) == pytest.approx(numbers(item), rel=1e-3)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-3, 1e3, 7.3]))
def test_units_do_not_matter(seed: int, unit: float) -> None:
    known, truth = held(world(seed), "board1", MODELS[::4])
    said = Predictor(known).predict("board1", truth)
    scaled = Predictor([row._replace(latency_ns=row.latency_ns * unit) for row in known]).predict("board1", truth)
    for name, item in said.items():
        assert numbers(scaled[name]) == pytest.approx([value * unit for value in numbers(item)], rel=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([3, 5, 10, 20]))
def test_intervals_hold_the_point_and_grow_with_confidence(seed: int, count: int) -> None:
    known, truth = held(world(seed), "board0", MODELS[:count])
    graphs = {"m00": "g", "twin": "g"}
    predictor = Predictor(known, graphs=graphs)
    each = [predictor.predict("board0", [*truth, "twin"], confidence=c) for c in (0.5, 0.8, 0.9, 0.99, 0.999)]
    for said in each:
        for item in said.values():
            point, lower, upper, _ = numbers(item)
            assert 0 < lower <= point <= upper < math.inf
    for before, after in itertools.pairwise(each):
        for name in before:
            assert numbers(after[name])[1] <= numbers(before[name])[1]
            assert numbers(after[name])[2] >= numbers(before[name])[2]
            assert numbers(after[name])[3] >= numbers(before[name])[3]
    width = [np.median([math.log(numbers(said[name])[2] / numbers(said[name])[0]) for name in truth]) for said in each]
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
    said = Predictor([*rows, *(Row(name, "new", math.exp(value)) for name, value in anchors.items())]).predict("new")
    low, high = dict.fromkeys(MODELS, math.inf), dict.fromkeys(MODELS, -math.inf)
    for column in (*BOARDS, "mean"):
        off = [anchors[name] - logs[name, column] for name in anchors]
        slack = 0.5 * (max(off) - min(off)) + math.log(1.25) + 1e-9
        for name in MODELS:
            low[name] = min(low[name], logs[name, column] + min(off) - slack)
            high[name] = max(high[name], logs[name, column] + max(off) + slack)
    for name in MODELS[count:]:
        assert low[name] <= math.log(points(said)[name]) <= high[name]


def test_two_calls_say_the_same() -> None:
    known, truth = held(world(3), "board0", MODELS[::3])
    predictor = Predictor(known)
    assert predictor.predict("board0", truth) == predictor.predict("board0", truth)
    assert predictor.predict("board0", truth) == Predictor(known).predict("board0", truth)


def test_what_is_asked_for_changes_no_point_much() -> None:
    """Rehearsals look at the models that are asked for; the points of one stay where they are."""
    known, truth = held(world(3), "board0", MODELS[::3])
    together = points(Predictor(known).predict("board0", truth))
    alone = {name: points(Predictor(known).predict("board0", [name]))[name] for name in truth}
    assert alone == pytest.approx(together, rel=0.1)


# Intervals


def test_intervals_cover_what_they_say() -> None:
    """Known noise, many worlds: 90% of the models are inside, and below the bound; no fewer, and not all of them."""
    inside, below = [], []
    for seed in range(30):
        known, truth = held(world(seed, noise=0.05), "board0", random.Random(seed).sample(MODELS, 10))
        for name, item in Predictor(known).predict("board0", truth).items():
            _, lower, upper, at_most = numbers(item)
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
    said = Predictor(rows, features=features, families=families).predict("x", ["a5", "h5"])
    width = {name: numbers(item)[2] / numbers(item)[1] for name, item in said.items()}
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
    said = points(Predictor([*rows, *(Row(name, "new", value) for name, value in anchors.items())]).predict("new"))
    assert np.median([abs(math.log(said[name] / new[name])) for name in MODELS[10:]]) < 0.1


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
    apart = Predictor([*here, *there]).predict("pi5")
    assert {said.level for name, said in apart.items() if name.startswith("b")} == {"refused"}
    assert "share a column or features with it" in apart["b0"].why
    few = [Row(f"b{i}", "pi4", 3e6 * (1 + i)) for i in range(2)]
    assert Predictor([*here, *there, *few]).predict("pi5")["b5"].level == "refused", "two are not enough"
    chain = [Row(f"b{i}", "pi4", 3e6 * (1 + i)) for i in range(3)]
    said = Predictor([*here, *there, *chain]).predict("pi5")["b11"]
    assert said.level == "transfer" and said.latency_ns == pytest.approx(12e6, rel=0.1), "m1 by way of pi4"


def test_a_column_that_is_not_linked_hardly_changes_a_prediction() -> None:
    known = [Row(f"a{i}", "pi4", 3e6 * (1 + i) ** 0.9) for i in range(12)]
    known += [Row(f"a{i}", "pi5", 1e6 * (1 + i)) for i in range(0, 12, 2)]
    stranger = [Row(f"b{i}", "m1", 7e6 / (1 + i)) for i in range(12)]
    names = [f"a{i}" for i in range(12)]
    with_it, without = (Predictor(rows).predict("pi5", names) for rows in ([*known, *stranger], known))
    for name in names:
        assert with_it[name].latency_ns == pytest.approx(without[name].latency_ns, rel=0.005)
        assert with_it[name].nearest == without[name].nearest
