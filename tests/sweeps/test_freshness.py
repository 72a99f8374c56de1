"""An artifact is used again only if an export would make the same one; a failure stands while nothing changed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

from edgevit.artifacts.folder import folder_of, open_artifact, seal
from edgevit.cli.sweep import exit_code
from edgevit.errors import UsageError
from edgevit.exporting.child_process import export_here
from edgevit.measurement.runner import Protocol
from edgevit.models.user_code import import_definitions
from edgevit.records.artifact import Artifact, ExportRequest, Source, WeightsChoice
from edgevit.records.input_shapes import read_input_shapes
from edgevit.records.measurement import Measurement
from edgevit.records.measurements import Measurements
from edgevit.records.model_reference import ModelReference, place_digest
from edgevit.records.preprocessing import read_stated
from edgevit.store import LatencyDB
from edgevit.store.jsonl import write_lines
from edgevit.sweeps import freshness, plan
from edgevit.sweeps.freshness import failure_stands, is_current, is_current_so_far, is_of_form
from edgevit.sweeps.plan import RowQuery, known_failures, still_to_measure
from edgevit.verbs.export import export_named
from edgevit.verbs.sweep import SweepResult
from support import toys
from support.command_line import edgevit
from support.measured import HOST, failed, measured

NET = """
import torch
from torch import nn


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 3)
        self.scale = torch.full((1,), 2.0)  # neither a parameter nor a buffer

    def forward(self, x):
        return self.head(self.act(self.conv(x) * self.scale).mean((2, 3)))


def net():
    torch.manual_seed(0)
    return Scaled().eval()
"""
SIZE = (24, 24)


@pytest.fixture
def request_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExportRequest:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET, encoding="utf-8")
    return ExportRequest("onnx", Path("artifacts"), model="net.py:net", input_size=SIZE)


def rewrite(old: str, new: str) -> None:
    assert old in NET
    Path("net.py").write_text(NET.replace(old, new), encoding="utf-8")


@pytest.mark.onnx
def test_an_artifact_is_current_only_while_all_of_its_facts_are_the_same(request_of: ExportRequest) -> None:
    artifact = export_here(request_of)
    assert is_current(artifact, request_of) and is_current_so_far(artifact, request_of)
    for old, new in (
        ("nn.ReLU()", "nn.Hardswish()"),
        ("(1,), 2.0", "(1,), 3.0"),
        ("manual_seed(0)", "manual_seed(1)"),
        ("def net", "labels = ['a', 'b', 'c']\n\n\ndef net"),
        ("def net", "preprocessing = {'mean': 0.5}\n\n\ndef net"),
    ):
        rewrite(old, new)
        assert not is_current(artifact, request_of), new
    rewrite("def net", "# a remark\n\n\ndef net")
    assert is_current(artifact, request_of), "a remark changes nothing"
    Path("labels.txt").write_text("a\nb\nc\n")
    others = {
        "another size": dataclasses.replace(request_of, input_size=(32, 32)),
        "no size": dataclasses.replace(request_of, input_size=None, input_shapes=read_input_shapes("1x3x24x20")),
        "another name": dataclasses.replace(request_of, input_size=None, input_shapes=read_input_shapes("y=1x3x24x24")),
        "mean": dataclasses.replace(request_of, preprocessing=read_stated({"mean": 0.5})),
        "the same mean, stated": dataclasses.replace(
            request_of, preprocessing=read_stated({"mean": (0.485, 0.456, 0.406)})
        ),
        "labels": dataclasses.replace(request_of, labels=Path("labels.txt")),
        "open batch": dataclasses.replace(request_of, dynamic_batch=True),
        "batch": dataclasses.replace(request_of, batch=2),
    }
    for name, request in others.items():
        assert not is_current(artifact, request), name
    same = dataclasses.replace(request_of, input_size=None, input_shapes=read_input_shapes("1x3x24x24"))
    assert is_current(artifact, same)


@pytest.mark.onnx
def test_another_recipe_or_tool_makes_an_artifact_anew(
    request_of: ExportRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = export_here(request_of)
    with monkeypatch.context() as patch:
        patch.setattr(freshness, "recipe_sha256", lambda target: "0" * 64)
        assert not is_current(artifact, request_of)
    older = dataclasses.replace(artifact, toolchain=artifact.toolchain | {"onnx": "1.0"})
    assert not is_current(older, request_of) and is_current(artifact, request_of)


@pytest.mark.onnx
def test_a_sweep_of_another_size_or_function_measures_anew(request_of: ExportRequest) -> None:
    """What was wrong in silence: a stale artifact for a new input size, and for a new activation."""
    sweep = ("sweep", "--models", "net.py:net", "--targets", "onnx", "--quick", "--db", "a.db", "--json")

    def run(size: int) -> list[dict[str, object]]:
        result = edgevit(*sweep, "--input-size", size)
        assert result.returncode == 0, result.stderr
        return list(json.loads(result.stdout)["measurements"])

    (first,), (second,) = run(24), run(32)
    assert [row["inputs"][0]["shape"] for row in (first, second)] == [[1, 3, 24, 24], [1, 3, 32, 32]]  # type: ignore[index]
    assert sorted(folder.name for folder in Path("artifacts").iterdir()) == [
        "net-net-24-onnx-fp32",
        "net-net-32-onnx-fp32",
    ]
    assert run(24) == [] and run(32) == [], "each is there, and measured once"
    rewrite("nn.ReLU()", "nn.Hardswish()")
    (third,) = run(24)
    assert third["graph_digest"] != first["graph_digest"] and third["artifact_sha256"] != first["artifact_sha256"]


@pytest.mark.onnx
def test_two_files_with_a_function_of_one_name_have_two_folders(request_of: ExportRequest) -> None:
    for name, width in (("a", 4), ("b", 5)):
        Path(name).mkdir()
        text = NET.replace("nn.Conv2d(3, 4, 3)", f"nn.Conv2d(3, {width}, 3)").replace(
            "nn.Linear(4, 3)", f"nn.Linear({width}, 3)"
        )
        Path(name, "net.py").write_text(text, encoding="utf-8")
    first = export_here(dataclasses.replace(request_of, model="a/net.py:net"))
    second = export_here(dataclasses.replace(request_of, model="b/net.py:net"))
    assert first.folder.name == "net-net-24-onnx-fp32" and second.folder != first.folder
    assert [open_artifact(one.folder).params for one in (first, second)] == [first.params, second.params]
    # By whatever path a file is named, it finds its own folder.
    again = dataclasses.replace(request_of, model=str(Path("b/net.py").resolve()) + ":net")
    assert folder_of(again) == second.folder
    assert export_here(again).folder == second.folder


@pytest.fixture
def checkpoints(request_of: ExportRequest) -> dict[str, ExportRequest]:
    """Return requests for three checkpoints of one function, two of them of one name, by their paths."""
    net = import_definitions(request_of.model).net()
    for number, name in enumerate(("a.pt", "runs/b.pt", "more/b.pt")):
        Path(name).parent.mkdir(exist_ok=True)
        torch.save({key: value + number for key, value in net.state_dict().items()}, name)
    names = ("a.pt", "runs/b.pt", "more/b.pt")
    return {name: dataclasses.replace(request_of, weights=Path(name)) for name in names}


@pytest.mark.onnx
def test_checkpoints_of_one_function_have_folders_of_their_own(checkpoints: dict[str, ExportRequest]) -> None:
    artifacts = {name: export_here(request) for name, request in checkpoints.items()}
    names = [one.folder.name for one in artifacts.values()]
    assert names[:2] == ["net-net-24-onnx-fp32", "net-net-b.pt-24-onnx-fp32"] and len(set(names)) == 3
    for name, artifact in artifacts.items():
        assert open_artifact(artifact.folder).source.weights_sha256 == artifact.source.weights_sha256
        assert plan.artifact_for(checkpoints[name], "a.db") == artifact, "it is there already"
        absolute = dataclasses.replace(checkpoints[name], weights=Path(name).resolve())
        assert plan.artifact_for(absolute, "a.db") == artifact, "by whatever path it is named"
    # A copy of what a checkpoint holds finds its artifact; what has its name now is another one.
    shutil.copytree("runs", "copies")
    moved = dataclasses.replace(checkpoints["a.pt"], weights=Path("copies/b.pt"))
    assert plan.artifact_for(moved, "a.db") == artifacts["runs/b.pt"]
    shutil.copy("runs/b.pt", "a.pt")
    assert folder_of(checkpoints["a.pt"]) == artifacts["a.pt"].folder, "an overwritten file replaces its artifact"


@pytest.mark.onnx
def test_the_artifact_of_a_checkpoint_is_not_replaced_by_one_without(checkpoints: dict[str, ExportRequest]) -> None:
    request = checkpoints["a.pt"]
    own = dataclasses.replace(request, weights=None)
    first = export_here(own)
    assert first.source.weights == "function" and export_here(request).folder != first.folder
    trained = export_here(dataclasses.replace(request, out=Path("trained")))
    with pytest.raises(UsageError, match="options that are missing now") as caught:
        export_named(dataclasses.replace(own, out=Path("trained")), "a.db", run=export_here)
    assert "--weights FILE" in caught.value.fix
    assert open_artifact(trained.folder) == trained


@pytest.mark.onnx
def test_preprocessings_of_one_function_have_folders_of_their_own(request_of: ExportRequest) -> None:
    requests = [dataclasses.replace(request_of, preprocessing=read_stated({"mean": mean})) for mean in ("0.5", "0.4")]
    first, second = map(export_here, requests)
    assert first.folder.name == "net-net-24-onnx-fp32" and second.folder.name.startswith("net-net-as-")
    for artifact, request in zip((first, second), requests, strict=True):
        assert open_artifact(artifact.folder) == artifact and folder_of(request) == artifact.folder
        assert plan.artifact_for(request, "a.db") == artifact, "it is there already"
    more = dataclasses.replace(request_of, preprocessing=read_stated({"mean": "0.5", "std": "0.2"}))
    assert folder_of(more) == first.folder, "a statement takes the place of what was assumed"


@pytest.mark.onnx
def test_weights_that_a_function_loads_itself_are_noticed(request_of: ExportRequest) -> None:
    """The code stays as it is, and what it reads changes."""
    text = NET.replace(
        "    return Scaled().eval()",
        "    net = Scaled()\n    net.load_state_dict(torch.load('x.pt', weights_only=True))\n    return net.eval()",
    )
    Path("loading.py").write_text(text, encoding="utf-8")
    state = import_definitions(request_of.model).net().state_dict()
    torch.save(state, "x.pt")
    request = dataclasses.replace(request_of, model="loading.py:net")
    artifact = export_here(request)
    assert is_current(artifact, request)
    torch.save({key: value + 1 for key, value in state.items()}, "x.pt")
    assert not is_current(artifact, request)
    again = plan.artifact_for(request, "a.db")
    assert again.source.state_sha256 != artifact.source.state_sha256 and again.sha256 != artifact.sha256


def test_sets_of_weights_of_one_file_have_folders_of_their_own(request_of: ExportRequest) -> None:
    request = dataclasses.replace(request_of, weights=Path("both.pt"), weights_key="ema")
    folder = folder_of(request)
    folder.parent.mkdir()
    origin, place = ModelReference.parse(request.model).origin, place_digest(Path("both.pt").resolve())
    choice = WeightsChoice("nested.ema", others=("model",))
    source = Source(request.model, "file", weights_file="both.pt", origin=origin, choice=choice, weights_origin=place)
    seal(dataclasses.replace(toys.fake_artifact(folder), source=source))
    assert choice.of("both.pt") == "nested.ema of both.pt" and WeightsChoice(".").of("a.pt") == "a.pt"
    assert folder_of(request) == folder == Path("artifacts/net-net-24-onnx-fp32")
    other = folder_of(dataclasses.replace(request, weights_key="model"))
    assert other.name == "net-net-both.pt-model-24-onnx-fp32"
    assert folder_of(dataclasses.replace(request, weights_key="")) == folder, "a forgotten key is asked for"


@pytest.mark.parametrize(
    ("shapes", "label"),
    [
        (["1x3x64x64"], "64"), (["1x3x64x48"], "64x48"), (["1x1x28x28"], "1x28x28"), (["1x40x100"], "40x100"),
        (["x=1x3x8x8", "y=1x77:int64"], "3x8x8_77"), ([], ""),
    ],
)  # fmt: skip
def test_a_folder_names_the_inputs_that_were_asked_for(shapes: list[str], label: str) -> None:
    request = ExportRequest("onnx", Path(), model="f.py:g", input_shapes=read_input_shapes(shapes))
    assert request.size_label() == label
    card = read_input_shapes("1x3x64x64")
    assert ExportRequest("onnx", Path(), model="m", input_size=(64, 64)).size_label(card) == ""
    assert ExportRequest("onnx", Path(), model="m", input_size=(64, 48)).size_label(card) == "64x48"


def test_a_given_artifact_counts_only_in_the_form_that_is_asked_for(request_of: ExportRequest) -> None:
    artifact = export_here(request_of)
    assert is_of_form(artifact, request_of)
    for change in ({"input_size": (32, 32)}, {"unfolded": True}, {"dynamic_batch": True}, {"options": {"a": "b"}},
                   {"embed_preprocess": True}, {"batch": 2}):  # fmt: skip
        assert not is_of_form(artifact, dataclasses.replace(request_of, **change)), change


def at(row: Measurement, started: str) -> Measurement:
    return dataclasses.replace(row, started=started, host=HOST)


def test_a_failure_stands_until_the_artifact_or_the_system_is_newer(request_of: ExportRequest) -> None:
    artifact: Artifact = export_here(request_of)
    later, earlier = at(failed(), "2126-01-01T00:00:00+00:00"), at(failed(), "2026-01-01T00:00:00+00:00")
    assert failure_stands(later, artifact, HOST) and failure_stands(later, artifact, None)
    assert not failure_stands(earlier, artifact, HOST), "it was exported again since"
    assert not failure_stands(later, artifact, dataclasses.replace(HOST, kernel="7.0")), "another system"


def test_a_failure_that_stands_is_told_and_is_no_success(
    request_of: ExportRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = export_here(request_of)
    monkeypatch.setattr(plan, "_engine_version", lambda artifact, engines: "1.0")
    row = failed(
        "unsupported",
        artifact_sha256=artifact.sha256,
        engine_version="1.0",
        host=HOST,
        started=(datetime.now(UTC) + timedelta(hours=1)).isoformat(),
        device_id=toys.LOCAL.device_id,
        threads=1,
    )
    with LatencyDB.open("a.db", shipped=False) as db:
        db.add(row)
    query = RowQuery(toys.LOCAL, 1, "a.db", Protocol(), host=HOST)
    assert still_to_measure([artifact], query) == []
    assert [row.status for row in known_failures([artifact], query)] == ["unsupported"]
    upgraded = query._replace(host=dataclasses.replace(HOST, python="3.14.1"))
    assert still_to_measure([artifact], upgraded) == [artifact] and known_failures([artifact], upgraded) == []
    again = dataclasses.replace(artifact, created=(datetime.now(UTC) + timedelta(hours=2)).isoformat())
    assert still_to_measure([again], query) == [again], "its network, recipe or tools changed"


def test_a_row_that_was_imported_passes_for_no_measurement(
    request_of: ExportRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another person's row has the own device and artifact: it counts once its source is trusted."""
    artifact = export_here(request_of)
    monkeypatch.setattr(plan, "_engine_version", lambda artifact, engines: "1.0")
    row = measured(
        artifact_sha256=artifact.sha256, engine_version="1.0", device_id=toys.LOCAL.device_id, threads=1, host=HOST
    )
    write_lines(Path("rows.jsonl"), [row])
    query = RowQuery(toys.LOCAL, 1, "b.db", Protocol.quick(), host=HOST)
    with LatencyDB.open("b.db", shipped=False) as db:
        db.import_jsonl("rows.jsonl")
        assert still_to_measure([artifact], query) == [artifact]
        db.trust(str(Path("rows.jsonl").absolute()))
        assert still_to_measure([artifact], query) == []


@pytest.mark.parametrize(
    ("rows", "known", "before", "code"),
    [([], 0, 0, 6), ([], 0, 1, 0), ([], 1, 1, 1), ([], 1, 2, 1), (["failed"], 0, 0, 1), (["ok"], 0, 0, 0)],
)
def test_the_exit_code_of_a_sweep_says_that_nothing_was_measured(
    rows: list[str], known: int, before: int, code: int
) -> None:
    new = [measured() if status == "ok" else failed() for status in rows]
    result = SweepResult(Measurements(new), before, (), (), (failed(),) * known)
    assert exit_code(result) == code
    assert result.has_measurement == ("ok" in rows or before > known)


@pytest.mark.onnx
def test_a_sweep_replaces_no_artifact_for_which_more_was_stated(request_of: ExportRequest) -> None:
    Path("labels.txt").write_text("a\nb\nc\n")
    stated = dataclasses.replace(
        request_of, preprocessing=read_stated({"mean": 0.5, "std": 0.5}), labels=Path("labels.txt")
    )
    artifact = export_here(stated)
    with pytest.raises(UsageError, match="options that are missing now") as caught:
        plan.artifact_for(request_of, "a.db")
    assert caught.value.fix.startswith("--mean --std --labels FILE as at its export")
    assert plan.artifact_for(stated, "a.db") == artifact, "it is as it was"
    rewrite("def net", "preprocessing = {'mean': 0.5, 'std': 0.5}\nlabels = ['a', 'b', 'c']\n\n\ndef net")
    assert plan.artifact_for(request_of, "a.db") == artifact, "the file states the same now"
    of_checkpoint = dataclasses.replace(artifact, source=dataclasses.replace(artifact.source, weights="file"))
    assert freshness.lost_statements(of_checkpoint, request_of) == ["--weights FILE"]


@pytest.mark.parametrize(
    ("choice", "key", "lost"),
    [
        (WeightsChoice("model", others=("model_ema",)), "", ["--weights-key model"]),
        (WeightsChoice("model", others=("model_ema",)), "model_ema", []),
        (WeightsChoice("model_ema", averaged=True, others=("model",)), "", []),
        (WeightsChoice("model"), "", []),
    ],
)
def test_a_forgotten_key_of_the_weights_is_a_lost_statement(
    choice: WeightsChoice, key: str, lost: list[str], tmp_path: Path
) -> None:
    source = Source("vanillanet_5", "file", weights_file="both.pt", choice=choice)
    artifact = dataclasses.replace(toys.fake_artifact(tmp_path / "fake"), source=source)
    request = ExportRequest("onnx", Path("out"), model="vanillanet_5", weights=Path("both.pt"), weights_key=key)
    assert freshness.lost_statements(artifact, request) == lost
