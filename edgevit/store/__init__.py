"""store: keeps measurements, and refuses the ones that cannot be true."""

from __future__ import annotations

from edgevit.store.db import DeviceRows, LatencyDB, Stats
from edgevit.store.jsonl import Imported, Refusal
from edgevit.store.validate import validate

__all__ = ["DeviceRows", "Imported", "LatencyDB", "Refusal", "Stats", "validate"]
