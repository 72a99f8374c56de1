"""What an export that fails verification leaves behind, and what it says of the reason."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import torch
from torch import nn

from edgevit.artifacts.folder import publish, seal
from edgevit.errors import ParityError
from edgevit.exporting.blame import wrong_operator
from edgevit.folding import Folded
from edgevit.folding.answers import ROUNDINGS, sensitivity
from edgevit.models.source import Subject
from edgevit.records.artifact import Artifact, ExportRequest, Parity
from edgevit.verification import make_samples
from edgevit.verification.parity import RESTLESS
from edgevit_runtime.dialect import QUANTIZED
from edgevit_runtime.record import RecipeModule

QUARANTINE = "quarantine"
# Of stages that are no converter's.
_FIXES = {
    "fold": "report it, with the model: a fold must be exact",
    "half": "the model does not fit into half precision: --precision fp32",
}


def refuse(
    artifact: Artifact, final: Path, subject: Subject, model: nn.Module, recipe: RecipeModule, request: ExportRequest
) -> NoReturn:
    """Move a failed artifact out of the way, sealed with its failure, and raise ParityError.

    It names the operator that the target gets wrong alone, or says that rounding alone may have moved the model so far,
    as where scores of random weights are almost equal and the highest are kept.
    """
    parity = artifact.parity
    assert parity is not None
    final.parent.mkdir(exist_ok=True)
    publish(seal(artifact), final)
    moved = culprit = ""
    fix = _FIXES.get(parity.failing_stage, "")
    if not fix:
        moved = _moved_by_rounding(subject, request)
        culprit = "" if moved else _culprit(subject, model, recipe, request, parity)
        fix = f"look at {final}/stages, and report the converter's bug with the stage before and after"
        if moved:
            fix = "load trained weights: --weights FILE, or samples that are decided clearly: --samples FILE.npy"
        elif culprit:
            fix = f"write {culprit.split()[0]} with other operators, or report the converter's bug"
    raise ParityError(
        f"{artifact.target} {artifact.precision} does not compute what {artifact.model} computes",
        where=f"stage {parity.failing_stage}{f', {culprit}' * bool(culprit)}; the artifact is in quarantine at {final}",
        why="; ".join(
            filter(None, (_differences(parity), f"the gate is {parity.tolerance}", f"by {parity.how}", moved))
        ),
        fix=fix,
    )


def _moved_by_rounding(subject: Subject, request: ExportRequest) -> str:
    """Return how far rounding alone may move a model that decides by small differences; empty for a smooth one."""
    samples = make_samples(subject.inputs, subject.preprocessing, request.samples, batch=request.batch)
    ordinary = len(samples.sets) - samples.extremes
    with torch.inference_mode():
        for number, arrays in enumerate(samples.sets):
            # A hundred roundings of an extreme input may move a smooth model far.
            for steps in (1.0, 10.0, ROUNDINGS)[: 3 if number < ordinary else 2]:
                moved = sensitivity(subject.module, list(map(torch.from_numpy, arrays)), steps=steps)
                if moved > ROUNDINGS * RESTLESS:
                    change = f"inputs that change by {steps:g} roundings change the model's own output by {moved:.1e}"
                    return f"rounding alone may do this: {change}"
    return ""


def _culprit(subject: Subject, model: nn.Module, recipe: RecipeModule, request: ExportRequest, parity: Parity) -> str:
    """Return the operator that the target gets wrong alone; empty without one, and in int8, where none is alone."""
    if not isinstance(model, Folded) or request.precision in QUANTIZED:
        return ""
    samples = make_samples(subject.inputs, subject.preprocessing, request.samples, batch=request.batch)
    sample = dict(zip(subject.example(request.batch), map(torch.from_numpy, samples.sets[0]), strict=True))
    failed_check = next(check for check in parity.checks if not check.passed)
    return wrong_operator(model, recipe, sample, request.precision, engine_failed=bool(failed_check.problem))


def _differences(parity: Parity) -> str:
    """Return how far a failed artifact is off, and in which channel, or why that cannot be told."""
    check = next(check for check in parity.checks if not check.passed)
    if check.problem:
        return check.problem
    relative, snr = check.figures
    return f"max_rel {relative}, SNR {snr} dB" + (f"; {check.channel.label}" if check.channel else "")
