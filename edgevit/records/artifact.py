"""Records about exported artifacts: the manifest of one, and its parity with the model.

They are frozen, and can be written to JSON and read back (see edgevit_runtime.codec).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgevit.records.model import OperatorCost, Preprocessing
from edgevit.records.network import Network, labels_sha256
from edgevit.records.preprocessing import NOTHING_STATED, StatedPreprocessing
from edgevit.records.quantization import DEFAULT_QUANTIZATION, Quantization, QuantizationRequest
from edgevit.records.tuning import DEFAULT, AppliedForm, Tuning, form_in_rows
from edgevit_runtime.codec import LATER
from edgevit_runtime.record import Operators, TensorSpec

SCHEMA_VERSION = 1
MANIFEST_VERSION = 3  # of Artifact: since 3 it names what was assumed, and the recipe that wrote it
_RGB, _IMAGE_SIDES = 3, 2
PROVEN = ("passed", "evaluated")  # the statuses of Parity that say: what the file computes has been compared


@dataclass(frozen=True)
class SampleRequest:
    """What a comparison feeds to floating inputs.

    value_range: the lowest and the highest number of an input; None is standard normal noise. file: samples of a model
    with one input, as `numpy.save` writes them, of the shape (N, ..); they also set the range that is not given.
    """

    value_range: tuple[float, float] | None = None
    file: Path | None = None


@dataclass(frozen=True)
class WeightsRequest:
    """Which weights a model gets: those of a checkpoint, else random ones from a seed or those of a user's function.

    file: a checkpoint file, an index of shards, or a folder. key: which of its sets of weights; empty: the averaged
    one, or `earlier_key`, the set that an earlier export took, where the file has it.
    """

    file: Path | None = None
    key: str = ""
    seed: int = 0
    earlier_key: str = ""


NO_CHECKPOINT = WeightsRequest()


@dataclass(frozen=True)
class ExportRequest:
    """One export: which model, to which target, in which form. It goes from the command line to the child process.

    `model` is any form of MODEL (model_reference), and empty where the module itself is handed over. `labels` is a text
    file with a class name per line; `options` are the target's own.
    """

    target: str
    out: Path
    precision: str = "fp32"
    model: str = ""
    weights: Path | None = None
    weights_key: str = ""
    seed: int = 0
    input_size: tuple[int, int] | None = None
    input_shapes: tuple[TensorSpec, ...] = ()  # all inputs, the batch open, as -1; empty: as the model says
    preprocessing: StatedPreprocessing = NOTHING_STATED
    batch: int = 1
    dynamic_batch: bool = False
    unfolded: bool = False
    embed_preprocess: bool = False
    labels: Path | None = None
    options: dict[str, str] = field(default_factory=dict)
    samples: SampleRequest = SampleRequest()
    quantization: QuantizationRequest = DEFAULT_QUANTIZATION
    network: Network | None = None  # which the model has to be, by its digests; None: any
    form: str = DEFAULT  # which exactly equal form: "default", "portable", "tuned", or the name of one
    tuning: Tuning | None = None  # that "tuned" means

    @property
    def weights_request(self) -> WeightsRequest:
        """The weights of the model."""
        return WeightsRequest(self.weights, self.weights_key, self.seed)

    @property
    def calibration_data(self) -> Path | None:
        """Where the samples of a quantization are: its own data, else the samples of the comparison."""
        return self.quantization.data or self.samples.file

    @property
    def label(self) -> str:
        """The request in three words: `mobilevig_ti onnx fp32`."""
        return f"{self.model} {self.target} {self.precision}"

    def size_label(self, card_inputs: Sequence[TensorSpec] = ()) -> str:
        """Return `64x48` for inputs that were asked for, and empty where they are those of the card, or were not."""
        shapes = [spec.shape[1:] for spec in self.input_shapes]
        if self.input_size is not None:
            shapes = [(_RGB, *self.input_size)]
        if shapes == [spec.shape[1:] for spec in card_inputs]:
            return ""
        if len(shapes) == 1 and len(shapes[0]) == _IMAGE_SIDES + 1 and shapes[0][0] == _RGB:
            height, width = shapes[0][1:]
            return str(height) if height == width else f"{height}x{width}"
        return "_".join("x".join(map(str, shape)) for shape in shapes)


@dataclass(frozen=True)
class WorstChannel:
    """The channel of an output with the largest error, against the magnitude of the channels of its kind."""

    output: int  # its number
    axis: int
    channel: int
    max_rel: float
    snr_db: float | None  # None where it cannot be told

    @property
    def label(self) -> str:
        """`channel 17 (axis 1) of output 0: max_rel 2.1e-02, SNR 21 dB`."""
        snr = "" if self.snr_db is None else f", SNR {self.snr_db:.0f} dB"
        return f"channel {self.channel} (axis {self.axis}) of output {self.output}: max_rel {self.max_rel:.1e}{snr}"


@dataclass(frozen=True)
class ParityCheck:
    """One comparison: which form against which, over how many inputs, and how far apart.

    max_rel is the largest absolute difference over the largest magnitude of the reference, the worst over the inputs;
    snr_db is 10 log10 of signal power over error power, None where the two are equal to the bit. Where nothing can be
    measured, both are None, and `problem` says why.
    """

    stage: str
    against: str
    max_rel: float | None
    snr_db: float | None
    top1_agreement: float
    tolerance: str
    passed: bool
    how: str = ""  # what computed it: an engine with its version and provider, or a reference evaluator
    channel: WorstChannel | None = None  # the one nearest to the limit for channels, or furthest beyond it
    problem: str = ""  # "output 0 has the shape (1, 4), and the model's has (1, 3)"

    @property
    def figures(self) -> tuple[str, str]:
        """The largest error and the SNR as a table shows them: `6.7e-07`, and `123`, `equal` or `-`."""
        if self.max_rel is None:
            return "-", "-"
        return f"{self.max_rel:.1e}", "equal" if self.snr_db is None else f"{self.snr_db:.0f}"


@dataclass(frozen=True)
class ComparedNetwork:
    """The network that an artifact was compared with.

    model: any form of MODEL (model_reference). network_sha256: of its operators, weights and constants; empty where
    they cannot be captured, or were captured by another torch, which gives another digest.
    """

    model: str
    network_sha256: str
    weights_sha256: str

    @property
    def label(self) -> str:
        """`net.py:build, network 0123456789ab, weights ba9876543210`."""
        network = f"network {self.network_sha256[:12]}" if self.network_sha256 else "network without a digest here"
        return f"{self.model}, {network}, weights {self.weights_sha256[:12]}"


@dataclass(frozen=True)
class Parity:
    """Whether an artifact computes the model's function, how that was found, and every comparison made.

    passed: its own engine ran it. evaluated: a reference evaluator computed what the file says, its engine did not run.
    built_not_run: nothing here computes it; `how` says what it needs, and which earlier stage is proven.
    needs_processor: its own engine is here, and this processor lacks the instruction set that `needs` names.
    The numbers are those of the comparison that `how` names, and None where none could be made at all.
    """

    status: Literal["passed", "failed", "built_not_run", "needs_processor", "evaluated"]
    how: str  # "onnxruntime 1.31.1 CPUExecutionProvider, separate process"
    inputs: str  # "4 noise, 3 photographs"
    max_rel: float | None
    snr_db: float | None  # None too where the two are equal to the bit
    top1_agreement: float | None
    tolerance: str  # of that comparison; empty without one
    checks: tuple[ParityCheck, ...]
    failing_stage: str = ""

    def __repr__(self) -> str:
        error = "nothing compared" if self.max_rel is None else f"max_rel {self.max_rel:.1e}"
        return f"Parity({self.status}, {error}, {self.how})"

    needs: str = ""  # needs_processor: the instruction set, "bf16"
    network: ComparedNetwork | None = None  # with which it was compared; None: before manifests said so


@dataclass(frozen=True)
class StageTime:
    """What one stage of an export cost."""

    name: str
    seconds: float


def is_named(wish: str, key: str) -> bool:
    """Return whether a person who writes `wish` may mean the set of weights of this key: whole steps of it."""
    return f".{wish}." in f".{key}." or key == wish


@dataclass(frozen=True)
class WeightsChoice:
    """Which set of weights of a checkpoint was taken, by the key that precedes its names in the file.

    `.` is the key of weights without one. buffers_from: the set whose running statistics complete averages that have
    parameters alone. left_out: names of the first tensors of the file that are in no set of the model.
    """

    key: str
    averaged: bool = False
    others: tuple[str, ...] = ()  # keys of the sets that fit the model, too
    buffers_from: str = ""
    left_out: tuple[str, ...] = ()
    left_out_count: int = 0

    def of(self, file: str) -> str:
        """Return `ema of best.pt`; the file's name alone where its weights have no key."""
        return file if self.key == "." else f"{self.key} of {file}"

    def describe(self, file: str) -> str:
        """Return the sentence that a screen shows; empty where the file holds one set and nothing else."""
        if not (self.others or self.averaged or self.buffers_from or self.left_out):
            return ""
        kind = "the averaged set " if self.averaged else ""
        parts = [f"weights: {kind}{self.key} of {file}"]
        if self.buffers_from:
            parts.append(f"running statistics of {self.buffers_from}")
        if self.others:
            named = ", ".join(self.others)
            parts.append(f"not {named} (--weights-key {self.others[0]} takes that)")
        if self.left_out:
            shown = ", ".join(self.left_out[:3]) + ", ..." * (self.left_out_count > 3)
            parts.append(f"{self.left_out_count} tensors of the file are no part of the model: {shown}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Source:
    """Where the weights of an artifact come from. Random weights are honest for latency and parity, never accuracy."""

    model: str  # any form of MODEL (model_reference)
    # function: as the user's function made them; module: as a module of a Python process had them
    weights: Literal["random", "file", "function", "module"]
    seed: int | None = None
    weights_file: str = ""
    weights_sha256: str = ""
    state_sha256: str = ""  # of the tensors themselves, however they were stored
    origin: str = ""  # digest of the place of a user's file or folder: tells two of one name apart
    choice: WeightsChoice | None = None  # of a file: which of its weights
    # Digest of the place of a checkpoint: tells two of one name apart. A copy elsewhere is the same source.
    weights_origin: str = field(default="", compare=False)

    def describe_weights(self) -> str:
        """Return what a screen says of the weights of a file with several sets, or of drawn ones; else nothing."""
        if self.choice is not None:
            return self.choice.describe(self.weights_file)
        if self.weights == "random" and ":" in self.model:
            return f"weights: random, drawn by {self.model} from seed {self.seed}: --weights FILE loads trained ones"
        return ""


@dataclass(frozen=True)
class Artifact:
    """A folder with an exported model. The manifest in it holds this record, less the folder's own path."""

    folder: Path
    model: str
    family: str
    target: str
    precision: str
    payload: str  # the file or folder inside `folder` that the engine opens
    sha256: str  # of the tree, the manifest left out
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dynamic_batch: bool
    folded: bool
    fold_summary: str
    params: int
    macs: int
    source: Source
    preprocessing: Preprocessing
    toolchain: dict[str, str]  # distribution -> version
    stages: tuple[StageTime, ...]
    operators: Operators
    created: str  # ISO 8601, UTC
    parity: Parity | None = None
    options: dict[str, str] = field(default_factory=dict)  # of the target
    preprocessing_inside: bool = False  # then the input is uint8 (N, H, W, 3)
    input_range: tuple[float, float] | None = None  # of the samples of its comparisons; None: standard normal noise
    files: dict[str, str] = field(default_factory=dict)  # of the tree, by name: sha256
    labels: tuple[str, ...] = ()  # of the classes, in the order of the output; empty: not told
    labels_file: str = ""  # that `labels` were read from, as it was named; empty: the model has them itself
    model_inputs: tuple[TensorSpec, ...] = ()  # of the model itself, the batch open, as -1
    recipe_sha256: str = ""  # of the recipe's file, which wrote the payload
    network_sha256: str = ""  # of operators, weights and constants before the fold; empty: they cannot be captured
    batch: int = 1  # of the request; an open batch was tried with it
    # Of the folded network's operators, without weights and names and ahead of any form; see edgevit.folding.digest.
    graph_digest: str = ""
    quantization: Quantization | None = None  # of a precision whose numbers come from samples
    costs: tuple[OperatorCost, ...] = ()  # of those operators, as a Graph has them; empty: not told, or not of batch 1
    form: str = field(default=DEFAULT, metadata=LATER)  # of the request
    # What was written in place of operators of the folded network, and the tuning that chose it.
    forms: tuple[AppliedForm, ...] = field(default=(), metadata=LATER)
    tuning: Tuning | None = field(default=None, metadata=LATER)
    schema_version: int = MANIFEST_VERSION

    @property
    def network(self) -> Network:
        """The network that it was made from, as rows and accuracies keep it."""
        source = self.source
        return Network(
            source.weights,
            source.state_sha256,
            self.network_sha256,
            self.toolchain.get("torch", ""),
            seed=source.seed,
            file=source.weights_file,
            file_sha256=source.weights_sha256,
            key=source.choice.key if source.choice else "",
            unfolded=not self.folded,
            dynamic_batch=self.dynamic_batch,
            embed_preprocess=self.preprocessing_inside,
            batch=self.batch,
            inputs=self.model_inputs,
            labels_sha256=labels_sha256(self.labels),
            options=tuple(sorted(self.options.items())),
            forms=form_in_rows(self.form, self.tuning, self.forms),
        )

    def __repr__(self) -> str:
        status = self.parity.status if self.parity else "unverified"
        kind = f"{self.model} {self.target} {self.precision}"
        return f"Artifact({kind}, {status}, {self.size_bytes / 1e6:.1f} MB, {str(self.folder)!r})"
