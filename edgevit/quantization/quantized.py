"""Quantized networks: a folded network whose scales are absorbed and whose biases are corrected, and its simulation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule

from edgevit.errors import QuantizationError
from edgevit.folding import Folded, origin
from edgevit.folding.agreement import cast, compare, outputs
from edgevit.folding.graph import Net, copied_graph
from edgevit.quantization import absorption
from edgevit.quantization.absorption import BALANCES, Balance, absorb
from edgevit.quantization.calibration import Calibration, calibrate
from edgevit.quantization.dialect import Dialect
from edgevit.quantization.exclusion import exclude, layer_noises
from edgevit.quantization.placement import place, watched
from edgevit.quantization.ranges import Method
from edgevit.quantization.simulation import Simulator
from edgevit.records.artifact import ParityCheck
from edgevit.records.quantization import Quantization, QuantizationStep, QuantizedLayer
from edgevit.verification.compare import Gate
from edgevit.verification.compare import compare as compare_outputs
from edgevit.verification.inputs import Arrays

# Of the network after absorption, in float64.
ABSORPTION_TOLERANCE = 1e-10
# Samples on which each step is judged; all of them would cost a pass for each layer.
JUDGED = 8
DEFAULT_FLOOR_DB = 25.0

Batches = Sequence[tuple[Tensor, ...]]


@dataclass(frozen=True)
class CalibrationData:
    """Batches of inputs that ranges come from, and others that the result is judged on.

    description: of the samples, for the report. is_assumed: they are not the caller's.
    """

    batches: Batches
    judged: Batches
    description: str
    is_assumed: bool = False


@dataclass(frozen=True)
class Options:
    """What is optional in a quantization. floor_db: the SNR to keep; method: how ranges follow from values."""

    floor_db: float = DEFAULT_FLOOR_DB
    method: Method = "minmax"
    absorbs: bool = True
    corrects: bool = True


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


def quantize(folded: Folded, data: CalibrationData, dialect: Dialect, options: Options = Options()) -> Quantized:
    """Quantize a folded network in float32 for a dialect.

    Each step is kept where it raises the SNR of the outputs. Then the layers with most noise stay in float until the
    floor holds. Raises QuantizationError without samples, for a network in another dtype, and where no layer could be
    in int8 above the floor.
    """
    judge = _Judge(folded, data.judged, options.floor_db)
    search = _Search(folded, data, dialect, options, judge)
    simulator = search.best()
    noises = layer_noises(simulator, judge)
    excluded, simulation, check = exclude(simulator, judge, noises)
    report = Quantization(
        samples=simulator.calibration.samples,
        description=data.description,
        is_assumed=data.is_assumed,
        steps=tuple(search.steps),
        layers=tuple(_layers(simulator, noises, excluded)),
        floor_db=options.floor_db,
        snr_db=check.snr_db,
        top1_agreement=check.top1_agreement,
    )
    return Quantized(simulator.folded, simulation, simulator, report)


class _Search:
    """Tries the steps from rounding alone to corrected biases, and remembers the best."""

    def __init__(
        self, folded: Folded, data: CalibrationData, dialect: Dialect, options: Options, judge: _Judge
    ) -> None:
        self._folded, self._data, self._dialect, self._options, self._judge = folded, data, dialect, options, judge
        self.steps: list[QuantizationStep] = []
        self._best_db: float | None = -math.inf

    def best(self) -> Simulator:
        """Return the simulator of the best form that was found."""
        plain = _calibrated(self._folded, self._data.batches)
        best = self._try("rounded", self._simulator(self._folded, plain), None)
        for balance in BALANCES if self._options.absorbs else ():
            absorbed = _absorbed(self._folded, plain, balance, self._data.judged[0])
            if absorbed is not None:
                candidate = self._simulator(absorbed, _calibrated(absorbed, self._data.batches))
                best = self._try(f"scales absorbed, {balance.label}", candidate, best)
        if self._options.corrects:
            corrected = self._simulator(best.folded, best.calibration, corrects_biases=True)
            best = self._try("biases corrected", corrected, best)
        return best

    def _simulator(self, folded: Folded, calibration: Calibration, *, corrects_biases: bool = False) -> Simulator:
        method = self._options.method
        return Simulator(folded, calibration, self._dialect, method=method, corrects_biases=corrects_biases)

    def _try(self, name: str, candidate: Simulator, best: Simulator | None) -> Simulator:
        snr = self._judge(candidate.network()).snr_db
        is_better = best is None or snr is None or (self._best_db is not None and snr > self._best_db)
        self.steps.append(QuantizationStep(name, snr, is_better))
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


def editable(folded: Folded) -> Net:
    """Return a copy of a folded network for editing, with its constants in float64."""
    module = GraphModule(folded.net, copied_graph(folded.net))
    return Net(module, torch.float32, batch_is_open=folded.report.batch_is_open, follows_dtype=folded.follows_dtype)


def finished(net: Net, like: Folded, dtype: torch.dtype | None = None) -> Folded:
    """Return an edited copy as a folded network, in float32 or another dtype."""
    module = net.finish(torch.contiguous_format, dtype=dtype)
    return Folded(module, like.shapes, like.report, follows_dtype=like.follows_dtype)


def _calibrated(folded: Folded, samples: Sequence[tuple[Tensor, ...]]) -> Calibration:
    return calibrate(folded, samples, watched(folded.net.graph) | set(absorption.watched(editable(folded))))


def _absorbed(folded: Folded, calibration: Calibration, balance: Balance, inputs: tuple[Tensor, ...]) -> Folded | None:
    """Return the network with scales moved, proven equal in float64; None where none can be."""
    net = editable(folded)
    wide_before = finished(net, folded, torch.float64)
    if not absorb(net, calibration, balance):
        return None
    error = compare(wide_before, finished(net, folded, torch.float64), cast(inputs, torch.float64))
    if not error <= ABSORPTION_TOLERANCE:
        raise QuantizationError(
            "moving scales between layers changed the network",
            why=f"max_rel {error:.1e} in float64, above {ABSORPTION_TOLERANCE:g}",
            fix="--no-absorb, and tell us of this network",
        )
    return finished(net, folded)


def _layers(simulator: Simulator, noises: dict[str, float | None], excluded: Sequence[str]) -> Iterator[QuantizedLayer]:
    for node, kind in place(simulator.folded.net.graph, simulator.dialect).operators.items():
        if kind != "add":
            yield QuantizedLayer(node.name, origin(node), kind, noises[node.name], node.name in excluded)
