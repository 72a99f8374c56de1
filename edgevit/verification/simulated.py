"""A network in int8 as an exact engine computes it: what an artifact is compared with, and the limits that follow.

An engine is compared with the simulation, which finds numbers that overflow and kernels that do something else; and the
simulation with the network in float, which tells what int8 itself costs. Neither comparison replaces the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgevit.verification.compare import Gate, compare
from edgevit.verification.inputs import Arrays, Samples
from edgevit.verification.torch_answers import torch_answers
from edgevit_runtime.stated_numbers import StatedNumbers

SIMULATION = "simulation"
# An engine that computes a shallow network right is this near to its simulation at least.
ENGINE_GATE_DB = 40.0
# A deep network differs from itself where numbers differ by a small share of a step. An engine may add to that.
RESTLESS_ALLOWANCE_DB = 6.0
# By how much an engine may miss the floor that its simulation holds, as it rounds other numbers the other way.
FLOOR_ALLOWANCE_DB = 1.5


@dataclass(frozen=True)
class Simulated:
    """The outputs of a simulation on the samples, and the limits.

    numbers: that the file has to state. engine: of an engine against the simulation. floor: of the simulation against
    the network in float. restless_db: SNR between two forms of the simulation; None where they are equal to the bit.
    """

    outputs: list[Arrays]
    floor: Gate
    engine: Gate
    restless_db: float | None
    numbers: StatedNumbers

    @classmethod
    def of(
        cls,
        samples: Samples,
        simulation: Callable[..., Any],
        restless: Callable[..., Any],
        floor_db: float,
        numbers: StatedNumbers,
    ) -> Simulated:
        """Run both forms on every sample."""
        outputs = torch_answers(simulation, samples)
        ordinary = slice(0, len(outputs) - samples.extremes)
        others = torch_answers(restless, samples)
        restless_db = compare(SIMULATION, SIMULATION, outputs[ordinary], others[ordinary], Gate()).snr_db
        limit = ENGINE_GATE_DB if restless_db is None else min(ENGINE_GATE_DB, restless_db - RESTLESS_ALLOWANCE_DB)
        return cls(outputs, Gate(min_snr_db=floor_db), Gate(min_snr_db=round(limit, 1)), restless_db, numbers)

    @property
    def engine_floor(self) -> Gate:
        """The limit of an engine against the network in float."""
        return Gate(min_snr_db=(self.floor.min_snr_db or 0.0) - FLOOR_ALLOWANCE_DB)
