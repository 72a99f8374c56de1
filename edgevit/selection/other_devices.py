"""Evidence from other devices, and the predictor built from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgevit.records.measurement import Measurement
from edgevit.records.model import Graph, ModelCard, OperatorCost
from edgevit.selection.columns import Configuration, ModelAliases, latency_ns

if TYPE_CHECKING:
    from edgevit.prediction import Predictor


class OtherDevices(NamedTuple):
    """Evidence beside a device's own rows; each part is read only where it is needed.

    models: names of all models that have rows. rows: rows of other devices that have rows of these models. graphs:
    operators of networks that the database keeps, by id. operators: those of the zoo, by the names of models.
    """

    models: Callable[[], Collection[str]]
    rows: Callable[[Collection[str]], Sequence[Measurement]]
    graphs: Callable[[], Sequence[Graph]]
    operators: Callable[[], Mapping[str, tuple[OperatorCost, ...]]]


NO_OTHER_DEVICES = OtherDevices(tuple, lambda models: (), tuple, dict)


def predictor_of(
    rows: Sequence[Measurement],
    aliases: ModelAliases,
    cards: Mapping[str, ModelCard],
    percentile: int,
    others: OtherDevices,
) -> tuple[Predictor, dict[str, str]]:
    """Return a predictor over comparable rows, oldest first, and the labels of its columns.

    percentile: one that rows keep.
    """
    # NumPy takes longer to import than a choice may.
    from edgevit.prediction import Predictor, Row, structural_features

    latencies, labels = [], dict[str, str]()
    for row in rows:
        if latency := latency_ns(row, percentile):
            column = Configuration.of(row).column(latency[0])
            labels.setdefault(column, Configuration.of(row).label(row))
            latencies.append(Row(aliases.of(row), column, latency[1]))
    newest = {aliases.of(row): row for row in rows}
    families = {name: card.family for name, card in cards.items()}
    families |= {name: row.family for name, row in newest.items() if row.family}
    graphs = {name: row.graph_digest for name, row in newest.items() if row.graph_digest}
    operators = _operators(graphs, others)
    features = {name: structural_features(costs) for name, costs in operators.items()}
    return Predictor(latencies, features=features, families=families, graphs=graphs), labels


def _operators(graphs: Mapping[str, str], others: OtherDevices) -> dict[str, tuple[OperatorCost, ...]]:
    """Return operators by name: those of the zoo, else those that the database keeps for a graph.

    Of a network with two lists the one with the lesser id counts, whichever came first.
    """
    of_graph = {graph.graph_digest: graph.operators for graph in reversed(others.graphs())}
    operators = {name: of_graph[digest] for name, digest in graphs.items() if digest in of_graph}
    return operators | dict(others.operators())
