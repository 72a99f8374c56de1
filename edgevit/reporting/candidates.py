"""How far a candidate is to be believed, as the page and the picture show it."""

from __future__ import annotations

from edgevit.records.choice import Candidate
from edgevit.records.model import Provenance


def origin(candidate: Candidate) -> Provenance:
    """Return the weaker provenance of a candidate's two numbers: predicted, published, reconstructed or measured.

    The accuracy of published weights, which nearly all candidates have, weakens nothing.
    """
    if candidate.latency_provenance != "measured":
        return candidate.latency_provenance
    return "reconstructed" if candidate.top1_provenance == "reconstructed" else "measured"
