"""Reference evaluator of Core ML's ML programs: computes a saved .mlpackage where Core ML cannot run.

The package travels to the worker process like a recipe, so it imports nothing of edgevit, and its modules import each
other relatively. It reads the specification and the weights from disk and runs the operators of Core ML's model
intermediate language (MIL) in order, in torch. Each result is computed in float32 and rounded to its declared type:
half precision rounds and overflows after every operator. What a device does inside one operator, such as the width of
its sums, is not modelled.
"""

from edgevit_runtime.record import Recipe

from .operators import OPERATORS
from .program import Operation, Program, read_program
from .run import Result, Trace, load, planar_image, run_program, trace

RECIPE = Recipe(
    target="mil",
    suffix=".mlpackage",
    engine="torch",
    precisions=("fp32", "fp16", "int8", "w8"),
    requires=("torch",),
    extra="export",
)

__all__ = [
    "OPERATORS",
    "RECIPE",
    "Operation",
    "Program",
    "Result",
    "Trace",
    "load",
    "planar_image",
    "read_program",
    "run_program",
    "trace",
]
