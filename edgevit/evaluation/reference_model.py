"""The original torch model of an artifact, evaluated on the same batches. It shows which images change their class."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgevit.errors import UsageError
from edgevit.evaluation.prefetch import Batch
from edgevit.records.artifact import Artifact, WeightsRequest

if TYPE_CHECKING:
    from torch import nn

    from edgevit.models.source import Subject


@dataclass
class ReferenceModel:
    """A model, and its class for each sample so far; -1 where its scores contain a NaN."""

    model: nn.Module
    version: str  # of torch
    classes: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, artifact: Artifact, weights: WeightsRequest, threads: int) -> ReferenceModel:
        """Load the trained model.

        Raises CheckpointError for weights other than the artifact's, UsageError for another network.
        """
        from edgevit.recipes import require_torch

        require_torch()
        import torch

        from edgevit.models.source import reload_subject

        torch.set_num_threads(threads)
        subject = reload_subject(artifact, weights)
        _require_same_network(artifact, subject)
        return cls(subject.module, torch.__version__)

    def classify(self, batches: Iterator[Batch]) -> Generator[Batch]:
        """Classify each batch, store the classes, and yield the batch."""
        import torch

        for batch in batches:
            with torch.inference_mode():
                scores = self.model(torch.from_numpy(batch)).float().numpy()
            best = np.where(np.isnan(scores).any(1), -1, scores.argmax(1))
            self.classes += best.tolist()
            yield batch


def _require_same_network(artifact: Artifact, subject: Subject) -> None:
    """Raise UsageError where a model computes something else than at the export: its code was changed since.

    Equal weights do not tell, because an activation has none. Another torch captures the same network differently, so
    that nothing can be said of it.
    """
    import torch

    from edgevit.folding import network_digest

    if not artifact.network_sha256 or artifact.toolchain.get("torch") != torch.__version__:
        return
    if network_digest(subject.module, tuple(subject.example(artifact.batch).values())) != artifact.network_sha256:
        raise UsageError(
            "this is not the network that the artifact was made from",
            where=artifact.source.model,
            why=f"its weights are the same, and what it computes changed since the export of {artifact.created}",
            fix=f"export {artifact.source.model} again, or leave out --against-model",
        )
