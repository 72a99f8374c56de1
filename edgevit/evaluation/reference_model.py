"""The original torch model of an artifact, evaluated on the same batches. It shows which images change their class."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgevit.artifacts.export_command import export_command
from edgevit.evaluation.prefetch import Batch
from edgevit.records.artifact import Artifact, WeightsRequest

if TYPE_CHECKING:
    from torch import nn

# Multiply-accumulates of a batch that are worth a thread, some milliseconds. Threads of smaller networks wait for each
# other after every layer while the engine has the cores: 360 small images took two threads 12 s of CPU, one 3 s.
MACS_OF_A_THREAD = 50_000_000


@dataclass
class ReferenceModel:
    """A model, and its class for each sample so far; -1 where its scores contain a NaN."""

    model: nn.Module
    version: str  # of torch
    macs: int  # of one sample
    threads: int  # at most
    classes: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, artifact: Artifact, weights: WeightsRequest, threads: int, model: str = "") -> ReferenceModel:
        """Load the trained model, by the manifest's name or another one of the same model.

        Raises CheckpointError for weights other than the artifact's, UsageError for another network.
        """
        from edgevit.recipes import require_torch

        require_torch()
        import torch

        from edgevit.exporting.same_network import require_same_network
        from edgevit.models.source import reload_subject

        subject = reload_subject(artifact, weights, model)
        command = export_command(artifact, weights=weights.file, weights_key=weights.key)
        fix = f"{command}, or leave out --against-model"
        require_same_network(artifact, subject, fix)
        return cls(subject.module, torch.__version__, artifact.macs, threads)

    def classify(self, batches: Iterator[Batch]) -> Generator[Batch]:
        """Classify each batch, store the classes, and yield the batch."""
        import torch

        threads_before = torch.get_num_threads()
        try:
            for batch in batches:
                torch.set_num_threads(self.threads_for(len(batch)))
                with torch.inference_mode():
                    scores = self.model(torch.from_numpy(batch)).float().numpy()
                best = np.where(np.isnan(scores).any(1), -1, scores.argmax(1))
                self.classes += best.tolist()
                yield batch
        finally:
            torch.set_num_threads(threads_before)

    def threads_for(self, batch: int) -> int:
        """Return the number of threads that a batch of so many samples is computed with."""
        return max(1, min(self.threads, self.macs * batch // MACS_OF_A_THREAD))
