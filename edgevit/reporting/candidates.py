"""What the page and the picture both ask of a candidate: how far it is to be believed."""

from __future__ import annotations

from edgevit.records.choice import Candidate
from edgevit.records.model import Provenance


def origin(item: Candidate) -> Provenance:
    """The weakest provenance of what a point is made of: predicted, published, reconstructed, measured.

    The accuracy of published weights, which nearly all have, weakens nothing.
    """
    if item.latency_provenance != "measured":
        return item.latency_provenance
    return "reconstructed" if item.top1_provenance == "reconstructed" else "measured"
