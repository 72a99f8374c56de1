"""The model that an artifact was made from, in torch, on the same batches: how many images change their class."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgevit.evaluation.prefetch import Batch
from edgevit.records.artifact import Artifact

if TYPE_CHECKING:
    from torch import nn


@dataclass
class ReferenceModel:
    """A model, and the class that it gives to each sample that passed by; -1 where its scores have a NaN."""

    model: nn.Module
    version: str  # of torch
    classes: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, artifact: Artifact, weights: Path | None, threads: int) -> ReferenceModel:
        """The model as it was trained. Raises CheckpointError for other weights than the artifact was made from."""
        from edgevit.recipes import require_torch

        require_torch()
        import torch

        from edgevit.models.source import reload_subject

        torch.set_num_threads(threads)
        return cls(reload_subject(artifact, weights).module, torch.__version__)

    def beside(self, batches: Iterator[Batch]) -> Generator[Batch]:
        """The batches, each after the model has seen it."""
        import torch

        for batch in batches:
            with torch.inference_mode():
                scores = self.model(torch.from_numpy(batch)).float().numpy()
            best = np.where(np.isnan(scores).any(1), -1, scores.argmax(1))
            self.classes += best.tolist()
            yield batch
