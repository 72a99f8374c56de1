"""Another architecture for real: an arm64 Debian under qemu, made and served by the script that the documents name."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command_line import STRANGER, edgevit
from support.speed import seconds, wait_until
from support.sshd import free_port, listens

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs/examples/arm64_device.sh"
pytestmark = [pytest.mark.slow, pytest.mark.onnx]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The options of `edgevit devices add`. EDGEVIT_ARM64 may name a folder where an earlier `make` is kept."""
    if sys.platform != "linux":
        pytest.skip("only Linux has qemu-user")
    if os.geteuid() or not shutil.which("debootstrap") or not shutil.which("qemu-aarch64-static"):
        pytest.skip("this needs root and: apt install debootstrap qemu-user-static openssh-server")
    folder = Path(os.environ.get("EDGEVIT_ARM64") or tmp_path_factory.mktemp("arm64") / "root")
    environment = {**os.environ, "PYTHON": sys.executable}
    if not folder.exists():
        subprocess.run([SCRIPT, "make", folder], env=environment, check=True)
    port = free_port()
    process = subprocess.Popen([SCRIPT, "serve", folder, str(port)])
    try:
        assert wait_until(lambda: listens(port), 30)
        keys = f"{folder}.keys"
        yield ["--host", "root@127.0.0.1", "--port", str(port), "--identity", f"{keys}/user_key",
               "--known-hosts", f"{keys}/known_hosts"]  # fmt: skip
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=seconds(10))
        subprocess.run([SCRIPT, "stop", folder], check=True)


def test_arm64_is_detected_proven_flagged_and_never_chosen(board: list[str], tmp_path: Path) -> None:
    added = edgevit("devices", "add", "arm64", *board, "--json")
    assert added.returncode == 0, added.stderr
    try:
        detected = json.loads(added.stdout)
        assert (detected["host"]["machine"], detected["emulated"]) == ("aarch64", "qemu-aarch64")
        assert detected["device"]["device_class"].startswith("aarch64-linux-emulated-by-qemu-aarch64")
        assert detected["detected"]["engines"]["onnxruntime"]
        assert detected["detected"]["caches"] == {}, "those of the machine around it"
        (tmp_path / "net.py").write_text(STRANGER)
        export = ("export", "net.py:tiny", "-t", "onnx", "--input-size", "32", "-o", "out")
        assert edgevit(*export, folder=tmp_path).returncode == 0
        here = ("out/net-tiny-32-onnx-fp32", "--device", "arm64")
        verified = edgevit("verify", *here, "--json", folder=tmp_path)
        assert verified.returncode == 0, verified.stderr
        parity = json.loads(verified.stdout)["parity"]
        assert parity["status"] == "passed" and "on arm64 (aarch64-linux-emulated" in parity["how"]
        profiled = edgevit("profile", *here, "--quick", "--db", "x.db", "--json", folder=tmp_path)
        assert profiled.returncode == 0, profiled.stderr
        [row] = json.loads(profiled.stdout)["measurements"]
        assert row["host"]["machine"] == "aarch64" and "emulated" in row["flags"]
        chosen = edgevit("choose", "-d", "arm64", "--max-latency", "1000s", "--db", "x.db", "--json", folder=tmp_path)
        assert chosen.returncode == 6
        [rejected] = json.loads(chosen.stdout)["rejected"]
        assert "emulation" in rejected["reason"]
    finally:
        edgevit("devices", "remove", "arm64")
