"""Networks of other people's libraries: what a library's own configuration says of a network, and the missing extra."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from edgevit.errors import TargetUnavailableError
from edgevit.models.checkpoint import LoadedWeights
from edgevit.records.preprocessing import NOTHING_STATED, StatedPreprocessing
from edgevit_runtime.record import TensorSpec


@dataclass(frozen=True)
class LibraryNetwork:
    """A network in evaluation mode with what its library's configuration states of it.

    loaded: the weights of its own folder, or of the file that was named; None: they are random.
    """

    module: nn.Module
    family: str
    inputs: tuple[TensorSpec, ...]
    preprocessing: StatedPreprocessing = NOTHING_STATED
    labels: tuple[str, ...] = ()
    loaded: LoadedWeights | None = None
    weights_file: str = ""


def require_library(package: str, extra: str, model: str) -> None:
    """Raise TargetUnavailableError, with the extra that has it, where a library is not installed."""
    if importlib.util.find_spec(package) is None:
        problem = f"{model} needs {package}, which is not installed"
        raise TargetUnavailableError(problem, fix=f"pip install 'edgevit[{extra}]'")


def has_weights(folder: Path) -> bool:
    """Return whether a folder holds weights, in a single file or in shards."""
    return any(any(folder.glob(pattern)) for pattern in ("*.safetensors", "*.bin", "*.pt", "*.pth"))


def distinct(labels: Sequence[str]) -> tuple[str, ...]:
    """Return labels of which those that occur twice have their number behind them: ImageNet has two cranes."""
    counts = Counter(labels)
    return tuple(f"{label} ({number})" if counts[label] > 1 else label for number, label in enumerate(labels))
