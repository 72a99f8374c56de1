"""Exports of one network in forks of one process: the network is prepared once, and nothing of one reaches another."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgevit.errors import EdgevitError, ExportError, ModelError, ParityError
from edgevit.exporting.child_process import export_here
from edgevit.exporting.forked_exports import Export, exports_of
from edgevit.records.artifact import ExportRequest
from support.subjects import SIZE, tiny_file

pytestmark = [pytest.mark.onnx, pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")]

NETWORKS = """
import os, pathlib, signal, sys, threading, time
FOLDER = pathlib.Path({folder!r})
sys.path.insert(0, str(FOLDER))
from torch import nn
from tiny import tiny

SERVER = os.getpid()

def counted():
    with (FOLDER / "loads").open("a") as loads:
        print(os.getpid(), file=loads)
    print("loading")
    return tiny()

class Crashing(nn.Sequential):
    def forward(self, x):
        if os.getpid() != SERVER and (FOLDER / "armed").exists():
            print("the converter goes down", flush=True)
            os.abort()
        return super().forward(x)

def crashing():
    return Crashing(*counted()).eval()

def leaving():
    if (FOLDER / "armed").exists():
        print("last words", flush=True)
        os._exit(7)
    return counted()

def threaded():
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return counted()

def training():
    return counted().train()

def overflowing():
    model = counted()
    model[0].weight.data *= 1e6
    model[-1].weight.data *= 1e-6
    return model
"""


class Case:
    """A folder with the networks, and requests for them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "networks.py"
        self.armed = folder / "armed"
        tiny_file(folder)
        self.file.write_text(NETWORKS.format(folder=str(folder)))

    def request(self, function: str = "counted", **changes: Any) -> ExportRequest:
        fields: dict[str, Any] = {
            "target": "onnx",
            "out": self.folder / "out",
            "model": f"{self.file}:{function}",
            "input_size": SIZE,
        }
        return ExportRequest(**fields | changes)

    @property
    def loads(self) -> list[str]:
        """The processes that loaded a network."""
        return (self.folder / "loads").read_text().split()


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.fixture
def export(case: Case, warm_children: None) -> Iterator[Export]:
    with exports_of([case.request(), case.request()]) as export:
        yield export


def test_two_exports_of_a_network_load_and_fold_it_once_and_are_those_of_one_process_each(
    case: Case, export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    stages: list[str] = []
    artifacts = [export(case.request(), stages.append)]
    loads = case.loads
    artifacts.append(export(case.request(precision="fp16"), stages.append))
    assert case.loads == loads
    assert stages == ["fold", "export", "verify"] * 2
    assert capsys.readouterr().err == f"{case.file}:counted: loading\n"
    for artifact in artifacts:
        alone = export_here(case.request(precision=artifact.precision, out=case.folder / "alone"))
        assert artifact.parity is not None and alone.parity is not None and artifact.parity.status == "passed"
        assert artifact.network == alone.network and artifact.sha256 != ""
        assert [check.stage for check in artifact.parity.checks] == [check.stage for check in alone.parity.checks]
        assert [stage.name for stage in artifact.stages] == [stage.name for stage in alone.stages]
        parts = ("source", "params", "macs", "inputs", "outputs", "costs", "graph_digest", "operators", "fold_summary")
        assert all(getattr(artifact, part) == getattr(alone, part) for part in parts)


def test_another_network_or_batch_is_prepared_anew(case: Case, export: Export) -> None:
    first = export(case.request(), print)
    loads = [len(case.loads)]
    other = export(case.request("overflowing"), print)
    loads.append(len(case.loads))
    batch = export(case.request("overflowing", batch=2), print)
    loads.append(len(case.loads))
    assert loads[0] < loads[1] < loads[2]
    assert first.network != other.network and (other.batch, batch.batch) == (1, 2)
    assert batch.inputs[0].shape[0] == 2


def test_a_fork_that_crashes_costs_no_other(case: Case, export: Export) -> None:
    case.armed.touch()
    request = case.request("crashing", unfolded=True)
    with pytest.raises(ExportError, match="signal SIGABRT") as caught:
        export(request, print)
    assert "goes down" in caught.value.why and not request.out.exists()
    case.armed.unlink()
    loads = case.loads
    artifact = export(request, print)
    assert artifact.parity is not None and artifact.parity.status == "passed" and case.loads == loads


def test_a_process_that_dies_while_it_loads_is_an_error_and_the_next_export_starts_another(
    case: Case, export: Export
) -> None:
    export(case.request(), print)
    case.armed.touch()
    with pytest.raises(ExportError, match="exit code 7") as caught:
        export(case.request("leaving"), print)
    assert caught.value.why == "last words"
    case.armed.unlink()
    assert export(case.request("leaving"), print).folder.exists()
    assert len({*case.loads}) == 2


def test_a_network_that_leaves_threads_behind_is_exported_in_a_process_of_its_own(case: Case, export: Export) -> None:
    artifact = export(case.request("threaded"), print)
    assert artifact.parity is not None and artifact.parity.status == "passed"
    assert len({*case.loads}) == 2


def test_errors_of_the_network_and_of_a_fork_keep_their_kind(case: Case, export: Export) -> None:
    with pytest.raises(ModelError) as caught:
        export(case.request("training"), print)
    assert caught.value.fix == "return model.eval()"
    with pytest.raises(ParityError):
        export(case.request("overflowing", precision="fp16"), print)
    loads = case.loads
    assert export(case.request("overflowing"), print).folder.exists()
    # The fold of the refused precision served the next one.
    assert case.loads == loads


def test_an_interruption_ends_all_processes_and_leaves_nothing(case: Case, export: Export) -> None:
    def interrupt(stage: str) -> None:
        if stage == "export":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(case.request(), interrupt)
    assert not case.request().out.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(case.loads[0]), 0)


def test_a_signal_to_the_process_ends_its_fork(case: Case, export: Export) -> None:
    def kill(stage: str) -> None:
        if stage == "export":
            os.kill(int(case.loads[0]), signal.SIGTERM)

    with pytest.raises(EdgevitError):
        export(case.request(), kill)
    assert not case.request().out.exists()
    assert export(dataclasses.replace(case.request(), seed=1), print).folder.exists()
