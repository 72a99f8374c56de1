"""Several checkpoints of one function on the command line: the better one is picked, and just that is handed over."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgevit.artifacts.folder import open_artifact
from edgevit.cli import choose_actions
from edgevit.cli.choose_export import Sources, hand_over
from edgevit.errors import UsageError
from edgevit.records.artifact import NO_CHECKPOINT, Artifact
from edgevit.records.choice import Budget, Suggestion
from edgevit.records.network import Network
from edgevit.selection import choose_among
from support.command_line import edgevit, refused
from support.measured import measured

FILE = """
from torch import nn

preprocessing = {"mean": 0.5, "std": 0.5, "range": (0, 1), "resize": "stretch", "interpolation": "nearest",
                 "color": "RGB"}
labels = ["blue", "red"]

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
"""
NAME = "mine.py:net"


def state(sign: float) -> dict[str, torch.Tensor]:
    """Return weights that tell red from blue, or take each for the other."""
    torch.manual_seed(0)
    pick = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]])[:, :, None, None]
    head = sign * torch.tensor([[-1.0, 1, 0, 0], [1, -1, 0, 0]])
    return {"0.weight": pick, "0.bias": torch.ones(4), "4.weight": head, "4.bias": torch.zeros(2)}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sweep and evaluate both sets of one file, the good one first, each into a folder of its own."""
    folder = tmp_path_factory.mktemp("checkpoints")
    (folder / "mine.py").write_text(FILE)
    torch.save({"good": state(1), "bad": state(-1)}, folder / "both.pt")
    noise = np.random.default_rng(0)
    for label, channel in (("red", 0), ("blue", 2)):
        (folder / "colours" / label).mkdir(parents=True)
        for number in range(20):
            pixels = noise.integers(0, 60, (8, 8, 3), np.uint8)
            pixels[:, :, channel] += 150
            Image.fromarray(pixels).save(folder / "colours" / label / f"{number}.png")
    for key in ("good", "bad"):
        weights = ("--weights", "both.pt", "--weights-key", key)
        sweep = (
            "--models",
            NAME,
            "--targets",
            "onnx",
            "--input-size",
            8,
            *weights,
            "-o",
            key,
            "--quick",
            "--db",
            "x.db",
        )
        outcome = edgevit("sweep", *sweep, folder=folder)
        assert outcome.returncode == 0, outcome.stderr
        artifact = f"{key}/mine-net-8-onnx-fp32"
        outcome = edgevit("evaluate", artifact, "--data", "colours", "--db", "x.db", "--json", folder=folder)
        assert outcome.returncode == 0, outcome.stderr
    return folder


CHOOSE = ("choose", "--dataset", "colours", "--db", "x.db", "--models", "mine.py:*")


def exported(folder: Path, *options: object) -> tuple[Artifact, str]:
    """Return the artifact that `choose --export` hands over, and what it says of it."""
    outcome = edgevit(*CHOOSE, "--export", *options, "--json", folder=folder)
    assert outcome.returncode == 0, outcome.stderr
    [one] = json.loads(outcome.stdout)["exported"]
    return open_artifact(folder / one["folder"]), one["says"]


def test_the_better_set_is_picked_though_it_was_measured_first(swept: Path) -> None:
    outcome = edgevit(*CHOOSE, folder=swept)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith("mine.py:net with both.pt good, onnx fp32, 1 thread(s), on local\n")
    assert "mine.py:net is here as 2 networks, each a candidate of its own: both.pt bad, both.pt good" in outcome.stdout
    header, _, *lines = [line for line in outcome.stdout.splitlines() if line.startswith((" model", " ─", " mine"))]
    assert "weights" in header and "both.pt good" in lines[0] and "both.pt bad" in lines[1]
    answer = json.loads(edgevit(*CHOOSE, "--json", folder=swept).stdout)
    assert answer["picked"]["top1_percent"] == 100 and len(answer["fitting"]) == 2
    assert answer["picked"]["network"]["key"] == "good"


def test_a_table_of_evaluations_tells_the_sets_apart(swept: Path) -> None:
    artifacts = [f"{key}/mine-net-8-onnx-fp32" for key in ("good", "bad")]
    table = ("--dataset", "again", "--db", "y.db")
    outcome = edgevit("evaluate", *artifacts, "--data", "colours", *table, "--limit", 20, folder=swept)
    header, _, *lines = [line for line in outcome.stdout.splitlines() if line.startswith((" model", " ─", " mine"))]
    assert outcome.returncode == 0, outcome.stderr
    assert "weights" in header and "both.pt good" in lines[0] and "both.pt bad" in lines[1]


def test_just_the_picked_set_is_handed_over(swept: Path) -> None:
    good = open_artifact(swept / "good/mine-net-8-onnx-fp32")
    copy, says = exported(swept, "copy", "--artifacts", "good,bad")
    assert copy.sha256 == good.sha256 and says == "a copy of the artifact that the numbers are of"
    found, _ = exported(swept, "found", "--out", "good")
    assert found.sha256 == good.sha256
    # The key that the user leaves out is that of the pick, not the averaged or the first one.
    made, says = exported(swept, "made", "--weights", "both.pt")
    assert made.source.choice and made.source.choice.key == "good" and "of the network that the numbers are of" in says
    assert made.source.state_sha256 == good.source.state_sha256
    assert (made.preprocessing, made.labels) == (good.preprocessing, good.labels)


def test_other_weights_are_refused_and_so_is_no_statement_of_them(swept: Path) -> None:
    text = refused(2, *CHOOSE, "--export", "none", folder=swept)
    assert "the picked artifact is not here" in text and "--weights path/to/both.pt --weights-key good" in text
    wrong = ("--weights", "both.pt", "--weights-key", "bad")
    text = refused(1, *CHOOSE, "--export", "none", *wrong, folder=swept)
    assert "these are not the weights that the numbers are of" in text and "both.pt good" in text
    assert not list((swept / "none").glob("*")), "nothing that could be taken for the pick"


def test_an_accuracy_by_another_preprocessing_is_not_handed_over_with_the_manifest(swept: Path) -> None:
    tinted = ("--dataset", "tinted", "--mean", "0.4", "--db", "x.db")
    outcome = edgevit("evaluate", "good/mine-net-8-onnx-fp32", "--data", "colours", *tinted, folder=swept)
    assert outcome.returncode == 0, outcome.stderr
    ask = ("choose", "--dataset", "tinted", "--db", "x.db")
    text = refused(2, *ask, "--export", "none", "--artifacts", "good", folder=swept)
    assert "another preprocessing than the manifest's" in text and "0.4" in text


def test_of_two_exports_that_differ_in_their_mean_the_one_that_the_accuracy_is_by_is_handed_over(
    swept: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(swept, tmp_path / "means")
    weights = ("--weights", "both.pt", "--weights-key", "good")
    export = ("export", NAME, "-t", "onnx", "--input-size", 8, *weights, "--mean", "0.4", "-o", "good", "--db", "x.db")
    assert edgevit(*export, folder=folder).returncode == 0
    plain = folder / "good/mine-net-8-onnx-fp32"
    [tinted] = [path for path in (folder / "good").iterdir() if path != plain]
    evaluate = ("evaluate", "--data", "colours", "--db", "x.db", "--dataset")
    for evaluated, *options in (
        (tinted, "alone"),
        (plain, "both"),
        (tinted, "both"),
        (plain, "stated", "--mean", "0.4"),
    ):
        outcome = edgevit(*evaluate, *options, evaluated, folder=folder)
        assert outcome.returncode == 0, outcome.stderr

    def asked(dataset: str, *options: str) -> tuple[str, ...]:
        return "choose", "--db", "x.db", "--dataset", dataset, "--export", f"of-{dataset}", *options

    def handed_over(dataset: str, *options: str) -> tuple[Artifact, str]:
        outcome = edgevit(*asked(dataset, *options), "--json", folder=folder)
        assert outcome.returncode == 0, outcome.stderr
        [one] = json.loads(outcome.stdout)["exported"]
        return open_artifact(folder / one["folder"]), one["says"]

    # The plain one alone was timed. It has an accuracy of its own, or that of the other one, or one by an option.
    artifact, says = handed_over("both", "--artifacts", "good")
    assert artifact.sha256 == open_artifact(plain).sha256 and says == "a copy of the artifact that the numbers are of"
    artifact, says = handed_over("alone", "--artifacts", "good")
    assert artifact.sha256 == open_artifact(tinted).sha256 and "of the artifact that the accuracy is of" in says
    artifact, says = handed_over("stated", "--out", "good")
    assert artifact.sha256 == open_artifact(tinted).sha256 and "not its very file" in says
    shutil.rmtree(tinted)
    for dataset in ("alone", "stated"):
        shutil.rmtree(folder / f"of-{dataset}")
        text = refused(2, *asked(dataset, "--artifacts", "good,bad"), folder=folder)
        assert "another preprocessing than the manifest's" in text and "0.4" in text
        assert not list((folder / f"of-{dataset}").glob("*"))


def test_a_function_that_was_changed_is_noticed(swept: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(swept, tmp_path / "changed")
    (folder / "mine.py").write_text(FILE.replace('"blue", "red"', '"red", "blue"'))
    # Code in another folder is code that nothing was built from, whatever the rows say.
    text = refused(2, *CHOOSE, "--export", "none", "--weights", "both.pt", folder=folder)
    assert "rows of the database name code that would run" in text and f"--models {NAME}" in text
    text = refused(2, *CHOOSE, "--export", "none", "--weights", "both.pt", "--models", NAME, folder=folder)
    assert "the names or the order of its classes are not those that the numbers are of" in text
    (folder / "mine.py").write_text(FILE.replace("ReLU", "Hardswish"))
    text = refused(2, *CHOOSE, "--export", "none", "--weights", "both.pt", "--models", NAME, folder=folder)
    assert "this is not the network that the numbers are of" in text and "what it computes was changed since" in text
    verify = ("verify", "good/mine-net-8-onnx-fp32", "--weights", "both.pt")
    assert "names code of its own" in refused(1, *verify, folder=folder)
    text = refused(2, *verify, "--model", NAME, folder=folder)
    assert "this is not the network that the artifact was made from" in text and "edgevit export mine.py:net" in text
    weights = ("--weights", "both.pt", "--weights-key", "good", "--input-size", 8, "-o", "good", "--quick")
    sweep = ("sweep", "--models", NAME, "--targets", "onnx", *weights, "--db", "x.db")
    outcome = edgevit(*sweep, folder=folder)
    assert outcome.returncode == 0 and "already in the database" not in outcome.stdout, outcome.stderr
    outcome = edgevit(*CHOOSE, folder=folder)
    assert "mine.py:net with both.pt good is here as 2 networks: its code or its weights changed" in outcome.stdout
    assert "it was measured since as another network" in outcome.stdout


def test_the_labels_of_the_accuracy_are_handed_over(swept: Path, tmp_path: Path) -> None:
    """A file of the network without labels was timed last: what is handed over has those of the accuracy."""
    folder = shutil.copytree(swept, tmp_path / "labels")
    unlabelled = FILE.replace('labels = ["blue", "red"]', "")
    (folder / "mine.py").write_text(unlabelled)
    (folder / "right.txt").write_text("blue\nred\n")
    (folder / "wrong.txt").write_text("red\nblue\n")
    weights = ("--weights", "both.pt", "--weights-key", "good")
    sweep = (
        "--models",
        NAME,
        "--targets",
        "onnx",
        "--input-size",
        8,
        *weights,
        "-o",
        "bare",
        "--quick",
        "--db",
        "x.db",
    )
    outcome = edgevit("sweep", *sweep, folder=folder)
    assert outcome.returncode == 0, outcome.stderr
    answer = json.loads(edgevit(*CHOOSE, "--json", folder=folder).stdout)
    assert answer["picked"]["flags"][-1] == "top1_of_other_labels" and answer["picked"]["top1_percent"] == 100
    copy, _ = exported(folder, "kept", "--artifacts", "bare,good")
    assert copy.labels == ("blue", "red") and copy.sha256 == answer["picked"]["top1_artifact_sha256"]
    text = refused(2, *CHOOSE, "--export", "no", "--artifacts", "good", "--labels", "wrong.txt", folder=folder)
    assert "the artifact has other labels" in text
    for options in ((), ("--labels", "wrong.txt")):
        text = refused(2, *CHOOSE, "--export", "none", *weights[:2], *options, folder=folder)
        assert "the names or the order of its classes are not those" in text and "--labels FILE with those" in text
    made, _ = exported(folder, "rebuilt", *weights[:2], "--labels", "right.txt")
    assert made.labels == copy.labels and made.source.state_sha256 == copy.source.state_sha256


def test_a_row_that_may_change_the_answer_is_measured_of_its_own_network(swept: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(swept, tmp_path / "again")
    ask = (*CHOOSE, "--percentile", "99", "--max-latency", "10s", "--quick")
    before = json.loads(edgevit(*ask, "--json", folder=folder).stdout)
    assert {one["network"]["key"] for one in before["measure_next"]} == {"good", "bad"}
    outcome = edgevit(*ask, folder=folder)
    assert "--weights both.pt --weights-key good" in outcome.stdout
    torch.save({"good": state(-1), "bad": state(1)}, folder / "both.pt")
    assert "--weights both.pt" not in edgevit(*ask, folder=folder).stdout, "another file of this name is none of them"
    text = refused(2, *ask, "--measure", "--out", "elsewhere", folder=folder)
    assert "the artifact that is to be measured is not here" in text and "--weights path/to/both.pt" in text
    outcome = edgevit(*ask, "--measure", "--artifacts", "good,bad", "--json", folder=folder)
    assert outcome.returncode == 0, outcome.stderr
    assert len(json.loads(outcome.stdout)["measured"]) == 2


def test_random_weights_are_handed_over_only_by_name(tmp_path: Path) -> None:
    sweep = ("--models", "vanillanet_5", "--targets", "onnx", "--input-size", 64, "--quick", "--db", "x.db")
    assert edgevit("sweep", *sweep, folder=tmp_path).returncode == 0
    choose = ("choose", "--db", "x.db", "--objective", "fastest", "--measured-only", "--export", "deploy")
    for options in ((), ("--out", "elsewhere")):
        text = refused(2, *choose, *options, folder=tmp_path)
        assert "the artifact would have random weights" in text and "--random-weights" in text
    outcome = edgevit(*choose, "--random-weights", folder=tmp_path)
    assert outcome.returncode == 7 and "exported: deploy/vanillanet_5-64-onnx-fp32" in outcome.stdout, outcome.stderr


@pytest.mark.parametrize("artifact", ["", "a" * 64])
def test_an_own_network_that_no_row_names_is_not_exported_as_it_is_today(artifact: str, tmp_path: Path) -> None:
    row = measured(model=NAME, artifact_sha256="a" * 64)
    choice = choose_among([row], "pi5", Budget(objective="fastest"), cards={})
    assert choice.picked is not None
    picked = dataclasses.replace(choice.picked, artifact_sha256=artifact, network_id=artifact)
    sources = Sources((), tmp_path / "artifacts", NO_CHECKPOINT)
    with pytest.raises(UsageError, match="nothing tells which network the numbers are of"):
        hand_over(dataclasses.replace(choice, picked=picked), sources, tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("precision", ["int8", "w8"])
def test_numbers_from_samples_are_never_made_anew(precision: str, tmp_path: Path) -> None:
    """Another export would be calibrated on other samples, and is not what was evaluated."""
    row = measured(model="vanillanet_5", precision=precision, artifact_sha256="a" * 64)
    choice = choose_among([row], "pi5", Budget(objective="fastest"), cards={})
    sources = Sources((), tmp_path / "artifacts", NO_CHECKPOINT, random=True)
    with pytest.raises(UsageError, match="come from samples") as refused_:
        hand_over(choice, sources, tmp_path / "out", None)
    assert "--artifacts FOLDER" in refused_.value.fix and not (tmp_path / "out").exists()


def test_neither_the_pick_nor_a_suggestion_runs_code_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask about rows whose network is that of a function, which an export would call."""
    monkeypatch.chdir(tmp_path)
    network = Network("function", "a" * 64, "b" * 64, torch.__version__)
    row = measured(model="evil.py:net", artifact_sha256="a" * 64, network=network)
    choice = choose_among([row], "pi5", Budget(objective="fastest"), cards={})
    assert choice.picked is not None
    sources = Sources((), tmp_path / "artifacts", NO_CHECKPOINT)
    with pytest.raises(UsageError, match="rows of the database name code"):
        hand_over(choice, sources, tmp_path / "out", str(tmp_path / "x.db"))
    names = ("evil.py:net", "onnx", "fp32", 1, "why", "command")
    suggestion = Suggestion(*names, network=network, artifact_sha256="a" * 64)
    with pytest.raises(UsageError, match="rows of the database name code"):
        choose_actions._artifact(suggestion, sources, str(tmp_path / "x.db"))
