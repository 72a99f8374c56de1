"""Preparation of a network for its exports: its fold, digests, costs and answers, computed once for all targets."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from torch import Tensor, nn

from edgevit.count import Count, count, merged, operator_costs
from edgevit.exporting.digests import graph_sha256, network_sha256
from edgevit.folding import fold_and_digest
from edgevit.models.source import Subject
from edgevit.records.artifact import ExportRequest, SampleRequest, StageTime
from edgevit.records.model import OperatorCost
from edgevit.verification import References, make_samples


class Preparation:
    """A subject and the form of it that a request exports, which serve other targets and precisions too.

    `network_sha256` is the digest of the network; `stages` is what the fold took. No export may change a module of it.
    """

    def __init__(
        self, subject: Subject, request: ExportRequest, on_stage: Callable[[str], None] = lambda name: None
    ) -> None:
        """Fold the subject, unless the request is for its training form. Raises ModelError and FoldError."""
        self.subject, self.batch, self.folded = subject, request.batch, None
        self.model: nn.Module = subject.module
        self.stages: tuple[StageTime, ...] = ()
        self._references: dict[tuple[SampleRequest, int], References] = {}
        if request.unfolded:
            self.network_sha256 = network_sha256(subject, request.batch)
            return
        on_stage("fold")
        start = time.perf_counter()
        # The verification of an artifact begins with the fold.
        self.model, self.network_sha256 = fold_and_digest(subject.module, tuple(self.example.values()))
        self.folded = self.model
        self.stages = (StageTime("fold", round(time.perf_counter() - start, 3)),)

    @property
    def example(self) -> dict[str, Tensor]:
        """Inputs at the batch size of the export, by name."""
        return self.subject.example(self.batch)

    def references(self, request: ExportRequest) -> References:
        """Return the answers of both forms on the samples of a request. Raises what References.of() raises."""
        # An open batch is tried open.
        batch = 2 if request.dynamic_batch else self.batch
        key = (request.samples, batch)
        if key not in self._references:
            samples = make_samples(self.subject.inputs, self.subject.preprocessing, request.samples, batch=batch)
            self._references[key] = References.of(samples, self.subject.module, self.folded)
        return self._references[key]

    @functools.cached_property
    def count(self) -> Count:
        """Parameters and multiply-accumulates of the form that is exported, over the whole batch."""
        # A model may take no other batch.
        return count(self.model, *self.example.values())

    @functools.cached_property
    def graph_sha256(self) -> str:
        """The digest of the graph; empty for a module that cannot be captured."""
        return graph_sha256(self.model, self.subject, self.batch)

    @functools.cached_property
    def costs(self) -> tuple[OperatorCost, ...]:
        """The costs of its operators; none at a batch above 1."""
        return merged(operator_costs(self.model, *self.example.values())) if self.batch == 1 else ()

    def complete(self, request: ExportRequest) -> None:
        """Compute all that an export of this request will ask for."""
        self.references(request)
        _ = self.count, self.graph_sha256, self.costs
