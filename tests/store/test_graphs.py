"""Tests of the operators of networks: those that ship with the cards, and those that the database takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgevit.cards import load_cards, load_operators
from edgevit.errors import StoreError
from edgevit.prediction import OperatorCost, structural_features
from edgevit.records.identity import identify_graph
from edgevit.records.model import Graph
from edgevit.store import LatencyDB
from edgevit.store.graphs import GRAPHS
from support.measured import operators


@pytest.fixture
def db(url: str) -> Iterator[LatencyDB]:
    with LatencyDB.open(url, shipped=False) as database:
        yield database


def test_every_card_has_its_operators() -> None:
    """Compare the shipped operators with the cards. Fix after a change of a model: edgevit models --refresh"""
    cards, shipped = load_cards(), load_operators()
    assert list(shipped) == list(cards)
    for name, card in cards.items():
        assert sum(operator.count * operator.macs for operator in shipped[name]) == card.folded_macs, name
        GRAPHS.validate(identify_graph("0" * 64, shipped[name]))


def test_operators_counted_together_have_the_features_of_each_for_itself() -> None:
    one, other = OperatorCost("convolution 3x3", 4e6, 1e4, 2e5), OperatorCost("relu", 0.0, 0.0, 1e5)
    separate = structural_features([one, other, one, other, other])
    together = structural_features([dataclasses.replace(one, count=2), dataclasses.replace(other, count=3)])
    assert separate.keys() == together.keys()
    assert all(math.isclose(separate[name], together[name], rel_tol=1e-12) for name in separate)
    names = ("count of relu", "macs of convolution 3x3", "activations of relu")
    assert [separate[name] for name in names] == [0.6, 1.0, 3 / 7]


def test_a_graph_comes_back_as_it_was_kept(db: LatencyDB) -> None:
    assert db.add_graph(operators()) and not db.add_graph(operators())
    assert db.add_graph(operators(8e8)), "another list of the same graph is stored as well"
    assert db.graphs() == sorted([operators(), operators(8e8)], key=lambda graph: graph.graph_id)
    assert db.check().problems == ()


BAD: dict[str, dict[str, Any]] = {
    "no digest": {"graph_digest": "b"},
    "it has 0 operators": {"operators": ()},
    "costs": {"operators": (OperatorCost("relu", math.nan, 0.0, 1.0),)},
    "-1": {"operators": (OperatorCost("relu", 0.0, -1.0, 1.0),)},
    "0 times": {"operators": (OperatorCost("relu", 0.0, 0.0, 1.0, 0),)},
    "not merged": {"operators": (OperatorCost("relu", 0.0, 0.0, 1.0), OperatorCost("relu", 0.0, 0.0, 1.0))},
}


@pytest.mark.parametrize("why", BAD)
def test_what_cannot_be_true_is_refused(db: LatencyDB, why: str) -> None:
    changed = dataclasses.replace(operators(), **BAD[why])
    graph = changed if why == "costs" else identify_graph(changed.graph_digest, changed.operators)
    with pytest.raises(StoreError, match="the graph is refused") as caught:
        db.add_graph(graph)
    assert why in caught.value.why or why == "costs"
    assert db.graphs() == []


def test_an_altered_graph_is_refused(db: LatencyDB, tmp_path: Path) -> None:
    altered = Graph(operators().graph_id, operators().graph_digest, operators(7e8).operators)
    with pytest.raises(StoreError) as caught:
        db.add_graph(altered)
    assert "graph_id is not that of its contents" in caught.value.why
    db.add_graph(operators())
    db.export_jsonl(tmp_path / "a.jsonl")
    text = (tmp_path / "a.jsonl").read_text()
    (tmp_path / "b.jsonl").write_text(text.replace("convolution 3x3", "convolution 5x5"))
    came = db.import_jsonl(tmp_path / "b.jsonl")
    assert (came.added, len(came.refused)) == (0, 1) and len(db.graphs()) == 1
