"""verify: an artifact against the modules it came from -> Parity, with the stage that is to blame where it fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from edgevit.errors import ArtifactError
from edgevit.types import Device, Parity, ParityCheck
from edgevit.verify.compare import FOLD_GATE, GATES, Gate, compare, failed
from edgevit.verify.engine import compute
from edgevit.verify.inputs import Arrays, Samples
from edgevit_runtime.record import Reply, Stage

Status = Literal["passed", "evaluated", "built_not_run"]
TRAINING_FORM, FOLDED_FORM = "training form", "folded form"
ARTIFACT_STAGE = "artifact"  # the payload as it ships


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


@dataclass(frozen=True)
class Seen:
    """What came of one payload: what its engine said, and the comparisons; none where nothing here computes it."""

    reply: Reply
    checks: tuple[ParityCheck, ...]
    how: str
    by_reference: bool = False

    @property
    def passed(self) -> bool:
        """Whether no comparison failed."""
        return all(check.passed for check in self.checks)


def verify_stages(target: str, stages: Sequence[Stage], references: References) -> list[ParityCheck]:
    """Judge the fold, then what each stage of the conversion left, in order, up to the first that fails.

    A stage that nothing here computes gives no comparison.
    """
    checks = verify_fold(references)
    for stage in stages:
        if all(check.passed for check in checks):
            gate = GATES[stage.precision]
            checks += _see(stage.target or target, stage.path, references, gate, stage.name).checks
    return checks


def verify_fold(references: References) -> list[ParityCheck]:
    """The folded form against the training form, both in torch."""
    if references.folded is None:
        return []
    check = compare("fold", TRAINING_FORM, references.trained, references.folded, FOLD_GATE)
    return [dataclasses.replace(check, how=f"torch {torch.__version__}")]


def verify_payload(
    target: str, payload: Path, references: References, precision: str, device: Device | None = None
) -> Seen:
    """The finished payload, as it will be shipped, against both forms; computed here, or on this device."""
    return _see(target, payload, references, GATES[precision], ARTIFACT_STAGE, device)


def _see(
    target: str, payload: Path, references: References, gate: Gate, stage: str, device: Device | None = None
) -> Seen:
    forms = [(FOLDED_FORM, references.folded), (TRAINING_FORM, references.trained)]
    known = [(name, outputs) for name, outputs in forms if outputs is not None]
    try:
        found = compute(target, payload, references.samples, threads=1, device=device)
    except ArtifactError as error:
        why = f"{gate.says}; {error.why}"
        return Seen(Reply("failed", error.why), tuple(failed(stage, name, why) for name, _ in known), error.why)
    if found.results is None:
        return Seen(found.reply, (), found.how)
    checks = (compare(stage, name, outputs, found.results, gate) for name, outputs in known)
    how = found.how
    return Seen(found.reply, tuple(dataclasses.replace(c, how=how) for c in checks), how, found.by_reference)


def judge(seen: Seen, earlier: Sequence[ParityCheck], samples: Samples) -> Parity:
    """Sum the comparisons up. The numbers are of the first that failed, else of the last one made."""
    checks = (*earlier, *seen.checks)
    last = next((check for check in checks if not check.passed), checks[-1])
    guilty = "" if last.passed else last.stage
    status: Status = "evaluated" if seen.by_reference else "passed" if seen.checks else "built_not_run"
    proven = f"{seen.how}; {last.stage}: {last.how}" if status == "built_not_run" else last.how
    return Parity(
        status="failed" if guilty else status,
        how=proven,
        inputs=samples.says,
        max_rel=last.max_rel,
        snr_db=last.snr_db,
        top1_agreement=last.top1_agreement,
        tolerance=last.tolerance,
        checks=checks,
        guilty_stage=guilty,
    )
