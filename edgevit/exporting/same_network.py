"""The network that a name gives now, against the one that an artifact or a row is of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from edgevit.artifacts.source_files import SourceFiles
from edgevit.errors import CheckpointError, UsageError
from edgevit.exporting.digests import network_sha256
from edgevit.models.source import Subject
from edgevit.models.user_code import code_files
from edgevit.records.artifact import Artifact, ComparedNetwork, ExportRequest
from edgevit.records.model_reference import ModelReference
from edgevit.records.network import Network, labels_sha256


def require_same_network(artifact: Artifact, subject: Subject, fix: str) -> None:
    """Raise UsageError where a model computes something else than at an artifact's export: its code was changed since.

    Equal weights do not tell, because an activation has none. Another torch captures the same network differently, so
    that nothing can be said of it. `fix` is the command that mends it.
    """
    expected = artifact.network
    if _differs(subject, expected, artifact.batch):
        raise UsageError(
            "this is not the network that the artifact was made from",
            where=artifact.source.model,
            why=f"its weights are the same, and what it computes changed since the export of {artifact.created}",
            fix=fix,
        )


def compared_network(artifact: Artifact, subject: Subject) -> ComparedNetwork:
    """Return the network of a comparison. The artifact's digest of it counts where this torch gives the same one."""
    is_known = artifact.network.torch == torch.__version__
    digest = artifact.network_sha256 if is_known else ""
    return ComparedNetwork(subject.source.model, digest, subject.source.state_sha256)


def require_expected(subject: Subject, labels: Sequence[str], expected: Network, batch: int) -> None:
    """Raise CheckpointError for other weights than those of a row's network, UsageError for another one or labels."""
    fix = "--artifacts FOLDER with the artifact that was measured, or measure and evaluate what it is now"
    if subject.source.state_sha256 != expected.weights_sha256:
        problem = "these are not the weights that the numbers are of"
        why = f"those are {expected.label}, with the digest {expected.weights_sha256[:8]}"
        raise CheckpointError(problem, where=subject.name, why=why, fix=fix)
    if _differs(subject, expected, batch):
        problem = "this is not the network that the numbers are of"
        why = "its weights are the same, and what it computes was changed since"
        raise UsageError(problem, where=subject.name, why=why, fix=fix)

    if labels_sha256(labels) != expected.labels_sha256:
        problem = "the names or the order of its classes are not those that the numbers are of"
        why = f"they begin with {', '.join(labels[:3])} now" if labels else "it has no names of classes now"
        raise UsageError(problem, where=subject.name, why=why, fix=f"--labels FILE with those, or {fix}")


def remember_files(artifact: Artifact, request: ExportRequest) -> None:
    """Remember on this machine which checkpoint and code give an artifact's network now. The model is loaded here."""
    source = artifact.source
    reference = ModelReference.parse(source.model)
    checkpoint = request.weights
    if checkpoint is None and reference.kind in ("timm", "hf") and source.weights == "file":
        checkpoint = Path(reference.name)
    code = code_files(source.model) if source.weights != "module" else []
    SourceFiles().record(artifact.network, checkpoint, code)


def _differs(subject: Subject, expected: Network, batch: int) -> bool:
    if not expected.network_sha256 or expected.torch != torch.__version__:
        return False
    return network_sha256(subject, batch) != expected.network_sha256
