"""A quantization made again as an artifact's manifest says, so that the artifact can be compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from edgevit.errors import UsageError
from edgevit.folding import Folded
from edgevit.models.source import Subject
from edgevit.quantization import requantize
from edgevit.quantization.data import CalibrationSamples, calibration_samples
from edgevit.quantization.expected_numbers import expected_numbers
from edgevit.quantization.restless import Restless
from edgevit.quantization.saturation import Saturating
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact, SampleRequest
from edgevit.records.quantization import Quantization
from edgevit.records.tuning import SiteForm
from edgevit.tuning.application import apply_forms, by_sites
from edgevit.verification import References, VerificationRun, verify_answers
from edgevit.verification.torch_answers import torch_answers
from edgevit_runtime.record import Quantizing

# The processors whose sums can be simulated.
WITHOUT_VNNI = "x86-without-vnni"


def require_simulated(artifact: Artifact, processor: str) -> None:
    """Raise UsageError where nothing can be said of a processor that is not here."""
    if processor != WITHOUT_VNNI:
        raise UsageError(f"no processor {processor!r} can be simulated", fix=f"--processor {WITHOUT_VNNI}")
    if artifact.precision != "int8":
        why = f"the artifact is in {artifact.precision}, which every processor computes alike"
        raise UsageError("only sums of int8 depend on the processor", where=str(artifact.folder), why=why)


def calibration_again(
    made: Quantization, subject: Subject, samples: SampleRequest, data: Path | None, batch: int
) -> CalibrationSamples:
    """Return the samples that a quantization had. Raises UsageError where they are not there any more, or changed."""
    place = data or made.request.data
    fix = "--data, with the folder or file as it was at the export, or export it again"
    if place is not None and not place.exists():
        raise UsageError("the samples of this quantization are not there", where=str(place), fix=fix)
    found = calibration_samples(subject.inputs, subject.preprocessing, place, samples.value_range, batch=batch)
    if found.sha256 != made.data_sha256:
        where = str(place or "the samples that ship")
        why = "other samples give other ranges, and the artifact has those of its export"
        raise UsageError("these are not the samples of this quantization", where=where, why=why, fix=fix)
    return found


def simulated_again(
    artifact: Artifact,
    folded: Folded,
    calibration: CalibrationSamples,
    references: References,
    inputs: Sequence[Tensor],
) -> tuple[References, Folded]:
    """Return the references with what an exact engine computes from this artifact, and the network that does so.

    inputs: examples of the network's inputs.
    """
    recipe, made = load_recipe(artifact.target), artifact.quantization
    assert isinstance(recipe, Quantizing) and made is not None
    dialect = recipe.dialect(artifact.precision, artifact.options)
    formed, _ = apply_forms(folded, by_sites(SiteForm(one.site, one.form) for one in artifact.forms), inputs)
    simulation = requantize(formed, calibration.data(references.samples), dialect, made).simulation
    numbers = expected_numbers(simulation)
    return references.with_simulation(simulation, Restless(simulation), made.floor_db, numbers), simulation


def verify_saturated(simulation: Folded, references: References, precision: str) -> VerificationRun:
    """Compare what x86 without VNNI would compute of a simulation with the simulation itself, and with the model."""
    clipping = Saturating(simulation)
    answers = torch_answers(clipping, references.samples)
    clipped = f"{clipping.clipped} sums clipped" if clipping.clipped else "no sum clipped"
    computed_by = f"simulated: pairs of products in 16 bits, as on {WITHOUT_VNNI}, {clipped}"
    return verify_answers(references, precision, answers, computed_by)
