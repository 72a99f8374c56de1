"""screening: what is asked of rows that others published before the database takes them."""

from __future__ import annotations

from edgevit.published.screening.claims import Claim, ClaimError, Cost
from edgevit.published.screening.screen import Screening

__all__ = ["Claim", "ClaimError", "Cost", "Screening"]
