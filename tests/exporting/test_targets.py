"""Every family in every target, and properties of all targets. New families and targets are tested automatically."""

from __future__ import annotations

import functools
import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edgevit.cards import load_cards
from edgevit.cli.export import plan, snippet
from edgevit.errors import EdgevitError, UsageError
from edgevit.exporting import pipeline
from edgevit.exporting.pipeline import export_subject
from edgevit.exporting.preparation import Preparation
from edgevit.models.source import Subject, load_subject, with_preprocessing
from edgevit.recipes import list_recipes, load_recipe, missing
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit.verification import Samples, make_samples
from edgevit.verification import parity as verify_room
from edgevit.verification.compare import max_rel
from edgevit_runtime.record import Recipe, TensorSpec
from support.speed import seconds
from support.subjects import SIZE, as_subject, tiny_subject
from support.targets import expected_status, marks, targets

GOLDEN = Path(__file__).parents[1] / "golden" / "targets"
# TensorRT's converter is that of ONNX again.
SLOW_CONVERTERS = ("coreml", "executorch", "litert", "tensorrt")
# Models with attention, convolutions and a graph: the fast suite converts only these with a slow converter.
FOR_ALL = ("fmvit_t", "mobilevig_ti")


def smallest() -> list[str]:
    """Return the variant with the fewest parameters of each family."""
    cards = sorted(load_cards().values(), key=lambda card: card.params or 0)
    return [next(card.name for card in cards if card.family == family) for family in sorted({c.family for c in cards})]


def cases() -> Iterator[Any]:
    """Yield each family's smallest variant in each target and precision; all but the first precision are slow.

    Where a converter is slow, two families stand for all in the fast suite.
    """
    for recipe in list_recipes():
        for name in smallest():
            is_slow = recipe.target in SLOW_CONVERTERS and name not in FOR_ALL
            for precision in recipe.precisions:
                case_marks = marks(recipe.target, slow=is_slow or precision != recipe.precisions[0])
                if why := known_failure(recipe, name, precision):
                    case_marks.append(pytest.mark.xfail(strict=True, raises=EdgevitError, reason=why))
                yield pytest.param(name, recipe.target, precision, marks=case_marks)


def known_failure(recipe: Recipe, name: str, precision: str) -> str:
    return recipe.known_failures.get(f"{name}:{precision}", recipe.known_failures.get(name, ""))


@pytest.fixture(autouse=True)
def one_thread_and_no_garbage() -> Iterator[None]:
    """Exported programs refer to themselves in circles, and hold gigabytes until the collector comes round."""
    torch.set_num_threads(1)
    yield
    gc.collect()


@functools.cache
def prepared(name: str) -> Preparation:
    """Return a network's preparation, which is the same for every target. No recipe may change a module."""
    return Preparation(load_subject(name), ExportRequest("", Path(), model=name))


@pytest.mark.parametrize(("name", "target", "precision"), list(cases()))
def test_every_family_in_every_target(
    name: str, target: str, precision: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    request = ExportRequest(target, tmp_path, precision)
    artifact = export_subject(prepared(name).subject, request, preparation=prepared(name))
    assert artifact.parity is not None
    assert artifact.parity.status == expected_status(target, precision), artifact.parity
    assert artifact.parity.failing_stage == "" and all(check.passed for check in artifact.parity.checks)
    check_golden(artifact, pytestconfig)


def check_golden(artifact: Artifact, pytestconfig: pytest.Config) -> None:
    """Compare the artifact's operators, and those left to slower kernels, with tests/golden/targets.

    `pytest tests/exporting/test_targets.py -m 'slow or not slow' --update-goldens` writes the files anew.
    """
    file = GOLDEN / f"{artifact.target}.txt"
    case = f"{artifact.model} {artifact.precision}:"
    counts, fallbacks = artifact.operators.counts, artifact.operators.fallbacks
    kinds = ", ".join(f"{n} {name}" for name, n in (fallbacks or {}).items()) or "none"
    fallback_text = "" if fallbacks is None else f", {kinds} left over"
    entry = f"{case} {sum(counts.values())} operators{fallback_text}"
    lines = file.read_text().splitlines() if file.exists() else []
    if pytestconfig.getoption("--update-goldens"):
        lines = [line for line in lines if not line.startswith(case)] + [entry]
        file.write_text("\n".join(sorted(lines)) + "\n")
    else:
        assert entry in lines, entry


def test_the_guide_lists_every_target() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "targets.md").read_text()
    for recipe in list_recipes():
        install = f"`pip install 'edgevit[{recipe.extra}]'`"
        assert f"| {recipe.target} | `NAME{recipe.suffix}` | {', '.join(recipe.precisions)} | {install} |" in guide


def test_no_target_that_people_rely_on_has_a_known_failure() -> None:
    for target in ("onnx", "openvino", "coreml", "tensorrt"):
        assert load_recipe(target).RECIPE.known_failures == {}


@pytest.mark.parametrize("target", targets())
def test_the_payload_has_the_name_that_users_expect_and_the_printed_snippet_runs_it(
    target: str, tmp_path: Path, fresh_workers: None
) -> None:
    artifact = export_subject(tiny_subject(tmp_path), ExportRequest(target, tmp_path / "out"))
    assert artifact.payload == f"tiny-tiny{load_recipe(target).RECIPE.suffix}", "of tiny.py:tiny"
    assert (artifact.folder / artifact.payload).exists()
    check_snippet(artifact, tiny_subject(tmp_path))


def check_snippet(artifact: Artifact, subject: Subject) -> None:
    """Check that the snippet prints the class of a black image. If it cannot run here, it must be Python at least."""
    text = snippet(artifact)
    if expected_status(artifact.target, artifact.precision) != "passed":
        compile(text, "snippet", "exec")
        return
    with torch.no_grad():
        expected = subject.module(*subject.example().values()).argmax(-1)
    assert str(expected.item()) in ran(text)


def ran(text: str) -> str:
    outcome = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=seconds(120), check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


# ---- impossible requests are refused at once -------------------------------------------------------------------------


def of(*, takes: Callable[[Recipe], bool]) -> list[Any]:
    chosen = [recipe for recipe in list_recipes() if takes(recipe)]
    return [pytest.param(recipe.target, marks=marks(recipe.target)) for recipe in chosen]


def takes_open_batch(recipe: Recipe) -> bool:
    return not recipe.fixed_batch


@pytest.fixture
def nothing_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("something slow began")

    monkeypatch.setattr(pipeline, "fold", too_late)


@pytest.mark.parametrize("target", of(takes=takes_open_batch))
def test_an_open_batch_works_at_every_size(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    right = verify_room.compute  # type: ignore[attr-defined]

    def compute(target: str, payload: Path, samples: Samples, **options: Any) -> Any:
        tried.append(samples.batch)
        return right(target, payload, samples, **options)

    monkeypatch.setattr(verify_room, "compute", compute)
    subject = tiny_subject(tmp_path)
    artifact = export_subject(subject, ExportRequest(target, tmp_path / "out", dynamic_batch=True))
    assert set(tried) == {2}, "verified at a batch that is not the converter's example"
    assert artifact.parity is not None
    assert artifact.parity.status == expected_status(target)
    assert (artifact.inputs[0].shape[0], artifact.outputs[0].shape[0]) == (-1, -1)
    by, payload = runnable(artifact)
    for batch in (1, 2, 3):
        samples = make_samples(subject.inputs, subject.preprocessing, batch=batch)
        computed = right(by, payload, samples, threads=1).results
        assert computed is not None
        for (x,), (y,) in zip(samples.sets, computed, strict=True):
            with torch.no_grad():
                expected = subject.module(torch.from_numpy(x)).numpy()
            assert max_rel(expected, y) <= 1e-5


def runnable(artifact: Artifact) -> tuple[str, Path]:
    """Return the payload. If nothing here runs it, return the other target's file that it was built from."""
    recipe, payload = load_recipe(artifact.target).RECIPE, artifact.folder / artifact.payload
    if not recipe.source:
        return recipe.target, payload
    (built_from,) = payload.glob(f"*{load_recipe(recipe.source).RECIPE.suffix}")
    return recipe.source, built_from


@pytest.mark.parametrize("target", of(takes=lambda recipe: not takes_open_batch(recipe)))
def test_a_target_of_fixed_batches_refuses_an_open_one_at_once(target: str, tmp_path: Path, nothing_slow: None) -> None:
    why = load_recipe(target).RECIPE.fixed_batch
    order = ExportRequest(target, tmp_path / "out", dynamic_batch=True)
    with pytest.raises(UsageError, match=rf"(?s)takes no open batch.*{why}.*one export for each batch size"):
        export_subject(tiny_subject(tmp_path), order)
    with pytest.raises(UsageError, match="takes no open batch"):
        plan([target], ["fp32"], dynamic_batch=True)
    # A direct call of the recipe is refused as well.
    with pytest.raises(ValueError, match=why):
        recipe = load_recipe(target)
        recipe.export(None, {}, tmp_path / "x", outputs=[], precision="fp32", dynamic_batch=True, options={})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", targets(phones_slow=True))
def test_raw_pixels_go_in(target: str, tmp_path: Path) -> None:
    subject = with_preprocessing(tiny_subject(tmp_path))
    artifact = export_subject(subject, ExportRequest(target, tmp_path / "out"))
    assert artifact.parity is not None
    assert artifact.parity.status == expected_status(target)
    assert [(spec.shape, spec.dtype) for spec in artifact.inputs] == [((1, *SIZE, 3), "uint8")]
    assert "pixels 0 to 255" in snippet(artifact)
    check_snippet(artifact, subject)


@pytest.mark.parametrize("target", of(takes=lambda recipe: bool(recipe.input_dtypes)))
def test_inputs_of_types_that_a_target_does_not_take_are_refused_at_once(
    target: str, tmp_path: Path, nothing_slow: None
) -> None:
    subject = as_subject(torch.nn.Linear(4, 3), TensorSpec("x", (-1, 4), "complex64"))
    with pytest.raises(UsageError, match=r"(?s)takes no input of complex64.*it takes float32"):
        export_subject(subject, ExportRequest(target, tmp_path / "out"))
    with pytest.raises(UsageError, match="takes no input of complex64"):
        plan([target], ["fp32"], dtypes=["complex64"])
    assert not (tmp_path / "out").exists()


def test_all_stands_for_the_targets_that_can() -> None:
    installed = [recipe for recipe in list_recipes() if not missing(recipe)]
    open_ones = {recipe.target for recipe in installed if takes_open_batch(recipe)}
    assert {target for target, _ in plan(["all"], ["fp32"], dynamic_batch=True)} == open_ones
    for_pixels = {target for target, _ in plan(["all"], ["fp32"], dtypes=["uint8"])}
    assert for_pixels == {recipe.target for recipe in installed}
    with pytest.raises(UsageError, match="no precision 'int3'"):
        plan(["all"], ["int3"])
