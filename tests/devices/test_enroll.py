"""A person's own devices: from an address to a row, a proof, and away again. The board is this machine."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgevit.artifacts.folder import open_artifact, reseal
from edgevit.cli import main
from edgevit.devices import enroll
from edgevit.devices.registry import load_device, local_device, unit_id, user_folder
from edgevit.errors import DeviceError, UnknownNameError, UsageError
from edgevit.measurement.runner import Protocol
from edgevit.records.artifact import Parity
from edgevit.records.measurement import Device
from edgevit_runtime.environment import host
from edgevit_runtime.record import DeviceInventory, Job, Reply
from support.command_line import STRANGER, edgevit, refused
from support.sshd import Sshd


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("platformdirs.user_config_path", lambda name: tmp_path / "config" / name)
    return user_folder()


class Answering:
    """A transport that answers with this."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply

    def run(self, device: Device, files: Mapping[str, Path], job: Job, *, timeout_s: float) -> Reply:
        assert job.task == "detect" and "onnxruntime" in job.engines
        return self.reply


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def use(**fields: Any) -> None:
        reply = Reply(**{"status": "ok", "host": host(), "unit": "serial", "detected": DETECTED, **fields})
        monkeypatch.setattr(enroll, "load_transport", lambda name: Answering(reply))

    return use


DETECTED = DeviceInventory("Debian 12", "A board", 2, ("GPU",), {"onnxruntime": "1.2"})


def flags(sshd: Sshd) -> list[str]:
    return [
        word
        for name, value in sshd.device().options.items()
        for word in (f"--{name.replace('_', '-')}", value)
        if value
    ]


def test_from_an_address_to_a_proof(sshd: Sshd, tmp_path: Path) -> None:
    shown = edgevit("devices", "add", "board", *flags(sshd))
    assert shown.returncode == 0, shown.stderr
    assert "edgevit sweep --models FILE.py:FUNCTION --targets onnx --device board" in shown.stdout
    assert "onnxruntime" in shown.stdout
    assert "there is a device board" in refused(2, "devices", "add", "board", *flags(sshd))
    try:
        listed = json.loads(edgevit("devices", "--json").stdout)["devices"]
        assert [device["name"] for device in listed] == ["local", "board"]
        assert listed[0]["device_id"] == listed[1]["device_id"], "it is this very unit"
        board = json.loads(edgevit("devices", "show", "board", "--json").stdout)
        assert board["device"]["device_class"] == local_device().device_class
        assert board["detected"]["engines"]["onnxruntime"] and board["emulated"] == ""
        measure_and_verify(tmp_path)
    finally:
        removed = edgevit("devices", "remove", "board")
    assert removed.returncode == 0 and "board.toml" in removed.stdout
    assert "no device of yours is called 'board'" in refused(2, "devices", "remove", "board")
    assert "no device is called 'board'" in refused(2, "profile", tmp_path / "out/net-tiny-32-onnx-fp32", "-d", "board")


def measure_and_verify(folder: Path) -> None:
    (folder / "net.py").write_text(STRANGER)
    sweep = ("sweep", "--models", "net.py:tiny", "--targets", "onnx", "--input-size", "32", "--out", "out", "--quick")
    process = edgevit(*sweep, "--device", "board", "--json", "--db", "x.db", folder=folder)
    assert process.returncode == 0, process.stderr
    [row] = json.loads(process.stdout)["measurements"]
    assert (row["device"], row["status"], "emulated" in row["flags"]) == ("board", "ok", False)
    process = edgevit(*sweep, "--device", "board", "--json", "--db", "x.db", folder=folder)
    assert (json.loads(process.stdout)["held"], json.loads(process.stdout)["measurements"]) == (1, [])
    plan = edgevit(*sweep, "--device", "board", "--dry-run", "--json", "--db", "x.db", folder=folder)
    assert [step["does"] for step in json.loads(plan.stdout)["steps"]] == ["nothing"]
    artifact: Any = open_artifact(folder / "out/net-tiny-32-onnx-fp32")
    verify = ("verify", "out/net-tiny-32-onnx-fp32", "--device", "board", "--db", "x.db")
    process = edgevit(*verify, "--json", folder=folder)
    assert json.loads(process.stdout)["manifest_updated"] is False, "it had passed already"
    before = reseal(artifact, unproven(artifact.parity))
    process = edgevit(*verify, folder=folder)
    assert process.returncode == 0, process.stderr
    assert (
        "passed: onnxruntime" in process.stdout
        and "on board (" in process.stdout
        and "before: built_not_run" in process.stdout
    )
    after: Any = open_artifact(folder / "out/net-tiny-32-onnx-fp32")
    assert (after.parity.status, after.sha256) == ("passed", before.sha256)
    assert "on board (" in after.parity.how
    assert [check.stage for check in after.parity.checks] == [check.stage for check in artifact.parity.checks]


def unproven(parity: Parity) -> Parity:
    """Return the parity of an export where the engine cannot run."""
    stages = tuple(check for check in parity.checks if check.stage != "artifact")
    return Parity("built_not_run", "not run here", parity.inputs, 0.0, None, 1.0, "", stages)


def test_verify_where_the_engine_is_missing(sshd: Sshd, tmp_path: Path) -> None:
    """Exit code 5, as for a target that this machine cannot run, and nothing changes."""
    python = tmp_path / "bare/bin/python"
    import subprocess
    import sys

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    (tmp_path / "net.py").write_text(STRANGER)
    export = ("export", "net.py:tiny", "-t", "onnx", "--input-size", "32", "-o", "out")
    assert edgevit(*export, folder=tmp_path).returncode == 0
    device = ("devices", "add", "bare", *flags(sshd)[:-4], "--python", python)
    assert edgevit(*device).returncode == 0
    try:
        error = refused(5, "verify", "out/net-tiny-32-onnx-fp32", "--device", "bare", folder=tmp_path)
        assert "target onnx cannot run on bare" in error and f"{python} -m pip install onnxruntime" in error
        process = edgevit("profile", "out/net-tiny-32-onnx-fp32", "-d", "bare", "--quick", "--json", folder=tmp_path)
        assert [row["status"] for row in json.loads(process.stdout)["measurements"]] == ["unsupported"]
    finally:
        edgevit("devices", "remove", "bare")


def test_a_device_is_kept_as_it_was_found(own_folder: Path, answer: Callable[..., None]) -> None:
    answer()
    options = {"host": 'pi"\\\x7f\u00e9', "port": "22"}
    enrolled = enroll.add("pi-5", "ssh", options)
    text = (own_folder / "pi-5.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["options"] == options
    assert enrolled.device == load_device("pi-5")
    assert enrolled.device.device_id == unit_id("serial", enrolled.host)
    assert "serial" not in text, "the unit's own number is not kept"
    facts = dict(enrolled.facts())
    assert facts["silicon"].split(", ")[0] in enrolled.device.device_class
    assert "2 cores" in facts["clusters"] or host().cores != 2
    assert "a copy of its disk" not in facts["unit"]
    answer(clonable_unit=True)
    assert "a copy of its disk passes for it" in dict(enroll.show("pi-5").facts())["unit"]
    assert [path.name for path in own_folder.iterdir()] == ["pi-5.toml"]
    enroll.remove("pi-5")
    assert not list(own_folder.iterdir())


@pytest.mark.parametrize("name", ["local", "", "a/b", "../x", "-x", ".x", "a b", "a\n", "x" * 65])
def test_names_that_are_none(own_folder: Path, answer: Callable[..., None], name: str) -> None:
    answer()
    with pytest.raises(UsageError, match="cannot be the name of a device"):
        enroll.add(name, "ssh", {"host": "h"})
    assert not own_folder.exists()


def test_what_cannot_be_asked_is_not_kept(own_folder: Path, answer: Callable[..., None]) -> None:
    answer(status="timeout", error="no reply after 120 s", detected=None)
    with pytest.raises(DeviceError, match="no reply after 120 s"):
        enroll.add("pi", "ssh", {"host": "h"})
    assert not own_folder.exists()
    with pytest.raises(UnknownNameError):
        enroll.remove("pi")


def test_folder_that_cannot_be_written(own_folder: Path, answer: Callable[..., None]) -> None:
    answer()
    own_folder.parent.parent.mkdir(parents=True)
    own_folder.parent.write_text("")
    with pytest.raises(DeviceError, match="cannot be written"):
        enroll.add("pi", "ssh", {"host": "h"})


@pytest.mark.parametrize("is_clonable", [False, True])
def test_a_unit_with_two_names_is_told(
    own_folder: Path, answer: Callable[..., None], capsys: pytest.CaptureFixture[str], is_clonable: bool
) -> None:
    def add(name: str, *words: str) -> None:
        with pytest.raises(SystemExit, match="0"):
            main(["devices", "add", name, *words])

    answer(unit="one", clonable_unit=is_clonable)
    add("first", "--host", "pi@192.0.2.1")
    assert "warning" not in capsys.readouterr().err
    add("second", "--host", "pi@192.0.2.2", "--json")
    out, error = capsys.readouterr()
    assert json.loads(out)["also_named"] == ["first"] and "warning: second is the unit that is here as first" in error
    assert ("machine-id" in error) == is_clonable
    answer(unit="another")
    add("third", "--host", "pi@192.0.2.3")
    assert "warning" not in capsys.readouterr().err


def test_local_can_be_shown() -> None:
    detected = enroll.show("local")
    assert detected.device.device_id == local_device().device_id
    assert detected.device == Device(**{**vars(local_device())})
    assert dict(detected.facts())["python"] == host().python


def test_a_sweep_goes_by_the_engine_that_the_device_has(tmp_path: Path) -> None:
    """The device's may be older than ours; its rows are held all the same, and measured again once it is renewed."""
    from edgevit.store import LatencyDB
    from edgevit.sweeps.plan import RowQuery, still_to_measure
    from support import toys
    from support.measured import measured

    artifact = toys.onnx_artifact(tmp_path / "toy")
    board = Device("board", "unit", "class", "ssh")
    row = measured(artifact_sha256=artifact.sha256, device_id="unit", engine_version="1.23.2", threads=1)
    with LatencyDB.open(f"{tmp_path}/x.db") as database:
        database.add(row)
    for engines, expected in (({"onnxruntime": "1.23.2"}, []), ({"onnxruntime": "1.24"}, [artifact]), ({}, [artifact])):
        query = RowQuery(board, 1, f"{tmp_path}/x.db", Protocol(), engines)
        assert still_to_measure([artifact], query) == expected
