"""OpenVINO's own matters: the precision that is computed in, and nothing sent anywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgevit.exporting.pipeline import Order, export_subject
from edgevit.recipes import load_recipe
from support.subjects import SIZE, tiny_file, tiny_subject

pytestmark = pytest.mark.openvino

# A process that forks, or opens a socket, ends.
EXPORT = """
import os, socket, sys
from pathlib import Path

def refuse(*arguments, **how):
    os._exit(9)

os.register_at_fork(before=refuse)
socket.socket.connect = refuse

from edgevit.separate import Wanted, export_here
export_here(Wanted(sys.argv[1], "openvino", Path(sys.argv[2]), input_size={size}))
assert not [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
"""


def test_an_export_sends_nothing_anywhere(tmp_path: Path) -> None:
    model = f"{tiny_file(tmp_path)}:tiny"
    command = [sys.executable, "-c", EXPORT.format(size=SIZE), model, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("precision", "computes_in"), [("fp32", "f32"), ("fp16", "f32"), ("bf16", "bf16")])
def test_it_computes_in_the_precision_that_was_asked_for(precision: str, computes_in: str, tmp_path: Path) -> None:
    artifact = export_subject(tiny_subject(tmp_path), Order("openvino", tmp_path / "out", precision))
    session = load_recipe("openvino").load(artifact.folder / artifact.payload, threads=1)
    assert session.provider == f"CPU {computes_in}"
    assert artifact.parity is not None and artifact.parity.how.endswith(f"CPU {computes_in}, separate process")


def test_half_weights_take_half_the_room(tmp_path: Path) -> None:
    sizes = {}
    for precision in ("fp32", "fp16"):
        artifact = export_subject(tiny_subject(tmp_path), Order("openvino", tmp_path / "out", precision))
        (weights,) = (artifact.folder / artifact.payload).glob("*.bin")
        sizes[precision] = weights.stat().st_size
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
