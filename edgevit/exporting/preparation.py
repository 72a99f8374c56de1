"""Preparation of a network for its exports: its fold, digests, costs and answers, computed once for all targets."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgevit.count import Count, count, merged, operator_costs
from edgevit.errors import TuningError, UsageError
from edgevit.exporting.digests import graph_sha256, network_sha256
from edgevit.folding import Folded, fold_and_digest
from edgevit.models.source import Subject
from edgevit.quantization import Quantized, quantize
from edgevit.quantization.data import CalibrationSamples, calibration_samples
from edgevit.quantization.expected_numbers import expected_numbers
from edgevit.quantization.restless import Restless
from edgevit.records.artifact import ExportRequest, SampleRequest, StageTime
from edgevit.records.model import OperatorCost
from edgevit.records.tuning import DEFAULT, PORTABLE, TUNED, AppliedForm, SiteForm
from edgevit.tuning.application import any_is_meant, apply_forms, by_rules, by_sites, named, rules_for
from edgevit.verification import References, make_samples
from edgevit_runtime.dialect import QUANTIZED, Dialect
from edgevit_runtime.record import FormRule, Recipe


@dataclasses.dataclass(frozen=True, eq=False)
class Formed:
    """A network in an exactly equal form, and what was written in place of what."""

    model: nn.Module
    applied: tuple[AppliedForm, ...]

    @property
    def sites(self) -> tuple[SiteForm, ...]:
        """The form of each kind of site."""
        return tuple(SiteForm(one.site, one.form) for one in self.applied)


class Preparation:
    """A subject and the form of it that a request exports, which serve other targets and precisions too.

    `network_sha256` is the digest of the network; `stages` is what the fold took. No export may change a module of it.
    """

    def __init__(
        self,
        subject: Subject,
        request: ExportRequest,
        on_stage: Callable[[str], None] = lambda name: None,
        *,
        folded: Folded | None = None,
    ) -> None:
        """Fold the subject, unless it is folded already, or the request is for its training form.

        Raises ModelError and FoldError.
        """
        self.subject, self.batch = subject, request.batch
        self.folded: Folded | None = None
        self.model: nn.Module = subject.module
        self.stages: tuple[StageTime, ...] = ()
        self._references: dict[tuple[SampleRequest, int, Path | None], References] = {}
        self._calibrations: dict[tuple[SampleRequest, int, Path | None], CalibrationSamples] = {}
        self._quantized: dict[tuple[Any, ...], Quantized] = {}
        self._formed: dict[tuple[str, tuple[SiteForm, ...] | tuple[FormRule, ...]], Formed] = {}
        if folded is not None:
            self.folded = self.model = folded
            self.network_sha256 = ""
            return
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

    def formed(self, recipe: Recipe | None, request: ExportRequest) -> Formed:
        """Return the folded network in the form of a request for a target; without a target, as it is.

        Raises UsageError for a form of the training form, UnknownNameError, and TuningError where a form applies
        nowhere, is not equal, or was chosen for another network.
        """
        if self.folded is None:
            if request.form not in (DEFAULT, PORTABLE):
                why = "forms are of the folded network"
                raise UsageError("the training form has one form alone", why=why, fix="without --unfolded")
            return Formed(self.subject.module, ())
        rules = rules_for(recipe, request.precision) if request.form == DEFAULT and recipe is not None else ()
        sites = () if request.tuning is None else request.tuning.forms
        key = (request.form, rules or sites)
        if key not in self._formed:
            self._formed[key] = self._in_form(self.folded, rules, request)
        return self._formed[key]

    def _in_form(self, folded: Folded, rules: Sequence[FormRule], request: ExportRequest) -> Formed:
        if request.form == PORTABLE or (request.form == DEFAULT and not any_is_meant(rules, folded)):
            return Formed(folded, ())
        examples = tuple(self.example.values())
        if request.form == DEFAULT:
            return Formed(*apply_forms(folded, by_rules(rules), examples))
        if request.form != TUNED:
            formed = Formed(*apply_forms(folded, named(request.form), examples))
            if not formed.applied:
                raise TuningError(f"{request.form} applies nowhere", where=self.subject.name, fix="--form default")
            return formed
        if request.tuning is None or request.tuning.graph_digest != self.graph_sha256:
            why = "a tuning is of the operators of one network at one input size"
            fix = f"edgevit tune {self.subject.name} --target {request.target}"
            raise TuningError("no tuning of this network is known", where=self.subject.name, why=why, fix=fix)
        formed = Formed(*apply_forms(folded, by_sites(request.tuning.forms), examples))
        if set(formed.sites) != set(request.tuning.forms):
            # Rows of the artifact would name forms that are not in it.
            why = "its forms apply no more: edgevit was changed since"
            fix = f"edgevit tune {self.subject.name} --target {request.target}"
            raise TuningError("the tuning of this network is out of date", where=self.subject.name, why=why, fix=fix)
        return formed

    def quantized(
        self, dialect: Dialect, request: ExportRequest, recipe: Recipe | None = None, *, measures_layers: bool = False
    ) -> Quantized:
        """Return the folded network in a target's form, in a dialect's int8.

        Raises UsageError for the training form, QuantizationError, and what formed() raises.
        """
        if self.folded is None:
            fix = "without --unfolded"
            raise UsageError("int8 is made of the folded form", why="scales are those of folded layers", fix=fix)
        formed = self.formed(recipe, request)
        assert isinstance(formed.model, Folded)
        samples = self.references(request).samples
        key = (dialect, request.quantization, request.samples, samples.batch, formed.sites)
        if key not in self._quantized or measures_layers:
            data = self._calibration(request).data(samples)
            asked = dataclasses.replace(request.quantization, data=request.calibration_data)
            self._quantized[key] = quantize(formed.model, data, dialect, asked, measures_layers=measures_layers)
        return self._quantized[key]

    def simulated(self, quantized: Quantized, request: ExportRequest) -> References:
        """Return the references of a request with what an exact engine computes in int8."""
        simulation, floor_db = quantized.simulation, request.quantization.floor_db
        numbers = expected_numbers(simulation)
        return self.references(request).with_simulation(simulation, Restless(simulation), floor_db, numbers)

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
