"""Origin of an artifact: whether it was made from the checkpoint and has the labels that a person names."""

from __future__ import annotations

from pathlib import Path

from edgevit.artifacts.export_command import export_command
from edgevit.artifacts.labels import read_labels
from edgevit.checkpoint_files import checkpoint_sha256
from edgevit.errors import CheckpointError, UsageError
from edgevit.records.artifact import Artifact, WeightsRequest, is_named


def require_origin(artifact: Artifact, weights: WeightsRequest, labels: Path | None) -> None:
    """Raise CheckpointError for an artifact of other weights, UsageError for other labels. None: any will do."""
    choice = artifact.source.choice
    made_from = artifact.source.weights_file or f"{artifact.source.weights} weights"
    if weights.key and not (choice and is_named(weights.key, choice.key)):
        problem = f"the artifact was not made from {weights.key} of a checkpoint"
        fix = export_command(artifact, weights=weights.file, weights_key=weights.key, labels=labels)
        why = f"it was made from {choice.of(made_from) if choice else made_from}"
        raise CheckpointError(problem, where=str(artifact.folder), why=why, fix=fix)
    if weights.file is not None and checkpoint_sha256(weights.file) != artifact.source.weights_sha256:
        problem = "the artifact was not made from this checkpoint"
        fix = export_command(artifact, weights=weights.file, weights_key=weights.key, labels=labels)
        raise CheckpointError(problem, where=str(artifact.folder), why=f"it was made from {made_from}", fix=fix)
    if labels is not None and read_labels(labels) != artifact.labels:
        first = ", ".join(artifact.labels[:3])
        why = f"it has {len(artifact.labels)}: {first}..." if artifact.labels else "it has none"
        fix = export_command(artifact, weights=weights.file, weights_key=weights.key, labels=labels)
        raise UsageError("the artifact has other labels", where=str(artifact.folder), why=why, fix=fix)
