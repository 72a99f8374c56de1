"""The command that exports an artifact again: every option of its request that its manifest has."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgevit.records.artifact import Artifact, ExportRequest, is_named
from edgevit.records.model_reference import ModelReference
from edgevit.records.preprocessing import StatedPreprocessing, stated_in, takes_image
from edgevit.records.quantization import DEFAULT_QUANTIZATION, QuantizationRequest
from edgevit.records.tuning import DEFAULT
from edgevit_runtime.record import TensorSpec

# Where `edgevit export` puts artifacts by default.
_OUT = Path("artifacts")


def export_command(
    artifact: Artifact,
    *,
    weights: Path | None = None,
    weights_key: str = "",
    labels: Path | None = None,
) -> str:
    """Return the command that makes such an artifact again, in its own folder.

    weights, weights_key, labels: those to name in place of the artifact's own. A manifest knows its checkpoint by name
    alone. Without `weights` the reader fills in its folder, unless the file is in this one.
    """
    source, options = artifact.source, list[str]()
    options += ["--target", artifact.target, "--precision", artifact.precision]
    options += _weights(artifact, weights, weights_key)
    options += ["--seed", str(source.seed)] if source.weights == "random" and source.seed and weights is None else []
    if _has_size_in_name(artifact):
        options += _inputs(artifact.model_inputs)
    if takes_image(artifact.model_inputs):
        options += _preprocessing(stated_in(artifact.preprocessing))
    options += ["--batch-size", str(artifact.batch)] if artifact.batch != 1 else []
    switches = {
        "--dynamic-batch": artifact.dynamic_batch,
        "--unfolded": not artifact.folded,
        "--embed-preprocess": artifact.preprocessing_inside,
    }
    options += [name for name, is_on in switches.items() if is_on]
    options += ["--form", artifact.form] if artifact.form != DEFAULT else []
    if labels is not None or artifact.labels_file:
        options += ["--labels", str(labels or artifact.labels_file)]
    for name, value in sorted(artifact.options.items()):
        options += ["--option", f"{name}={value}"]
    if artifact.quantization is not None:
        options += _quantization(artifact.quantization.request)
    if artifact.input_range is not None:
        options.append(f"--input-range={_joined(artifact.input_range)}")
    out = artifact.folder.parent
    options += ["--out", str(out)] if out.resolve() != _OUT.resolve() else []
    return shlex.join(["edgevit", "export", source.model, *options])


def _weights(artifact: Artifact, weights: Path | None, weights_key: str) -> list[str]:
    """Return the options of the checkpoint, and the key where an export without it would take another set."""
    source = artifact.source
    if weights is None and (source.weights != "file" or ModelReference.parse(source.model).brings(source.weights_file)):
        return []
    here = Path(source.weights_file)
    file = weights or (here if here.exists() else Path("path/to", source.weights_file))
    choice = source.choice if source.weights == "file" else None
    own_key = choice.key if choice and choice.others and not choice.averaged else ""
    key = weights_key if weights_key and not (choice and is_named(weights_key, own_key)) else own_key
    return ["--weights", str(file), *(["--weights-key", key] if key else [])]


def _has_size_in_name(artifact: Artifact) -> bool:
    """Return whether the inputs were asked for: the folder's name has their size then."""
    shapes = ExportRequest(artifact.target, artifact.folder.parent, input_shapes=artifact.model_inputs)
    return shapes.size_label() in artifact.folder.name


def _inputs(specs: Sequence[TensorSpec]) -> Iterator[str]:
    for spec in specs:
        shape = "x".join(map(str, spec.at_batch(1).shape))
        dtype = "" if spec.dtype == "float32" else f":{spec.dtype}"
        yield from ("--input-shape", f"{spec.name}={shape}{dtype}")


def _preprocessing(stated: StatedPreprocessing) -> Iterator[str]:
    """Yield the options that state a preprocessing, with all digits of its numbers."""
    numbers = {"mean": stated.mean, "std": stated.std, "range": stated.range or ()}
    for name, values in numbers.items():
        if values:
            # A leading minus would begin an option.
            yield f"--{name}={_joined(values)}"
    if stated.resize or stated.stretch:
        yield from ("--resize", "x".join(map(str, stated.resize)) or "stretch")
    if stated.crop is not None and not (stated.stretch and stated.crop == 1):
        yield from ("--crop", _number(stated.crop))
    texts = {"interpolation": stated.interpolation, "color": stated.color}
    for name, text in texts.items():
        if text:
            yield from (f"--{name}", text)


def _quantization(asked: QuantizationRequest) -> Iterator[str]:
    """Yield the options of a quantization that are not the usual ones."""
    if asked.data is not None:
        yield from ("--data", str(asked.data))
    if asked.floor_db != DEFAULT_QUANTIZATION.floor_db:
        # A leading minus would begin an option.
        yield f"--floor={_number(asked.floor_db)}"
    if asked.method != DEFAULT_QUANTIZATION.method:
        yield from ("--ranges", asked.method)
    if not asked.absorbs:
        yield "--no-absorb"
    if not asked.corrects:
        yield "--no-correct"


def _joined(numbers: Sequence[float]) -> str:
    return ",".join(map(_number, numbers))


def _number(number: float) -> str:
    return repr(float(number)).removesuffix(".0")
