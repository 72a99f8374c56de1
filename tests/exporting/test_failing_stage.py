"""Failing stages: each target's conversion is broken on purpose at each stage, and the error names that stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgevit.artifacts.folder import folder_name, open_artifact
from edgevit.errors import ParityError
from edgevit.exporting import quarantine
from edgevit.exporting.pipeline import export_subject
from edgevit.exporting.quarantine import QUARANTINE
from edgevit.folding import fold
from edgevit.models.source import Subject
from edgevit.recipes import list_recipes, load_recipe
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit_runtime.dialect import QUANTIZED
from support import toys
from support.nets import Toy
from support.saboteurs import (
    BREAKERS,
    HALF,
    HEAVY_AT,
    NOT_COMPUTED,
    OVERFLOWS_AT,
    STAGES,
    damaged_afterwards,
    residual_net,
    wrong_epsilon,
)
from support.subjects import as_subject
from support.targets import (
    PHONES,
    STATUS,
    expected_status,
    marks,
    missing_instructions,
    require_instructions,
    targets,
)

TARGETS = targets(phones_slow=True)
onnx_only = pytest.mark.onnx


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    # The breakers break every operator's conversion, so naming one tells nothing (test_blame.py).
    monkeypatch.setattr(quarantine, "wrong_operator", lambda *arguments, **options: "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def blamed(
    out: Path, order: ExportRequest, subject: Subject, stage: str, *, older: bool = True
) -> tuple[Artifact, ParityError]:
    """Export what must fail. Return the artifact in quarantine and the error, which both name this stage."""
    name = ("unfolded-" if order.unfolded else "") + folder_name(subject.name, order.target, order.precision)
    out.mkdir()
    before = toys.fake_artifact(out / name) if older else None
    with pytest.raises(ParityError) as caught:
        export_subject(subject, order)
    error, quarantined = caught.value, out / QUARANTINE / name
    assert error.exit_code == 4
    assert f"stage {stage};" in error.where
    assert str(quarantined) in error.where
    artifact = open_artifact(quarantined)
    assert artifact.parity is not None
    assert (artifact.parity.status, artifact.parity.failing_stage) == ("failed", stage)
    assert next(check.stage for check in artifact.parity.checks if not check.passed) == stage
    assert artifact.parity.checks[-1].stage == stage, "what is made of something wrong is not judged"
    assert (quarantined / artifact.payload).exists()
    assert list((quarantined / "stages").iterdir()), "there is nothing to look at"
    assert {path.name for path in out.iterdir()} == {QUARANTINE, *([name] if older else [])}
    assert [path.name for path in (out / QUARANTINE).iterdir()] == [name]
    if before is not None:
        assert open_artifact(out / name) == before, "an older artifact is left alone"
    return artifact, error


def passing(artifact: Artifact) -> list[str]:
    """Return the stages before the failing one, in order, each once."""
    assert artifact.parity is not None
    return list(dict.fromkeys(check.stage for check in artifact.parity.checks if check.passed))


def before(target: str, precision: str) -> list[str]:
    """Return the stages that are judged before the conversion."""
    if precision in QUANTIZED:
        return ["fold", "quantize"]
    return ["fold", "half"] if (target, precision) in HALF else ["fold"]


def timed(target: str, precision: str) -> list[str]:
    """Return the stages whose durations an artifact has."""
    return ["fold", *["quantize"] * (precision in QUANTIZED), *STAGES[target, precision], "verify"]


def judged(target: str, precision: str, failing: str = "") -> list[str]:
    """Return the stages that pass.

    They are the last of each precision, and ahead of one that fails or is not computed all of its precision.
    """
    stages = STAGES[target, precision]
    changes = set() if precision in QUANTIZED else {"precision", "halve"}
    split = next((at for at, stage in enumerate(stages) if stage in changes), len(stages))
    passed = before(target, precision)
    for group in filter(None, (stages[:split], stages[split:])):
        if failing in group:
            return [*passed, *group[: group.index(failing)]]
        passed += group[:-1] if (target, group[-1]) in NOT_COMPUTED else group[-1:]
    return passed


# ---- every stage of every target -----------------------------------------------------------------------------------


def cases() -> list[Any]:
    """Return each breaker in fp32. If only other precisions have its stage, return it in each of those."""
    parameters = []
    for (target, stage), breaker in BREAKERS.items():
        precisions = [p for (name, p), stages in STAGES.items() if name == target and stage in stages]
        for precision in ["fp32"] if "fp32" in precisions else precisions:
            name = f"{target}-{stage}-{precision}"
            case_marks = marks(target, slow=target in PHONES)
            parameters.append(pytest.param(target, stage, precision, breaker, id=name, marks=case_marks))
    return parameters


@pytest.mark.parametrize(("target", "stage", "precision", "breaker"), cases())
def test_the_stage_that_changed_the_function_is_named(
    target: str, stage: str, precision: str, breaker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stage == "precision":
        require_instructions(target, precision)
    breaker(monkeypatch)
    out = tmp_path / "out"
    artifact, _ = blamed(out, ExportRequest(target, out, precision), as_subject(residual_net()), stage)
    assert [stage_time.name for stage_time in artifact.stages] == timed(target, precision)
    assert passing(artifact) == judged(target, precision, stage)


LESS = [pytest.param(*case, marks=marks(case[0], slow=case[0] in PHONES)) for case in STAGES if case[1] != "fp32"]


# fp32 is shown where only the artifact is damaged.
@pytest.mark.parametrize(("target", "precision"), LESS)
def test_left_alone_the_same_network_passes_every_stage(target: str, precision: str, tmp_path: Path) -> None:
    artifact = export_subject(as_subject(residual_net()), ExportRequest(target, tmp_path / "out", precision))
    assert [stage_time.name for stage_time in artifact.stages] == timed(target, precision)
    expected = [*judged(target, precision), *(["artifact"] if (target, "artifact") not in NOT_COMPUTED else [])]
    if missing_instructions(target, precision):
        expected = [stage for stage in expected if stage not in {"precision", "artifact"}]
    assert passing(artifact) == expected
    assert artifact.parity is not None
    assert artifact.parity.status == expected_status(target, precision)


def test_every_stage_of_every_target_is_broken_once() -> None:
    """A new target, precision or stage comes with a saboteur."""
    assert set(STAGES) == {(recipe.target, precision) for recipe in list_recipes() for precision in recipe.precisions}
    converted_stages = {(target, stage) for (target, _), stages in STAGES.items() for stage in stages}
    assert set(BREAKERS) == converted_stages - NOT_COMPUTED
    assert {(target, "artifact") for target, _ in STAGES} & NOT_COMPUTED == {
        (recipe.target, "artifact") for recipe in list_recipes() if STATUS[recipe.needs] == "built_not_run"
    }


@pytest.mark.parametrize("target", TARGETS)
def test_a_wrong_epsilon_in_the_fold_is_named(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_epsilon(monkeypatch)
    out = tmp_path / "out"
    artifact, _ = blamed(out, ExportRequest(target, out), as_subject(residual_net()), "fold", older=False)
    assert passing(artifact) == []


@pytest.mark.parametrize("target", TARGETS)
def test_damage_after_the_last_stage_is_the_artifacts(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, out = as_subject(residual_net()), tmp_path / "out"
    folded = fold(subject.module, tuple(subject.example().values()))
    (bias,) = (parameter for parameter in folded.parameters() if parameter.shape == (5,))
    damaged_afterwards(target, bias.detach().numpy().tobytes())(monkeypatch)
    # The status of such an artifact says that it was not run.
    if (target, "artifact") in NOT_COMPUTED:
        artifact = export_subject(subject, ExportRequest(target, out))
        assert artifact.parity is not None
        assert artifact.parity.status == "built_not_run"
        assert passing(artifact) == judged(target, "fp32")
        return
    artifact, _ = blamed(out, ExportRequest(target, out), subject, "artifact")
    assert passing(artifact) == judged(target, "fp32")


# ---- too large for half precision ------------------------------------------------------------------------------------

HALVES = [
    pytest.param(recipe.target, marks=marks(recipe.target, slow=recipe.target in PHONES))
    for recipe in list_recipes()
    if "fp16" in recipe.precisions
]


def overflowing() -> Subject:
    """Build a network that squares to a million on the way and takes the roots in the end."""
    model = Toy(lambda net, x: net.head((x * 300).square().mean((2, 3)).sqrt()), head=nn.Linear(3, 5))
    return as_subject(model)


def heavy() -> Subject:
    """Build a network with weights beyond 65504."""
    body = {"conv": nn.Conv2d(3, 6, 3), "head": nn.Linear(6, 5)}
    subject = as_subject(Toy(lambda net, x: net.head(net.conv(x).relu().mean((2, 3))), **body))
    with torch.no_grad():
        subject.module.conv.weight.mul_(3e5)  # type: ignore[operator, union-attr]
    return subject


@pytest.mark.parametrize("target", HALVES)
def test_an_overflow_on_the_way_is_named_where_half_precision_computes(target: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    order = ExportRequest(target, out, "fp16")
    if target not in OVERFLOWS_AT:
        parity = export_subject(overflowing(), order).parity
        assert parity is not None and parity.status == "passed"
        return
    artifact, error = blamed(out, order, overflowing(), OVERFLOWS_AT[target])
    assert artifact.parity is not None
    assert artifact.parity.max_rel is None
    assert "not finite where the model's is" in error.why
    if (target, "fp16") in HALF:
        assert "square (operation 3) overflows: exact values reach 1." in error.why
        assert "--precision fp32" in error.fix


@pytest.mark.coreml
def test_core_mls_evaluator_names_the_operation_that_overflows_first(tmp_path: Path) -> None:
    single = export_subject(overflowing(), ExportRequest("coreml", tmp_path / "single"))
    assert single.parity is not None and single.parity.status == "evaluated"
    out = tmp_path / "out"
    artifact, error = blamed(out, ExportRequest("coreml", out, "fp16"), overflowing(), "precision")
    assert "mul 'square_cast_fp16' (operation 4) overflows: exact values reach 1." in error.why
    assert artifact.parity is not None
    assert "'square_cast_fp16' (operation 4) overflows" in artifact.parity.how
    assert passing(artifact) == ["fold", "convert"]


@pytest.mark.parametrize("target", HALVES)
def test_a_weight_too_large_is_named(target: str, tmp_path: Path) -> None:
    assert set(HEAVY_AT) == {recipe.target for recipe in list_recipes()}
    out = tmp_path / "out"
    if not HEAVY_AT[target]:
        parity = export_subject(heavy(), ExportRequest(target, out, "fp16")).parity
        assert parity is not None and parity.status == "passed"
        return
    _, error = blamed(out, ExportRequest(target, out, "fp16"), heavy(), HEAVY_AT[target])
    if (target, "fp16") in HALF:
        assert "the weight 'net." in error.why


@pytest.mark.openvino
@pytest.mark.parametrize("subject", [overflowing, heavy])
def test_bfloat16_holds_what_half_precision_cannot(subject: Any, tmp_path: Path) -> None:
    require_instructions("openvino", "bf16")
    parity = export_subject(subject(), ExportRequest("openvino", tmp_path, "bf16")).parity
    assert parity is not None and parity.status == "passed"


# ---- stages that leave nothing to compare, and forms without a fold --------------------------------------------------


@onnx_only
def test_a_stage_that_leaves_what_no_engine_reads_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, out = load_recipe("onnx"), tmp_path / "out"
    monkeypatch.setattr(recipe, "_simplify_single", lambda path, source: path.write_bytes(b"not ONNX"))
    artifact, _ = blamed(out, ExportRequest("onnx", out), as_subject(residual_net()), "simplify")
    assert artifact.parity is not None
    # A value of 0 would mean "equal".
    assert artifact.parity.max_rel is None
    assert artifact.parity.checks[-1].problem


@onnx_only
def test_an_unfolded_export_blames_the_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, out = load_recipe("onnx")._convert, tmp_path / "out"  # type: ignore[attr-defined]

    def wrong(path: Path, model: nn.Module, *arguments: Any) -> None:
        right(path, nn.Sequential(model, nn.ReLU()).eval(), *arguments)

    monkeypatch.setattr(load_recipe("onnx"), "_convert", wrong)
    artifact, _ = blamed(out, ExportRequest("onnx", out, unfolded=True), as_subject(residual_net()), "convert")
    assert passing(artifact) == []


@onnx_only
def test_what_failed_before_makes_room_in_quarantine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_epsilon(monkeypatch)
    out, subject = tmp_path / "out", as_subject(residual_net())
    first, _ = blamed(out, ExportRequest("onnx", out), subject, "fold")
    with pytest.raises(ParityError):
        export_subject(subject, ExportRequest("onnx", out))
    assert open_artifact(first.folder).created >= first.created
    assert len(list((out / QUARANTINE).iterdir())) == 1


def test_what_rounding_alone_may_do_is_not_blamed_on_the_converter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where scores of random weights are almost equal, and the highest are kept."""

    def compute(net: Any, x: Tensor) -> Tensor:
        return net.head((net.stem(x).tanh() * 1e4).sin()) + x[:, :1]  # type: ignore[no-any-return]

    model = Toy(compute, stem=nn.Conv2d(3, 4, 1), head=nn.Conv2d(4, 5, 1))
    BREAKERS["onnx", "convert"](monkeypatch)
    with pytest.raises(ParityError) as caught:
        export_subject(as_subject(model), ExportRequest("onnx", tmp_path / "out"))
    assert "change the model's own output" in str(caught.value.why)
    assert "--weights" in str(caught.value.fix)
