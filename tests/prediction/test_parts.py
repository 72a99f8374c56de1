"""The parts of the predictor, each against its claim: gaps, smoothing, held-out anchors, rehearsals, quantiles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.prediction import OperatorCost, Predictor, Row, structural_features
from edgevit.prediction.conformal import quantile
from edgevit.prediction.cross_validation import pose, rehearse
from edgevit.prediction.feature_regression import smooth, smooth_across
from edgevit.prediction.gaussian_process import fit
from edgevit.prediction.hyperparameters import all_settings
from edgevit.prediction.imputation import fill
from edgevit.prediction.record import LogEstimate, Margins, predicted
from support.columns import MODELS, hold_out_column, sized, world


@given(
    st.lists(st.floats(0.01, 10), min_size=1, max_size=50),
    st.lists(st.lists(st.floats(0.01, 10), max_size=20), max_size=4),
    st.floats(0.01, 0.99),
    st.floats(0.01, 0.99),
)
def test_quantiles_grow(own_scores: list[float], others: list[list[float]], one: float, other: float) -> None:
    arrays = [np.array(scores) for scores in others]
    low, high = (quantile(np.array(own_scores), arrays, confidence) for confidence in sorted((one, other)))
    assert 0 < low <= high < math.inf


def test_the_conformal_quantile_is_the_textbook_one() -> None:
    """Of n own scores alone: the one of rank ceil((n + 1) confidence)."""
    own_scores = np.arange(1.0, 20.0)  # 19 scores
    assert quantile(own_scores, [], 0.9) == 18
    assert quantile(own_scores, [], 0.95) == 19
    assert quantile(own_scores, [], 0.96) > 19


def test_gaps_are_filled_as_the_columns_go_together() -> None:
    rng = np.random.default_rng(0)
    size = rng.normal(size=(80, 1))
    logs = np.concatenate([size, size + 1, 2 * size], axis=1) + 0.01 * rng.normal(size=(80, 3))
    gaps = logs.copy()
    gaps[:20, 2] = np.nan
    gaps[20:30, 0] = np.nan
    filled = fill(gaps)
    assert np.array_equal(filled[~np.isnan(gaps)], gaps[~np.isnan(gaps)])
    assert np.abs(filled - logs).max() < 0.15
    assert np.array_equal(fill(logs), logs)


def test_features_smooth_what_follows_them() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 3))
    clean = np.stack([features @ (1.0, 0.5, 0.0) + 3, np.sin(features[:, 0]) - 2], axis=1)
    profiles = clean + 0.1 * rng.normal(size=clean.shape)
    result = smooth(profiles, features, np.ones(60, dtype=np.bool_))
    assert ((result - clean) ** 2).mean() < 0.5 * ((profiles - clean) ** 2).mean()
    unseen = np.arange(60) >= 50
    result = smooth(profiles, features, ~unseen)
    assert np.abs(result - clean)[unseen].mean() < 0.3


def test_no_model_smooths_itself_or_its_family() -> None:
    rng = np.random.default_rng(1)
    features, families = rng.normal(size=(40, 2)), np.arange(40) // 4
    profiles = features @ rng.normal(size=(2, 3))
    described = np.ones(40, dtype=np.bool_)
    result = smooth_across(profiles, features, described, families)
    other = profiles.copy()
    other[4:8] += rng.normal(size=(4, 3))
    again = smooth_across(other, features, described, families)
    assert np.array_equal(result[4:8], again[4:8]) and not np.array_equal(result, again)


def test_anchors_held_out_are_predicted_as_if_they_were_not_there() -> None:
    """The closed form against a fit without the anchor."""
    known_rows, _ = hold_out_column(world(2), "board0", MODELS[:8])
    predictor = Predictor(known_rows)
    sources, target = predictor.sources("board0"), predictor.logs("board0")
    anchors = np.flatnonzero(~np.isnan(target))
    problem = pose(sources, anchors, target[anchors], whole_families=False)
    options = all_settings()
    result = fit(problem, options, anchors)
    without = pose(sources, anchors[1:], target[anchors[1:]], whole_families=False)
    error = target[anchors[0]] - fit(without, options, anchors[:1]).mean[:, 0]
    assert result.held_out[:, 0] == pytest.approx(error, abs=0.02)


def test_a_rehearsal_does_not_know_its_column() -> None:
    rows = world(4)
    known_rows, _ = hold_out_column(rows, "board0", MODELS[::3])
    other = [row._replace(latency_ns=row.latency_ns * (1 + i)) for i, row in enumerate(rows) if row.column == "board1"]
    changed = [row for row in known_rows if row.column != "board1"] + other
    problems = []
    for variant in (known_rows, changed):
        predictor = Predictor(variant)
        sources = predictor.sources("board0")
        anchors = np.flatnonzero(~np.isnan(predictor.logs("board0")))
        problems.append(rehearse(sources, anchors, np.arange(len(MODELS)), whole_families=False)[0].problem)
    assert np.array_equal(problems[0].profiles, problems[1].profiles)
    assert not np.array_equal(problems[0].target, problems[1].target)


def test_blind_rehearsals_predict_models_as_if_they_had_no_rows() -> None:
    """What is asked for was measured nowhere; others stand in for it, from their features alone."""
    rows, features = sized(noise=0.1)
    others = [Row(row.model, column, row.latency_ns * 7) for row in rows[:30] for column in ("y", "z")]
    predictor = Predictor([*rows[:6], *others], features=features)
    anchors = np.arange(6)
    result = rehearse(predictor.sources("x", blind=True), anchors, np.arange(35, 40), whole_families=False)
    assert len(result) == 2
    for rehearsal in result:
        assert len(rehearsal.at) == 24 and not np.intersect1d(rehearsal.at, anchors).size
        distance = np.abs(rehearsal.problem.profiles[rehearsal.at, 0] - rehearsal.truth)
        assert distance.max() > 0.1, "the other column's row would tell it exactly"


@pytest.mark.parametrize("margins", [Margins(47507.6, 0.36), Margins(0.1, 800.0)])
def test_an_interval_without_an_end_is_no_answer(margins: Margins) -> None:
    """As of a device of AI Hub, which nothing else explains."""
    prediction = predicted("net", "x", 0.9, LogEstimate("transfer", 16.6, margins, 14, "y"))
    numbers = (prediction.latency_ns, prediction.at_most_ns, prediction.upper_ns)
    assert (prediction.level, prediction.anchors, *numbers) == ("refused", 14, None, None, None)
    assert prediction.refusal == "contradictory_rows" and "contradict" in prediction.why
    assert predicted("net", "x", 0.9, LogEstimate("transfer", 16.6, Margins(0.1, 0.1), 14)).level == "transfer"


# Features


def test_features_of_operators() -> None:
    operators = [OperatorCost("1x1", 100, 10, 30), OperatorCost("3x3", 900, 90, 30), OperatorCost("add", 0, 0, 90)]
    result = structural_features(operators)
    assert result["log macs"] == pytest.approx(math.log(1000)) and result["log operators"] == pytest.approx(math.log(3))
    assert result["macs of 3x3"] == pytest.approx(0.9) and result["count of add"] == pytest.approx(1 / 3)
    assert result["log roofline 8"] == pytest.approx(math.log(40 + 120 + 90))
    assert structural_features([]) == {} and structural_features(reversed(operators)) == pytest.approx(result)
