"""The log: silent by default, INFO with -v, DEBUG with -vv, and a file with time stamps."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgevit.cli import main
from edgevit.cli.logs import is_verbose, logged_to, set_verbosity
from edgevit.errors import UnknownNameError, UsageError
from edgevit.measurement import runner
from edgevit.models import create_model
from edgevit.records.artifact import ExportRequest
from edgevit.sweeps.plan import plan
from edgevit_runtime.record import Reply, Timing
from support.command_line import edgevit

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} (DEBUG|INFO|WARNING) edgevit(\.\w+)+: .+")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Leave no handler of -v behind."""
    yield
    set_verbosity(0)


@pytest.mark.parametrize(("verbose", "levels"), [(0, []), (1, ["I"]), (2, ["I", "D"]), (3, ["I", "D"])])
def test_each_v_shows_more(verbose: int, levels: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    set_verbosity(verbose)
    log = logging.getLogger("edgevit.sweeps.plan")
    log.info("exporting")
    log.debug("process started")
    assert [line[0] for line in capsys.readouterr().err.splitlines()] == levels
    assert is_verbose() == bool(verbose)


@pytest.mark.parametrize(
    ("words", "level"),
    [
        (["targets"], None),
        (["-v", "targets"], "INFO"),
        (["-vv", "targets"], "DEBUG"),
        (["-v", "targets", "-vv"], "DEBUG"),
    ],
)
def test_the_option_may_come_before_the_verb(words: list[str], level: str | None) -> None:
    """What the verb itself is told counts more."""
    set_verbosity(2)
    with pytest.raises(SystemExit) as end:
        main([*words, "--json"])
    assert end.value.code == 0
    assert is_verbose() == (level is not None)
    assert level is None or logging.getLogger("edgevit").level == getattr(logging, level)


def test_the_option_is_taken_by_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["targets", "-vv", "--json"])
    assert is_verbose()
    with pytest.raises(SystemExit):
        main(["targets", "--json"])
    assert not is_verbose()
    assert capsys.readouterr().err == ""


def test_a_log_file_has_time_stamps_and_is_appended_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("first", "second"):
        with logged_to(tmp_path / "log.txt"):
            logging.getLogger("edgevit.artifacts.folder").debug(text)
        logging.getLogger("edgevit").debug("after the end")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["first", "second"]
    assert all(LINE.fullmatch(line) for line in lines)
    assert capsys.readouterr().err == ""
    with pytest.raises(UsageError, match="the log cannot be written"), logged_to(tmp_path / "absent" / "log.txt"):
        pass


@pytest.mark.onnx
def test_a_sweep_logs_processes_cache_hits_and_published_files(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef net():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()\n"
    )
    sweep = ("sweep", "--models", "net.py:net", "--targets", "onnx", "--input-size", "32", "--quick", "--db", "x.db")
    outcome = edgevit(*sweep, "--log", "log.txt", folder=tmp_path)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    first = (tmp_path / "log.txt").read_text()
    assert all(LINE.fullmatch(line) for line in first.splitlines())
    assert "edgevit.exporting.child_process: process started: " in first
    assert "edgevit.devices.transports.local: process started: " in first
    assert "edgevit.sweeps.plan: exporting net.py:net onnx fp32" in first and "cache hit" not in first
    outcome = edgevit(*sweep, "--again", "-vv", folder=tmp_path)
    assert outcome.returncode == 0
    assert (
        "D edgevit.sweeps.plan: cache hit: net.py:net onnx fp32 is in artifacts/net-net-32-onnx-fp32" in outcome.stderr
    )


def test_discarded_blocks_and_retries_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    replies = iter([Reply("ok", timing=Timing.__new__(Timing)) for _ in range(2)])
    reasons = iter(["CPU time was stolen", ""])
    monkeypatch.setattr(runner, "why_discarded", lambda timing: next(reasons))
    with caplog.at_level(logging.DEBUG, "edgevit"):
        runner.run_unthrottled(lambda: next(replies), 0.0)
    assert caplog.messages == ["block discarded: CPU time was stolen", "retry 1 of 3 in 0 s"]


# Unknown models


def test_an_unknown_model_may_be_a_file_of_your_own() -> None:
    template = ExportRequest("", Path())
    for attempt in (
        lambda: create_model("mobilevig_t"),
        lambda: plan(["mobilevig_t"], [], [], template),
    ):
        with pytest.raises(UnknownNameError) as caught:
            attempt()
        assert caught.value.why.startswith("did you mean mobilevig_ti")
        assert caught.value.why.endswith(" or FILE.py:FUNCTION of your own?")
    with pytest.raises(UnknownNameError) as caught:
        create_model("xxxxxxxx")
    assert caught.value.why.startswith("known: ") and caught.value.why.endswith(" or FILE.py:FUNCTION of your own")
