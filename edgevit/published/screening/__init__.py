"""screening: plausibility checks for published rows, run before they enter the database."""

from __future__ import annotations

from edgevit.published.screening.claims import Claim, ClaimError, Cost
from edgevit.published.screening.screen import Screening

__all__ = ["Claim", "ClaimError", "Cost", "Screening"]
