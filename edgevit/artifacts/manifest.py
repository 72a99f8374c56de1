"""Manifests of strangers: read without waiting or running out of memory, and refused where a value cannot be true."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from edgevit.errors import UsageError
from edgevit.plain_files import NotPlainError, read_plain
from edgevit.recipes import list_recipes
from edgevit.records.artifact import Artifact
from edgevit.records.preprocessing import NOTHING_STATED, complete, read_stated
from edgevit_runtime.codec import RecordError
from edgevit_runtime.record import ITEM_BYTES, TensorSpec

_MOST_BYTES = 64 << 20
_DEEPEST = 64
# Integers of a record fit into 64 bits, as those of a database do.
_LARGEST = 2**63
_MOST_DIGITS = 20
_LARGEST_TENSOR_BYTES = 2**32
_LARGEST_RANK = 16


def read_json_file(path: Path) -> tuple[str, Any]:
    """Return the text of a JSON file and its data. Only a plain file is read, so that a pipe does not block.

    Raises OSError where it cannot be read, and RecordError where it is too large, not JSON, nested too deep, or has a
    number that no record may hold.
    """
    try:
        content = read_plain(path, _MOST_BYTES + 1)
    except NotPlainError as error:
        raise RecordError(error.strerror) from error
    if len(content) > _MOST_BYTES:
        raise RecordError(f"it has more than {_MOST_BYTES >> 20} MiB")
    try:
        text = content.decode("utf-8")
        data = json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=_refuse_constant)
        _require_shallow(data)
        # Half of a surrogate pair is no text.
        json.dumps(data, ensure_ascii=False).encode("utf-8")
    except (UnicodeError, json.JSONDecodeError) as error:
        raise RecordError(f"not JSON: {error}") from error
    except RecursionError:
        raise RecordError(_TOO_DEEP) from None
    return text, data


_TOO_DEEP = f"its values are nested deeper than {_DEEPEST} levels"


def _integer(text: str) -> int:
    number = int(text) if len(text) <= _MOST_DIGITS else _LARGEST
    if not -_LARGEST <= number < _LARGEST:
        raise RecordError(f"{text[:_MOST_DIGITS]}... is larger than any number of a record")
    return number


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise RecordError(f"{text[:_MOST_DIGITS]} is not a finite number")
    return number


def _refuse_constant(name: str) -> Any:
    raise RecordError(f"{name} is not a number that a record may contain")


def _require_shallow(data: Any) -> None:
    """Raise RecordError for data that is nested too deep for the readers of records, which call themselves."""
    level = [data]
    for _ in range(_DEEPEST):
        inner = [value.values() if isinstance(value, dict) else value for value in level if _is_nested(value)]
        level = [value for values in inner for value in values if _is_nested(value)]
        if not level:
            return
    raise RecordError(_TOO_DEEP)


def _is_nested(value: Any) -> bool:
    return isinstance(value, (dict, list))


def require_possible(artifact: Artifact) -> None:
    """Raise RecordError for a manifest whose values have the right types and cannot be true."""
    for problem in _impossible(artifact):
        raise RecordError(problem)


def _impossible(artifact: Artifact) -> Iterator[str]:
    if artifact.model != artifact.source.model:
        yield f"its model is {artifact.model}, and its source is of {artifact.source.model}"
    precisions = {recipe.target: recipe.precisions for recipe in list_recipes()}
    # A target that is not known is refused, with the known ones, when its recipe is looked for.
    if artifact.precision not in precisions.get(artifact.target, (artifact.precision,)):
        yield f"{artifact.target} has no precision {artifact.precision}"
    if not _is_payload(artifact):
        yield f"its payload is {artifact.payload!r}, and none of its files is that"
    # A failed artifact may be one that no engine reads, so that nothing tells its outputs.
    has_failed = artifact.parity is not None and artifact.parity.status == "failed"
    if not artifact.inputs or not (artifact.outputs or has_failed):
        yield "it has no inputs or no outputs"
    yield from _impossible_tensors(artifact)
    counts = ("size_bytes", "params", "macs")
    yield from (f"{name} is {getattr(artifact, name)}" for name in counts if getattr(artifact, name) < 0)
    if artifact.batch < 1:
        yield f"its batch is {artifact.batch}"
    if artifact.input_range is not None and artifact.input_range[0] >= artifact.input_range[1]:
        yield f"its input_range is {artifact.input_range}"
    if not _is_time(artifact.created):
        yield f"{artifact.created!r} is no time in UTC"
    yield from _impossible_preprocessing(artifact)


def _is_payload(artifact: Artifact) -> bool:
    """Return whether the payload is one of the sealed files, or a folder of them."""
    parts = PurePosixPath(artifact.payload).parts
    if not parts or ".." in parts or artifact.payload != "/".join(parts):
        return False
    return any(name == artifact.payload or name.startswith(f"{artifact.payload}/") for name in artifact.files)


def _impossible_tensors(artifact: Artifact) -> Iterator[str]:
    tensors = {"inputs": artifact.inputs, "model_inputs": artifact.model_inputs, "outputs": artifact.outputs}
    for field, specs in tensors.items():
        for spec in specs:
            if not _is_tensor(spec, least=0 if field == "outputs" else 1):
                yield f"{field} has {spec.name} of {spec.dtype}, shape {list(spec.shape[:_LARGEST_RANK])!s}"
    if artifact.inputs and not artifact.inputs[0].shape:
        yield f"its input {artifact.inputs[0].name} has no batch"


def _is_tensor(spec: TensorSpec, least: int) -> bool:
    shape: Sequence[int] = spec.shape
    if len(shape) > _LARGEST_RANK or spec.dtype not in ITEM_BYTES:
        return False
    return all(size >= least or size == -1 for size in shape) and spec.at_batch(1).nbytes <= _LARGEST_TENSOR_BYTES


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _impossible_preprocessing(artifact: Artifact) -> Iterator[str]:
    preprocessing = artifact.preprocessing
    values = {name: getattr(preprocessing, name) for name in ("mean", "std", "range", "interpolation")}
    values |= {"color": preprocessing.colour, "crop": preprocessing.crop_pct}
    try:
        read_stated({**values, **({"resize": preprocessing.resize} if preprocessing.resize else {})})
        # Assumed numbers were completed at the export. The colour of other channels than an image's stays assumed.
        assumed = tuple(name for name in preprocessing.assumed if name == "color")
        complete(dataclasses.replace(preprocessing, assumed=assumed), NOTHING_STATED, artifact.model_inputs)
    except UsageError as error:
        yield "; ".join(filter(None, ("its preprocessing", error.what, error.why)))
