#!/usr/bin/env bash
# Expected: a tensor that is quantized on one grid, reshaped and quantized on another one has the numbers of the second.
# Instead: coremltools turns `dequantize, reshape, quantize` into a reshape of the first grid's integers, whatever the two
# scales are (its pass common::int_op_canonicalization). What follows multiplies them by the second scale.
# It costs: here all values become a fifth of what they were. The conversion gives no warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check coremltools==9.0 numpy==2.4.6
"$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys
from importlib.metadata import version

import coremltools as ct
import numpy as np
from coremltools.converters.mil.mil import Builder as mb


@mb.program(input_specs=[mb.TensorSpec((2, 6))], opset_version=ct.target.iOS17)
def program(x):
    coarse = mb.quantize(input=x, scale=np.float32(0.5), output_dtype="int8")
    reshaped = mb.reshape(x=mb.dequantize(input=coarse, scale=np.float32(0.5)), shape=[3, 4])
    fine = mb.quantize(input=reshaped, scale=np.float32(0.1), output_dtype="int8")
    return mb.dequantize(input=fine, scale=np.float32(0.1))


def steps(program):
    operations = program.functions["main"].operations
    kinds = ("quantize", "reshape", "dequantize")
    return [(op.op_type, getattr(op, "scale", None) and float(op.scale.val)) for op in operations if op.op_type in kinds]


print("coremltools", version("coremltools"))
before = steps(program)
package = ct.convert(
    program,
    convert_to="mlprogram",
    minimum_deployment_target=ct.target.iOS17,
    compute_precision=ct.precision.FLOAT32,
    skip_model_load=True,
)
after = steps(package._mil_program)
print("operators and scales before:", before)
print("operators and scales after: ", after)
value = 2.0
print(f"of {value} remains {np.round(value / after[0][1]) * after[-1][1]:.2f}")
as_described = [kind for kind, _ in after] == ["quantize", "reshape", "dequantize"] and after[0][1] != after[-1][1]
sys.exit(0 if as_described else 1)
PYTHON
