"""What is known beside a device's own rows, and the predictor over all of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgevit.records.measurement import Measurement
from edgevit.records.model import Graph, ModelCard, OperatorCost
from edgevit.selection.columns import Names, Place, latency_ns

if TYPE_CHECKING:
    from edgevit.prediction import Predictor


class Elsewhere(NamedTuple):
    """What is read only where it is needed.

    models: names of all models that have rows. others: rows of other devices that have rows of these models. graphs:
    operators of networks that the database keeps, by id. operators: those that are known by the names of models: the
    zoo's.
    """

    models: Callable[[], Collection[str]]
    others: Callable[[Collection[str]], Sequence[Measurement]]
    graphs: Callable[[], Sequence[Graph]]
    operators: Callable[[], Mapping[str, tuple[OperatorCost, ...]]]


NOWHERE = Elsewhere(tuple, lambda models: (), tuple, dict)


def predictor_of(
    rows: Sequence[Measurement], names: Names, cards: Mapping[str, ModelCard], kept: int, elsewhere: Elsewhere
) -> tuple[Predictor, dict[str, str]]:
    """A predictor over comparable rows, oldest first, at a percentile that rows keep; and the names of its columns."""
    from edgevit.prediction import Predictor, Row, structural_features  # NumPy takes longer to import than a choice may

    given, says = [], dict[str, str]()
    for row in rows:
        if told := latency_ns(row, kept):
            column = Place.of(row).column(told[0])
            says.setdefault(column, Place.of(row).says(row))
            given.append(Row(names.of(row), column, told[1]))
    newest = {names.of(row): row for row in rows}
    families = {name: card.family for name, card in cards.items()}
    families |= {name: row.family for name, row in newest.items() if row.family}
    graphs = {name: row.graph_digest for name, row in newest.items() if row.graph_digest}
    operators = _operators(graphs, elsewhere)
    features = {name: structural_features(costs) for name, costs in operators.items()}
    return Predictor(given, features=features, families=families, graphs=graphs), says


def _operators(graphs: Mapping[str, str], elsewhere: Elsewhere) -> dict[str, tuple[OperatorCost, ...]]:
    """Operators by name: as they were told for a name, else as the database keeps them for a graph.

    Of a network with two lists the one with the lesser id counts, whichever came first.
    """
    kept = {graph.graph_digest: graph.operators for graph in reversed(elsewhere.graphs())}
    found = {name: kept[digest] for name, digest in graphs.items() if digest in kept}
    return found | dict(elsewhere.operators())
