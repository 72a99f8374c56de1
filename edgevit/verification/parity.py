"""Parity of an artifact with the modules it came from; where it fails, the failing stage is named."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from edgevit.errors import ArtifactError, ModelError
from edgevit.folding import require_answers
from edgevit.folding.agreement import cast, in_dtype, outputs
from edgevit.folding.answers import sensitivity
from edgevit.folding.one_dtype import OneDtype
from edgevit.records.artifact import Parity, ParityCheck
from edgevit.records.measurement import Device
from edgevit.verification.compare import FOLD_GATE, GATES, Gate, compare, failed
from edgevit.verification.divergence import first_divergence
from edgevit.verification.engine import compute
from edgevit.verification.file_numbers import verify_numbers
from edgevit.verification.half_precision import HalfPrecision
from edgevit.verification.inputs import Arrays, Samples
from edgevit.verification.near_answers import NearAnswers
from edgevit.verification.simulated import SIMULATION, Simulated
from edgevit.verification.torch_answers import torch_answers
from edgevit_runtime.dialect import QUANTIZED
from edgevit_runtime.record import Reply, Stage
from edgevit_runtime.stated_numbers import StatedNumbers

Status = Literal["passed", "evaluated", "built_not_run", "needs_processor"]
# By how much rounding of the input alone may move an output, beyond which a gate tells nothing.
RESTLESS = 1e-4
TRAINING_FORM, FOLDED_FORM = "training form", "folded form"
ARTIFACT_STAGE = "artifact"  # the payload as it ships


@dataclass(frozen=True)
class References:
    """The outputs of the training form and the folded form on the samples.

    An unfolded export has no folded outputs. `half` are the outputs of the exported form in half precision, or None.
    `overflow` names the first overflow in it, if any. `wide` is the comparison of the fold in float64, where float32
    alone does not show that the two are equal. `near` are answers near the samples, for a model that jumps there.
    `simulated` is the folded form in int8, for a payload in such numbers.
    """

    samples: Samples
    trained: list[Arrays]
    folded: list[Arrays] | None
    half: list[Arrays] | None = None
    overflow: str = ""
    wide: ParityCheck | None = None
    # Of the training form and of the folded form.
    near: tuple[NearAnswers | None, NearAnswers | None] = (None, None)
    simulated: Simulated | None = None

    @classmethod
    def of(cls, samples: Samples, trained: nn.Module, folded: nn.Module | None) -> References:
        """Run both forms on every sample.

        Raises ModelError where the trained form's own outputs can prove nothing.
        """
        answers = torch_answers(trained, samples)
        again = torch_answers(trained, dataclasses.replace(samples, sets=samples.sets[:1]))[0]
        require_answers(
            type(trained).__name__,
            [list(map(torch.from_numpy, a)) for a in answers],
            list(map(torch.from_numpy, again)),
        )
        own = None if folded is None else torch_answers(folded, samples)
        near = None if folded is None or own is None else NearAnswers(folded, samples, own)
        plain = cls(samples, answers, own, near=(NearAnswers(trained, samples, answers), near))
        if folded is not None and not all(check.passed for check in verify_fold(plain)):
            # The model may amplify rounding.
            plain = dataclasses.replace(plain, wide=_in_float64(trained, folded, samples))
            if plain.wide is None or not plain.wide.passed:
                _require_steady(trained, samples)
        return plain

    def with_simulation(
        self,
        simulation: Callable[..., Any],
        restless: Callable[..., Any],
        floor_db: float,
        numbers: StatedNumbers,
    ) -> References:
        """Return these with outputs and numbers of the folded form in int8, and limits from its restless form."""
        simulated = Simulated.of(self.samples, simulation, restless, floor_db, numbers)
        return dataclasses.replace(self, simulated=simulated)

    def with_half(self, exported: nn.Module) -> References:
        """Return these with the outputs of the exported form in half precision."""
        model = HalfPrecision(exported)
        return dataclasses.replace(self, half=torch_answers(model, self.samples), overflow=model.overflow)


def _require_steady(trained: nn.Module, samples: Samples) -> None:
    """Raise ModelError for a model that rounding alone moves beyond the gate: no other form can be compared with it."""
    with torch.inference_mode():
        moved = max(sensitivity(trained, list(map(torch.from_numpy, arrays))) for arrays in samples.sets)
    if moved > RESTLESS:
        raise ModelError(
            f"nothing can be proven of {type(trained).__name__}",
            why=f"it amplifies rounding: an input that changes in its last digit changes the output by {moved:.1e}",
            fix="load trained weights: --weights FILE, or in the function that makes the model",
        )


def _in_float64(trained: nn.Module, folded: nn.Module, samples: Samples) -> ParityCheck | None:
    """Compare the two forms with their weights as they are, in float64; None where one of them names another type."""
    results = []
    for form in (trained, folded):
        wide = in_dtype(form, torch.float64)
        inputs = [cast(list(map(torch.from_numpy, arrays)), torch.float64) for arrays in samples.sets]
        if wide is None:
            return None
        try:
            with torch.inference_mode(), OneDtype(torch.float64):
                results.append([tuple(leaf.double().numpy() for leaf in outputs(wide, tensors)) for tensors in inputs])
        except RuntimeError:
            return None
    return compare("fold", TRAINING_FORM, results[0], results[1], FOLD_GATE, samples.extremes)


@dataclass(frozen=True)
class VerificationRun:
    """One payload's run: its engine's reply, and the comparisons; none where nothing here computes the payload."""

    reply: Reply
    checks: tuple[ParityCheck, ...]
    computed_by: str
    by_reference: bool = False

    @property
    def passed(self) -> bool:
        """Return whether no comparison failed."""
        return all(check.passed for check in self.checks)


def verify_stages(target: str, stages: Sequence[Stage], references: References) -> list[ParityCheck]:
    """Judge the fold, the form in half precision or int8 if there is one, then the last stage of each precision.

    What passes contains the stages before it. Where it fails or cannot be computed here, these are judged in order, so
    that the failing one is named. The first failure ends the list. A stage that nothing here computes gives no
    comparison.
    """
    checks = verify_fold(references)
    if all(check.passed for check in checks):
        checks += verify_half(references) + verify_simulation(references)
    for precision, group in itertools.groupby(stages, lambda stage: stage.precision):
        judged = list[ParityCheck]()
        *earlier, last = group
        if all(check.passed for check in checks):
            final = _verify(last.target or target, last.path, references, precision, last.name)
            for stage in earlier if not (final.checks and final.passed) else ():
                if all(check.passed for check in judged):
                    judged += _verify(stage.target or target, stage.path, references, precision, stage.name).checks
            checks += judged if not all(check.passed for check in judged) else [*judged, *final.checks]
    return checks


def verify_fold(references: References) -> list[ParityCheck]:
    """Compare the folded form with the training form, both in torch."""
    if references.folded is None:
        return []
    extremes = references.samples.extremes
    check = compare("fold", TRAINING_FORM, references.trained, references.folded, FOLD_GATE, extremes)
    engine = f"torch {torch.__version__}"
    if not check.passed and references.wide is not None and references.wide.passed:
        how = f"{engine} in float64; in float32 the model amplifies rounding to {check.figures[0]}"
        return [dataclasses.replace(references.wide, how=how)]
    return [dataclasses.replace(check, how=engine)]


def verify_half(references: References) -> list[ParityCheck]:
    """Compare the exported form in half precision with itself in single precision, both in torch."""
    if references.half is None:
        return []
    name = TRAINING_FORM if references.folded is None else FOLDED_FORM
    expected = references.trained if references.folded is None else references.folded
    check = compare("half", name, expected, references.half, GATES["fp16"], references.samples.extremes)
    computed_by = f"torch {torch.__version__}, rounded to half precision"
    return [dataclasses.replace(check, how="; ".join(filter(None, (computed_by, references.overflow))))]


def verify_simulation(references: References) -> list[ParityCheck]:
    """Compare the simulation of int8 with the folded form, both in torch, on samples of the kind that it is for."""
    simulated, natural = references.simulated, references.samples.natural
    if simulated is None or references.folded is None:
        return []
    pair = references.folded[natural], simulated.outputs[natural]
    check = compare("quantize", FOLDED_FORM, *pair, simulated.floor)
    return [dataclasses.replace(check, how=f"torch {torch.__version__}, rounded to int8")]


def verify_answers(references: References, precision: str, results: list[Arrays], computed_by: str) -> VerificationRun:
    """Compare what something else than an engine computed of a payload, with a description of it."""
    judged = (one.judge(ARTIFACT_STAGE, results, references.samples) for one in _comparisons(references, precision))
    checks = tuple(dataclasses.replace(check, how=computed_by) for check in judged)
    return VerificationRun(Reply("ok"), checks, computed_by, by_reference=True)


def verify_payload(
    target: str, payload: Path, references: References, precision: str, device: Device | None = None
) -> VerificationRun:
    """Compare the finished payload with both forms; it runs here, or on the device."""
    return _verify(target, payload, references, precision, ARTIFACT_STAGE, device)


@dataclass(frozen=True)
class _Comparison:
    """Answers that an engine's are compared with, and the limits; `on_natural` leaves noise and extremes out."""

    name: str
    answers: list[Arrays]
    gate: Gate
    near: NearAnswers | None = None
    on_natural: bool = False

    def judge(self, stage: str, results: list[Arrays], samples: Samples) -> ParityCheck:
        """Compare; where the model jumps, with its answers near the samples."""
        extremes, sets = (0, samples.natural) if self.on_natural else (samples.extremes, slice(None))
        expected, results = self.answers[sets], results[sets]
        check = compare(stage, self.name, expected, results, self.gate, extremes)
        if check.passed or check.problem or self.near is None:
            return check
        chosen, replaced = self.near.nearest(results, self.gate)
        settled = compare(stage, self.name, chosen, results, self.gate, extremes)
        if not (replaced and settled.passed):
            return check
        how = (
            f"on {replaced} of {len(chosen)} samples against the model's answer to an input changed in its last digits"
        )
        return dataclasses.replace(settled, how=how)


def _comparisons(references: References, precision: str) -> Iterator[_Comparison]:
    """Yield what a payload is compared with: both forms in float, or the simulation and the folded form."""
    trained, folded = references.near
    simulated = references.simulated
    if simulated is not None and precision in QUANTIZED:
        yield _Comparison(SIMULATION, simulated.outputs, simulated.engine)
        if references.folded is not None:
            yield _Comparison(FOLDED_FORM, references.folded, simulated.engine_floor, on_natural=True)
        return
    if references.folded is not None:
        yield _Comparison(FOLDED_FORM, references.folded, GATES[precision], folded)
    yield _Comparison(TRAINING_FORM, references.trained, GATES[precision], trained)


def _verify(
    target: str, payload: Path, references: References, precision: str, stage: str, device: Device | None = None
) -> VerificationRun:
    comparisons = tuple(_comparisons(references, precision))
    try:
        computed = compute(target, payload, references.samples, threads=1, device=device)
    except ArtifactError as error:
        checks = [failed(stage, one.name, one.gate.label, error.why) for one in comparisons]
        return VerificationRun(Reply("failed", error.why), tuple(checks), error.why)
    if computed.results is None:
        return VerificationRun(computed.reply, (), computed.computed_by)
    computed_by = computed.computed_by
    checks = [one.judge(stage, computed.results, references.samples) for one in comparisons]
    if computed.by_reference and not all(check.passed for check in checks):
        computed_by = "; ".join(filter(None, (computed_by, _divergence(payload, references.samples))))
    checks = [dataclasses.replace(check, how="; ".join(filter(None, (computed_by, check.how)))) for check in checks]
    if references.simulated is not None and precision in QUANTIZED:
        checks = [*verify_numbers(stage, target, payload, references.simulated.numbers), *checks]
    return VerificationRun(computed.reply, tuple(checks), computed_by, computed.by_reference)


def _divergence(payload: Path, samples: Samples) -> str:
    """Return the operation at which the payload's precision fails; empty if the precision is not the cause."""
    for sample_set in samples.sets:
        if divergence := first_divergence(payload, [torch.from_numpy(array) for array in sample_set]):
            return divergence.label
    return ""


def judge(run: VerificationRun, earlier: Sequence[ParityCheck], samples: Samples) -> Parity:
    """Summarise the comparisons. The numbers are those of the first failure, else of the last comparison, else None."""
    checks = (*earlier, *run.checks)
    # An unfolded export of which nothing here computes any stage has no comparison.
    if not checks:
        computed_by = f"{run.computed_by}; no stage of it was computed here"
        needs = run.reply.missing_instructions
        return Parity(_status(run), computed_by, samples.description, None, None, None, "", (), needs=needs)
    last = next((check for check in checks if not check.passed), checks[-1])
    failing_stage = "" if last.passed else last.stage
    not_run = not run.checks and not failing_stage
    return Parity(
        status="failed" if failing_stage else _status(run),
        how=f"{run.computed_by}; {last.stage}: {last.how}" if not_run else last.how,
        inputs=samples.description,
        max_rel=last.max_rel,
        snr_db=last.snr_db,
        top1_agreement=last.top1_agreement,
        tolerance=last.tolerance,
        checks=checks,
        failing_stage=failing_stage,
        needs=run.reply.missing_instructions if not_run else "",
    )


def _status(run: VerificationRun) -> Status:
    """Return the status of a payload of which no comparison failed."""
    if run.checks:
        return "evaluated" if run.by_reference else "passed"
    return "needs_processor" if run.reply.missing_instructions else "built_not_run"
