#!/usr/bin/env bash
# Expected: torch's ONNX exporter keeps the `divisor_override` of an average pool, writes it as a multiplication, or
# refuses it: ONNX's AveragePool has no such attribute.
# Instead: torch 2.13.0 drops it without a warning, in the exporter of today and in the one before. A sum over a window,
# which is written `AvgPool2d(3, divisor_override=1)`, becomes a mean: a ninth of the numbers.
# It costs: a network that sums over windows, or divides by a constant as its framework did, is wrong by that factor. The
# checker accepts the file, and it runs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.31.1
"$folder/venv/bin/python" - "$folder/model.onnx" 2>/dev/null <<'PYTHON'
import contextlib
import io
import sys
from importlib.metadata import version

import onnx
import onnxruntime
import torch

print(*(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxscript", "onnxruntime")), sep=", ")
x = torch.ones(1, 1, 6, 6)
model = torch.nn.AvgPool2d(3, divisor_override=1).eval()
expected = model(x)[0, 0, 0, 0].item()
as_described = expected == 9
for dynamo in (True, False):
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(model, (x,), sys.argv[1], dynamo=dynamo, verbose=False)
    file = onnx.load(sys.argv[1])
    onnx.checker.check_model(file, full_check=True)
    session = onnxruntime.InferenceSession(sys.argv[1])
    computed = float(session.run(None, {file.graph.input[0].name: x.numpy()})[0][0, 0, 0, 0])
    operators = [node.op_type for node in file.graph.node]
    print(f"dynamo={dynamo}: operators {operators}, sum of nine ones: torch {expected:g}, the file {computed:g}")
    as_described = as_described and abs(computed - 1) < 1e-6
sys.exit(0 if as_described else 1)
PYTHON
