#!/usr/bin/env bash
# Expected: a simplifier that leaves a node as it is also leaves the node's metadata_props, where exporters of PyTorch
# models keep the module and the source line that the node came from.
# Instead: onnxsim returns nodes without metadata_props, also where it changed nothing, and adds its own settings and
# counts to the model's metadata_props.
# It costs: after the usual export and simplification no tool can tell which layer of the network a node belongs to. A
# program that reads the model's metadata as the author's own finds entries that the author never wrote.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxsim==0.8.1 onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

import onnx
import onnxsim
from onnx import TensorProto, helper

node = helper.make_node("Relu", ["x"], ["y"], name="activation")
node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="stem.activation")
graph = helper.make_graph(
    [node],
    "net",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
model.metadata_props.add(key="mean", value="0.5")
onnx.checker.check_model(model, full_check=True)
simplified, equal = onnxsim.simplify(model)
assert equal
kept = {entry.key: entry.value for entry in simplified.graph.node[0].metadata_props}
of_model = [entry.key for entry in simplified.metadata_props]
print("onnxsim", version("onnxsim"), "onnx", version("onnx"))
print("nodes before and after:", [n.op_type for n in graph.node], [n.op_type for n in simplified.graph.node])
print("metadata of the node:   before", {"pkg.torch.onnx.name_scopes": "stem.activation"}, "after", kept)
print("metadata of the model:  before ['mean'] after", of_model)
as_described = not kept and "mean" in of_model and any(key.startswith("onnxsim.") for key in of_model)
sys.exit(0 if as_described else 1)
PYTHON
