"""Commands that `edgevit choose` prints: each is taken by the command line, and names what exists here."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer

from edgevit.artifacts.folder import MANIFEST
from edgevit.cards import load_cards
from edgevit.cli import app, main
from edgevit.cli.common import parse_input_size
from edgevit.devices.registry import load_device
from edgevit.recipes import load_recipe
from edgevit.records.artifact import ExportRequest
from edgevit.records.identity import identify
from edgevit.records.measurement import Measurement
from edgevit.records.network import Network
from edgevit.store import LatencyDB
from edgevit.sweeps.plan import plan
from edgevit_runtime.record import TensorSpec
from support.measured import measured, published

MS = 1_000_000
COMMAND = re.compile(r"^  (edgevit .*)$", re.MULTILINE)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of one's own, and a board whose name needs quotes."""
    devices = tmp_path / "devices"
    devices.mkdir()
    text = 'device_id = "b-1"\ndevice_class = "raspberry-pi-5"\ntransport = "ssh"\n'
    (devices / "my board.toml").write_text(text)
    monkeypatch.setattr("edgevit.store.jsonl.shipped_files", list)
    monkeypatch.setattr("edgevit.devices.registry.user_folder", lambda: devices)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my nets.py").write_text("def net(): ...\n")
    return tmp_path


def board(model: str, ms: float, **changes: Any) -> Measurement:
    """Return a measured row on the board."""
    unit = {"device": "my board", "device_id": "b-1", "device_class": "raspberry-pi-5"}
    sha = f"{sum(map(ord, model)):064x}"
    return measured([[round(ms * MS)] * 3] * 2, model=model, artifact_sha256=sha, nonce=model, **{**unit, **changes})


def few(model: str, **changes: Any) -> Measurement:
    """Return a row without a bound on the 90th percentile, which is to be measured again."""
    row = board(model, 5, **changes)
    return identify(dataclasses.replace(row, p90_upper_ns=None, p99_upper_ns=None))


def printed(capsys: pytest.CaptureFixture[str], *options: str, device: str = "my board") -> tuple[list[str], str]:
    """Return the commands that an answer prints, and all of its text."""
    with suppress(SystemExit):
        main(["choose", "--device", device, "--db", "x.db", *options])
    text = capsys.readouterr().out
    return COMMAND.findall(text), text


def store(*rows: Measurement) -> None:
    """Write the rows of an answer."""
    with LatencyDB.open("x.db", shipped=False) as db:
        for row in rows:
            db.add(row)


def parsed(command: str) -> tuple[str, dict[str, Any]]:
    """Return the verb of a printed command and its values, as the command line reads them. Fails where it does not."""
    program, *words = shlex.split(command)
    assert program == "edgevit"
    current, path = typer.main.get_command(app), []
    while hasattr(current, "commands"):
        path.append(words.pop(0))
        current = current.commands[path[-1]]
    return " ".join(path), current.make_context(path[-1], words).params


def check(command: str) -> str:
    """Check that a command is taken, and that all that it names exists; return its verb."""
    verb, values = parsed(command)
    if verb == "sweep":
        size = parse_input_size(values["input_size"])
        template = ExportRequest("", Path("out"), input_size=size)
        requests = plan([values["models"]], [values["targets"]], [values["precision"]], template)
        assert len(requests) == 1 and int(values["threads"]) > 0
        own_file = requests[0].model.rpartition(":")[0]
        assert requests[0].model in load_cards() or Path(own_file).is_file()
        assert values["precision"] in load_recipe(values["targets"]).RECIPE.precisions
        assert load_device(values["device"]).device_id
    elif verb == "devices calibrate":
        assert load_device(values["name"]).device_id
    else:
        raise AssertionError(f"nothing checks {verb}")
    return verb


# Each kind of command


def test_what_may_win_is_measured_by_a_command_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    own = {"inputs": (TensorSpec("x", (1, 3, 96, 128)),)}
    network = Network("function", "d" * 64, "e" * 64)
    store(few("mobilevig_s"), few("my nets.py:net", network=network, **own), few("affnet", threads=2))
    commands, _ = printed(capsys, "--max-latency", "10ms", "--measured-only")
    assert [check(command) for command in commands] == ["sweep"] * 3
    assert any("'my nets.py:net'" in one and "--input-size 96x128" in one for one in commands)
    assert all("--device 'my board'" in one for one in commands)


@pytest.mark.parametrize("device", ["b-1", "raspberry-pi-5"])
def test_a_device_is_named_as_the_other_verbs_know_it(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    store(few("mobilevig_s"))
    [command, *_], _ = printed(capsys, "--max-latency", "10ms", "--measured-only", device=device)
    assert check(command) == "sweep" and command.endswith("--device 'my board'")


def test_models_without_a_number_are_calibrated_by_a_command_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    store(board("mobilevig_s", 5))
    [command], text = printed(capsys)
    assert check(command) == "devices calibrate" and "not measured on my board, nor predicted" in text


# What cannot be run is not printed


def test_no_command_names_a_device_that_is_not_reached(capsys: pytest.CaptureFixture[str]) -> None:
    unit = {"device": "pi9", "device_id": "pi-9", "device_class": "raspberry-pi-9"}
    store(few("mobilevig_s", **unit), board("affnet", 5, **unit))
    commands, text = printed(capsys, "--max-latency", "10ms", device="pi9")
    assert commands == [] and "measure next: mobilevig_s" in text


def test_no_command_names_one_of_several_units(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = here / "devices" / "my board.toml"
    first.with_name("second.toml").write_text(first.read_text().replace("b-1", "b-2"))
    store(few("mobilevig_s"))
    assert printed(capsys, "--max-latency", "10ms", "--measured-only", device="raspberry-pi-5")[0] == []


def test_no_command_names_a_file_that_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    store(few("gone.py:net"))
    commands, text = printed(capsys, "--max-latency", "10ms", "--measured-only")
    assert commands == [] and "measure next: gone.py:net" in text


@pytest.mark.parametrize(
    "row",
    [
        {"model": "resnet50", "target": "onnx", "precision": "fp32"},
        {"model": "mobilevig_s", "target": "qnn_dlc", "precision": "fp32"},
        {"model": "mobilevig_s", "target": "onnx", "precision": "w8a16"},
    ],
    ids=lambda row: row["model"] + row["target"] + row["precision"],
)
def test_what_edgevit_cannot_build_is_not_suggested(row: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    unit = {"device": "my board", "device_id": "b-1", "device_class": "raspberry-pi-5"}
    store(published(p50_ns=5 * MS, p90_ns=None, p99_ns=None, inputs=(), artifact_sha256="", **row, **unit))
    commands, text = printed(capsys, "--max-latency", "10ms", "--published", "--measured-only", "--task", "any")
    assert not [one for one in commands if " sweep " in one] and "measure next" not in text
    assert "--percentile 50" in text


def test_an_evaluation_names_the_very_artifact_and_no_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = board("my nets.py:net", 5)
    store(row)
    folder = here / "artifacts" / "net"
    folder.mkdir(parents=True)
    commands, text = printed(capsys)
    assert commands == [] and "evaluate next: my nets.py:net" in text and "its artifact" not in text
    (folder / MANIFEST).write_text(json.dumps({"artifact": {"sha256": row.artifact_sha256}}))
    (folder.parent / "broken").mkdir()
    (folder.parent / "broken" / MANIFEST).write_text("{")
    assert "its artifact is in artifacts/net" in printed(capsys)[1]


def test_a_device_without_rows_is_told_of_with_a_command_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    store(few("mobilevig_s", device="pi9", device_id="pi-9", device_class="raspberry-pi-9"))
    fixes = {}
    for device in ("my board", "pi7"):
        with pytest.raises(SystemExit):
            main(["choose", "--device", device, "--db", "x.db", "--json"])
        fixes[device] = json.loads(capsys.readouterr().err)["error"]["fix"]
    verb, values = parsed(fixes["my board"])
    assert verb == "sweep" and load_device(values["device"]).name == "my board"
    assert plan([values["models"]], [values["targets"]], ["fp32"], ExportRequest("", Path("out")))
    assert fixes["pi7"] == "edgevit devices"
