"""A race on this machine with a real engine: what it keeps, how it goes on, and what it hands to an export."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import edgevit
from edgevit.devices.registry import local_device
from edgevit.errors import TuningError, UsageError
from edgevit.measurement.runner import Protocol
from edgevit.models.source import subject_of
from edgevit.races import bench
from edgevit.races.race import Course, race
from edgevit.records.artifact import ExportRequest
from edgevit.records.tuning import OperatorTime, TriedForm
from edgevit.store import LatencyDB
from edgevit.tuning import places
from edgevit.tuning.forms import load_form
from support.sshd import Sshd

SHORT = Protocol(processes=2, min_runs=2, min_ns=0, percentile=None, warmup_ns=0)


class Wide(nn.Module):
    """A depthwise layer and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 3, 5, padding=2, groups=3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return three means."""
        return torch.relu(self.wide(image)).mean((2, 3))


@pytest.fixture
def few_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SITE_PROTOCOL", SHORT)
    monkeypatch.setattr(bench, "NETWORK_PROTOCOL", SHORT)
    monkeypatch.setattr(places, "list_forms", lambda: [load_form("depthwise_rows")])


@pytest.mark.usefixtures("few_forms")
def test_a_race_keeps_times_and_goes_on_from_them(tmp_path: Path) -> None:
    url, tried = str(tmp_path / "x.db"), list[TriedForm]()
    torch.manual_seed(0)
    network, inputs = Wide().eval(), (torch.zeros(1, 3, 16, 12),)
    tuning = edgevit.tune(network, "onnx", inputs=inputs, name="wide", db=url, on_tried=tried.append)
    [one] = tried
    assert (one.form, one.sites, one.is_known) == ("depthwise_rows", 1, False) and one.ratio is not None
    assert one.operator == "conv2d 5x5 depthwise of 1x3x16x12"
    with LatencyDB.open(url) as db:
        assert db.tunings() == [tuning]
        times = {time.form: time for time in db.operator_times("onnx", local_device().device_id)}
    assert times.keys() == {"", "depthwise_rows"}
    assert times["depthwise_rows"].p50_ns / times[""].p50_ns == pytest.approx(one.ratio.value)
    assert times[""].macs == 3 * 25 * 16 * 12 and times[""].engine == "onnxruntime"
    again = edgevit.tune(network, "onnx", inputs=inputs, name="wide", db=url)
    assert again.tried[0].is_known and again.tried[0].ratio == one.ratio
    with LatencyDB.open(url) as db:
        assert len(db.operator_times()) == 2 and db.check().problems == ()


@pytest.mark.usefixtures("few_forms")
def test_a_form_whose_export_fails_is_named_and_the_race_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> object:
        raise TuningError("another function comes of depthwise_rows")

    monkeypatch.setattr("edgevit.exporting.preparation.apply_forms", refuse)
    network, inputs = Wide().eval(), (torch.zeros(1, 3, 16, 12),)
    tuning = edgevit.tune(network, "onnx", inputs=inputs, name="wide", db=str(tmp_path / "x.db"))
    [one] = tuning.tried
    assert (one.verdict, one.ratio) == ("refused", None) and "another function" in one.reason
    assert tuning.forms == () and tuning.gain is None


@pytest.mark.usefixtures("few_forms")
def test_a_device_behind_ssh_is_raced_on(tmp_path: Path) -> None:
    subject = subject_of(Wide().eval(), (torch.zeros(1, 3, 16, 12),), name="wide")
    request = ExportRequest("onnx", tmp_path / "out", model=subject.name)
    kept = list[OperatorTime]()
    with Sshd(tmp_path) as sshd:
        here = local_device()
        board = dataclasses.replace(sshd.device("board"), device_id=here.device_id, device_class=here.device_class)
        tuning = race(Course(subject, request, board, threads=1, budget_s=600), kept, kept.extend)
    assert (tuning.device, tuning.device_id, tuning.device_class) == ("board", here.device_id, here.device_class)
    assert [(one.form, one.device) for one in kept] == [("", "board"), ("depthwise_rows", "board")]


@pytest.mark.usefixtures("few_forms")
def test_int8_is_raced_too(tmp_path: Path) -> None:
    subject = subject_of(Wide().eval(), (torch.zeros(1, 3, 16, 12),), name="wide")
    request = ExportRequest("onnx", tmp_path / "out", "int8", model=subject.name)
    kept = list[OperatorTime]()
    tuning = race(Course(subject, request, local_device(), threads=1, budget_s=600), kept, kept.extend)
    [one] = tuning.tried
    assert one.ratio is not None, one.reason
    assert {time.precision for time in kept} == {"int8"}


def test_no_time_is_no_budget(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no time"):
        edgevit.tune("vanillanet_5", "onnx", budget_s=0, db=str(tmp_path / "x.db"))
