"""Claims: the contents of one line of a published table, before they are checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from edgevit.records.measurement import Accuracy
from edgevit.store import PublishedValues, RefusalCode, RefusalReason
from edgevit.store.refusals import LABELS


class ClaimError(ValueError):
    """A line cannot be taken; its reason has the code, and the text that is shown and kept in quarantine."""

    def __init__(self, code: RefusalCode, detail: str) -> None:
        self.reason = RefusalReason(code, f"{LABELS[code]}: {detail}")
        super().__init__(self.reason.text)


@dataclass(frozen=True)
class Cost:
    """The least cost of one run of one batch, by the source or by our own count; None: unknown.

    `weight_bytes` is of all parameters, which are read once.
    """

    macs: float | None
    weight_bytes: float | None


class Claim(NamedTuple):
    """One line: the values of its row and its accuracies, or the reason why it is refused.

    The row needs a `device_id` here: "FORM/name in the source", so that devices of two sources are never joined.
    `location` and `content` go into quarantine with the reason. `origin` names the run of the numbers, where the source
    does: two devices with one origin are one measurement and a copy.
    """

    location: str
    content: bytes
    row: PublishedValues | None = None
    accuracies: tuple[Accuracy, ...] = ()
    refusal: RefusalReason | None = None
    origin: str = ""
    cost: Cost | None = None

    @property
    def time_ns(self) -> int | None:
        """The time that is compared with those of other models and devices: the median, else the mean.

        None where the line has no time: a failed run, an accuracy, a refused line.
        """
        if self.refusal is not None or self.row is None:
            return None
        return self.row.p50_ns or self.row.mean_ns
