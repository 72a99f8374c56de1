"""A network whose checkpoint or code was overwritten here is no silent pick; other files are no subject."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
import torch

import edgevit
from edgevit.artifacts.source_files import SourceFiles
from edgevit.exporting.child_process import export_here
from edgevit.models.user_code import import_definitions
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit.records.choice import Budget, Choice
from edgevit.records.network import Network
from edgevit.selection import CandidateFilter, Evidence, choose_among
from edgevit.store import LatencyDB
from edgevit.sweeps.freshness import is_current
from support.candidates import CARDS, row
from support.measured import measured

NET = """
import torch
from torch import nn
from parts import act


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), act(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
"""
PARTS = "from torch import nn\n\n\ndef act():\n    return nn.ReLU()\n"


@pytest.fixture
def request_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExportRequest:
    """Return the request for a checkpoint of a function, whose folder has a second file of code."""
    monkeypatch.chdir(tmp_path)
    for name in ("XDG_DATA_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    Path("net.py").write_text(NET, encoding="utf-8")
    Path("parts.py").write_text(PARTS, encoding="utf-8")
    save(1)
    return ExportRequest("onnx", Path("artifacts"), model="net.py:net", input_size=(8, 8), weights=Path("best.pt"))


def save(factor: float, file: str = "best.pt") -> None:
    state = import_definitions("net.py:net").net().state_dict()
    torch.save({name: value * factor for name, value in state.items()}, file)


def answer(*artifacts: Artifact, outdated: bool = False) -> Choice:
    """Return the answer from a row of each artifact, the first one the fastest."""
    rows = [
        row(one.model, 5 + place, artifact_sha256=one.sha256, graph_digest=one.graph_digest, network=one.network,
            measurement_id=str(place))
        for place, one in enumerate(artifacts)
    ]  # fmt: skip
    evidence = Evidence(files=SourceFiles())
    asked = CandidateFilter(outdated=outdated)
    return choose_among(
        rows, "pi5", Budget(objective="fastest"), cards=CARDS, candidate_filter=asked, evidence=evidence
    )


def codes(choice: Choice) -> list[str]:
    return [reason.code for rejection in choice.rejected for reason in rejection.reasons]


@pytest.mark.onnx
def test_an_overwritten_checkpoint_is_no_candidate_unless_asked_for(request_of: ExportRequest) -> None:
    old = export_here(request_of)
    assert answer(old).picked and not answer(old).rejected
    save(2)
    choice = answer(old)
    assert choice.picked is None and codes(choice) == ["file_changed"] and choice.rejected[0].kind == "superseded"
    assert choice.rejected[0].reason.startswith("best.pt holds another network now: --outdated")
    [text] = [one.text for one in choice.notes if one.kind == "outdated_left_out"]
    assert text.startswith("left out: 1 row(s) of earlier networks of best.pt") and choice.outcome == "unmeasured"
    new = export_here(request_of)
    assert answer(old, new).picked and answer(old, new).picked.network == new.network  # type: ignore[union-attr]
    choice = answer(old, new, outdated=True)
    assert choice.picked and choice.picked.network == old.network
    [kind] = [one.kind for one in choice.notes if one.kind == "pick_file_changed"]
    assert kind and not choice.rejected
    # A copy of what it held tells that it is still to be had.
    shutil.copytree(".", "copy", ignore=shutil.ignore_patterns("home", "artifacts", "copy"))
    os.chdir("copy")
    save(1)
    assert export_here(request_of).network == old.network and not codes(answer(old, new))


@pytest.mark.onnx
def test_nothing_is_said_of_files_that_are_not_here(request_of: ExportRequest) -> None:
    old = export_here(request_of)
    save(2, "other.pt")
    Path("best.pt").unlink()
    assert not codes(answer(old)) and not SourceFiles().is_current(old.network)
    shutil.rmtree("home")
    save(2)
    assert not codes(answer(old)), "no export of this machine is known"
    other = Network("file", "1" * 64, "1" * 64, "2.9.0", file="best.pt")
    assert SourceFiles().change_of(other) is None


@pytest.mark.onnx
def test_changed_code_is_named_and_excluded_once_it_gave_another_network(request_of: ExportRequest) -> None:
    old = export_here(request_of)
    Path("parts.py").write_text(f"# a remark\n{PARTS}", encoding="utf-8")
    [text] = [one.text for one in answer(old).notes if one.kind == "pick_file_changed"]
    assert text.startswith("parts.py was changed since") and not codes(answer(old))
    # A sweep looks, finds the same network, and the remark is forgotten.
    assert is_current(old, request_of)
    assert not [one for one in answer(old).notes if one.kind == "pick_file_changed"]
    Path("parts.py").write_text(PARTS.replace("ReLU", "Hardswish"), encoding="utf-8")
    assert not codes(answer(old)), "it may be a remark"
    new = export_here(request_of)
    assert codes(answer(old, new)) == ["file_changed"]
    assert codes(answer(dataclasses.replace(old, model="other.py:net"), new)) == [], "that is another function"


@pytest.mark.onnx
def test_the_public_verb_reads_the_files_of_this_machine(request_of: ExportRequest) -> None:
    artifact = export_here(request_of)
    with LatencyDB.open("x.db", shipped=False) as db:
        db.add(measured(model=artifact.model, artifact_sha256=artifact.sha256, network=artifact.network))
        device = db.measurements()[0].device_id
    options = {"objective": "fastest", "predict": False, "db": "x.db"}
    assert edgevit.choose(device, **options).picked is not None  # type: ignore[call-overload]
    # Written again in place, with the size and the time that it had.
    before = Path("best.pt").stat()
    save(2)
    os.utime("best.pt", ns=(before.st_atime_ns, before.st_mtime_ns))
    choice = edgevit.choose(device, **options)  # type: ignore[call-overload]
    assert choice.picked is None and "file_changed" in codes(choice)
    assert edgevit.choose(device, outdated=True, **options).picked is not None  # type: ignore[call-overload]
