"""What the page and the picture both ask of a candidate: where it stands, and how far it is to be believed."""

from __future__ import annotations

from edgevit.types import Candidate, Provenance


def held_ms(item: Candidate) -> float | None:
    """What is held against a latency budget: the upper bound; of a published row without one what its source tells."""
    bare = item.latency_provenance == "published" and item.latency_upper_ms is None
    return item.latency_ms if bare else item.latency_upper_ms


def origin(item: Candidate) -> Provenance:
    """The weakest provenance of what a point is made of: predicted, published, reconstructed, measured.

    The accuracy of published weights, which nearly all have, weakens nothing.
    """
    if item.latency_provenance != "measured":
        return item.latency_provenance
    return "reconstructed" if item.top1_provenance == "reconstructed" else "measured"
