"""What a report is made of, as its reader asks for it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReportOptions:
    """Which devices a report shows, and by which accuracies and predictions.

    devices: names, ids or classes; None: all devices that have rows. dataset, published, predict, confidence: as for
    edgevit.choose. artifacts: a folder of artifacts, whose manifests tell more of folding and parity than rows do.
    """

    devices: Collection[str] | None = None
    dataset: str | None = None
    published: bool = False
    predict: bool = True
    confidence: float = 0.9
    artifacts: Path | None = None


DEFAULTS = ReportOptions()
