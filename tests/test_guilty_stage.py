"""Every target's conversion, broken on purpose at each of its stages: the one that is named is the one that did it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import toys
import torch
from nets import Toy
from saboteurs import BREAKERS, NOT_COMPUTED, STAGES, damaged_afterwards, drops_a_branch, residual_net, wrong_epsilon
from subjects import as_subject
from torch import nn

from edgevit.artifact import folder_name, open_artifact
from edgevit.errors import ParityError
from edgevit.fold import fold
from edgevit.pipeline import QUARANTINE, Order, export_subject
from edgevit.recipes import list_recipes, load_recipe
from edgevit.subject import Subject
from edgevit.types import Artifact
from edgevit.verify.compare import INFINITE, NO_SIGNAL_DB
from edgevit_runtime.digest import tree_sha256

# What a machine without a GPU and without macOS says of a right artifact.
STATUS = {"": "passed", "macOS": "evaluated", "an NVIDIA GPU": "built_not_run"}
TARGETS = [pytest.param(recipe.target, marks=getattr(pytest.mark, recipe.target)) for recipe in list_recipes()]
onnx_only = pytest.mark.onnx


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def blamed(out: Path, order: Order, subject: Subject, stage: str, *, older: bool = True) -> tuple[Artifact, ParityError]:
    """Export what must fail; the artifact in quarantine and the error, both of which name this stage."""
    name = ("unfolded-" if order.unfolded else "") + folder_name(subject.name, order.target, order.precision)
    out.mkdir()
    before = toys.fake_artifact(out / name) if older else None
    with pytest.raises(ParityError) as caught:
        export_subject(subject, order)
    error, quarantined = caught.value, out / QUARANTINE / name
    assert error.exit_code == 4
    assert f"stage {stage};" in error.where
    assert str(quarantined) in error.where
    held = open_artifact(quarantined)
    assert held.parity is not None
    assert (held.parity.status, held.parity.guilty_stage) == ("failed", stage)
    assert next(check.stage for check in held.parity.checks if not check.passed) == stage
    assert (quarantined / held.payload).exists()
    assert list((quarantined / "stages").iterdir()), "there is nothing to look at"
    assert sorted(path.name for path in out.iterdir()) == [*([name] if older else []), QUARANTINE]
    assert [path.name for path in (out / QUARANTINE).iterdir()] == [name]
    if before is not None:
        assert open_artifact(out / name) == before, "an older artifact is left alone"
    return held, error


def passing(held: Artifact) -> list[str]:
    """The stages before the guilty one, in order, each once."""
    assert held.parity is not None
    return list(dict.fromkeys(check.stage for check in held.parity.checks if check.passed))


# ---- every stage of every target -----------------------------------------------------------------------------------


def cases() -> list[Any]:
    """Each breaker in each precision whose conversion has its stage and no other that is cheaper: fp32, if it can be."""
    found = []
    for (target, stage), breaker in BREAKERS.items():
        precisions = [p for (name, p), stages in STAGES.items() if name == target and stage in stages]
        for precision in ["fp32"] if "fp32" in precisions else precisions:
            name = f"{target}-{stage}-{precision}"
            marks = getattr(pytest.mark, target)
            found.append(pytest.param(target, stage, precision, breaker, id=name, marks=marks))
    return found


@pytest.mark.parametrize(("target", "stage", "precision", "breaker"), cases())
def test_the_stage_that_changed_the_function_is_named(
    target: str, stage: str, precision: str, breaker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaker(monkeypatch)
    out = tmp_path / "out"
    held, _ = blamed(out, Order(target, out, precision), as_subject(residual_net()), stage)
    stages = STAGES[target, precision]
    assert [item.name for item in held.stages] == ["fold", *stages, "verify"]
    assert passing(held) == ["fold", *stages[: stages.index(stage)]]


def test_every_stage_of_every_target_is_broken_once() -> None:
    """A new target, precision or stage comes with a saboteur."""
    assert set(STAGES) == {(recipe.target, precision) for recipe in list_recipes() for precision in recipe.precisions}
    known = {(target, stage) for (target, _), stages in STAGES.items() for stage in stages}
    assert set(BREAKERS) == known - NOT_COMPUTED
    assert {(target, "artifact") for target, _ in STAGES} & NOT_COMPUTED == {
        (recipe.target, "artifact") for recipe in list_recipes() if STATUS[recipe.needs] == "built_not_run"
    }


@pytest.mark.parametrize("target", TARGETS)
def test_a_wrong_epsilon_in_the_fold_is_named(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong_epsilon(monkeypatch)
    out = tmp_path / "out"
    held, _ = blamed(out, Order(target, out), as_subject(residual_net()), "fold", older=False)
    assert passing(held) == []


@pytest.mark.parametrize("target", TARGETS)
def test_damage_after_the_last_stage_is_the_artifacts(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, out = as_subject(residual_net()), tmp_path / "out"
    folded = fold(subject.module, tuple(subject.example().values()))
    (bias,) = (item for item in folded.parameters() if item.shape == (5,))
    damaged_afterwards(target, bias.detach().numpy().tobytes())(monkeypatch)
    if (target, "artifact") in NOT_COMPUTED:  # which is what its status says
        artifact = export_subject(subject, Order(target, out))
        assert artifact.parity is not None
        assert artifact.parity.status == "built_not_run"
        assert "artifact" not in {check.stage for check in artifact.parity.checks}
        return
    held, _ = blamed(out, Order(target, out), subject, "artifact")
    assert passing(held) == ["fold", *STAGES[target, "fp32"]]
