"""What one line of somebody's table says, before anybody believes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from edgevit.types import Accuracy


class ClaimError(ValueError):
    """A line cannot be taken; the message is the reason that is shown and kept in quarantine."""


@dataclass(frozen=True)
class Cost:
    """What one run of one batch costs at least, as the source or our own count has it; None: not told."""

    macs: float | None  # multiply-accumulates
    weight_bytes: float | None  # of all parameters, which are read once


class Claim(NamedTuple):
    """One line: the keywords of `store.published_row` and the accuracies that it says, or why it says nothing.

    `place` and `content` go into quarantine with the reason. `origin` names the run that the numbers come from, where
    the source names it: two devices with one origin are one measurement and a copy.
    """

    place: str
    content: bytes
    row: dict[str, Any] | None = None
    accuracies: tuple[Accuracy, ...] = ()
    reason: str = ""
    origin: str = ""
    cost: Cost | None = None
