"""Actions of `edgevit choose`: measuring what may change the answer, and handing over the picked artifact."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgevit.cli.common import warn
from edgevit.concurrency.scratch import mark, remove

if TYPE_CHECKING:
    from edgevit.records.artifact import Artifact, ExportRequest, WeightsRequest
    from edgevit.records.choice import Candidate, Choice, JointChoice
    from edgevit.records.measurement import Measurement


def measure_suggested(
    choice: Choice | JointChoice,
    artifacts: Sequence[Artifact],
    out: Path,
    *,
    quick: bool,
    db: str | None,
    quiet: bool,
) -> list[Measurement]:
    """Measure the suggestions and return their rows. Artifacts that are neither given nor in `out` are exported.

    Raises UnknownNameError for a device that is only known by its rows, and the errors of an export or a device.
    """
    from edgevit.artifacts.folder_lock import locked_folder
    from edgevit.cli.options import ProtocolOptions
    from edgevit.cli.profile import measure, protocol
    from edgevit.devices.registry import load_device, reached_as
    from edgevit.records.choice import Choice
    from edgevit.sweeps.plan import artifact_for

    rows: list[Measurement] = []
    settings = protocol(ProtocolOptions(quick, 99 if choice.budget.percentile > 90 else None))
    for one in [choice] if isinstance(choice, Choice) else choice.choices:
        suggestions = [suggestion for suggestion in one.measure_next if suggestion.does == "measure"]
        if not suggestions:
            continue
        device = load_device(reached_as(one.device) or one.device)
        for threads in sorted({suggestion.threads or 1 for suggestion in suggestions}):
            requests = [
                _request(suggestion.model, suggestion.target, suggestion.precision, suggestion.input_size, out)
                for suggestion in suggestions
                if (suggestion.threads or 1) == threads
            ]
            with locked_folder(out, warn):
                needed = [_given(request, artifacts) or artifact_for(request, db) for request in requests]
                rows += measure(needed, device, threads, settings, db, quiet, sweep=True)
    return rows


def _request(model: str, target: str, precision: str, size: tuple[int, ...], out: Path) -> ExportRequest:
    from edgevit.records.artifact import ExportRequest

    input_size = (size[0], size[1]) if size else None
    return ExportRequest(target, out, precision, model, input_size=input_size)


def _given(request: ExportRequest, artifacts: Sequence[Artifact]) -> Artifact | None:
    """Return the artifact of the request among the given ones: of its model, its form and its input size."""
    from edgevit.sweeps.freshness import is_of_form

    key = (request.model, request.target, request.precision)
    same = (one for one in artifacts if (one.model, one.target, one.precision) == key)
    return next((one for one in same if is_of_form(one, request)), None)


def hand_over(
    choice: Choice | JointChoice, artifacts: Sequence[Artifact], out: Path, weights: WeightsRequest, db: str | None
) -> list[dict[str, str]]:
    """Put the picked artifact into a folder below `out`, and describe it; do nothing where nothing is chosen.

    A pick of unknown accuracy is handed over only for another objective, which does not rest on accuracies. It is a
    copy of the very one that was measured where that is among the given ones. Otherwise it is exported and verified;
    raises the errors of an export.
    """
    from edgevit.artifacts.folder_lock import locked_folder
    from edgevit.records.choice import Choice

    picked = choice.picked if isinstance(choice, Choice) else next(iter(choice.picked), None)
    if picked is None or (choice.outcome != "chosen" and choice.budget.objective == "accurate"):
        return []
    with locked_folder(out, warn):
        artifact = None if weights.file else _copied(picked, artifacts, out)
        description = "a copy of the artifact that the row is of"
        if artifact is None:
            artifact = _exported(picked, out, weights, db)
            description = _describe(picked, artifact)
    parity = artifact.parity.status if artifact.parity else "unknown"
    return [{"folder": str(artifact.folder), "sha256": artifact.sha256, "parity": parity, "says": description}]


def _copied(picked: Candidate, artifacts: Sequence[Artifact], out: Path) -> Artifact | None:
    from edgevit.artifacts.folder import open_artifact
    from edgevit.errors import ArtifactError

    same = (one for one in artifacts if picked.artifact_sha256 and one.sha256 == picked.artifact_sha256)
    measured = next(same, None)
    if measured is None:
        return None
    target = out / measured.folder.resolve().name
    part = target.with_name(f".{target.name}.{mark()}.partial")
    try:
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        shutil.copytree(measured.folder, part)
        part.rename(target)
    except OSError as error:
        fix = "name another folder with --export"
        raise ArtifactError("the artifact cannot be copied", where=str(target), why=str(error), fix=fix) from error
    finally:
        remove(part)
    # Opening it checks every byte of the copy.
    return open_artifact(target)


def _exported(picked: Candidate, out: Path, weights: WeightsRequest, db: str | None) -> Artifact:
    from edgevit.exporting.child_process import export_separately
    from edgevit.recipes import require_torch
    from edgevit.selection.accuracy import image_size
    from edgevit.sweeps.plan import artifact_for, record_built

    request = _request(picked.model, picked.target, picked.precision, image_size(picked.input_shape), out)
    if weights.file is None:
        return artifact_for(request, db)
    require_torch()
    artifact = export_separately(dataclasses.replace(request, weights=weights.file, weights_key=weights.key))
    record_built(artifact, db)
    return artifact


def _describe(picked: Candidate, artifact: Artifact) -> str:
    """Return how an artifact that was exported for the answer compares with the measured one."""
    parity = f"parity {artifact.parity.status}" if artifact.parity else "parity unknown"
    weights = artifact.source.describe_weights()
    if not weights and artifact.source.weights == "random":
        weights = "random weights: --weights FILE takes a checkpoint"
    caveat = f", {weights}" * bool(weights)
    if artifact.sha256 == picked.artifact_sha256:
        return f"{parity}, the artifact that the row is of{caveat}"
    return f"{parity}, not the very file that the numbers are of{caveat}"
