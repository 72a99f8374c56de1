"""evaluate: what an exported artifact gets right is what its model gets right, and what goes wrong is said."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgevit.artifacts.folder import open_artifact
from edgevit.artifacts.trust import code_digests
from edgevit.cli.evaluate import show
from edgevit.errors import ArtifactError, CheckpointError, TargetUnavailableError, UsageError
from edgevit.evaluation import EvaluationRequest, Proportion, accuracy, engine, evaluate
from edgevit.evaluation.prefetch import in_order
from edgevit.evaluation.reference_model import MACS_OF_A_THREAD, ReferenceModel
from edgevit.exporting.pipeline import export_subject
from edgevit.models.source import load_subject, with_preprocessing
from edgevit.records.artifact import Artifact, ExportRequest, Source, WeightsRequest
from edgevit.store import LatencyDB
from edgevit_runtime.codec import to_json
from edgevit_runtime.record import Recipe, TensorSpec
from edgevit_runtime.topk import ClassesError, top_classes
from support import graders
from support.command_line import edgevit, refused
from support.digits import Digits
from support.graders import STEP
from support.speed import seconds, wait_until

# Counting


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (Wilson, no continuity correction).
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_wilsons(right: int, total: int, low: float, high: float) -> None:
    rate = Proportion(right, total)
    assert rate.interval_percent == pytest.approx((100 * low, 100 * high), abs=0.01)
    assert Proportion(total - right, total).interval_percent == pytest.approx(
        (100 - 100 * high, 100 - 100 * low), abs=0.01
    )


@given(st.integers(1, 60_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_share_is_in_its_interval(pair: tuple[int, int]) -> None:
    rate = Proportion(*pair)
    low, high = rate.interval_percent
    assert 0 <= low <= rate.percent + 1e-9 and rate.percent - 1e-9 <= high <= 100 and 0 < rate.error_percent < 50
    assert rate.error_percent < 98 / math.sqrt(rate.total) + 1e-9, "at most 1.96 times half a standard deviation"


SCORES = st.lists(st.floats(width=32, allow_nan=False) | st.integers(-3, 3).map(float), min_size=2, max_size=40)


@given(st.integers(1, 4), SCORES, st.integers(1, 5))
def test_the_best_classes_are_numpys(batch: int, scores: list[float], keep: int) -> None:
    rows = np.array([np.roll(scores, number) for number in range(batch)], np.float32)
    evaluation = list(top_classes([TensorSpec("z", (-1, len(scores)))], [rows.tobytes()], batch, keep))
    assert evaluation == [tuple(np.argsort(-row, kind="stable")[:keep]) for row in rows]


@pytest.mark.parametrize(("dtype", "code"), [("float16", "e"), ("float64", "d"), ("uint8", "B"), ("int64", "q")])
def test_scores_of_every_type_are_read(dtype: str, code: str) -> None:
    raw = struct.pack(f"<6{code}", 1, 5, 3, 9, 2, 7)
    assert list(top_classes([TensorSpec("z", (2, 3), dtype)], [raw], 2, 2)) == [(1, 2), (0, 2)]


def test_a_nan_is_no_class() -> None:
    raw = np.array([[1, 2, 3], [1, np.nan, 3], [np.inf, 0, -np.inf]], np.float32).tobytes()
    assert list(top_classes([TensorSpec("z", (-1, 3))], [raw], 3, 2)) == [(2, 1), (), (0, 1)]


@pytest.mark.parametrize(
    "outputs", [(TensorSpec("z", (1, 3, 7, 7)),), (TensorSpec("z", (1, 3)),) * 2, (TensorSpec("z", (1, 3), "bool"),)]
)
def test_what_is_no_scores_is_refused(outputs: tuple[TensorSpec, ...]) -> None:
    with pytest.raises(ClassesError):
        list(top_classes(outputs, [bytes(12)], 1, 1))


# An engine that misbehaves on request


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    file = graders.recipe(tmp_path)
    module = type("Module", (), {"RECIPE": Recipe("grader", ".txt", "grader", ("fp32",), (), "")})
    for room in (engine, accuracy):
        monkeypatch.setattr(room, "load_recipe", lambda target: module)
    monkeypatch.setattr(engine, "recipe_file", lambda target: file)
    yield


def greys(tmp_path: Path) -> Path:
    """Write four classes of three images; the engine is right on 10 of the 12."""
    right = {str(number): [STEP * number] * 3 for number in range(4)}
    return graders.grey_folder(tmp_path / "greys", right | {"1": [STEP, STEP, 5 * STEP], "3": [3 * STEP, 0, 3 * STEP]})


@pytest.mark.parametrize("batch", [1, 5, 12, 64])
def test_every_image_counts_once(fake: None, tmp_path: Path, batch: int) -> None:
    artifact = graders.artifact(tmp_path / "a", classes=8)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(map(str, range(8))))
    progress: list[tuple[int, int]] = []
    request = EvaluationRequest(greys(tmp_path), batch=batch, names=names)
    evaluation = evaluate(artifact, request, on_progress=lambda finished, total: progress.append((finished, total)))
    # Of the two that are wrong, class 3 is the fourth nearest to a grey of 0, and class 1 the seventh to one of 5.
    assert (evaluation.top1, evaluation.top5) == (Proportion(10, 12), Proportion(11, 12))
    assert evaluation.notes == (
        "parity unverified: the artifact is not proven to compute the model",
        "4 of the model's classes have no image here",
        "weights as the user's function made them",
    )
    assert progress[-1] == (12, 12) and len(progress) == math.ceil(12 / batch)
    top1, top5 = evaluation.accuracies
    assert (top1.metric, top1.value, top1.examples, top1.provenance) == ("top1_percent", 100 * 10 / 12, 12, "measured")
    assert (top5.metric, top5.value, top1.error) == ("top5_percent", 100 * 11 / 12, evaluation.top1.error_percent)
    assert (top1.artifact_sha256, top1.target, top1.engine_version) == (artifact.sha256, "grader", "1.0")
    assert top1.dataset == "greys" and len(top1.dataset_sha256) == 64 and top1.input_size == (8, 8)


def test_five_classes_have_no_top5(fake: None, tmp_path: Path) -> None:
    evaluation = evaluate(graders.artifact(tmp_path / "a", classes=4), EvaluationRequest(greys(tmp_path)))
    assert evaluation.top5 is None and [accuracy.metric for accuracy in evaluation.accuracies] == ["top1_percent"]
    assert evaluation.top1 == Proportion(10, 12)


def test_nan_counts_as_wrong_and_is_told(fake: None, tmp_path: Path) -> None:
    evaluation = evaluate(graders.artifact(tmp_path / "a", "nan", 0, classes=4), EvaluationRequest(greys(tmp_path)))
    assert evaluation.top1 == Proportion(9, 12) and "1 images gave NaN and count as wrong" in evaluation.notes
    assert "1 images gave NaN" in evaluation.accuracies[0].note


@pytest.mark.parametrize(
    ("behaviour", "message"), [("segv", "SIGSEGV"), ("raise", "the engine says no"), ("hang", "Timeout")]
)
@pytest.mark.parametrize("at", [0, 7])
def test_an_engine_that_fails_is_an_error(
    fake: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str, at: int, message: str
) -> None:
    monkeypatch.setattr(engine, "STALL_S", 1.0)
    threads = threading.active_count()
    with pytest.raises(ArtifactError, match=r"the engine .* on the artifact") as caught:
        evaluate(graders.artifact(tmp_path / "a", behaviour, at, classes=4), EvaluationRequest(greys(tmp_path)))
    assert message in caught.value.why
    assert wait_until(lambda: threading.active_count() == threads), "the thread that fed the engine has ended"


def test_an_engine_that_is_not_here(fake: None, tmp_path: Path) -> None:
    with pytest.raises(TargetUnavailableError) as caught:
        evaluate(graders.artifact(tmp_path / "a", "missing", classes=4), EvaluationRequest(greys(tmp_path)))
    assert "it needs another machine" in caught.value.why


def test_random_weights_have_no_accuracy(fake: None, tmp_path: Path) -> None:
    artifact = graders.artifact(tmp_path / "a", source=Source("mobilevig_ti", "random", 0))
    with pytest.raises(UsageError, match="the weights are random") as caught:
        evaluate(artifact, EvaluationRequest(tmp_path / "not even looked at"))
    assert caught.value.fix.startswith(
        "edgevit export mobilevig_ti --target grader --precision fp32 --weights CHECKPOINT "
    )


def test_what_is_no_classifier_or_has_another_batch_is_refused(fake: None, tmp_path: Path) -> None:
    boxes = graders.artifact(tmp_path / "a", outputs=(TensorSpec("boxes", (-1, 100, 4)),))
    with pytest.raises(ArtifactError, match="no classifier"):
        evaluate(boxes, EvaluationRequest(tmp_path))
    image = TensorSpec("image", (1, 8, 8, 3), "uint8")
    fixed = graders.artifact(tmp_path / "b", inputs=(image,), dynamic_batch=False, classes=4)
    with pytest.raises(UsageError, match="a fixed batch of 1"):
        evaluate(fixed, EvaluationRequest(greys(tmp_path), batch=4))
    assert evaluate(fixed, EvaluationRequest(tmp_path / "greys")).top1 == Proportion(10, 12)


def test_a_damaged_artifact_is_refused(fake: None, tmp_path: Path) -> None:
    artifact = graders.artifact(tmp_path / "a", classes=4)
    (artifact.folder / "payload.txt").write_text("work 0 5")
    with pytest.raises(ArtifactError, match="the artifact is damaged"):
        evaluate(artifact, EvaluationRequest(greys(tmp_path)))


def test_a_manifest_that_knows_no_interpolation_is_read(fake: None, tmp_path: Path) -> None:
    """Earlier manifests have none, and their digest forbids adding one."""
    artifact = graders.artifact(tmp_path / "a")
    file = artifact.folder / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["artifact"]["preprocessing"]["interpolation"]
    file.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    with pytest.raises(ArtifactError, match="changed after it was written"):
        open_artifact(artifact.folder)
    manifest["manifest_sha256"] = hashlib.sha256(to_json(manifest["artifact"]).encode()).hexdigest()
    file.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    assert open_artifact(artifact.folder) == artifact
    file.write_text(json.dumps(manifest, indent=1, sort_keys=True) + " \n")
    with pytest.raises(ArtifactError, match="changed after it was written"):
        open_artifact(artifact.folder)


# Files that cannot be read


def test_an_unreadable_image_is_named_and_stops_it(fake: None, tmp_path: Path) -> None:
    folder = greys(tmp_path)
    (folder / "2" / "1.png").write_bytes(b"not an image")
    with pytest.raises(UsageError, match="an image cannot be read") as caught:
        evaluate(graders.artifact(tmp_path / "a", classes=4), EvaluationRequest(folder))
    assert caught.value.where == str(folder / "2" / "1.png") and "--skip-unreadable" in caught.value.fix


@pytest.mark.parametrize("batch", [1, 5])
def test_unreadable_images_are_left_out_counted_and_named(fake: None, tmp_path: Path, batch: int) -> None:
    folder = greys(tmp_path)
    (folder / "2" / "1.png").write_bytes(b"not an image")
    (folder / "3" / "1.png").unlink()
    (folder / "3" / "1.png").symlink_to(tmp_path / "nowhere")
    request = EvaluationRequest(folder, batch=batch, skip_unreadable=True)
    evaluation = evaluate(graders.artifact(tmp_path / "a", classes=4), request)
    assert evaluation.top1 == Proportion(9, 10), "one of those left out was right, the other was not"
    assert [text.split(":")[0] for text in evaluation.unreadable] == ["2/1.png", "3/1.png"]
    assert "2 files could not be read and were left out" in evaluation.accuracies[0].note
    assert evaluation.accuracies[0].examples == 10


def test_nothing_readable_is_an_error(fake: None, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for name in "abcd":
        (folder / name).mkdir(parents=True)
        (folder / name / "1.png").write_bytes(b"")
    with pytest.raises(UsageError, match="no image of the data set can be read"):
        evaluate(graders.artifact(tmp_path / "a", classes=4), EvaluationRequest(folder, skip_unreadable=True))


def test_a_table_has_the_input_sizes_where_they_differ(
    fake: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = evaluate(graders.artifact(tmp_path / "a", classes=4), EvaluationRequest(greys(tmp_path)))
    show([evaluation, evaluation])
    assert " input " not in capsys.readouterr().out
    show([evaluation, dataclasses.replace(evaluation, input_shape=(1, 3, 48, 64))])
    table, _, _ = capsys.readouterr().out.partition("measured:")
    assert " input " in table and "48x64" in table


def test_orientations_and_transparency_are_told(fake: None, tmp_path: Path) -> None:
    folder = greys(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(folder / "0" / "0.png") as image:
        image.save(folder / "0" / "0.png", exif=exif)
    for place, alpha in enumerate((0, 255)):
        file = folder / "1" / f"{place}.png"
        with Image.open(file) as image:
            image.putalpha(alpha)
            image.save(file)
    evaluation = evaluate(graders.artifact(tmp_path / "a", classes=4), EvaluationRequest(folder))
    assert "1 images have an EXIF orientation, which is not applied" in evaluation.notes
    assert "1 images are partly transparent, and their transparency was dropped" in evaluation.notes


def test_images_are_decoded_in_order_and_not_far_ahead() -> None:
    begun: list[int] = []

    def read(number: Any) -> Any:
        begun.append(number)
        time.sleep(0.002 * (number % 3))
        return number

    taken: Iterator[Any] = in_order(read, list(range(200)), 2)  # type: ignore[arg-type]
    assert [next(taken) for _ in range(5)] == [0, 1, 2, 3, 4]
    time.sleep(0.1)
    assert len(begun) <= 5 + 4 * 2 + 1
    assert list(taken) == list(range(5, 200))


# The trained network, exported


@pytest.fixture(scope="module")
def data(trained_digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_digits.write(tmp_path_factory.mktemp("data") / "digits")


@pytest.fixture(scope="module")
def exported(trained_digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained network as artifacts: an open batch, a fixed one in another engine, and one that takes raw pixels."""
    folder = tmp_path_factory.mktemp("exported")
    source = load_subject(trained_digits.subject(folder, "vanillanet"))
    export_subject(source, ExportRequest("onnx", folder / "open", dynamic_batch=True))
    export_subject(source, ExportRequest("openvino", folder / "fixed"))
    export_subject(with_preprocessing(source), ExportRequest("onnx", folder / "raw"))
    return folder


def artifact_in(folder: Path) -> Artifact:
    [artifact_folder] = folder.iterdir()
    return open_artifact(artifact_folder)


def by_torch(digits: Digits, folder: Path) -> torch.Tensor:
    """Return the trained network's scores of the files, prepared without any of our code: (360, 10), in their order."""
    files = sorted(folder.glob("*/*.png"))
    arrays = [
        torch.from_numpy(np.array(Image.open(file).resize((32, 32), Image.Resampling.BILINEAR))) for file in files
    ]
    images = (torch.stack(arrays)[:, None].double() / 15 - digits.mean) / digits.std
    with torch.inference_mode():
        return torch.Tensor(digits.module("vanillanet")(images.float().expand(-1, 3, -1, -1)))


@pytest.mark.parametrize(("form", "batch"), [("open", 1), ("open", 7), ("fixed", None), ("raw", None)])
def test_the_artifact_is_as_right_as_the_model(
    trained_digits: Digits, data: Path, exported: Path, form: str, batch: int | None
) -> None:
    scores = by_torch(trained_digits, data)
    labels = torch.tensor([int(file.parent.name) for file in sorted(data.glob("*/*.png"))])
    best = scores.topk(5).indices
    evaluation = evaluate(artifact_in(exported / form), EvaluationRequest(data, batch=batch))
    assert evaluation.top1 == Proportion(int((best[:, 0] == labels).sum()), 360)
    assert evaluation.top5 == Proportion(int((best == labels[:, None]).any(1).sum()), 360)
    assert evaluation.top1.percent > 85 and evaluation.top5.percent > evaluation.top1.percent
    # On the tensors that it was trained on, of which the files are a rounded form.
    assert abs(evaluation.top1.percent - trained_digits.results[0].before) < 1.0
    assert evaluation.dataset == "digits" and evaluation.images == "360 images of 10 classes"


def test_each_form_sees_the_same_data(data: Path, exported: Path) -> None:
    evaluation = [evaluate(artifact_in(exported / form), EvaluationRequest(data, limit=50)) for form in ("open", "raw")]
    assert evaluation[0].dataset_sha256 == evaluation[1].dataset_sha256 and evaluation[0].top1 == evaluation[1].top1
    assert evaluation[0].images == "50 of 360 images of 10 classes, drawn with seed 0"


@pytest.mark.parametrize("form", ["fixed", "raw"])
def test_no_image_changes_its_class(exported: Path, data: Path, form: str) -> None:
    artifact, request = artifact_in(exported / form), EvaluationRequest(data, against_model=True)
    evaluation = evaluate(artifact, request, built_here=code_digests(artifact))
    assert evaluation.agreement is not None and evaluation.agreement.top1 == evaluation.top1
    assert (evaluation.agreement.changed, evaluation.agreement.lost, evaluation.agreement.gained) == (0, 0, 0)
    assert [(accuracy.target, accuracy.engine) for accuracy in evaluation.accuracies][-1] == ("", "torch")


def test_images_that_change_their_class_are_counted(
    exported: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model beside the artifact is damaged: the artifact is right where it is not, and sometimes the other way."""
    artifact = artifact_in(exported / "open")
    module = load_subject(artifact.source.model).module

    class Damaged(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.Tensor(module(x)).roll(1, 1)

    real = ReferenceModel.of
    monkeypatch.setattr(ReferenceModel, "of", lambda *arguments: replace(real(*arguments), model=Damaged()))
    request = EvaluationRequest(data, against_model=True, batch=16)
    evaluation = evaluate(artifact, request, built_here=code_digests(artifact))
    agreement = evaluation.agreement
    assert agreement is not None and agreement.changed == 360
    assert agreement.lost == agreement.top1.right and agreement.gained == evaluation.top1.right


@pytest.mark.parametrize(
    ("macs", "batch", "threads"),
    [(MACS_OF_A_THREAD // 100, 1, 1), (MACS_OF_A_THREAD, 2, 2), (MACS_OF_A_THREAD, 64, 3), (0, 64, 1)],
)
def test_the_model_gets_as_many_threads_as_it_has_work_for(macs: int, batch: int, threads: int) -> None:
    seen: list[int] = []

    class Noting(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return x

    before = torch.get_num_threads()
    reference = ReferenceModel(Noting(), torch.__version__, macs, 3)
    assert len(list(reference.classify(iter([np.eye(batch, 4, dtype=np.float32)] * 2)))) == 2
    assert seen == [threads] * 2 and torch.get_num_threads() == before


def test_other_weights_are_not_the_model(trained_digits: Digits, data: Path, exported: Path, tmp_path: Path) -> None:
    changed = trained_digits.module("vanillanet").state_dict()
    changed = {name: value * 2 if name.endswith("weight") else value for name, value in changed.items()}
    torch.save(changed, tmp_path / "other.pth")
    request = EvaluationRequest(data, against_model=True, weights=WeightsRequest(tmp_path / "other.pth"))
    artifact = artifact_in(exported / "open")
    with pytest.raises(CheckpointError, match="not the weights the artifact was made from"):
        evaluate(artifact, request, built_here=code_digests(artifact))


@pytest.mark.slow
@pytest.mark.coreml
def test_a_reference_evaluator_stands_in_and_says_so(
    exported: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Core ML runs on Macs alone; what evaluates its files here is tried with a small artifact of its own."""
    folder = exported.parent / "coreml"
    source = load_subject(next(exported.glob("*.py")).as_posix() + ":vanillanet")
    artifact = export_subject(source, ExportRequest("coreml", folder, precision="fp32"))
    evaluation = evaluate(artifact, EvaluationRequest(data, limit=20))
    if artifact.parity and artifact.parity.status == "evaluated":
        assert evaluation.notes[0] == "computed by the reference evaluator, not by the target's engine"
    assert evaluation.top1 == evaluate(artifact_in(exported / "open"), EvaluationRequest(data, limit=20)).top1


# The command


def test_the_command_measures_keeps_and_shows(exported: Path, data: Path, tmp_path: Path) -> None:
    artifacts = [artifact_in(exported / form).folder for form in ("open", "fixed")]
    database = tmp_path / "a.db"
    evaluated = ("evaluate", *artifacts, "--data", data, "--against-model", "--db", database, "--threads", 1)
    refused = edgevit(*evaluated)
    assert refused.returncode == 1 and "names code of its own" in refused.stderr
    finished = edgevit(*evaluated, "--model", artifact_in(exported / "open").source.model)
    assert finished.returncode == 0, finished.stderr
    assert "measured: digits, 360 images of 10 classes; onnxruntime" in finished.stdout
    assert "the artifact gives 0 of 360 images another class" in finished.stdout
    with LatencyDB.open(str(database), shipped=False) as db:
        accuracies = db.accuracies(dataset="digits", provenance="measured")
    assert sorted({(accuracy.target, accuracy.metric) for accuracy in accuracies}) == [
        ("", "top1_percent"), ("onnx", "top1_percent"), ("onnx", "top5_percent"),
        ("openvino", "top1_percent"), ("openvino", "top5_percent"),
    ]  # fmt: skip
    manifest = json.loads(edgevit("evaluate", artifacts[0], "--data", data, "--json", "--db", database).stdout)
    [accuracy] = manifest["evaluations"]
    assert accuracy["top1"]["images"] == 360 and accuracy["top1"]["low_percent"] < accuracy["top1"]["percent"]
    assert accuracy["accuracies"][0]["value"] == accuracy["top1"]["percent"] and accuracy["agreement"] is None


def test_errors_of_the_command(exported: Path, data: Path, tmp_path: Path) -> None:
    artifact = artifact_in(exported / "open").folder
    assert "the data set cannot be read" in refused(2, "evaluate", artifact, "--data", tmp_path / "absent")
    (tmp_path / "two" / "a").mkdir(parents=True)
    (tmp_path / "two" / "b").mkdir()
    assert "the model has 10 classes" in refused(2, "evaluate", artifact, "--data", tmp_path / "two")
    assert "not an artifact" in refused(1, "evaluate", tmp_path, "--data", data)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_an_interruption_leaves_nothing_behind(exported: Path, data: Path, tmp_path: Path) -> None:
    """Ctrl-C while the engine works: no row, no process, no folder, no traceback but Python's own."""
    artifact = artifact_in(exported / "open").folder
    many = tmp_path / "many"
    for module in data.iterdir():
        (many / module.name).mkdir(parents=True)
        for number in range(100):
            for file in module.iterdir():
                os.link(file, many / module.name / f"{number}-{file.name}")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    heard = (
        "import signal; from edgevit.cli import main; signal.signal(signal.SIGINT, signal.default_int_handler); main()"
    )
    command = [
        sys.executable,
        "-c",
        heard,
        "evaluate",
        str(artifact),
        "--data",
        str(many),
    ]  # in the background it is ignored
    environment = os.environ | {"TMPDIR": str(temporary)}
    process = subprocess.Popen([*command, "--db", str(tmp_path / "a.db"), "--threads", "1"], env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    pipe = _wait_for(lambda: next(temporary.glob("edgevit-evaluate-*/feeds.pipe"), None))
    _wait_for(lambda: [accuracy for accuracy in Path("/proc").glob("[0-9]*/fd/*") if _leads_to(accuracy, pipe)])
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=seconds(30))
    assert process.returncode != 0
    assert not [accuracy for accuracy in Path("/proc").glob("[0-9]*/fd/*") if _leads_to(accuracy, pipe)]
    assert not list(temporary.iterdir())
    with LatencyDB.open(str(tmp_path / "a.db"), shipped=False) as db:
        assert db.accuracies() == []


def _wait_for(look: Any) -> Any:
    end = time.monotonic() + seconds(30)
    while not (outcome := look()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return outcome


def _leads_to(link: Path, pipe: Path) -> bool:
    try:
        return link.readlink() == pipe
    except OSError:
        return False
