"""Filter for warnings and log messages that converters and engines print for every model. Errors are shown.

Each entry has its reason, and matches the text of its message: other messages of the same logger or class are shown.
Converters import each other where they are installed, so one list serves all recipes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    (r".*treespec, LeafSpec.*", FutureWarning),  # torch 2.13 warns of itself, when it copies its own tree specs
    (r"`torch\.jit\.\w+` is deprecated", DeprecationWarning),  # the only format of torch that pnnx reads
    (r"# The axis name: batch will not be used", UserWarning),  # torch keeps one name for all inputs' first dimension
    (r"(read|open)_(text|binary) is deprecated", DeprecationWarning),  # ExecuTorch 1.5, reading its own tables
    (r"Function _TORCH_OPS_REGISTRY", DeprecationWarning),  # coremltools 9.0 calls what it deprecates
    (r"Implicitly cleaning up", ResourceWarning),  # coremltools 9.0 leaves its temporary folder to be collected
)
_LOGS: tuple[tuple[str, str], ...] = (
    ("torch.onnx._internal.exporter._registration", "torchvision is not installed"),  # its operators are not used here
    ("torch.utils._pytree", "is now natively supported by torch.compile"),  # an enumeration registered in an old way
    ("torchao", "Failed to load"),  # its libraries for GPUs
    ("torchao.kernel.intmm", "Detected no triton"),  # the same
)


class _HideMessage(logging.Filter):
    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words

    def filter(self, record: logging.LogRecord) -> bool:
        return self._words not in record.getMessage()


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the listed messages inside the context, and remove handlers that an import adds to the root logger."""
    handlers = logging.root.handlers[:]
    filters = [(logging.getLogger(name), _HideMessage(words)) for name, words in _LOGS]
    for logger, hide in filters:
        logger.addFilter(hide)
    try:
        with warnings.catch_warnings():
            for message, category in _WARNINGS:
                warnings.filterwarnings("ignore", message=message, category=category)
            yield
    finally:
        logging.root.handlers[:] = handlers
        for logger, hide in filters:
            logger.removeFilter(hide)
