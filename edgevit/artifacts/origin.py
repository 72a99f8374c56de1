"""Origin of an artifact: whether it was made from the checkpoint and has the labels that a person names."""

from __future__ import annotations

from pathlib import Path

from edgevit.artifacts.labels import read_labels
from edgevit.errors import CheckpointError, UsageError
from edgevit.records.artifact import Artifact
from edgevit_runtime.digest import file_sha256


def require_origin(artifact: Artifact, weights: Path | None, labels: Path | None) -> None:
    """Raise CheckpointError for an artifact of other weights, UsageError for other labels. None: any will do."""
    again = f"edgevit export {artifact.source.model} --target {artifact.target} --precision {artifact.precision}"
    if weights is not None:
        try:
            sha256 = file_sha256(weights)
        except OSError as error:
            why = str(error.strerror)
            raise CheckpointError("the checkpoint cannot be read", where=str(weights), why=why) from error
        if sha256 != artifact.source.weights_sha256:
            made_from = artifact.source.weights_file or f"{artifact.source.weights} weights"
            problem = "the artifact was not made from this checkpoint"
            fix = f"{again} --weights {weights}"
            raise CheckpointError(problem, where=str(artifact.folder), why=f"it was made from {made_from}", fix=fix)
    if labels is not None and read_labels(labels) != artifact.labels:
        first = ", ".join(artifact.labels[:3])
        why = f"it has {len(artifact.labels)}: {first}..." if artifact.labels else "it has none"
        fix = f"{again} --labels {labels}"
        raise UsageError("the artifact has other labels", where=str(artifact.folder), why=why, fix=fix)
