"""Graphs: the operators of networks, their validation, and their rows of the `graph` table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from sqlalchemy import Connection

from edgevit.errors import StoreError
from edgevit.records.identity import graph_id
from edgevit.records.model import Graph, OperatorCost
from edgevit.store import partition_checksums, small_tables, tables
from edgevit.store.validate import unstorable
from edgevit_runtime.codec import RecordError, from_json, to_json

_MAX_OPERATORS = 100_000  # different costs; a network has some hundreds


def validate_graph(graph: Graph) -> None:
    """Check a graph before it enters the database. Raises StoreError with the first problem."""
    if problem := next(_problems(graph), ""):
        location = f"graph {str(graph.graph_digest)[:12]}"
        raise StoreError("the graph is refused", where=location, why=problem, fix="export the model again")


def _problems(graph: Graph) -> Iterator[str]:
    yield from unstorable(graph, "graph")
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
    if graph.graph_id != graph_id(graph):
        yield "the graph_id is not that of its contents: identity.identify_graph makes it"


def insert(connection: Connection, graph: Graph) -> bool:
    """Add a validated graph and return whether it is new. Its id is the digest of its contents."""
    operators = [[*vars(operator).values()] for operator in graph.operators]
    values = {"graph_id": graph.graph_id, "graph_digest": graph.graph_digest, "operators_json": to_json(operators)}
    return small_tables.add_row(connection, tables.graph, values)


def read(connection: Connection) -> list[Graph]:
    """Return every graph, by id. Raises StoreError where one was changed or is missing."""
    return [_from_row(row) for row in partition_checksums.read_table(connection, tables.graph)]


def _from_row(row: dict[str, str]) -> Graph:
    try:
        operators = from_json(tuple[tuple[str, float, float, float, int], ...], row["operators_json"])
    except RecordError as error:
        raise partition_checksums.damage_error(f"graph {row['graph_id'][:12]}: {error}") from error
    return Graph(row["graph_id"], row["graph_digest"], tuple(OperatorCost(*values) for values in operators))
