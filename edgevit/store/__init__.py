"""store: keeps measurements, and refuses the ones that cannot be true."""

from __future__ import annotations

from edgevit.store.accuracies import validate_accuracy
from edgevit.store.check import Checked
from edgevit.store.db import LatencyDB
from edgevit.store.json_records import Imported, Item, Refusal
from edgevit.store.overview import DeviceRows, Stats
from edgevit.store.published import published_row
from edgevit.store.quarantine import Quarantined
from edgevit.store.readonly_sql import Answer
from edgevit.store.validate import validate

__all__ = [
    "Answer",
    "Checked",
    "DeviceRows",
    "Imported",
    "Item",
    "LatencyDB",
    "Quarantined",
    "Refusal",
    "Stats",
    "published_row",
    "validate",
    "validate_accuracy",
]
