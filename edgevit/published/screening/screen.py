"""Screening in two passes over a source: the first collects its times, the second takes or refuses each row.

Only numbers stay in memory after the first pass, so that a table of any length needs little of it.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from edgevit.errors import StoreError
from edgevit.published.screening.ceilings import ceiling_of, least_ns
from edgevit.published.screening.claims import Claim, ClaimError
from edgevit.published.screening.jumps import without_jumps
from edgevit.published.screening.observations import Observations
from edgevit.published.screening.residual import residuals
from edgevit.store import ParsedRecord, PublishedValues, published_row

_LOG = logging.getLogger(__name__)
# Ratio: a larger factor that neighbours agree on is no measurement of that model on that device.
DOUBTFUL = 1.4
# Ratio: nearer to the factor 1000 between ns, us, ms and s than to any difference between devices.
UNITS = 200.0
# Flag of a row whose run the source also gives to another device.
COPIED = "copied"


class _FirstClaim(NamedTuple):
    """The first claim with an origin; later ones of other devices are its copies."""

    device_id: str
    time_ns: int
    number: int


class Screening:
    """Screening of the claims of one source. `read` yields them from the start each time it is called.

    After `records`, `counts` has the number of copies, and of rows that were not checked in every way:
    without_ceiling (no peak of the device, or no cost of the model), without_neighbours (too few devices or models
    beside it).
    """

    def __init__(self, read: Callable[[], Iterator[Claim]]) -> None:
        self.counts: Counter[str] = Counter()
        self._read = read
        self._claim_count = 0
        # The first claim of each origin, and the origins of several devices.
        self._first: dict[str, _FirstClaim] = {}
        self._shared: set[str] = set()
        # The residuals of a claim, by its number.
        self._residuals: dict[int, tuple[float, float]] = {}

    def records(self) -> Iterator[ParsedRecord]:
        """Yield a record or a refusal for each claim, in order; a claim with a row and an accuracy yields two.

        Raises StoreError where the second pass has another number of lines than the first.
        """
        self._collect()
        number = -1
        for number, claim in enumerate(self._read()):
            yield from self._judge(number, claim)
        if number + 1 != self._claim_count:
            why = f"{self._claim_count} lines at first, then {number + 1}"
            raise StoreError("the source changed while it was read", why=why, fix="import it again")

    # The first pass

    def _collect(self) -> None:
        observations = Observations()
        for number, claim in enumerate(self._read()):
            self._claim_count += 1
            if claim.row is None or claim.time_ns is None:
                continue
            if not self._is_copy(number, claim.origin, claim.row.device_id, claim.time_ns):
                observations.add(number, claim.row, claim.time_ns)
        _LOG.debug("first pass: %d claims", self._claim_count)
        self._compare(observations)

    def _is_copy(self, number: int, origin: str, device_id: str, time_ns: int) -> bool:
        """Return whether another device had this origin before: copies must not vote for each other."""
        if not origin:
            return False
        first = self._first.setdefault(origin, _FirstClaim(device_id, time_ns, number))
        if first.device_id != device_id:
            self._shared.add(origin)
        return first.device_id != device_id

    def _compare(self, observations: Observations) -> None:
        agreed, remainder = residuals(*(observations.column(name) for name in ("model", "setup", "time")))
        pairs = zip(without_jumps(agreed, observations).tolist(), remainder.tolist(), strict=True)
        self._residuals = dict(zip(observations.column("claim").tolist(), pairs, strict=True))

    # The second pass

    def _judge(self, number: int, claim: Claim) -> Iterator[ParsedRecord]:
        refusal = claim.refusal
        if refusal is None and claim.row is not None:
            try:
                row = published_row(self._checked(number, claim, claim.row))
            except ClaimError as error:
                refusal = error.reason
            else:
                yield ParsedRecord(claim.location, row, None, claim.content)
        if refusal is not None:
            yield ParsedRecord(claim.location, None, refusal, claim.content)
            return
        yield from (ParsedRecord(claim.location, accuracy, None, claim.content) for accuracy in claim.accuracies)

    def _checked(self, number: int, claim: Claim, row: PublishedValues) -> PublishedValues:
        """Return the row, flagged if it is a copy. Raises ClaimError for a row that is refused."""
        if claim.time_ns is None:
            return row
        self._require_possible(claim, row, claim.time_ns)
        if claim.origin not in self._shared:
            self._require_neighbours(number)
            return row
        first = self._first[claim.origin]
        if claim.time_ns != first.time_ns:
            why = f"{claim.origin} took {claim.time_ns} ns here, {first.time_ns} ns on {first.device_id}"
            raise ClaimError("two_numbers_of_one_run", why)
        # A copy is taken or refused with the first claim.
        self._require_neighbours(first.number)
        self.counts[COPIED] += 1
        return dataclasses.replace(row, flags=(*row.flags, COPIED))

    def _require_possible(self, claim: Claim, row: PublishedValues, time_ns: int) -> None:
        ceiling = ceiling_of(row.device)
        if ceiling is None or claim.cost is None:
            self.counts["without_ceiling"] += 1
            return
        shortest_ns, limit = least_ns(claim.cost, ceiling)
        if time_ns < shortest_ns:
            raise ClaimError("faster_than_possible", f"{time_ns} ns, and {limit} need {shortest_ns:.0f} ns")

    def _require_neighbours(self, number: int) -> None:
        agreed, remainder = self._residuals.get(number, (math.nan, math.nan))
        if math.isnan(agreed):
            self.counts["without_neighbours"] += 1
        # Wrong neighbours may contradict each other; a factor as large as between units shows without them.
        numbers = (residual for residual in (agreed, remainder) if not math.isnan(residual))
        largest = max(numbers, key=abs, default=0.0)
        if abs(largest) > math.log(UNITS):
            raise ClaimError("another_unit", f"{math.exp(largest):.4g} times what such models take on such devices")
        if abs(agreed) > math.log(DOUBTFUL):
            why = f"{math.exp(agreed):.2f} times what the nearest devices, and the nearest models, give"
            raise ClaimError("doubtful", why)
