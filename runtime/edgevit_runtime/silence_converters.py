"""Keeps what converters and engines say to everybody, whatever the model, off people's screens. Errors come through.

Each is here with its reason, and is filtered by its words: another message of the same logger or class is shown.
Converters import each other where they are installed, so one list serves all recipes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    (r".*treespec, LeafSpec.*", FutureWarning),  # torch 2.13 of itself, when it copies its own tree specs
    (r"`torch\.jit\.\w+` is deprecated", DeprecationWarning),  # the only format of torch that pnnx reads
    (r"# The axis name: batch will not be used", UserWarning),  # torch keeps one name for all inputs' first dimension
    (r"(read|open)_(text|binary) is deprecated", DeprecationWarning),  # ExecuTorch 1.5, reading its own tables
    (r"Function _TORCH_OPS_REGISTRY", DeprecationWarning),  # coremltools 9.0 calls what it deprecates
    (r"Implicitly cleaning up", ResourceWarning),  # coremltools 9.0 leaves its temporary folder to be collected
)
_LOGS: tuple[tuple[str, str], ...] = (
    ("torch.onnx._internal.exporter._registration", "torchvision is not installed"),  # of operators nobody uses here
    ("torch.utils._pytree", "is now natively supported by torch.compile"),  # an enumeration registered in an old way
    ("torchao", "Failed to load"),  # its libraries for GPUs
    ("torchao.kernel.intmm", "Detected no triton"),  # the same
)


class _Unsaid(logging.Filter):
    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words

    def filter(self, record: logging.LogRecord) -> bool:
        return self._words not in record.getMessage()


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing that is listed above is shown inside; handlers that an import puts on the root logger are taken off."""
    handlers = logging.root.handlers[:]
    filters = [(logging.getLogger(name), _Unsaid(words)) for name, words in _LOGS]
    for logger, unsaid in filters:
        logger.addFilter(unsaid)
    try:
        with warnings.catch_warnings():
            for message, category in _WARNINGS:
                warnings.filterwarnings("ignore", message=message, category=category)
            yield
    finally:
        logging.root.handlers[:] = handlers
        for logger, unsaid in filters:
            logger.removeFilter(unsaid)
