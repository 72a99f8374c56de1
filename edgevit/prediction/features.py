"""Features of a model's structure, for kernels that compare models: sizes, operators by kind, and roofline times.

Sizes are logarithms, since latencies are multiplied by what a device has, and kinds are shares, since two models are
alike where they spend their work alike, whatever their size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from edgevit.records.model import OperatorCost

_BALANCES = (1.0, 8.0, 64.0)  # MACs that a machine does while it moves one number: a DSP, a CPU, a GPU


def structural_features(operators: Iterable[OperatorCost]) -> dict[str, float]:
    """Name -> feature, without units, of the operators that `edgevit.count.operator_costs` finds. Empty without any."""
    operators = tuple(operators)
    if not operators:
        return {}
    found = {f"log {name}": _log(_sum(operators, name)) for name in _QUANTITIES}
    count = sum(item.count for item in operators)
    found["log operators"] = math.log(count)
    for balance in _BALANCES:
        found[f"log roofline {balance:g}"] = _log(math.fsum(item.count * _time(item, balance) for item in operators))
    for kind in {item.kind for item in operators}:
        same = [item for item in operators if item.kind == kind]
        found[f"count of {kind}"] = sum(item.count for item in same) / count
        for name in _QUANTITIES:
            found[f"{name} of {kind}"] = _sum(same, name) / max(_sum(operators, name), 1.0)
    return found


_QUANTITIES = ("macs", "parameters", "activations")


def _time(item: OperatorCost, balance: float) -> float:
    """What an operator takes at best, in numbers moved (Williams, Waterman, Patterson: Roofline, CACM 52(4), 2009)."""
    return max(item.macs / balance, item.parameters + item.activations)


def _sum(operators: Sequence[OperatorCost], name: str) -> float:
    return math.fsum(item.count * getattr(item, name) for item in operators)


def _log(value: float) -> float:
    return math.log(max(value, 1.0))
