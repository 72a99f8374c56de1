"""Times of operators and tunings, for tests."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgevit.records.identity import identify_operator_time, identify_tuning
from edgevit.records.measurement import PROTOCOL_VERSION
from edgevit.records.tuning import OperatorTime, SiteForm, TimeRatio, TriedForm, Tuning

SITE, OTHER_SITE = "5" * 32, "6" * 32
_CONFIGURATION: dict[str, Any] = {
    "target": "litert",
    "precision": "fp32",
    "engine": "ai-edge-litert",
    "engine_version": "2.1.0",
    "provider": "XNNPACK",
    "device": "pi5",
    "device_id": "pi-1",
    "device_class": "bcm2712-4c",
    "threads": 1,
    "batch": 1,
    "started": "2026-11-21T10:00:00+00:00",
    "protocol_version": PROTOCOL_VERSION,
}


def operator_time(form: str = "", p50_ns: int = 1_000_000, **changes: Any) -> OperatorTime:
    """Return an identified time of a depthwise convolution."""
    fields: dict[str, Any] = {
        "operator_time_id": "",
        "kind": "alone",
        "site": SITE,
        "operator": "conv2d 7x7 depthwise of 1x512x56x56",
        "form": form,
        **_CONFIGURATION,
        "macs": 78_675_968,
        "moved_bytes": 12_945_408,
        "p50_ns": p50_ns,
        "p50_low_ns": p50_ns - p50_ns // 100,
        "p50_high_ns": p50_ns + p50_ns // 100,
        "processes": 3,
        "runs": 90,
    }
    return identify_operator_time(OperatorTime(**fields | changes))


def tuning(**changes: Any) -> Tuning:
    """Return an identified tuning that took one form and tried two."""
    tried = TriedForm(SITE, "conv2d", 2, "depthwise_rows", "FASTER", TimeRatio(0.5, 0.48, 0.52))
    fields: dict[str, Any] = {
        "tuning_id": "",
        "model": "net_a",
        "family": "nets",
        "graph_digest": "d" * 64,
        **_CONFIGURATION,
        "forms": (SiteForm(SITE, "depthwise_rows"),),
        "gain": TimeRatio(0.6, 0.58, 0.62),
        "over_default": None,
        "tried": (
            tried,
            dataclasses.replace(tried, form="depthwise_bands_3", verdict="failed", ratio=None, reason="?"),
        ),
        "complete": True,
    }
    return identify_tuning(Tuning(**fields | changes))
