"""Two readings of a source: the first collects what its rows say together, the second takes each row or says why not.

Nothing of the first reading is kept but numbers, so that a table of any length goes through in little memory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from edgevit.errors import StoreError
from edgevit.published.screening.ceilings import ceiling_of, least_ns
from edgevit.published.screening.claims import Claim, ClaimError
from edgevit.published.screening.jumps import without_jumps
from edgevit.published.screening.observations import Observations
from edgevit.published.screening.residual import residuals
from edgevit.store import Item, published_row

DOUBTFUL = 1.4  # times, or 1/1.4: what neighbours agree on beyond this is no measurement of that model on that device
UNITS = 200.0  # times: nearer to the factor 1000 between ns, us, ms and s than to anything that devices differ by
COPIED = "copied"  # flag of a row whose run the source also gives to another device


class _First(NamedTuple):
    """The first claim with an origin: what others with it are copies of."""

    device_id: str
    time_ns: int
    number: int


class Screening:
    """Takes the claims of one source. `read` gives them from the start each time it is called.

    `counts` says, when `items` is exhausted, how many rows are copies, and how many could not be asked everything:
    without_ceiling (no peak of the device, or cost of the model, is known), without_neighbours (too few devices or
    models beside it).
    """

    def __init__(self, read: Callable[[], Iterator[Claim]]) -> None:
        self.counts: Counter[str] = Counter()
        self._read = read
        self._seen = 0
        self._first: dict[str, _First] = {}  # by origin
        self._shared: set[str] = set()  # origins of several devices
        self._off: dict[int, tuple[float, float]] = {}  # number of the claim -> its residuals

    def items(self) -> Iterator[Item]:
        """A record or a reason for each claim, in order; a claim with a row and an accuracy gives two items.

        Raises StoreError where the second reading finds another number of lines than the first.
        """
        self._collect()
        number = -1
        for number, claim in enumerate(self._read()):
            yield from self._judge(number, claim)
        if number + 1 != self._seen:
            why = f"{self._seen} lines at first, then {number + 1}"
            raise StoreError("the source changed while it was read", why=why, fix="import it again")

    # The first reading

    def _collect(self) -> None:
        seen = Observations()
        for number, claim in enumerate(self._read()):
            self._seen += 1
            if claim.row is None or claim.time_ns is None:
                continue
            if not self._is_copy(number, claim.origin, claim.row["device_id"], claim.time_ns):
                seen.add(number, claim.row, claim.time_ns)
        self._compare(seen)

    def _is_copy(self, number: int, origin: str, device_id: str, time_ns: int) -> bool:
        """Whether another device had this origin before: copies must not vote for each other."""
        if not origin:
            return False
        first = self._first.setdefault(origin, _First(device_id, time_ns, number))
        if first.device_id != device_id:
            self._shared.add(origin)
        return first.device_id != device_id

    def _compare(self, seen: Observations) -> None:
        agreed, left = residuals(seen.column("model"), seen.column("where"), seen.column("time"))
        pairs = zip(without_jumps(agreed, seen).tolist(), left.tolist(), strict=True)
        self._off = dict(zip(seen.column("claim").tolist(), pairs, strict=True))

    # The second reading

    def _judge(self, number: int, claim: Claim) -> Iterator[Item]:
        try:
            if claim.reason:
                raise ClaimError(claim.reason)
            if claim.row is not None:
                row = published_row(**self._checked(number, claim, claim.row))
                yield Item(claim.place, row, "", claim.content)
        except ClaimError as error:
            yield Item(claim.place, None, str(error), claim.content)
            return
        yield from (Item(claim.place, accuracy, "", claim.content) for accuracy in claim.accuracies)

    def _checked(self, number: int, claim: Claim, row: dict[str, Any]) -> dict[str, Any]:
        if claim.time_ns is None:
            return row
        self._require_possible(claim, row, claim.time_ns)
        if claim.origin not in self._shared:
            self._require_neighbours(number)
            return row
        first = self._first[claim.origin]
        if claim.time_ns != first.time_ns:
            why = f"{claim.origin} took {claim.time_ns} ns here, {first.time_ns} ns on {first.device_id}"
            raise ClaimError(f"two numbers of one run: {why}")
        self._require_neighbours(first.number)  # a copy stands and falls with it
        self.counts[COPIED] += 1
        return {**row, "flags": (*row.get("flags", ()), COPIED)}

    def _require_possible(self, claim: Claim, row: dict[str, Any], time_ns: int) -> None:
        ceiling = ceiling_of(row["device"])
        if ceiling is None or claim.cost is None:
            self.counts["without_ceiling"] += 1
            return
        least, limit = least_ns(claim.cost, ceiling)
        if time_ns < least:
            raise ClaimError(f"faster than possible: {time_ns} ns, and {limit} need {least:.0f} ns")

    def _require_neighbours(self, number: int) -> None:
        agreed, left = self._off.get(number, (math.nan, math.nan))
        if math.isnan(agreed):
            self.counts["without_neighbours"] += 1
        # Wrong neighbours may contradict each other; a factor as large as between units is seen without them.
        most = max((off for off in (agreed, left) if not math.isnan(off)), key=abs, default=0.0)
        if abs(most) > math.log(UNITS):
            raise ClaimError(f"another unit: {math.exp(most):.4g} times what such models take on such devices")
        if abs(agreed) > math.log(DOUBTFUL):
            why = f"{math.exp(agreed):.2f} times what the nearest devices, and the nearest models, give"
            raise ClaimError(f"doubtful: {why}")
