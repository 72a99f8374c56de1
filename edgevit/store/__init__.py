"""store: the latency database. It keeps measurements and refuses those that cannot be true."""

from __future__ import annotations

from edgevit.store.accuracies import ACCURACIES
from edgevit.store.check import CheckReport
from edgevit.store.connect import has_own_database
from edgevit.store.db import LatencyDB
from edgevit.store.json_records import ImportResult, ParsedRecord, Refusal
from edgevit.store.overview import DatabaseStats, DeviceSummary
from edgevit.store.published import PublishedValues, published_row
from edgevit.store.quarantine import QuarantinedRecord
from edgevit.store.readonly_sql import QueryResult
from edgevit.store.refusals import RefusalCode, RefusalReason
from edgevit.store.validate import validate_measurement

__all__ = [
    "ACCURACIES",
    "CheckReport",
    "DatabaseStats",
    "DeviceSummary",
    "ImportResult",
    "LatencyDB",
    "ParsedRecord",
    "PublishedValues",
    "QuarantinedRecord",
    "QueryResult",
    "Refusal",
    "RefusalCode",
    "RefusalReason",
    "has_own_database",
    "published_row",
    "validate_measurement",
]
