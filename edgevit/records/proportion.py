"""Proportion of correctly classified images, with its confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

_Z95 = 1.959963984540054  # 95% of a normal distribution lie within so many standard deviations


@dataclass(frozen=True)
class Proportion:
    """A number of right answers out of a total. The interval is Wilson's (1927), which holds near 0% and 100% too.

    It covers another draw of images from the same source. For the same images a deterministic engine repeats its
    answers.
    """

    right: int
    total: int

    @property
    def percent(self) -> float:
        """The proportion, in percent."""
        return 100 * self.right / self.total

    @property
    def error_percent(self) -> float:
        """Half the width of the 95% interval, in percentage points."""
        share, z2 = self.right / self.total, _Z95**2
        spread = math.sqrt(share * (1 - share) / self.total + z2 / (4 * self.total**2))
        return 100 * _Z95 * spread / (1 + z2 / self.total)

    @property
    def interval_percent(self) -> tuple[float, float]:
        """The 95% interval, in percent."""
        z2 = _Z95**2
        middle = 100 * (self.right / self.total + z2 / (2 * self.total)) / (1 + z2 / self.total)
        return max(0.0, middle - self.error_percent), min(100.0, middle + self.error_percent)
