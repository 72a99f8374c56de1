"""A person's own network: another preprocessing or order of classes is stated, refused or marked, and never silent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgevit.artifacts.folder import open_artifact
from edgevit.errors import UsageError
from edgevit.evaluation import Evaluation, EvaluationRequest, Proportion, evaluate
from edgevit.evaluation.class_order import better_order, is_chance
from edgevit.evaluation.confusion import count_answers, per_class
from edgevit.evaluation.reference_model import ReferenceModel
from edgevit.exporting.pipeline import export_subject
from edgevit.models.source import load_subject, with_preprocessing
from edgevit.records.artifact import NO_CHECKPOINT, Artifact, ExportRequest
from edgevit.records.measurement import CLASS_ORDER, NO_CLASS, NOT_OF_MANIFEST
from edgevit.records.model import STATEABLE
from edgevit.records.preprocessing import read_stated
from edgevit.store import LatencyDB
from support.command_line import edgevit, refused
from support.digits import CLASSES, Digits

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def data(trained_digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_digits.write(tmp_path_factory.mktemp("data") / "digits")


@pytest.fixture(scope="module")
def in_words(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the images in folders whose order by name is not that of the classes."""
    folder = tmp_path_factory.mktemp("data") / "words"
    for digit, word in zip(CLASSES, WORDS, strict=True):
        shutil.copytree(data / digit, folder / word)
    return folder


@pytest.fixture(scope="module")
def facts(trained_digits: Digits) -> dict[str, object]:
    """Return the preprocessing of the digits: a pixel of 15 levels stands for itself."""
    return {
        "mean": trained_digits.mean, "std": trained_digits.std, "range": "0,17", "crop": 1,
        "interpolation": "bilinear", "color": "RGB",
    }  # fmt: skip


@pytest.fixture(scope="module")
def own(trained_digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with the trained network, which states nothing."""
    file = Path(trained_digits.subject(tmp_path_factory.mktemp("own"), "vanillanet").rpartition(":")[0])
    text = file.read_text(encoding="utf-8")
    file.write_text("".join(line for line in text.splitlines(True) if "model.card =" not in line), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def artifact(own: Path) -> Artifact:
    subject = load_subject(f"{own}:vanillanet", input_size=(32, 32))
    return export_subject(subject, ExportRequest("onnx", own.parent / "artifacts", dynamic_batch=True))


@pytest.fixture(scope="module")
def right(artifact: Artifact, data: Path, facts: dict[str, object]) -> Evaluation:
    return evaluate(artifact, EvaluationRequest(data, batch=60, preprocessing=read_stated(facts)))


def test_what_was_stated_is_used_and_no_number_is_marked(
    trained_digits: Digits, right: Evaluation, facts: dict[str, object]
) -> None:
    assert abs(right.top1.percent - trained_digits.results[0].before) < 1.0
    assert right.assumed == (CLASS_ORDER, NOT_OF_MANIFEST) and right.preprocessing.mean == (trained_digits.mean,) * 3
    assert "the artifact's manifest says another preprocessing" in right.notes[0]


def test_imagenets_preprocessing_is_marked_wherever_the_number_appears(
    artifact: Artifact, data: Path, right: Evaluation, tmp_path: Path
) -> None:
    assert artifact.preprocessing.assumed == STATEABLE, "the manifest says so"
    evaluation = evaluate(artifact, EvaluationRequest(data, batch=60))
    assert evaluation.top1.percent < right.top1.percent - 10, "it is the wrong number"
    assert evaluation.assumed == (*STATEABLE, CLASS_ORDER)
    assert evaluation.notes[0] == ("preprocessing assumed, not stated: mean, std, range, crop, interpolation and color")
    assert all(row.assumed == evaluation.assumed for row in evaluation.accuracies)
    shown = edgevit("evaluate", artifact.folder, "--data", data, "--batch", 60, "--db", tmp_path / "a.db").stdout
    assert f"{evaluation.top1.percent:.2f} assumed" in shown and "--mean 0.485,0.456,0.406 --std" in shown
    assert "class order: 0 = 0, 1 = 1, 2 = 2, ..., 9 = 9, by the names of the folders (assumed)" in shown


def test_the_command_takes_every_statement(
    artifact: Artifact, data: Path, facts: dict[str, object], right: Evaluation, tmp_path: Path
) -> None:
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(CLASSES))
    words = [word for name, value in facts.items() for word in (f"--{name}", value)]
    arguments = ("evaluate", artifact.folder, "--data", data, "--batch", 60, "--classes", classes, *words)
    (shown,) = json.loads(edgevit(*arguments, "--json", "--db", tmp_path / "a.db").stdout)["evaluations"]
    assert shown["top1"]["right"] == right.top1.right and shown["assumed"] == [NOT_OF_MANIFEST]
    assert sum(one["images"] for one in shown["classes"]) == 360
    assert sum(images for actual, given, images in shown["confusion"]["counts"] if actual == given) == right.top1.right
    with LatencyDB.open(str(tmp_path / "a.db"), shipped=False) as db:
        (confusion,) = db.confusions()
        (top1,) = db.accuracies(metric="top1_percent")
    assert confusion.accuracy_id == top1.accuracy_id and confusion.labels == CLASSES
    assert top1.preprocessing == right.preprocessing and top1.assumed == (NOT_OF_MANIFEST,)


def test_statements_beside_the_function_are_as_good_as_options(
    own: Path, in_words: Path, facts: dict[str, object], right: Evaluation, tmp_path: Path
) -> None:
    file = tmp_path / "stated.py"
    beside = f"preprocessing = {facts!r}\ninput_shape = (1, 3, 32, 32)\nlabels = {WORDS!r}\n"
    file.write_text(own.read_text(encoding="utf-8") + beside, encoding="utf-8")
    result = edgevit("export", f"{file}:vanillanet", "-t", "onnx", "-o", tmp_path / "a", "--dynamic-batch", "-q")
    assert result.returncode == 0, result.stderr
    [folder] = (tmp_path / "a").iterdir()
    artifact = open_artifact(folder)
    assert artifact.preprocessing == right.preprocessing and artifact.labels == WORDS
    evaluation = evaluate(artifact, EvaluationRequest(in_words, batch=60))
    assert evaluation.top1 == right.top1 and evaluation.assumed == ()
    assert evaluation.class_order.endswith("by the artifact's labels")
    names = tmp_path / "names.txt"
    names.write_text("\n".join((*WORDS[1:], WORDS[0])))
    turned = evaluate(artifact, EvaluationRequest(in_words, batch=60, names=names))
    assert turned.assumed == (NOT_OF_MANIFEST,), "who runs the artifact reads other labels"
    assert any("the artifact's manifest says another order of the classes" in note for note in turned.notes)


def test_an_alphabetical_order_that_is_wrong_is_refused(
    artifact: Artifact, in_words: Path, facts: dict[str, object], right: Evaluation, tmp_path: Path
) -> None:
    request = EvaluationRequest(in_words, batch=60, preprocessing=read_stated(facts))
    with pytest.raises(
        UsageError, match=r"the order of the classes was assumed|another order of the classes"
    ) as caught:
        evaluate(artifact, request)
    assert "--classes FILE" in caught.value.fix and "--labels FILE" in caught.value.fix
    assert "0 = eight, 1 = five, 2 = four" in caught.value.why
    assert "--classes" in refused(2, "evaluate", artifact.folder, "--data", in_words, "--batch", 60)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(WORDS))
    stated = EvaluationRequest(in_words, batch=60, preprocessing=request.preprocessing, names=names)
    assert evaluate(artifact, stated).top1 == right.top1


def test_two_classes_that_are_swapped_are_refused(
    artifact: Artifact, data: Path, facts: dict[str, object], tmp_path: Path
) -> None:
    swapped = {"3": "4", "4": "3"}
    for digit in CLASSES:
        shutil.copytree(data / digit, tmp_path / "swapped" / swapped.get(digit, digit))
    request = EvaluationRequest(tmp_path / "swapped", batch=60, preprocessing=read_stated(facts))
    with pytest.raises(UsageError, match="another order of the classes gives") as caught:
        evaluate(artifact, request)
    assert "images of 3 are given the output of 4" in caught.value.why
    names = tmp_path / "names.txt"
    names.write_text("\n".join(CLASSES))
    stated = EvaluationRequest(request.data, batch=60, preprocessing=request.preprocessing, names=names)
    notes = evaluate(artifact, stated).notes
    assert notes[0].startswith("another order of the classes gives"), "a stated one is taken, and told of"


def test_a_normalisation_inside_cannot_be_stated_otherwise(own: Path, data: Path, facts: dict[str, object]) -> None:
    subject = load_subject(f"{own}:vanillanet", input_size=(32, 32), preprocessing=read_stated(facts))
    inside = export_subject(with_preprocessing(subject), ExportRequest("onnx", own.parent / "raw"))
    with pytest.raises(UsageError, match="are inside the artifact"):
        evaluate(inside, EvaluationRequest(data, preprocessing=read_stated({"mean": 0.5})))
    request = EvaluationRequest(data, limit=60, preprocessing=read_stated({"mean": facts["mean"], "crop": 0.9}))
    assert evaluate(inside, request).preprocessing.crop_pct == 0.9


def test_few_confusions_are_no_other_order() -> None:
    counts = {(number, number): 9 for number in range(10)} | {(0, 1): 1, (1, 0): 1, (2, NO_CLASS): 1}
    assert better_order(counts, CLASSES, Proportion(90, 93)) is None
    # One image a class says nothing about a class, however many are wrong.
    single = {(number, number if number % 2 else (number + 100) % 200): 1 for number in range(200)}
    assert better_order(single, tuple(map(str, range(200))), Proportion(100, 200)) is None
    rolled = {(number, (number + 1) % 10): 9 for number in range(10)}
    better = better_order(rolled, CLASSES, Proportion(0, 90))
    assert better is not None and better.percent == 100 and ("9", "0") in better.moved


def test_chance_is_what_the_interval_reaches_down_to() -> None:
    assert is_chance(Proportion(12, 100), 10) and is_chance(Proportion(0, 90), 10)
    assert not is_chance(Proportion(30, 100), 10) and is_chance(Proportion(1, 1), 2)


def test_every_class_has_its_accuracy_and_what_it_is_taken_for() -> None:
    pairs = [(0, 0), (0, 2), (0, 2), (0, 1), (2, 2), (2, NO_CLASS)]
    first, last = per_class(count_answers(pairs), ("a", "b", "c"))
    assert (first.label, first.right, first.images, first.percent, first.taken_for) == ("a", 1, 4, 25.0, "c")
    assert (last.label, last.right, last.images, last.taken_for) == ("c", 1, 2, "")


def test_a_network_whose_code_changed_since_the_export_is_not_the_model_itself(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\n\n\ndef net():\n"
        "    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "    for number, parameter in enumerate(net.parameters()):\n"
        "        nn.init.constant_(parameter, 0.1 + number)\n"
        "    return net.eval()\n"
    )
    subject = load_subject(f"{file}:net", input_size=(16, 16))
    artifact = export_subject(with_preprocessing(subject), ExportRequest("onnx", tmp_path / "artifacts"))
    assert ReferenceModel.of(artifact, NO_CHECKPOINT, 1).classes == []
    file.write_text(file.read_text().replace("ReLU", "Tanh"))
    with pytest.raises(UsageError, match="not the network that the artifact was made from"):
        ReferenceModel.of(artifact, NO_CHECKPOINT, 1)
