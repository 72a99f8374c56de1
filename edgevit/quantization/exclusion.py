"""Exclusion: the layers whose int8 form adds most noise stay in float, until a floor holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgevit.errors import QuantizationError
from edgevit.folding import Folded
from edgevit.quantization.simulation import Simulator
from edgevit.records.artifact import ParityCheck

Judge = Callable[[Folded], ParityCheck]


def layer_noises(simulator: Simulator, judge: Judge) -> dict[str, float | None]:
    """Return the SNR of the outputs with each layer alone in int8, by the names of nodes; None: equal to the bit."""
    layers = simulator.layers
    return {name: judge(simulator.network(set(layers) - {name})).snr_db for name in layers}


def exclude(
    simulator: Simulator, judge: Judge, noises: dict[str, float | None]
) -> tuple[Sequence[str], Folded, ParityCheck]:
    """Return the layers that stay in float, the network that is left, and its check, which passes.

    Raises QuantizationError where no layer could stay in int8.
    """
    order = sorted(noises, key=lambda name: float("inf") if noises[name] is None else float(noises[name] or 0.0))
    for count in range(len(order)):
        excluded = order[:count]
        network = simulator.network(set(excluded))
        check = judge(network)
        if check.passed:
            return excluded, network, check
    raise QuantizationError(
        "int8 cannot reach the floor",
        why=f"each of the {len(order)} layers misses {check.tolerance} alone" if order else "no layer can be in int8",
        fix="a lower floor, or another precision",
    )
