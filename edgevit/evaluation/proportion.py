"""A share of images that were classified rightly, and how far it is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

_Z95 = 1.959963984540054  # of the normal distribution: 95% lie within so many standard deviations


@dataclass(frozen=True)
class Proportion:
    """So many of so many. The interval is Wilson's (1927), which holds near 0% and 100% too.

    It says what another draw of images from the same source would give; of one and the same images a deterministic
    engine gives the same again.
    """

    right: int
    total: int

    @property
    def percent(self) -> float:
        """The share, in percent."""
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
