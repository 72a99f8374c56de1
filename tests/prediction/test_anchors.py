"""Which models to measure: within the budget, the same every time, and better than chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.errors import UsageError
from edgevit.prediction import Predictor, Row, choose_anchors
from support.columns import BOARDS, MODELS, hold_out_column, points, sized, world

KNOWN = [row for row in world(0) if row.column != "board0"]


def test_as_many_as_asked_for_and_no_model_twice() -> None:
    anchors = choose_anchors(Predictor(KNOWN), "board0", count=7)
    assert len(anchors) == 7 == len(set(anchors)) and set(anchors) <= set(MODELS)
    assert choose_anchors(Predictor(KNOWN), "board0", count=4) == anchors[:4]
    assert len(choose_anchors(Predictor(KNOWN), "board0", count=99)) == len(MODELS)


def test_rows_that_are_there_are_not_measured_again() -> None:
    first = choose_anchors(Predictor(KNOWN), "board0", count=6)
    begun = Predictor([*KNOWN, *(Row(name, "board0", 1e6) for name in first[:3])])
    assert choose_anchors(begun, "board0", count=3) == first[3:]


def test_order_of_rows_and_candidates_does_not_matter() -> None:
    anchors = choose_anchors(Predictor(KNOWN), "board0", count=5)
    assert choose_anchors(Predictor(KNOWN[::-1]), "board0", count=5, candidates=MODELS[::-1]) == anchors


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(1, 100), min_size=len(MODELS), max_size=len(MODELS)), st.floats(0, 500))
def test_the_budget_is_kept_and_used(prices: list[float], budget: float) -> None:
    cost = dict(zip(MODELS, prices, strict=True))
    anchors = choose_anchors(Predictor(KNOWN), "board0", budget_s=budget, cost_s=cost)
    spent = sum(cost[name] for name in anchors)
    assert spent <= budget + 1e-9
    assert all(spent + cost[name] > budget for name in set(MODELS) - set(anchors))


def test_a_model_that_costs_much_waits() -> None:
    first = choose_anchors(Predictor(KNOWN), "board0", count=1)[0]
    dear = {name: 1000.0 if name == first else 1.0 for name in MODELS}
    assert first not in choose_anchors(Predictor(KNOWN), "board0", count=5, cost_s=dear)


def test_only_candidates_are_picked() -> None:
    assert set(choose_anchors(Predictor(KNOWN), "board0", count=3, candidates=MODELS[5:9])) <= set(MODELS[5:9])
    assert choose_anchors(Predictor(KNOWN), "board0", count=3, candidates=["never"]) == ()


def test_without_other_columns_features_decide() -> None:
    rows, features = sized()
    anchors = choose_anchors(Predictor([], features=features), "x", count=4)
    sizes = sorted(features[name]["log macs"] for name in anchors)
    assert sizes[0] < 0.7 and sizes[-1] > 2.3, "the ends of the range are among them"
    assert choose_anchors(Predictor([]), "x", count=4) == ()
    assert len(rows) == len(features)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="neither"):
        choose_anchors(Predictor(KNOWN), "board0")
    with pytest.raises(UsageError, match="costs 0"):
        choose_anchors(Predictor(KNOWN), "board0", count=1, cost_s=dict.fromkeys(MODELS, 0.0))


def test_chosen_anchors_beat_chance() -> None:
    """Mean error over worlds, six anchors chosen against six drawn."""
    errors: dict[str, list[float]] = {"chosen": [], "drawn": []}
    for seed in range(60):
        rows = world(seed, noise=0.01)
        others = [row for row in rows if row.column in BOARDS[1:]]
        drawn = np.random.default_rng(seed).permutation(MODELS)[:6].tolist()
        for kind, anchors in (("chosen", choose_anchors(Predictor(others), "board0", count=6)), ("drawn", drawn)):
            known_rows, truth = hold_out_column(rows, "board0", list(anchors))
            predictions = points(Predictor(known_rows).predict("board0", truth))
            errors[kind] += [abs(np.log(predictions[name] / truth[name])) for name in truth]
    assert np.mean(errors["chosen"]) < 0.9 * np.mean(errors["drawn"])
