"""Graphs: the operators of networks, their validation, and their table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator

from edgevit.records.identity import graph_id
from edgevit.records.model import Graph, OperatorCost
from edgevit.store import tables
from edgevit.store.content_table import ContentTable

_MAX_OPERATORS = 100_000  # different costs; a network has some hundreds


def _problems(graph: Graph) -> Iterator[str]:
    if len(graph.graph_digest) != 64:
        yield f"its graph_digest is {graph.graph_digest!r}, which is no digest"
    if not 0 < len(graph.operators) <= _MAX_OPERATORS:
        yield f"it has {len(graph.operators)} operators"
    for operator in graph.operators:
        numbers = (operator.macs, operator.parameters, operator.activations)
        if operator.count < 1 or not all(0 <= number < math.inf for number in numbers):
            yield f"an operator {operator.kind!r} costs {numbers}, {operator.count} times"
    costs = [(operator.kind, operator.macs, operator.parameters, operator.activations) for operator in graph.operators]
    if any(cost >= next_cost for cost, next_cost in itertools.pairwise(costs)):
        yield "its operators are not merged and in order: edgevit.count.merged does that"


def _unpacked(operators: Iterable[tuple[str, float, float, float, int]]) -> tuple[OperatorCost, ...]:
    return tuple(OperatorCost(*values) for values in operators)


GRAPHS = ContentTable(
    tables.graph,
    "graph",
    Graph,
    graph_id,
    {"operators": tuple[tuple[str, float, float, float, int], ...]},
    _problems,
    location=lambda graph: f"graph {str(graph.graph_digest)[:12]}",
    fix="export the model again",
    pack={"operators": lambda operators: [[*vars(operator).values()] for operator in operators]},
    unpack={"operators": _unpacked},
)
