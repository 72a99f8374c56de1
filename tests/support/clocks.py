"""A clock for tests: only runs() advance it."""

from __future__ import annotations

from collections.abc import Iterable


class Clock:
    """A clock whose time advances by the next cost at each run."""

    def __init__(self, costs: Iterable[int]) -> None:
        self.now, self.costs = 0, iter(costs)

    def perf_counter_ns(self) -> int:
        return self.now

    def run(self) -> None:
        self.now += next(self.costs)
