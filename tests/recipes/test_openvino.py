"""OpenVINO's own matters: the precision that is computed in, and nothing sent anywhere."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from edgevit.exporting.pipeline import export_subject
from edgevit.recipes import load_recipe
from edgevit.records.artifact import ExportRequest
from support.command_line import programs
from support.speed import seconds
from support.subjects import SIZE, as_subject, tiny_file, tiny_subject
from support.targets import require_instructions

pytestmark = pytest.mark.openvino

# No other test converts networks of these seeds, so that the programs below convert theirs themselves.
SEED_OF_EXPORT, SEED_ON_AVX2 = 7, 8
# A process that forks, or opens a socket, ends.
EXPORT = """
import os, socket, sys
from pathlib import Path

assert "openvino" not in sys.modules

def refuse(*arguments, **how):
    os._exit(9)

os.register_at_fork(before=refuse)
socket.socket.connect = refuse

from edgevit.exporting.child_process import export_here
from edgevit.records.artifact import ExportRequest
export_here(ExportRequest("openvino", Path({out!r}), model={model!r}, input_size={size}))
assert not [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
"""


def test_an_export_sends_nothing_anywhere(tmp_path: Path) -> None:
    model, file = f"{tiny_file(tmp_path, SEED_OF_EXPORT)}:tiny", tmp_path / "export.py"
    file.write_text(EXPORT.format(size=SIZE, model=model, out=str(tmp_path / "out")))
    command = [str(programs() / "python"), str(file)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=seconds(300), check=False)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize(("precision", "computes_in"), [("fp32", "f32"), ("fp16", "f32"), ("bf16", "bf16")])
def test_it_computes_in_the_precision_that_was_asked_for(precision: str, computes_in: str, tmp_path: Path) -> None:
    require_instructions("openvino", precision)
    artifact = export_subject(tiny_subject(tmp_path), ExportRequest("openvino", tmp_path / "out", precision))
    session = load_recipe("openvino").load(artifact.folder / artifact.payload, threads=1)
    assert session.provider == f"CPU {computes_in}"
    assert artifact.parity is not None and artifact.parity.how.endswith(f"CPU {computes_in}, separate process")


def test_half_weights_take_half_the_room(tmp_path: Path) -> None:
    sizes = {}
    for precision in ("fp32", "fp16"):
        artifact = export_subject(tiny_subject(tmp_path), ExportRequest("openvino", tmp_path / "out", precision))
        (weights,) = (artifact.folder / artifact.payload).glob("*.bin")
        sizes[precision] = weights.stat().st_size
    assert sizes["fp16"] < 0.6 * sizes["fp32"]


# ---- a processor without bfloat16 ------------------------------------------------------------------------------------

AVX2_ONLY = {"OV_CPU_MAX_ISA": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}  # OpenVINO and its oneDNN each have a limit
# A worker inherits no variable that could change a number; these two must reach it, in a Python that starts with them.
ON_AVX2 = """
import json, sys
from pathlib import Path
from types import SimpleNamespace

assert "openvino" not in sys.modules
sys.path.insert(0, {tests!r})

from edgevit.devices import transports
from edgevit.devices.transports import local

local.sys = SimpleNamespace(executable={python!r})
local.INHERITED = (*transports.INHERITED, "OV_CPU_MAX_ISA", "ONEDNN_MAX_CPU_ISA")

from edgevit.artifacts.trust import code_digests
from edgevit.cli.export import finishing_line
from edgevit.devices.registry import local_device
from edgevit.errors import TargetUnavailableError
from edgevit.exporting.pipeline import export_subject, verify_artifact
from edgevit.records.artifact import ExportRequest
from edgevit.measurement.runner import Protocol, profile
from edgevit.recipes import missing_instructions
from edgevit_runtime.codec import to_data
from support.subjects import tiny_subject

folder = Path({folder!r})
requests = [ExportRequest("openvino", folder, name) for name in ("fp32", "bf16")]
artifacts = {{request.precision: export_subject(tiny_subject(folder, {seed}), request) for request in requests}}
artifact = artifacts["bf16"]
row = profile(artifact, local_device(), threads=1, protocol=Protocol(1, 1, 0, None))
try:
    verified = verify_artifact(artifact, built_here=code_digests(artifact)).status
except TargetUnavailableError as error:
    verified = error.why
print(json.dumps({{
    "lacking": {{name: missing_instructions("openvino", name) for name in ("fp32", "fp16", "bf16")}},
    "fp32": artifacts["fp32"].parity.status,
    "parity": to_data(artifact.parity),
    "line": finishing_line(artifact),
    "row": [row.status, row.parity_status, row.error],
    "verified": verified,
}}))
"""


def test_a_processor_without_bfloat16_exports_what_it_cannot_run(tmp_path: Path) -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("only x86-64 processors are held to AVX2 by these variables")
    file = tmp_path / "on_avx2.py"
    places = {"folder": str(tmp_path), "tests": str(Path(__file__).parents[1]), "python": sys.executable}
    file.write_text(ON_AVX2.format(seed=SEED_ON_AVX2, **places))
    process = subprocess.run([str(programs() / "python"), str(file)], env=os.environ | AVX2_ONLY, capture_output=True,
                             text=True, timeout=seconds(300), check=False)  # fmt: skip
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout.splitlines()[-1])
    why = "needs a processor with bf16: OpenVINO computes in f32 on this one"
    assert report["lacking"] == {"fp32": "", "fp16": "", "bf16": "bf16"}
    assert report["fp32"] == "passed"
    parity = report["parity"]
    assert (parity["status"], parity["needs"], parity["failing_stage"]) == ("needs_processor", "bf16", "")
    assert parity["how"].startswith(f"not run here: {why}; convert: openvino ")
    assert {check["stage"] for check in parity["checks"]} == {"fold", "convert"}, "what this processor computes"
    assert "built, not run (it needs a processor with bf16): max_rel " in report["line"]
    assert " up to stage convert, " in report["line"]
    assert report["row"] == ["unsupported", "needs_processor", why]
    assert report["verified"] == why


def test_weights_in_int8_alone_leave_activations_in_float(tmp_path: Path) -> None:
    """By itself OpenVINO rounds the activations of fully connected layers, and differs by 42 dB."""
    layers = (nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 64), nn.ReLU())
    artifact = export_subject(
        as_subject(nn.Sequential(*layers, nn.Linear(64, 32))), ExportRequest("openvino", tmp_path, "w8")
    )
    assert artifact.parity is not None
    (exact,) = [check for check in artifact.parity.checks if (check.stage, check.against) == ("artifact", "simulation")]
    assert exact.snr_db is not None and exact.snr_db > 100
