"""What one line of somebody's table says, before anybody believes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from edgevit.records.measurement import Accuracy


class ClaimError(ValueError):
    """A line cannot be taken; the message is the reason that is shown and kept in quarantine.

    What stands before its first colon is the kind of reason, by which refusals are counted.
    """


@dataclass(frozen=True)
class Cost:
    """What one run of one batch costs at least, as the source or our own count has it; None: not told."""

    macs: float | None  # multiply-accumulates
    weight_bytes: float | None  # of all parameters, which are read once


class Claim(NamedTuple):
    """One line: the keywords of `store.published_row` and the accuracies that it says, or why it says nothing.

    Of the keywords `device_id` is needed here: "FORM/name in the source", so that no two sources' devices are joined.
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

    @property
    def time_ns(self) -> int | None:
        """The time that is compared with those of other models and devices: the median, or the mean where none is told.

        None where the line tells no time: a run that failed, an accuracy, a line that is refused.
        """
        if self.reason or self.row is None:
            return None
        found: int | None = self.row.get("p50_ns") or self.row.get("mean_ns")
        return found
