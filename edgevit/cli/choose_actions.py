"""What `edgevit choose` does beside answering: measures what may change the answer, hands over what was picked."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgevit.records.artifact import Artifact
    from edgevit.records.choice import Candidate, Choice, JointChoice
    from edgevit.records.measurement import Measurement
    from edgevit.sweeps.plan import Request


def measure_suggested(
    choice: Choice | JointChoice,
    held: Sequence[Artifact],
    out: Path,
    *,
    quick: bool,
    db: str | None,
    quiet: bool,
) -> list[Measurement]:
    """Export what the suggestions name, unless it is held or there, and measure it; the rows.

    Raises UnknownNameError for a device that is only known by its rows, and what an export or a device raises.
    """
    from edgevit.cli.options import ProtocolOptions
    from edgevit.cli.profile import measure, protocol
    from edgevit.devices.registry import load_device
    from edgevit.records.choice import Choice
    from edgevit.sweeps.plan import artifact_for

    rows: list[Measurement] = []
    how = protocol(ProtocolOptions(quick, 99 if choice.budget.percentile > 90 else None))
    for one in [choice] if isinstance(choice, Choice) else choice.choices:
        suggested = [item for item in one.measure_next if item.does == "measure"]
        place = load_device(one.device) if suggested else None
        for threads in sorted({item.threads or 1 for item in suggested}):
            asked = [item for item in suggested if (item.threads or 1) == threads]
            requests = [_request(item.model, item.target, item.precision, item.input_size, out) for item in asked]
            artifacts = [_held(request, held) or artifact_for(request, db) for request in requests]
            assert place is not None  # there are suggestions
            rows += measure(artifacts, place, threads, how, db, quiet, sweep=True)
    return rows


def _request(model: str, target: str, precision: str, size: tuple[int, ...], out: Path) -> Request:
    from edgevit.sweeps.plan import Request

    return Request(model, target, precision, 0, (size[0], size[1]) if size else None, out)


def _held(request: Request, held: Sequence[Artifact]) -> Artifact | None:
    """The artifact among those that are held that is what the request asks for."""
    wanted = (request.model, request.target, request.precision)
    return next((item for item in held if (item.model, item.target, item.precision) == wanted), None)


def hand_over(
    choice: Choice | JointChoice, held: Sequence[Artifact], out: Path, weights: Path | None, db: str | None
) -> list[dict[str, str]]:
    """The picked artifact in a folder below `out`: a copy of the very one that was measured where it is held, else
    exported and verified. Empty where nothing was picked. Raises what an export raises.
    """
    from edgevit.records.choice import Choice

    picked = choice.picked if isinstance(choice, Choice) else next(iter(choice.picked), None)
    if picked is None:
        return []
    artifact = None if weights else _copied(picked, held, out)
    says = "a copy of the artifact that the row is of"
    if artifact is None:
        artifact = _exported(picked, out, weights, db)
        says = _compared(picked, artifact)
    parity = artifact.parity.status if artifact.parity else "unknown"
    return [{"folder": str(artifact.folder), "sha256": artifact.sha256, "parity": parity, "says": says}]


def _copied(picked: Candidate, held: Sequence[Artifact], out: Path) -> Artifact | None:
    from edgevit.artifacts.folder import open_artifact
    from edgevit.errors import ArtifactError

    same = (item for item in held if picked.artifact_sha256 and item.sha256 == picked.artifact_sha256)
    found = next(same, None)
    if found is None:
        return None
    target = out / found.folder.resolve().name
    try:
        shutil.copytree(found.folder, target)
    except OSError as error:
        fix = "name another folder with --export"
        raise ArtifactError("the artifact cannot be copied", where=str(target), why=str(error), fix=fix) from error
    return open_artifact(target)  # which checks every byte


def _exported(picked: Candidate, out: Path, weights: Path | None, db: str | None) -> Artifact:
    from edgevit.exporting.child_process import Wanted, export_separately
    from edgevit.recipes import require_torch
    from edgevit.selection.accuracy import image_size
    from edgevit.sweeps.plan import artifact_for, record_built

    request = _request(picked.model, picked.target, picked.precision, image_size(picked.input_shape), out)
    if weights is None:
        return artifact_for(request, db)
    require_torch()
    what = Wanted(request.model, request.target, out, request.precision, weights, input_size=request.input_size)
    made = export_separately(what)
    record_built(made, db)
    return made


def _compared(picked: Candidate, artifact: Artifact) -> str:
    """What a reader should know of an artifact that was made for the answer."""
    parity = f"parity {artifact.parity.status}" if artifact.parity else "parity unknown"
    random = ", random weights: --weights FILE takes a checkpoint" if artifact.source.weights == "random" else ""
    if artifact.sha256 == picked.artifact_sha256:
        return f"{parity}, the artifact that the row is of{random}"
    return f"{parity}, not the very file that the numbers are of{random}"
