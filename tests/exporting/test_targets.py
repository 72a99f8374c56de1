"""Every family in every target, and what holds for all targets. Found by name: a new one is tested as it comes."""

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
SLOW_CONVERTERS = ("coreml", "executorch", "litert", "tensorrt")  # and TensorRT's is that of ONNX again
FOR_ALL = ("fmvit_t", "mobilevig_ti")  # attention, convolutions and a graph: what the fast suite converts with those


def smallest() -> list[str]:
    """The variant with the fewest parameters of each family."""
    cards = sorted(load_cards().values(), key=lambda card: card.params or 0)
    return [next(card.name for card in cards if card.family == family) for family in sorted({c.family for c in cards})]


def cases() -> Iterator[Any]:
    """Each family's smallest variant in each target: in its first precision, in others if slow tests run.

    Where a converter is slow, two families stand for all in the fast suite.
    """
    for recipe in list_recipes():
        for name in smallest():
            left = recipe.target in SLOW_CONVERTERS and name not in FOR_ALL
            for precision in recipe.precisions:
                given = marks(recipe.target, slow=left or precision != recipe.precisions[0])
                if why := known_failure(recipe, name, precision):
                    given.append(pytest.mark.xfail(strict=True, raises=EdgevitError, reason=why))
                yield pytest.param(name, recipe.target, precision, marks=given)


def known_failure(recipe: Recipe, name: str, precision: str) -> str:
    return recipe.known_failures.get(f"{name}:{precision}", recipe.known_failures.get(name, ""))


@pytest.fixture(autouse=True)
def one_thread_and_no_garbage() -> Iterator[None]:
    """Exported programs refer to themselves in circles, and hold gigabytes until the collector comes round."""
    torch.set_num_threads(1)
    yield
    gc.collect()


# What has nothing to do with a target is computed once for a network: no recipe may change the module it is given.
FOR_EVERY_TARGET = ("fold", "count", "operator_costs", "graph_digest", "_references")
COMPUTED: dict[tuple[object, ...], Any] = {}
network = functools.cache(load_subject)


def computed_once(name: str, step: str, right: Callable[..., Any], *arguments: Any) -> Any:
    """Do a step of the pipeline for a network, or return what it gave before; its numbers are part of it."""
    key = (name, step, *(argument for argument in arguments if isinstance(argument, int)))
    if key not in COMPUTED:
        COMPUTED[key] = right(*arguments)
    return COMPUTED[key]


@pytest.mark.parametrize(("name", "target", "precision"), list(cases()))
def test_every_family_in_every_target(
    name: str, target: str, precision: str, tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in FOR_EVERY_TARGET:
        monkeypatch.setattr(pipeline, step, functools.partial(computed_once, name, step, getattr(pipeline, step)))
    artifact = export_subject(network(name), ExportRequest(target, tmp_path, precision))
    assert artifact.parity is not None
    assert artifact.parity.status == expected_status(target, precision), artifact.parity
    assert artifact.parity.failing_stage == "" and all(check.passed for check in artifact.parity.checks)
    check_golden(artifact, pytestconfig)


def check_golden(artifact: Artifact, pytestconfig: pytest.Config) -> None:
    """How many operators the artifact has, and which are left to slower kernels, against tests/golden/targets.

    `pytest tests/exporting/test_targets.py -m 'slow or not slow' --update-goldens` writes the files anew.
    """
    file = GOLDEN / f"{artifact.target}.txt"
    case = f"{artifact.model} {artifact.precision}:"
    counts, left = artifact.operators.counts, artifact.operators.fallbacks
    told = "" if left is None else f", {', '.join(f'{n} {name}' for name, n in left.items()) or 'none'} left over"
    found = f"{case} {sum(counts.values())} operators{told}"
    lines = file.read_text().splitlines() if file.exists() else []
    if pytestconfig.getoption("--update-goldens"):
        lines = [line for line in lines if not line.startswith(case)] + [found]
        file.write_text("\n".join(sorted(lines)) + "\n")
    else:
        assert found in lines, found


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
    """It prints the class that the model finds in a black image; where it cannot run it must be Python at least."""
    text = snippet(artifact)
    if expected_status(artifact.target, artifact.precision) != "passed":
        compile(text, "snippet", "exec")
        return
    with torch.no_grad():
        expected = subject.module(*subject.example().values()).argmax(-1)
    assert str(expected.item()) in ran(text)


def ran(text: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=seconds(120), check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- what cannot work is refused at once -----------------------------------------------------------------------------


def of(*, takes: Callable[[Recipe], bool]) -> list[Any]:
    chosen = [recipe for recipe in list_recipes() if takes(recipe)]
    return [pytest.param(recipe.target, marks=marks(recipe.target)) for recipe in chosen]


def takes_open_batch(recipe: Recipe) -> bool:
    return not recipe.fixed_batch


@pytest.fixture
def nothing_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(*given: Any, **options: Any) -> Any:
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
        found = right(by, payload, samples, threads=1).results
        assert found is not None
        for (x,), (y,) in zip(samples.sets, found, strict=True):
            with torch.no_grad():
                expected = subject.module(torch.from_numpy(x)).numpy()
            assert max_rel(expected, y) <= 1e-5


def runnable(artifact: Artifact) -> tuple[str, Path]:
    """The payload, or where nothing here runs that, the other target's file that it was built from and holds."""
    told, payload = load_recipe(artifact.target).RECIPE, artifact.folder / artifact.payload
    if not told.source:
        return told.target, payload
    (held,) = payload.glob(f"*{load_recipe(told.source).RECIPE.suffix}")
    return told.source, held


@pytest.mark.parametrize("target", of(takes=lambda recipe: not takes_open_batch(recipe)))
def test_a_target_of_fixed_batches_refuses_an_open_one_at_once(target: str, tmp_path: Path, nothing_slow: None) -> None:
    why = load_recipe(target).RECIPE.fixed_batch
    order = ExportRequest(target, tmp_path / "out", dynamic_batch=True)
    with pytest.raises(UsageError, match=rf"(?s)takes no open batch.*{why}.*one export for each batch size"):
        export_subject(tiny_subject(tmp_path), order)
    with pytest.raises(UsageError, match="takes no open batch"):
        plan([target], ["fp32"], dynamic_batch=True)
    with pytest.raises(ValueError, match=why):  # whoever calls the recipe itself is told as well
        recipe = load_recipe(target)
        recipe.export(None, {}, tmp_path / "x", precision="fp32", dynamic_batch=True, options={})
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
    assert {target for target, _ in plan(["all"], ["fp32"], dtypes=["uint8"])} == {item.target for item in installed}
    with pytest.raises(UsageError, match="no precision 'int3'"):
        plan(["all"], ["int3"])
