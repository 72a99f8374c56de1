#!/usr/bin/env bash
# Expected: a converter that fuses "constant - convolution" into the convolution negates its weights, or leaves it alone.
# Instead: litert-torch 0.10.0 puts the constant into the bias of a convolution of several channels and drops the
# subtraction's order, so the file computes something else. Without a fusion (one channel) it is right.
# It costs: a network with `1 - conv(x)`, such as a gate or an inverted mask, is wrong by more than its own values. The
# conversion succeeds without a warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    litert-torch==0.10.0 ai-edge-litert==2.3.0 torch==2.13.0
"$folder/venv/bin/python" - "$folder/model.tflite" 2>/dev/null <<'PYTHON'
import sys
from importlib.metadata import version

import litert_torch
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter


class Less(torch.nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(3, channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1 - self.convolution(x)


print("litert-torch", version("litert-torch"), "ai-edge-litert", version("ai-edge-litert"), "torch", version("torch"))
x = torch.randn(1, 3, 5, 6)
errors = []
for channels in (1, 8):
    model = Less(channels).eval()
    litert_torch.convert(model, (x,)).export(sys.argv[1])
    interpreter = Interpreter(sys.argv[1])
    (computed,) = interpreter.get_signature_runner()(args_0=x.numpy()).values()
    expected = model(x).detach().numpy()
    errors.append(float(np.abs(computed - expected).max() / np.abs(expected).max()))
    operators = [operator["op_name"] for operator in interpreter._get_ops_details()]
    print(f"{channels} channel(s): operators {operators}, largest error over the largest value {errors[-1]:.2g}")
sys.exit(0 if errors[0] < 1e-5 < 0.5 < errors[1] else 1)
PYTHON
