"""Folding and parity of each model, from the cards, the rows, and the manifests of artifacts.

A row of the database keeps only the status of its artifact's parity. Errors, gates and stages are in the manifest,
which stays beside the artifact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from edgevit.artifacts.folder import read_artifacts
from edgevit.records.artifact import Artifact, Source
from edgevit.records.model import ModelCard
from edgevit.reporting.page_records import ArtifactPart, Entry, EvaluationPart, ModelPart, Proof


class ArtifactScan(NamedTuple):
    """The artifacts of a folder, sorted by path, and the errors of those that could not be read."""

    artifacts: tuple[Artifact, ...]
    problems: tuple[str, ...]


def find_artifacts(folder: Path) -> ArtifactScan:
    """Read every artifact below a folder, quarantined ones included. Raises UsageError for a missing folder."""
    artifacts, errors = read_artifacts(folder)
    return ArtifactScan(tuple(artifacts), tuple("; ".join(error.lines()[:3]) for error in errors))


def model_parts(
    entries: Sequence[Entry],
    cards: Mapping[str, ModelCard],
    artifacts: Sequence[Artifact],
    evaluations: Mapping[str, tuple[EvaluationPart, ...]],
) -> tuple[ModelPart, ...]:
    """Describe the models of these rows and artifacts, sorted by name."""
    of_model: dict[str, list[Entry]] = {artifact.model: [] for artifact in artifacts}
    for entry in entries:
        of_model.setdefault(entry.model, []).append(entry)
    measured = {entry.artifact_sha256 for entry in entries if entry.latency_provenance == "measured"} - {""}
    parts = (
        _model(name, rows, cards.get(name), [artifact for artifact in artifacts if artifact.model == name], measured)
        for name, rows in sorted(of_model.items())
    )
    return tuple(replace(part, evaluations=evaluations.get(part.name, ())) for part in parts)


def _model(
    name: str, rows: Sequence[Entry], card: ModelCard | None, artifacts: Sequence[Artifact], measured: Collection[str]
) -> ModelPart:
    families = [card.family] if card else [row.family for row in rows] + [artifact.family for artifact in artifacts]
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
        artifacts=tuple(_artifact(artifact, measured) for artifact in artifacts),
    )


def _proofs(rows: Sequence[Entry]) -> tuple[Proof, ...]:
    """Count measured rows by parity status. The parity of what others ran is not known."""
    ours = [row for row in rows if row.latency_provenance == "measured"]
    counted = Counter((row.target, row.precision, row.parity_status) for row in ours)
    return tuple(Proof(*key, count) for key, count in sorted(counted.items()))


def _artifact(artifact: Artifact, measured: Collection[str]) -> ArtifactPart:
    parity = artifact.parity
    return ArtifactPart(
        target=artifact.target,
        precision=artifact.precision,
        sha256=artifact.sha256,
        created=artifact.created,
        weights=_weights(artifact.source),
        fold_summary=artifact.fold_summary if artifact.folded else "not folded",
        status=parity.status if parity else "",
        how=parity.how if parity else "",
        inputs=parity.inputs if parity else "",
        failing_stage=parity.failing_stage if parity else "",
        checks=parity.checks if parity else (),
        in_rows=artifact.sha256 in measured,
    )


def _weights(source: Source) -> str:
    named = {
        "random": f"random, seed {source.seed}",
        "file": Path(source.weights_file).name + (f", {source.choice.key}" if source.choice else ""),
        "function": "of the function",
        "module": "of the module",
    }
    return named[source.weights]
