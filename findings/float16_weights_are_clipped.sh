#!/usr/bin/env bash
# Expected: converting a model to half precision rounds its weights to the nearest half-precision number.
# Instead: onnxconverter-common clips weights to [-10000, 10000] and lifts small ones to 1e-7 by default, although half
# precision reaches 65504 and 6e-8. A weight of 20000 is stored as 10000, and one of 1e-8, which would round to 0, as 1e-7.
# It costs: a layer whose folded scale is large is off by a factor of two. The conversion succeeds; a Python warning names
# the extreme weights only, and is easily lost in a log.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnxconverter-common==1.16.0 onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxconverter_common import float16

weights = np.array([[20000.0], [1e-8]], dtype=np.float32)
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "weights"], ["y"])],
    "scale",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
    [numpy_helper.from_array(weights, "weights")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
onnx.checker.check_model(model, full_check=True)


def run(content: bytes, dtype: type) -> float:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return float(session.run(None, {"x": np.array([[1.0, 0.0]], dtype)})[0][0, 0])


expected = run(model.SerializeToString(), np.float32)
with warnings.catch_warnings(record=True) as raised:
    warnings.simplefilter("always")
    half = float16.convert_float_to_float16(model)
converted = run(half.SerializeToString(), np.float16)
stored = numpy_helper.to_array(half.graph.initializer[0]).ravel()
print("onnxconverter-common", version("onnxconverter-common"), "onnx", version("onnx"))
print("weights:               ", weights.ravel())
print("rounded by numpy:      ", weights.astype(np.float16).ravel())
print("stored by the converter:", stored)
print("y of x = [1, 0]: float32", expected, "converted", converted)
print("warnings:", [str(warning.message) for warning in raised])
clipped = stored[0] == np.float16(10000) and stored[1] == np.float16(1e-7) and (expected, converted) == (20000.0, 10000.0)
sys.exit(0 if clipped else 1)
PYTHON
