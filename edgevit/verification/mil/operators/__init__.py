"""MIL's operators in torch, one module per kind; each module lists its own in OPERATORS.

Defaults are those of the MIL reference,
https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html.
"""

from . import (
    activations,
    arithmetic,
    convolution,
    indexing,
    normalization,
    pooling,
    quantization,
    reductions,
    resizing,
    shapes,
)
from .arguments import Arguments, Operator

OPERATORS: dict[str, Operator] = {
    **activations.OPERATORS,
    **arithmetic.OPERATORS,
    **convolution.OPERATORS,
    **indexing.OPERATORS,
    **normalization.OPERATORS,
    **pooling.OPERATORS,
    **quantization.OPERATORS,
    **reductions.OPERATORS,
    **resizing.OPERATORS,
    **shapes.OPERATORS,
}

__all__ = ["OPERATORS", "Arguments", "Operator"]
