"""Exports in child processes: the artifact, the error or the crash that comes back."""

from __future__ import annotations

import gc
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgevit.cli.export import plan
from edgevit.errors import ExportError, ModelError, UnknownNameError, UsageError
from edgevit.exporting import child_process
from edgevit.exporting.child_process import export_here, export_separately
from edgevit.recipes import list_recipes
from edgevit.records.artifact import ExportRequest
from support.command_line import edgevit
from support.subjects import SIZE, tiny_file

CRASHES = """
import os

def die():
    print("the converter goes down", flush=True)
    os.abort()

def leave():
    print("last words", flush=True)
    os._exit(7)

def speak():
    import sys
    sys.path.insert(0, {folder!r})
    print("noise " * 100_000, flush=True)
    from tiny import tiny
    return tiny()
"""


def request_for(folder: Path, function: str = "tiny", **changes: Any) -> ExportRequest:
    fields: dict[str, Any] = {
        "model": f"{tiny_file(folder)}:{function}",
        "target": "onnx",
        "out": folder / "out",
        "input_size": SIZE,
    }
    return ExportRequest(**fields | changes)


def crashing(folder: Path, function: str) -> ExportRequest:
    file = folder / "crash.py"
    file.write_text(CRASHES.format(folder=str(tiny_file(folder).parent)))
    return request_for(folder, model=f"{file}:{function}")


@pytest.mark.onnx
def test_an_artifact_comes_back_as_it_would_from_here(tmp_path: Path, warm_children: None) -> None:
    stages: list[str] = []
    artifact = export_separately(request_for(tmp_path), stages.append)
    assert stages == ["fold", "export", "verify"]
    assert artifact.parity is not None and artifact.parity.status == "passed"
    here = export_here(request_for(tmp_path, out=tmp_path / "here"))
    assert (artifact.source, artifact.params, artifact.macs, artifact.inputs) == (
        here.source,
        here.params,
        here.macs,
        here.inputs,
    )


@pytest.mark.onnx
def test_what_a_model_prints_does_not_end_up_among_the_answers(
    tmp_path: Path, warm_children: None, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = export_separately(crashing(tmp_path, "speak"))
    assert artifact.parity is not None and artifact.parity.status == "passed"
    printed = capsys.readouterr()
    assert printed.out == "" and f"{tmp_path / 'crash.py'}:speak: noise noise " in printed.err


@pytest.mark.parametrize(
    ("function", "ended", "why"), [("die", "signal SIGABRT", "goes down"), ("leave", "exit code 7", "last words")]
)
def test_a_process_that_dies_is_an_error_with_its_last_words(
    tmp_path: Path, function: str, ended: str, why: str
) -> None:
    with pytest.raises(ExportError, match=ended) as caught:
        export_separately(crashing(tmp_path, function))
    assert why in caught.value.why
    assert not (tmp_path / "out").exists()


def test_errors_keep_their_kind_and_their_words(tmp_path: Path, warm_children: None) -> None:
    with pytest.raises(UnknownNameError, match="did you mean mobilevig_ti"):
        export_separately(request_for(tmp_path, model="mobilevig_t", input_size=None))
    with pytest.raises(ModelError) as caught:
        export_separately(request_for(tmp_path, "training"))
    assert caught.value.fix == "return model.eval()" and caught.value.where.endswith(":training")


@pytest.mark.onnx
@pytest.mark.openvino
def test_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    """The second of two precisions overflows and sets the exit code. The first one is exported."""
    (tmp_path / "net.py").write_text(tiny_file(tmp_path).read_text() + OVERFLOW)
    options = ("--json", "--input-size", "16x12", "-t", "onnx", "--precision", "fp32,fp16")
    outcome = edgevit("export", "net.py:overflowing", *options, folder=tmp_path)
    assert outcome.returncode == 4, outcome.stderr
    report = json.loads(outcome.stdout)
    assert [failure["precision"] for failure in report["artifacts"]] == ["fp32"]
    assert [failure["type"] for failure in report["failures"]] == ["ParityError"]


OVERFLOW = """

def overflowing():
    model = tiny()
    model[0].weight.data *= 1e6
    model[-1].weight.data *= 1e-6
    return model
"""


def test_all_targets_in_the_precisions_they_have() -> None:
    pairs = plan(["all"], ["fp32", "bf16"])
    installed = {name for name, _ in pairs}
    assert {(recipe.target, "fp32") for recipe in list_recipes() if recipe.target in installed} <= set(pairs)
    assert ("openvino", "bf16") in pairs or "openvino" not in installed
    assert ("onnx", "bf16") not in pairs
    with pytest.raises(UsageError, match="no precision 'bf16'"):
        plan(["onnx"], ["bf16"])


@pytest.mark.onnx
def test_labels_go_into_the_manifest_and_the_metadata(tmp_path: Path, warm_children: None) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("ant\nbee\n\n cow \ndog\neel\n")
    artifact = export_separately(request_for(tmp_path, labels=file))
    assert artifact.labels == ("ant", "bee", "cow", "dog", "eel")
    metadata = onnx.load(str(artifact.folder / artifact.payload)).metadata_props
    assert {entry.key: entry.value for entry in metadata}["names"] == str(dict(enumerate(artifact.labels)))


@pytest.mark.parametrize(
    ("text", "message"), [("ant\nbee\n", "2 labels do not fit"), (None, "the labels cannot be read")]
)
def test_labels_that_do_not_fit_are_refused_at_once(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "labels.txt"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=message):
        export_here(request_for(tmp_path, labels=file))
    assert not (tmp_path / "out").exists()


@pytest.mark.onnx
def test_a_converter_that_crashes_costs_a_sweep_one_row(tmp_path: Path) -> None:
    crashing(tmp_path, "die")
    options = ("--models", "crash.py:die,tiny.py:tiny", "--input-size", "16x12", "--quick", "--json")
    outcome = edgevit("sweep", "--targets", "onnx", *options, folder=tmp_path)
    assert outcome.returncode == 1, outcome.stderr
    report = json.loads(outcome.stdout)
    assert [(row["model"], row["status"]) for row in report["measurements"]] == [("tiny.py:tiny", "ok")]
    assert [failure["error"] for failure in report["failures"]] == ["the export to onnx ended with signal SIGABRT"]


def test_no_garbage_is_collected_during_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    states: list[tuple[str, bool]] = []

    def load(request: ExportRequest, on_stage: object) -> None:
        states.append(("model", gc.isenabled()))
        raise ExportError("no model")

    def note_import(name: str) -> None:
        states.append((name, gc.isenabled()))

    def note_imports(names: Iterable[str]) -> None:
        for name in names:
            note_import(name)

    monkeypatch.setattr(child_process, "import_shared", note_imports)
    monkeypatch.setattr(child_process, "import_converter", note_import)
    monkeypatch.setattr(child_process, "export_here", load)
    monkeypatch.setattr(gc, "freeze", lambda: note_import("freeze"))
    child_process._serve(io.StringIO(), ExportRequest("coreml", tmp_path, "fp32", "net"))
    assert states[-1] == ("model", True) and gc.isenabled()
    assert states[:-1] == [(n, False) for n in (*child_process._PACKAGES, "freeze", "coreml", "freeze")]
