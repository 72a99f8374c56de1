"""What `edgevit choose` does beside answering: measures what may change the answer, hands over what was picked."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgevit.sweep import Request
    from edgevit.types import Artifact, Candidate, Choice, JointChoice, Measurement


def measure_suggested(
    choice: Choice | JointChoice,
    folders: Sequence[Path],
    out: Path,
    *,
    quick: bool,
    db: str | None,
    quiet: bool,
    show: bool,
) -> list[dict[str, object]]:
    """Export what the suggestions name, unless it is there, and measure it; the rows, without their samples."""
    from edgevit.cli.profile import measure, print_rows, settings, summary
    from edgevit.devices import load_device
    from edgevit.sweep import Request, artifact_for
    from edgevit.types import Choice

    rows: list[Measurement] = []
    percentile = choice.budget.percentile
    for one in [choice] if isinstance(choice, Choice) else choice.choices:
        if not one.measure_next:
            continue
        place = load_device(one.device)
        for threads in sorted({item.threads or 1 for item in one.measure_next}):
            asked = [item for item in one.measure_next if (item.threads or 1) == threads]
            requests = [Request(item.model, item.target, item.precision, 0, None, out) for item in asked]
            artifacts = [_known(request, folders) or artifact_for(request, db) for request in requests]
            how = settings(quick, percentile=99 if percentile > 90 else None)
            rows += measure(artifacts, place, threads, how, db, quiet, sweep=True)
    if show and rows:
        print_rows(rows)
    return [summary(row) for row in rows]


def _known(request: Request, folders: Sequence[Path]) -> Artifact | None:
    """The artifact in one of these folders that is what the request asks for."""
    from edgevit.artifact import open_artifact

    wanted = (request.model, request.target, request.precision)
    return next(
        (item for item in map(open_artifact, folders) if (item.model, item.target, item.precision) == wanted), None
    )


def hand_over(
    choice: Choice | JointChoice, folders: Sequence[Path], out: Path, weights: Path | None, db: str | None
) -> list[dict[str, str]]:
    """The picked artifact in a folder below `out`: a copy of the very one that was measured where its folder is among
    `folders`, else exported and verified. Empty where nothing was picked. Raises what an export raises.
    """
    from edgevit.types import Choice

    picked = choice.picked if isinstance(choice, Choice) else next(iter(choice.picked), None)
    if picked is None:
        return []
    artifact, says = (None, "") if weights else _copied(picked, folders, out)
    artifact = artifact or _exported(picked, out, weights, db)
    says = says or _compared(picked, artifact)
    parity = artifact.parity.status if artifact.parity else "unknown"
    return [{"folder": str(artifact.folder), "sha256": artifact.sha256, "parity": parity, "says": says}]


def _copied(picked: Candidate, folders: Sequence[Path], out: Path) -> tuple[Artifact | None, str]:
    from edgevit.artifact import open_artifact
    from edgevit.errors import ArtifactError

    for folder in folders:
        if picked.artifact_sha256 and open_artifact(folder).sha256 == picked.artifact_sha256:
            target = out / folder.resolve().name
            try:
                shutil.copytree(folder, target)
            except OSError as error:
                fix = "name another folder with --export"
                raise ArtifactError(
                    "the artifact cannot be copied", where=str(target), why=str(error), fix=fix
                ) from error
            return open_artifact(target), "a copy of the artifact that the row is of"
    return None, ""


def _exported(picked: Candidate, out: Path, weights: Path | None, db: str | None) -> Artifact:
    from edgevit.cards import load_cards
    from edgevit.recipes import require_torch
    from edgevit.separate import Wanted, export_separately
    from edgevit.sweep import Request, artifact_for, record_built

    card, shape = load_cards().get(picked.model), picked.input_shape
    size = (shape[-2], shape[-1]) if card and shape and shape[1:] != card.inputs[0].shape[1:] else None
    if weights is None:
        return artifact_for(Request(picked.model, picked.target, picked.precision, 0, size, out), db)
    require_torch()
    made = export_separately(
        Wanted(picked.model, picked.target, out, picked.precision, weights=weights, input_size=size)
    )
    record_built(made, db)
    return made


def _compared(picked: Candidate, artifact: Artifact) -> str:
    """What a reader should know of an artifact that was made for the answer."""
    parity = f"parity {artifact.parity.status}" if artifact.parity else "parity unknown"
    random = ", random weights: --weights FILE takes a checkpoint" if artifact.source.weights == "random" else ""
    if artifact.sha256 == picked.artifact_sha256:
        return f"{parity}, the artifact that the row is of{random}"
    return f"{parity}, not the very file that the numbers are of{random}"
