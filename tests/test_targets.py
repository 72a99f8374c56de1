"""Every family in every target, and what holds for all targets. Found by name: a new one is tested as it comes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from subjects import tiny_subject

from edgevit.cards import load_cards
from edgevit.cli.export import snippet
from edgevit.errors import EdgevitError
from edgevit.pipeline import Order, export_subject
from edgevit.recipes import list_recipes, load_recipe
from edgevit.subject import load_subject
from edgevit.types import Artifact
from edgevit_runtime.record import Recipe

TARGETS = [pytest.param(recipe.target, marks=getattr(pytest.mark, recipe.target)) for recipe in list_recipes()]
GOLDEN = Path(__file__).parent / "golden" / "targets.txt"
# What a machine without a GPU and without macOS can say of an artifact.
STATUS = {"": "passed", "macOS": "evaluated", "an NVIDIA GPU": "built_not_run"}


def smallest() -> list[str]:
    """The variant with the fewest parameters of each family."""
    cards = sorted(load_cards().values(), key=lambda card: card.params or 0)
    return [next(card.name for card in cards if card.family == family) for family in sorted({c.family for c in cards})]


def cases() -> Iterator[Any]:
    """Each family's smallest variant in each target: in its first precision always, in others if slow tests run."""
    for recipe in list_recipes():
        for name in smallest():
            for precision in recipe.precisions:
                marks = [getattr(pytest.mark, recipe.target)]
                marks += [pytest.mark.slow] if precision != recipe.precisions[0] else []
                if why := known_failure(recipe, name, precision):
                    marks.append(pytest.mark.xfail(strict=True, raises=EdgevitError, reason=why))
                yield pytest.param(name, recipe.target, precision, marks=marks)


def known_failure(recipe: Recipe, name: str, precision: str) -> str:
    return recipe.known_failures.get(f"{name}:{precision}", recipe.known_failures.get(name, ""))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(("name", "target", "precision"), list(cases()))
def test_every_family_in_every_target(
    name: str, target: str, precision: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    artifact = export_subject(load_subject(name), Order(target, tmp_path, precision))
    assert artifact.parity is not None
    assert artifact.parity.status == STATUS[load_recipe(target).RECIPE.needs], artifact.parity
    assert artifact.parity.guilty_stage == "" and all(check.passed for check in artifact.parity.checks)
    check_golden(artifact, pytestconfig)


def check_golden(artifact: Artifact, pytestconfig: pytest.Config) -> None:
    """How many operators the artifact has, and which are left to slower kernels, against tests/golden/targets.txt.

    `pytest tests/test_targets.py -m 'slow or not slow' --update-goldens` writes the file anew, in one process.
    """
    case = f"{artifact.model} {artifact.target} {artifact.precision}:"
    counts, left = artifact.operators.counts, artifact.operators.fallbacks
    told = "" if left is None else f", {', '.join(f'{n} {name}' for name, n in left.items()) or 'none'} left over"
    found = f"{case} {sum(counts.values())} operators{told}"
    lines = GOLDEN.read_text().splitlines() if GOLDEN.exists() else []
    if pytestconfig.getoption("--update-goldens"):
        lines = [line for line in lines if not line.startswith(case)] + [found]
        GOLDEN.write_text("\n".join(sorted(lines)) + "\n")
    else:
        assert found in lines, found


def test_the_guide_lists_every_target() -> None:
    guide = (Path(__file__).parents[1] / "docs" / "targets.md").read_text()
    for recipe in list_recipes():
        install = f"`pip install 'edgevit[{recipe.extra}]'`"
        assert f"| {recipe.target} | `NAME{recipe.suffix}` | {', '.join(recipe.precisions)} | {install} |" in guide


def test_no_target_that_people_rely_on_has_a_known_failure() -> None:
    for target in ("onnx", "openvino", "coreml", "tensorrt"):
        assert load_recipe(target).RECIPE.known_failures == {}


@pytest.mark.parametrize("target", TARGETS)
def test_the_printed_snippet_runs_the_artifact(target: str, tmp_path: Path) -> None:
    artifact = export_subject(tiny_subject(tmp_path), Order(target, tmp_path / "out"))
    if STATUS[load_recipe(target).RECIPE.needs] != "passed":
        compile(snippet(artifact), "snippet", "exec")  # it cannot run here: it must be Python at least
        return
    printed = ran(snippet(artifact))
    with torch.no_grad():
        expected = tiny_subject(tmp_path).module(torch.zeros(artifact.inputs[0].shape)).argmax(-1)
    assert str(expected.item()) in printed


def ran(text: str) -> str:
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_the_payload_has_the_name_that_users_expect(target: str, tmp_path: Path) -> None:
    artifact: Artifact = export_subject(tiny_subject(tmp_path), Order(target, tmp_path / "out"))
    assert artifact.payload.endswith(load_recipe(target).RECIPE.suffix)
    assert (artifact.folder / artifact.payload).exists()
