"""A latency budget between the fastest and the slowest model of a database, so that some fit it and some do not.

    $ python docs/examples/middle_budget.py DATABASE [DEVICE]

It takes the upper bounds of the 90th percentile that were measured on the device, this machine by default.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import edgevit


def middle(bounds_ms: Sequence[float]) -> float:
    """Return the middle of the range of these latencies in milliseconds, rounded up to a hundredth."""
    return -(-50 * (min(bounds_ms) + max(bounds_ms)) // 1) / 100


def main(database: str, device: str = "local") -> None:
    """Print the budget as `edgevit choose --max-latency` reads it."""
    choice = edgevit.choose(device, db=database, predict=False)
    bounds_ms = [model.latency_upper_ms for model in choice.fitting if model.latency_upper_ms is not None]
    if not bounds_ms:
        sys.exit(f"no model was measured on {device}, so no budget can be derived; see what the sweep printed")
    print(f"{middle(bounds_ms):g}ms")


if __name__ == "__main__":
    main(*sys.argv[1:])
