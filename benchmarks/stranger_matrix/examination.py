"""What is examined of one network: its fold with proof, the norms that timm's own fusion leaves, and its exports."""

from __future__ import annotations

import tempfile
import time
import traceback
from typing import Any

from stranger_matrix.networks import build, fused_by_timm

_TEXT = 900  # characters of an error


def fold_row(name: str) -> dict[str, Any]:
    """Fold and prove one network, and return its row."""
    import torch
    from torch import nn

    from edgevit.errors import EdgevitError
    from edgevit.folding.evidence import examine

    model, size = build(name)
    row: dict[str, Any] = {"name": name, "size": size}
    begin = time.process_time()
    try:
        evidence = examine(model, {"image": torch.zeros(1, 3, size, size)})
    except EdgevitError as error:
        return row | {"refused": _worded(error)}
    unfolded = evidence.report.unfolded
    row |= {
        "fold_cpu_s": round(time.process_time() - begin, 1),
        "layers": [evidence.before.layers, evidence.after.layers],
        "params": [evidence.before.params, evidence.after.params],
        "macs": [evidence.before.macs, evidence.after.macs],
        "norms_left": sum(left.kind == "norm" for left in unfolded),
        "left": sorted({f"{left.kind} {left.module}: {left.reason}" for left in unfolded})[:4],
        "float64": evidence.proof.float64_max_rel,
        "float32": evidence.proof.float32_max_rel,
        "proven": evidence.proof.passed,
    }
    fused = fused_by_timm(name)
    norms = nn.modules.batchnorm._BatchNorm
    count = None if fused is None else sum(isinstance(module, norms) for module in fused.modules())
    return row | {"norms_left_by_timm": count}


def export_cell(name: str, target: str) -> dict[str, Any]:
    """Export one network to one target; return the status, the error and the seconds, or why it was refused."""
    import torch

    import edgevit
    from edgevit.errors import EdgevitError

    model, size = build(name)
    begin = time.perf_counter()
    cell: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            inputs = (torch.zeros(1, 3, size, size),)
            artifact = edgevit.export(model, target, name=name, inputs=inputs, out=folder)
            assert artifact.parity is not None
            cell = {"status": artifact.parity.status, "max_rel": artifact.parity.max_rel}
        except EdgevitError as error:
            cell = {"status": "refused", "error": type(error).__name__, "why": _worded(error)}
        # A benchmark counts the tracebacks that a user would see.
        except Exception:  # noqa: BLE001
            cell = {"status": "crashed", "why": traceback.format_exc()[-_TEXT:]}
    return cell | {"seconds": round(time.perf_counter() - begin, 1)}


def _worded(error: Any) -> str:
    return " | ".join(error.lines())[:_TEXT]
