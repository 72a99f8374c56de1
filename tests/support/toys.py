"""Small real things for tests of the device side: a sealed ONNX model, and an engine that misbehaves on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgevit.artifacts.folder import seal
from edgevit.records.artifact import Artifact, Source
from edgevit.records.measurement import Device
from edgevit.records.model import Preprocessing
from edgevit_runtime.record import Job, Operators, TensorSpec

LOCAL = Device(name="local", device_id="unit", device_class="any", transport="local")

# The payload's text says what the engine does: "WHAT WHEN [PATH]", WHEN being load or run.
FAKE_RECIPE = """
import ctypes, os, subprocess, sys, time
from pathlib import Path

from edgevit_runtime.record import Recipe, TensorSpec

RECIPE = Recipe(target="fake", suffix=".txt", engine="fake-engine", precisions=("fp32",), requires=(), extra="")


def act(text, when):
    what, moment, *path = text.split()
    if moment != when:
        return
    if path:
        child = subprocess.Popen(["sleep", "60"])
        Path(path[0] + ".part").write_text(f"{os.getpid()} {child.pid}")
        os.rename(path[0] + ".part", path[0])
    if what == "segv":
        ctypes.string_at(0)
    elif what == "abort":
        os.abort()
    elif what == "exit":
        os._exit(0)
    elif what == "exit_1":
        os._exit(1)
    elif what == "kill":
        os.kill(os.getpid(), 9)
    elif what == "bomb":
        hoard = []
        while True:
            hoard.append(bytearray(b"x" * 10_000_000))
            time.sleep(0.001)  # so that no other program suffers before it is stopped
    elif what == "child_bomb":  # an engine's own helper takes the memory
        subprocess.run([sys.executable, "-c", "import time; hoard = b'x' * 400_000_000; time.sleep(60)"])
    elif what == "hang":
        while True:
            time.sleep(0.01)
    elif what == "spin":
        while True:
            pass
    elif what == "hang_in_c":
        ctypes.PyDLL(None).sleep(60)  # holds the interpreter's lock, as an engine may
    elif what == "import":
        import an_engine_that_is_not_installed
    elif what == "processor":
        from edgevit_runtime.record import ProcessorError
        raise ProcessorError("bf16", "this engine computes in f32 on this one")
    elif what == "raise":
        raise RuntimeError("the engine says no: \\0 \\x1b[31m red")


class Session:
    engine_version, provider = "1.0", "Fake"
    inputs = (TensorSpec("x", (-1, 4)), TensorSpec("y", (-1, 2), "uint8"))
    outputs = (TensorSpec("y", (-1, 2), "uint8"), TensorSpec("x", (-1, 4)))

    def __init__(self, text):
        self.text = text

    def feed(self, tensors, batch):
        self.tensors = tuple(tensors)

    def run(self):
        act(self.text, "run")
        time.sleep(0.0005)

    def fetch(self):
        return self.tensors[::-1]


def load(path, *, threads):
    text = path.read_text()
    act(text, "load")
    return Session(text)
"""


def fake_recipe(folder: Path) -> Path:
    path = folder / "fake.py"
    path.write_text(FAKE_RECIPE)
    return path


def fake_artifact(folder: Path, text: str = "work run", name: str = "fake") -> Artifact:
    folder.mkdir()
    (folder / "payload.txt").write_text(text)
    inputs = (TensorSpec("x", (-1, 4)), TensorSpec("y", (-1, 2), "uint8"))
    return _seal(folder, name, "fake", "payload.txt", inputs, inputs[::-1])


def onnx_artifact(folder: Path, *, dtype: str = "float32", batch: int = -1, external: bool = False) -> Artifact:
    """Build z = x @ w + b with w all 0.5 and b = 0, 1, 2. float16 holds its results exactly."""
    import onnx
    from onnx import helper, numpy_helper

    folder.mkdir()
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    size = "batch" if batch == -1 else batch
    weights = [
        numpy_helper.from_array(np.full((4, 3), 0.5, dtype), "w"),
        numpy_helper.from_array(np.arange(3, dtype=dtype), "b"),
    ]
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["z"])]
    ends = [helper.make_tensor_value_info(name, kind, [size, n]) for name, n in (("x", 4), ("z", 3))]
    graph = helper.make_graph(nodes, "toy", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx", save_as_external_data=external, location="weights.bin", size_threshold=0)
    inputs, outputs = (TensorSpec("x", (batch, 4), dtype),), (TensorSpec("z", (batch, 3), dtype),)
    return _seal(folder, "toy", "onnx", "model.onnx", inputs, outputs)


def _seal(
    folder: Path,
    name: str,
    target: str,
    payload: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
) -> Artifact:
    return seal(
        Artifact(
            folder=folder,
            model=name,
            family="toy",
            target=target,
            precision="fp32",
            payload=payload,
            sha256="",
            size_bytes=0,
            inputs=inputs,
            outputs=outputs,
            dynamic_batch=inputs[0].shape[0] == -1,
            folded=True,
            fold_summary="",
            params=15,
            macs=12,
            source=Source(name, "random", 0),
            preprocessing=Preprocessing(),
            toolchain={},
            stages=(),
            operators=Operators({}),
            created="2026-01-01T00:00:00+00:00",
        )
    )


def job_for(artifact: Artifact, **settings: Any) -> Job:
    """Return a short job: two warm-up runs, five samples, one thread."""
    short: dict[str, Any] = {
        "threads": 1,
        "min_runs": 5,
        "min_ns": 0,
        "warmup_min_runs": 2,
        "warmup_min_ns": 0,
        "warmup_max_ns": 0,
    }
    location = {"folder": "artifact", "payload": artifact.payload, "sha256": artifact.sha256}
    return Job(**{"task": "time", "target": artifact.target, **location, **short, **settings})
