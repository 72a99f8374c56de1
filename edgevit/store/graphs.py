"""Graphs: what the operators of a network must be to enter the database, and how they are kept."""

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

_MOST_OPERATORS = 100_000  # kinds of cost; a network has some hundreds


def validate_graph(graph: Graph) -> None:
    """Check a graph before it enters the database. Raises StoreError with the first thing wrong."""
    if problem := next(_problems(graph), ""):
        where = f"graph {str(graph.graph_digest)[:12]}"
        raise StoreError("the graph is refused", where=where, why=problem, fix="export the model again")


def _problems(graph: Graph) -> Iterator[str]:
    yield from unstorable(graph, "graph")
    if len(graph.graph_digest) != 64:
        yield f"its graph_digest is {graph.graph_digest!r}, no digest"
    if not 0 < len(graph.operators) <= _MOST_OPERATORS:
        yield f"it has {len(graph.operators)} operators"
    for item in graph.operators:
        numbers = (item.macs, item.parameters, item.activations)
        if item.count < 1 or not all(0 <= number < math.inf for number in numbers):
            yield f"an operator {item.kind!r} costs {numbers}, {item.count} times"
    costs = [(item.kind, item.macs, item.parameters, item.activations) for item in graph.operators]
    if any(one >= other for one, other in itertools.pairwise(costs)):
        yield "its operators are not merged and in order: edgevit.count.merged does that"
    if graph.graph_id != graph_id(graph):
        yield "the graph_id is not that of what it says: identity.identify_graph makes it"


def insert(connection: Connection, graph: Graph) -> bool:
    """Add a validated graph; False if it is there already: its id is the digest of all it says."""
    operators = [[*vars(item).values()] for item in graph.operators]
    values = {"graph_id": graph.graph_id, "graph_digest": graph.graph_digest, "operators_json": to_json(operators)}
    return small_tables.add_line(connection, tables.graph, values)


def read(connection: Connection) -> list[Graph]:
    """Every graph, by id. Raises StoreError where one is not what was written, or is missing."""
    return [_read(line["graph_id"], line) for line in partition_checksums.read_whole(connection, tables.graph)]


def _read(name: str, line: dict[str, str]) -> Graph:
    try:
        listed = from_json(tuple[tuple[str, float, float, float, int], ...], line["operators_json"])
    except RecordError as error:
        raise partition_checksums.broken(f"graph {name[:12]}: {error}") from error
    return Graph(name, line["graph_digest"], tuple(OperatorCost(*item) for item in listed))
