"""All tables whose records are named by the digest of their contents, by the class of the records."""

from __future__ import annotations

from typing import Any

from edgevit.records.measurement import Accuracy, Confusion
from edgevit.records.model import Graph
from edgevit.records.tuning import OperatorTime, Tuning
from edgevit.store.accuracies import ACCURACIES
from edgevit.store.confusions import CONFUSIONS
from edgevit.store.content_table import ContentTable
from edgevit.store.graphs import GRAPHS
from edgevit.store.operator_times import OPERATOR_TIMES, TUNINGS

ContentRecord = Accuracy | Graph | Confusion | OperatorTime | Tuning
CONTENT_TABLES: dict[type[ContentRecord], ContentTable[Any]] = {
    Accuracy: ACCURACIES,
    Graph: GRAPHS,
    Confusion: CONFUSIONS,
    OperatorTime: OPERATOR_TIMES,
    Tuning: TUNINGS,
}


def table_of(record: ContentRecord) -> ContentTable[Any]:
    """Return the table of a record."""
    return CONTENT_TABLES[type(record)]
