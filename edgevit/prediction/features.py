"""Features of a model's structure, for kernels that compare models: sizes, operators by kind, and roofline times.

Sizes are logarithms, since a device multiplies latencies. Kinds are shares, since two models are alike where they spend
their work alike, at any size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from edgevit.records.model import OperatorCost

_BALANCES = (1.0, 8.0, 64.0)  # MACs that a machine does while it moves one number: a DSP, a CPU, a GPU


def structural_features(operators: Iterable[OperatorCost]) -> dict[str, float]:
    """Return features by name, without units, of operators from `edgevit.count.operator_costs`; empty without any."""
    operators = tuple(operators)
    if not operators:
        return {}
    features = {f"log {name}": _log(_sum(operators, name)) for name in _QUANTITIES}
    count = sum(operator.count for operator in operators)
    features["log operators"] = math.log(count)
    for balance in _BALANCES:
        features[f"log roofline {balance:g}"] = _log(
            math.fsum(operator.count * _time(operator, balance) for operator in operators)
        )
    for kind in {operator.kind for operator in operators}:
        same = [operator for operator in operators if operator.kind == kind]
        features[f"count of {kind}"] = sum(operator.count for operator in same) / count
        for name in _QUANTITIES:
            features[f"{name} of {kind}"] = _sum(same, name) / max(_sum(operators, name), 1.0)
    return features


_QUANTITIES = ("macs", "parameters", "activations")


def _time(operator: OperatorCost, balance: float) -> float:
    """Return an operator's least time in numbers moved (Williams, Waterman, Patterson: Roofline, CACM 52(4), 2009)."""
    return max(operator.macs / balance, operator.parameters + operator.activations)


def _sum(operators: Sequence[OperatorCost], name: str) -> float:
    return math.fsum(operator.count * getattr(operator, name) for operator in operators)


def _log(value: float) -> float:
    return math.log(max(value, 1.0))
