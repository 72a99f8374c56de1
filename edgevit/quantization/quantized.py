"""Quantized networks: a folded network whose scales are absorbed and whose biases are corrected, and its simulation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgevit.errors import QuantizationError
from edgevit.folding import Folded, origin
from edgevit.folding.agreement import outputs
from edgevit.folding.editing import difference, editable, finished
from edgevit.folding.graph import Net
from edgevit.quantization import absorption
from edgevit.quantization.absorption import BALANCES, Balance, absorb
from edgevit.quantization.calibration import Calibration, calibrate
from edgevit.quantization.exclusion import exclude, layer_noises
from edgevit.quantization.placement import place, watched
from edgevit.quantization.simulation import Simulator
from edgevit.records.artifact import ParityCheck
from edgevit.records.quantization import (
    DEFAULT_QUANTIZATION,
    Quantization,
    QuantizationRequest,
    QuantizationStep,
    QuantizedLayer,
    StepKind,
)
from edgevit.verification.compare import Gate
from edgevit.verification.compare import compare as compare_outputs
from edgevit.verification.inputs import Arrays
from edgevit_runtime.dialect import Dialect

# Of the network after absorption, in float64.
ABSORPTION_TOLERANCE = 1e-10
# Batches that the balance of scales is chosen by. The ranges of the result come from all.
SEARCHED = 6
_CLASSES_DIM = 2  # of the output of a classifier, (B, classes)

Batches = Sequence[tuple[Tensor, ...]]


@dataclass(frozen=True)
class CalibrationData:
    """Batches of inputs that ranges come from, and others that the result is judged on.

    description: of the samples, for the report. is_assumed: they are not the caller's. sha256: of the samples.
    """

    batches: Batches
    judged: Batches
    description: str
    is_assumed: bool = False
    sha256: str = ""


@dataclass(frozen=True, eq=False)
class Quantized:
    """A network on its way to an int8 engine.

    folded: in float32, with its scales absorbed; it computes the model. simulation: what the dialect's kernels compute,
    in float. simulator: makes other simulations of the same network.
    """

    folded: Folded
    simulation: Folded
    simulator: Simulator
    report: Quantization


def quantize(
    folded: Folded,
    data: CalibrationData,
    dialect: Dialect,
    request: QuantizationRequest = DEFAULT_QUANTIZATION,
    *,
    measures_layers: bool = True,
) -> Quantized:
    """Quantize a folded network in float32 for a dialect. The data of the request are not read.

    Each step is kept where it raises the SNR of the outputs. Then the layers with most noise stay in float until the
    floor holds. measures_layers: the noise of each layer is measured even where the floor holds without that, which
    costs a pass for each. Raises QuantizationError without samples, for a network in another dtype, and where no layer
    could be in int8 above the floor.
    """
    judge = _Judge(folded, data.judged, request.floor_db)
    search = _Search(folded, data, dialect, request, judge)
    simulator = search.best()
    simulation = simulator.network()
    check = judge(simulation)
    excluded: Sequence[str] = ()
    noises: dict[str, float | None] = {}
    if measures_layers or not check.passed:
        noises = layer_noises(simulator, judge)
        excluded, simulation, check = exclude(simulator, judge, noises)
    report = Quantization(
        samples=simulator.calibration.samples,
        description=data.description,
        is_assumed=data.is_assumed,
        data_sha256=data.sha256,
        request=request,
        steps=tuple(search.steps),
        layers=tuple(_layers(simulator, noises, excluded)),
        floor_db=request.floor_db,
        snr_db=check.snr_db,
        top1_agreement=check.top1_agreement,
        agreement=None if data.is_assumed else _agreement(folded, simulation, (*data.batches, *data.judged)),
    )
    return Quantized(simulator.folded, simulation, simulator, report)


def requantize(folded: Folded, data: CalibrationData, dialect: Dialect, made: Quantization) -> Quantized:
    """Quantize a network as it was done before, with what was decided then. Raises as quantize() does."""
    judge = _Judge(folded, data.judged, made.floor_db)
    search = _Search(folded, data, dialect, made.request, judge)
    simulator = search.again([step for step in made.steps if step.taken])
    return Quantized(simulator.folded, simulator.network(set(made.excluded)), simulator, made)


class _Search:
    """Tries the steps from rounding alone to corrected biases, and remembers the best."""

    def __init__(
        self, folded: Folded, data: CalibrationData, dialect: Dialect, request: QuantizationRequest, judge: _Judge
    ) -> None:
        self._folded, self._data, self._dialect, self._request, self._judge = folded, data, dialect, request, judge
        self.steps: list[QuantizationStep] = []
        self._best_db: float | None = -math.inf

    def best(self) -> Simulator:
        """Return the simulator of the best form that was found, calibrated on all samples."""
        some = _spread(self._data.batches)
        plain = _calibrated(self._folded, some)
        best = self._try("rounded", self._simulator(self._folded, plain), None)
        taken: Balance | None = None
        for balance in BALANCES if self._request.absorbs else ():
            net = editable(self._folded)
            if not absorb(net, plain, balance):
                # Nothing can be moved, by any balance.
                break
            absorbed = finished(net, self._folded)
            candidate = self._simulator(absorbed, _calibrated(absorbed, some))
            better = self._try("absorbed", candidate, best, balance.weight_share)
            best, taken = better, balance if better is candidate else taken
        if taken is not None:
            self._absorbed(plain, taken)
        if len(some) < len(self._data.batches):
            best = self._simulator(best.folded, _calibrated(best.folded, self._data.batches))
            self._best_db = self._judge(best.network()).snr_db
        if self._request.corrects:
            corrected = self._simulator(best.folded, best.calibration, corrects_biases=True)
            best = self._try("corrected", corrected, best)
        return best

    def again(self, taken: Sequence[QuantizationStep]) -> Simulator:
        """Return the simulator of the form to which these steps led."""
        folded = self._folded
        # A later one was taken because it was better.
        for step in [step for step in taken if step.weight_share is not None][-1:]:
            plain = _calibrated(folded, _spread(self._data.batches))
            folded = self._absorbed(plain, Balance(step.weight_share or 0.0))
        calibration = _calibrated(folded, self._data.batches)
        corrects = any(step.kind == "corrected" for step in taken)
        return self._simulator(folded, calibration, corrects_biases=corrects)

    def _absorbed(self, plain: Calibration, balance: Balance) -> Folded:
        """Return the network with scales moved, proven equal to the one without."""
        net = editable(self._folded)
        absorb(net, plain, balance)
        # Before its constants are rounded to float32.
        _require_equal(self._folded, net, self._data.judged[0])
        return finished(net, self._folded)

    def _simulator(self, folded: Folded, calibration: Calibration, *, corrects_biases: bool = False) -> Simulator:
        method = self._request.method
        return Simulator(folded, calibration, self._dialect, method=method, corrects_biases=corrects_biases)

    def _try(
        self, kind: StepKind, candidate: Simulator, best: Simulator | None, weight_share: float | None = None
    ) -> Simulator:
        snr = self._judge(candidate.network()).snr_db
        is_better = best is None or snr is None or (self._best_db is not None and snr > self._best_db)
        self.steps.append(QuantizationStep(kind, snr, is_better, weight_share))
        if best is not None and not is_better:
            return best
        self._best_db = snr
        return candidate


class _Judge:
    """Compares networks with the one in float, on some samples, under the floor."""

    def __init__(self, folded: Folded, samples: Sequence[tuple[Tensor, ...]], floor_db: float) -> None:
        self._samples, self._gate = samples, Gate(min_snr_db=floor_db)
        self._reference = self._arrays(folded)

    def __call__(self, network: Folded) -> ParityCheck:
        """Return the check of a network's outputs."""
        return compare_outputs("int8", "folded", self._reference, self._arrays(network), self._gate)

    def _arrays(self, network: Folded) -> list[Arrays]:
        with torch.inference_mode():
            return [tuple(np.asarray(tensor) for tensor in outputs(network, inputs)) for inputs in self._samples]


def _calibrated(folded: Folded, samples: Sequence[tuple[Tensor, ...]]) -> Calibration:
    return calibrate(folded, samples, watched(folded.net.graph) | set(absorption.watched(editable(folded))))


def _spread(batches: Batches) -> Batches:
    """Return a few batches at a regular distance."""
    count = len(batches)
    return [batches[number * count // SEARCHED] for number in range(SEARCHED)] if count > SEARCHED else batches


def _require_equal(folded: Folded, absorbed: Net, inputs: tuple[Tensor, ...]) -> None:
    """Raise QuantizationError where a network with moved scales does not compute the same in float64."""
    error = difference(folded, absorbed, inputs)
    if not error <= ABSORPTION_TOLERANCE:
        raise QuantizationError(
            "moving scales between layers changed the network",
            why=f"max_rel {error:.1e} in float64, above {ABSORPTION_TOLERANCE:g}",
            fix="--no-absorb, and tell us of this network",
        )


def _agreement(folded: Folded, simulation: Folded, batches: Batches) -> tuple[int, int] | None:
    """Return how many samples get the same class in int8, and how many there are.

    None for no classifier, and for batches of several samples, of which the last is filled up with samples again.
    """
    same = total = 0
    with torch.inference_mode():
        for inputs in batches:
            expected, computed = outputs(folded, inputs), outputs(simulation, inputs)
            if len(expected) != 1 or expected[0].dim() != _CLASSES_DIM or len(expected[0]) > 1:
                return None
            classes = expected[0].argmax(1)
            same += int((classes == computed[0].argmax(1)).sum())
            total += len(classes)
    return same, total


def _layers(simulator: Simulator, noises: dict[str, float | None], excluded: Sequence[str]) -> Iterator[QuantizedLayer]:
    for node, kind in place(simulator.folded.net.graph, simulator.dialect).operators.items():
        if kind != "add":
            yield QuantizedLayer(node.name, origin(node), kind, noises.get(node.name), node.name in excluded)
