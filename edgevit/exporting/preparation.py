"""Preparation of a network for its exports: its fold, digests, costs and answers, computed once for all targets."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from edgevit.count import Count, count, merged, operator_costs
from edgevit.errors import UsageError
from edgevit.exporting.digests import graph_sha256, network_sha256
from edgevit.folding import Folded, fold_and_digest
from edgevit.models.source import Subject
from edgevit.quantization import Quantized, quantize
from edgevit.quantization.data import CalibrationSamples, calibration_samples
from edgevit.quantization.restless import Restless
from edgevit.records.artifact import ExportRequest, SampleRequest, StageTime
from edgevit.records.model import OperatorCost
from edgevit.records.quantization import QuantizationRequest
from edgevit.verification import References, make_samples
from edgevit_runtime.dialect import QUANTIZED, Dialect


class Preparation:
    """A subject and the form of it that a request exports, which serve other targets and precisions too.

    `network_sha256` is the digest of the network; `stages` is what the fold took. No export may change a module of it.
    """

    def __init__(
        self, subject: Subject, request: ExportRequest, on_stage: Callable[[str], None] = lambda name: None
    ) -> None:
        """Fold the subject, unless the request is for its training form. Raises ModelError and FoldError."""
        self.subject, self.batch = subject, request.batch
        self.folded: Folded | None = None
        self.model: nn.Module = subject.module
        self.stages: tuple[StageTime, ...] = ()
        self._references: dict[tuple[SampleRequest, int, Path | None], References] = {}
        self._calibrations: dict[tuple[SampleRequest, int, Path | None], CalibrationSamples] = {}
        self._quantized: dict[tuple[Dialect, QuantizationRequest, SampleRequest, int], Quantized] = {}
        if request.unfolded:
            self.network_sha256 = network_sha256(subject, request.batch)
            return
        on_stage("fold")
        start = time.perf_counter()
        # The verification of an artifact begins with the fold.
        self.folded, self.network_sha256 = fold_and_digest(subject.module, tuple(self.example.values()))
        self.model = self.folded
        self.stages = (StageTime("fold", round(time.perf_counter() - start, 3)),)

    @property
    def example(self) -> dict[str, Tensor]:
        """Inputs at the batch size of the export, by name."""
        return self.subject.example(self.batch)

    def references(self, request: ExportRequest) -> References:
        """Return the answers of both forms on the samples of a request. Raises what References.of() raises."""
        key = self._key(request)
        if key not in self._references:
            pictures = self._calibration(request).judged if request.precision in QUANTIZED else None
            samples = make_samples(
                self.subject.inputs, self.subject.preprocessing, request.samples, batch=key[1], pictures=pictures
            )
            self._references[key] = References.of(samples, self.subject.module, self.folded)
        return self._references[key]

    def _key(self, request: ExportRequest) -> tuple[SampleRequest, int, Path | None]:
        """Return what the samples of a request depend on. Those of int8 have some of its data."""
        # An open batch is tried open.
        batch = 2 if request.dynamic_batch else self.batch
        return request.samples, batch, request.calibration_data if request.precision in QUANTIZED else None

    def _calibration(self, request: ExportRequest) -> CalibrationSamples:
        key = self._key(request)
        if key not in self._calibrations:
            samples, batch, data = key
            specs, preprocessing = self.subject.inputs, self.subject.preprocessing
            self._calibrations[key] = calibration_samples(specs, preprocessing, data, samples.value_range, batch=batch)
        return self._calibrations[key]

    def quantized(self, dialect: Dialect, request: ExportRequest, *, measures_layers: bool = False) -> Quantized:
        """Return the folded form in a dialect's int8. Raises UsageError for the training form, QuantizationError."""
        if self.folded is None:
            fix = "without --unfolded"
            raise UsageError("int8 is made of the folded form", why="scales are those of folded layers", fix=fix)
        samples = self.references(request).samples
        key = (dialect, request.quantization, request.samples, samples.batch)
        if key not in self._quantized or measures_layers:
            data = self._calibration(request).data(samples)
            asked = dataclasses.replace(request.quantization, data=request.calibration_data)
            self._quantized[key] = quantize(self.folded, data, dialect, asked, measures_layers=measures_layers)
        return self._quantized[key]

    def simulated(self, quantized: Quantized, request: ExportRequest) -> References:
        """Return the references of a request with what an exact engine computes in int8."""
        simulation, floor_db = quantized.simulation, request.quantization.floor_db
        return self.references(request).with_simulation(simulation, Restless(simulation), floor_db)

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
