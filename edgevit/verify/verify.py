"""verify: an artifact against the modules it came from -> Parity, with the stage that is to blame where it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edgevit.errors import ArtifactError
from edgevit.types import Parity, ParityCheck
from edgevit.verify.compare import FOLD_GATE, GATES, Gate, compare, failed
from edgevit.verify.engine import run_payload
from edgevit.verify.inputs import Arrays, Samples
from edgevit_runtime.record import Reply, Stage

TRAINING_FORM, FOLDED_FORM = "training form", "folded form"


@dataclass(frozen=True)
class References:
    """What the training form and the folded form compute on the samples; no folded form for an unfolded export."""

    samples: Samples
    trained: list[Arrays]
    folded: list[Arrays] | None

    @classmethod
    def of(cls, samples: Samples, trained: nn.Module, folded: nn.Module | None) -> References:
        """Run both forms on every sample."""
        return cls(samples, _run(trained, samples), None if folded is None else _run(folded, samples))


def _run(module: nn.Module, samples: Samples) -> list[Arrays]:
    with torch.inference_mode():
        results = [module(*(torch.from_numpy(item) for item in one)) for one in samples.sets]
    leaves = [torch.utils._pytree.tree_leaves(result) for result in results]
    return [tuple(leaf.float().numpy() for leaf in result) for result in leaves]


def verify_stages(target: str, stages: Sequence[Stage], references: References, precision: str) -> list[ParityCheck]:
    """Judge the fold, then what each stage of the conversion left, in order, up to the first that fails."""
    checks = verify_fold(references)
    for stage in stages:
        if all(check.passed for check in checks):
            gate = GATES[precision if stage is stages[-1] else "fp32"]
            checks += _verify_payload(target, stage.path, references, gate, stage.name)[1]
    return checks


def verify_fold(references: References) -> list[ParityCheck]:
    """The folded form against the training form, both in torch."""
    if references.folded is None:
        return []
    return [compare("fold", TRAINING_FORM, references.trained, references.folded, FOLD_GATE)]


def verify_payload(
    target: str, payload: Path, references: References, precision: str
) -> tuple[Reply, list[ParityCheck]]:
    """The finished payload, as it will be shipped, against both forms."""
    return _verify_payload(target, payload, references, GATES[precision], "artifact")


def _verify_payload(
    target: str, payload: Path, references: References, gate: Gate, stage: str
) -> tuple[Reply, list[ParityCheck]]:
    forms = [(FOLDED_FORM, references.folded), (TRAINING_FORM, references.trained)]
    known = [(name, outputs) for name, outputs in forms if outputs is not None]
    try:
        reply, found = run_payload(target, payload, references.samples, threads=1)
    except ArtifactError as error:
        return Reply("failed", error.why), [failed(stage, name, f"{gate.says}; {error.why}") for name, _ in known]
    return reply, [compare(stage, name, outputs, found, gate) for name, outputs in known]


def judge(reply: Reply, checks: Sequence[ParityCheck], samples: Samples) -> Parity:
    """Sum the comparisons up. The numbers are of the first that failed, else of the last one made."""
    last = next((check for check in checks if not check.passed), checks[-1])
    guilty = "" if last.passed else last.stage
    return Parity(
        status="failed" if guilty else "passed",
        how=" ".join(filter(None, (reply.engine or "engine", reply.engine_version, reply.provider)))
        + ", separate process",
        inputs=samples.says,
        max_rel=last.max_rel,
        snr_db=last.snr_db,
        top1_agreement=last.top1_agreement,
        tolerance=last.tolerance,
        checks=tuple(checks),
        guilty_stage=guilty,
    )
