"""What is known of fold and parity, per model: by the cards, by the rows, and by the manifests of artifacts.

A row of the database keeps the status of its artifact's parity and no more. Errors, gates and stages are in the
artifact's manifest, which stays where the artifact is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from edgevit.artifacts.folder import MANIFEST, open_artifact
from edgevit.errors import ArtifactError, UsageError
from edgevit.records.artifact import Artifact, Source
from edgevit.records.model import ModelCard
from edgevit.reporting.page_records import ArtifactPart, Entry, ModelPart, Proof


class ArtifactScan(NamedTuple):
    """Artifacts of a folder, by path, and what could not be read, with the reason."""

    artifacts: tuple[Artifact, ...]
    problems: tuple[str, ...]


def find_artifacts(folder: Path) -> ArtifactScan:
    """Every artifact below a folder, those in quarantine too. Raises UsageError where there is no such folder."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", fix="name the one that `edgevit sweep --out` wrote")
    artifacts: list[Artifact] = []
    problems: list[str] = []
    for manifest in sorted(folder.rglob(MANIFEST)):
        try:
            artifacts.append(open_artifact(manifest.parent))
        except ArtifactError as error:
            problems.append("; ".join(error.lines()[:3]))
    return ArtifactScan(tuple(artifacts), tuple(problems))


def model_parts(
    entries: Sequence[Entry], cards: Mapping[str, ModelCard], artifacts: Sequence[Artifact]
) -> tuple[ModelPart, ...]:
    """The models of these rows and artifacts, by name."""
    of_model: dict[str, list[Entry]] = {artifact.model: [] for artifact in artifacts}
    for entry in entries:
        of_model.setdefault(entry.model, []).append(entry)
    measured = {entry.artifact_sha256 for entry in entries if entry.latency_provenance == "measured"} - {""}
    return tuple(
        _model(name, rows, cards.get(name), [item for item in artifacts if item.model == name], measured)
        for name, rows in sorted(of_model.items())
    )


def _model(
    name: str, rows: Sequence[Entry], card: ModelCard | None, artifacts: Sequence[Artifact], measured: Collection[str]
) -> ModelPart:
    families = [card.family] if card else [row.family for row in rows] + [item.family for item in artifacts]
    return ModelPart(
        name=name,
        family=next(filter(None, families), ""),
        carded=card is not None,
        provenance=card.provenance if card else "",
        source=card.source if card else "",
        licence=card.licence if card else "",
        top1_percent=card.top1_percent if card else None,
        top1_source=card.top1_source if card else "",
        params=card.params if card else None,
        macs=card.macs if card else None,
        folded_params=card.folded_params if card else None,
        folded_macs=card.folded_macs if card else None,
        proofs=_proofs(rows),
        artifacts=tuple(_artifact(item, measured) for item in artifacts),
    )


def _proofs(rows: Sequence[Entry]) -> tuple[Proof, ...]:
    """Of measured rows: nothing is known of the parity of what others ran."""
    ours = [row for row in rows if row.latency_provenance == "measured"]
    counted = Counter((row.target, row.precision, row.parity_status) for row in ours)
    return tuple(Proof(*what, count) for what, count in sorted(counted.items()))


def _artifact(item: Artifact, measured: Collection[str]) -> ArtifactPart:
    parity = item.parity
    return ArtifactPart(
        target=item.target,
        precision=item.precision,
        sha256=item.sha256,
        created=item.created,
        weights=_weights(item.source),
        fold_summary=item.fold_summary if item.folded else "not folded",
        status=parity.status if parity else "",
        how=parity.how if parity else "",
        inputs=parity.inputs if parity else "",
        failing_stage=parity.failing_stage if parity else "",
        checks=parity.checks if parity else (),
        in_rows=item.sha256 in measured,
    )


def _weights(source: Source) -> str:
    named = {
        "random": f"random, seed {source.seed}",
        "file": Path(source.weights_file).name,
        "function": "of the function",
    }
    return named[source.weights]
