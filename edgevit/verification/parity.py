"""verify: an artifact against the modules it came from -> Parity, with the stage that is to blame where it fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from edgevit.errors import ArtifactError
from edgevit.records.artifact import Parity, ParityCheck
from edgevit.records.measurement import Device
from edgevit.verification.compare import FOLD_GATE, GATES, Gate, compare, failed
from edgevit.verification.divergence import first_divergence
from edgevit.verification.engine import compute
from edgevit.verification.half_precision import HalfPrecision
from edgevit.verification.inputs import Arrays, Samples
from edgevit_runtime.record import Reply, Stage

Status = Literal["passed", "evaluated", "built_not_run"]
TRAINING_FORM, FOLDED_FORM = "training form", "folded form"
ARTIFACT_STAGE = "artifact"  # the payload as it ships


@dataclass(frozen=True)
class References:
    """What the training form and the folded form compute on the samples; no folded form for an unfolded export.

    half: what is exported, in half precision, None if not asked for; `overflow` is what overflows in it, if anything.
    """

    samples: Samples
    trained: list[Arrays]
    folded: list[Arrays] | None
    half: list[Arrays] | None = None
    overflow: str = ""

    @classmethod
    def of(cls, samples: Samples, trained: nn.Module, folded: nn.Module | None, *, half: bool = False) -> References:
        """Run both forms on every sample, and the half-precision one where it is asked for."""
        plain = cls(samples, _run(trained, samples), None if folded is None else _run(folded, samples))
        if not half:
            return plain
        model = HalfPrecision(trained if folded is None else folded)
        return dataclasses.replace(plain, half=_run(model, samples), overflow=model.overflow)


def _run(module: Callable[..., Any], samples: Samples) -> list[Arrays]:
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
    """Judge the fold, the half-precision form if there is one, then what each stage of the conversion left, in order.

    The first that fails is the last. A stage that nothing here computes gives no comparison.
    """
    checks = verify_fold(references)
    if all(check.passed for check in checks):
        checks += verify_half(references)
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


def verify_half(references: References) -> list[ParityCheck]:
    """What is exported, in half precision, against itself in single, both in torch."""
    if references.half is None:
        return []
    name = TRAINING_FORM if references.folded is None else FOLDED_FORM
    expected = references.trained if references.folded is None else references.folded
    how = "; ".join(filter(None, (f"torch {torch.__version__}, rounded to half precision", references.overflow)))
    return [dataclasses.replace(compare("half", name, expected, references.half, GATES["fp16"]), how=how)]


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
    checks = [compare(stage, name, outputs, found.results, gate) for name, outputs in known]
    how = found.how
    if found.by_reference and not all(check.passed for check in checks):
        how = "; ".join(filter(None, (how, _divergence(payload, references.samples))))
    return Seen(found.reply, tuple(dataclasses.replace(c, how=how) for c in checks), how, found.by_reference)


def _divergence(payload: Path, samples: Samples) -> str:
    """Where a payload that a reference evaluator computes goes wrong by its precision; empty if by something else."""
    for one in samples.sets:
        if found := first_divergence(payload, [torch.from_numpy(item) for item in one]):
            return found.says
    return ""


def judge(seen: Seen, earlier: Sequence[ParityCheck], samples: Samples) -> Parity:
    """Sum the comparisons up. The numbers are of the first that failed, else of the last one made, else None."""
    checks = (*earlier, *seen.checks)
    if not checks:  # an unfolded export of which nothing here computes any stage
        how = f"{seen.how}; no stage of it was computed here"
        return Parity("built_not_run", how, samples.says, None, None, None, "", ())
    last = next((check for check in checks if not check.passed), checks[-1])
    guilty = "" if last.passed else last.stage
    status: Status = "evaluated" if seen.by_reference else "passed" if seen.checks else "built_not_run"
    proven = f"{seen.how}; {last.stage}: {last.how}" if status == "built_not_run" and not guilty else last.how
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
