"""Verification: what a comparison says, which stage is blamed, and what becomes of an artifact that fails."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import Toy
from subjects import SIZE, as_subject, tiny_file, tiny_subject
from torch import nn

from edgevit import pipeline
from edgevit.artifact import open_artifact
from edgevit.errors import CheckpointError, ParityError, TargetUnavailableError
from edgevit.fold import Folded, fold
from edgevit.models import randomize
from edgevit.pipeline import QUARANTINE, Order, export_subject, verify_artifact
from edgevit.recipes import load_recipe
from edgevit.types import Artifact, ParityCheck, Preprocessing
from edgevit.verify import FOLD_GATE, GATES, Gate, References, Samples, Seen, judge, make_samples, verify_fold
from edgevit.verify import verify as verify_room
from edgevit.verify.compare import INFINITE, NO_SIGNAL_DB, compare, max_rel, snr_db
from edgevit_runtime.record import Reply, TensorSpec

RECIPE = load_recipe("onnx")
onnx_only = pytest.mark.onnx


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def array(*values: float, dtype: str = "float32") -> np.ndarray:
    return np.array(values, dtype)


# ---- metrics -----------------------------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("a", "b", "error", "snr"),
    [
        (array(1, -4), array(1, -4), 0.0, None),
        (array(1, -4), array(1, -3.6), 0.1, 10 * math.log10(17 / 0.16)),
        (array(0, 0), array(0, 0), 0.0, None),
        (array(0, 0), array(0, 1e-30), INF, NO_SIGNAL_DB),
        (array(1, 2), array(1, NAN), INF, NO_SIGNAL_DB),
        (array(1, NAN), array(1, 2), INF, NO_SIGNAL_DB),
        (array(1, NAN), array(1, NAN), INF, NO_SIGNAL_DB),
        (array(NAN), array(0), INF, NO_SIGNAL_DB),
        (array(1, INF), array(1, 5), INF, NO_SIGNAL_DB),
        (array(1, INF), array(1, INF), INF, NO_SIGNAL_DB),
        (array(1, 2), array(1, -INF), INF, NO_SIGNAL_DB),
        (array(1, 2), array(1, 2, 3), INF, NO_SIGNAL_DB),
        (array(1, 2), array(1, 2)[None], INF, NO_SIGNAL_DB),
        (array(), array(), 0.0, None),
        (array(3, 4, dtype="int64"), array(3, 2, dtype="int64"), 0.5, 10 * math.log10(25 / 4)),
        (array(3e38, dtype="float32"), array(-3e38, dtype="float32"), 2.0, 10 * math.log10(1 / 4)),
    ],
)
def test_metrics(a: np.ndarray, b: np.ndarray, error: float, snr: float | None) -> None:
    assert max_rel(a, b) == pytest.approx(error, rel=1e-6)
    assert snr_db(a, b) == (None if snr is None else pytest.approx(snr, rel=1e-5))


@pytest.mark.parametrize(
    ("gate", "error", "snr", "passes"),
    [
        (GATES["fp32"], 1e-4, -5.0, True),
        (GATES["fp32"], 1.01e-4, 90.0, False),
        (GATES["fp32"], NAN, 90.0, False),
        (GATES["fp16"], 3.0, 40.0, True),
        (GATES["fp16"], 0.0, 39.9, False),
        (GATES["fp16"], 0.0, NAN, False),
        (GATES["fp16"], 0.0, None, True),
        (FOLD_GATE, 1e-5, None, True),
        (FOLD_GATE, 2e-5, None, False),
        (Gate(max_rel=1.0, min_snr_db=10.0), 0.5, 9.0, False),
        (Gate(max_rel=1.0, min_snr_db=10.0), 1.5, 11.0, False),
        (Gate(), INF, None, True),
    ],
)
def test_gates(gate: Gate, error: float, snr: float | None, passes: bool) -> None:
    assert gate.passes(error, snr) == passes


def test_gates_say_what_they_ask() -> None:
    assert GATES["fp32"].says == "max_rel <= 0.0001"
    assert Gate(1e-3, 40.0).says == "max_rel <= 0.001, SNR >= 40 dB"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_worst_set_of_inputs_decides(order: tuple[int, int]) -> None:
    reference = [(array(1, 2),), (array(10, 20),)]
    others = [(array(1, 2),), (array(10, 22),)]
    pairs = [(reference[i], others[i]) for i in order]
    check = compare("s", "folded form", [a for a, _ in pairs], [b for _, b in pairs], GATES["fp32"])
    assert (check.max_rel, check.passed, check.top1_agreement) == (pytest.approx(0.1), False, 1.0)
    assert check.snr_db == pytest.approx(10 * math.log10(500 / 4))


@pytest.mark.parametrize("bad", [array(NAN, 1), array(INF, 1), array(1, 2, 3)])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_one_bad_value_among_good_outputs_fails_on_either_side(bad: np.ndarray, side: int, gate: Gate) -> None:
    good = array(1, 2)
    sides = [[(good, good), (good, good)], [(good, good), (good, good)]]
    for place in (0, 1):
        sides[side] = [(good, good), (bad, good)] if place else [(bad, good), (good, good)]
        check = compare("s", "folded form", *sides, gate)
        assert (check.passed, check.max_rel, check.snr_db) == (False, INFINITE, NO_SIGNAL_DB)


def test_a_lost_output_fails_and_says_so() -> None:
    one = array(1, 2)
    check = compare("convert", "folded form", [(one, one)], [(one,)], GATES["fp32"])
    assert not check.passed
    assert "1 outputs instead of 2" in check.tolerance


def test_top1_agreement_counts_rows() -> None:
    a = np.eye(4, dtype="float32")
    b = a[[0, 1, 3, 2]]
    assert compare("s", "folded form", [(a,)], [(b,)], Gate()).top1_agreement == 0.5


def check_of(stage: str, against: str, passed: bool, error: float) -> ParityCheck:
    return ParityCheck(stage, against, error, 50.0, 1.0, "gate", passed)


def test_the_first_comparison_that_failed_is_the_one_shown() -> None:
    checks = [
        check_of("fold", "training form", True, 1e-7),
        check_of("convert", "folded form", True, 2e-7),
        check_of("convert", "training form", False, 0.5),
        check_of("simplify", "folded form", False, 0.9),
    ]
    samples = Samples((), "3 noise", 1)
    parity = judge(Seen(Reply("failed"), (), ""), checks, samples)
    assert (parity.status, parity.guilty_stage, parity.max_rel) == ("failed", "convert", 0.5)
    parity = judge(Seen(Reply("ok"), tuple(checks[2:]), ""), checks[:2], samples)
    assert (parity.status, parity.guilty_stage, parity.max_rel) == ("failed", "convert", 0.5)


def test_the_status_says_what_computed_the_artifact() -> None:
    samples, stage = Samples((), "3 noise", 1), check_of("convert", "folded form", True, 2e-7)
    stage = dataclasses.replace(stage, how="onnxruntime 1.31")
    last = dataclasses.replace(stage, stage="artifact", max_rel=3e-7, how="an engine 2.0")
    ran = judge(Seen(Reply("ok"), (last,), last.how), [stage], samples)
    assert (ran.status, ran.guilty_stage, ran.max_rel, ran.how) == ("passed", "", 3e-7, "an engine 2.0")
    reference = judge(Seen(Reply("ok"), (last,), last.how, by_reference=True), [stage], samples)
    assert (reference.status, reference.max_rel) == ("evaluated", 3e-7)
    nothing = judge(Seen(Reply("unsupported"), (), "not run here: needs a GPU"), [stage], samples)
    assert (nothing.status, nothing.max_rel) == ("built_not_run", 2e-7)
    assert nothing.how == "not run here: needs a GPU; convert: onnxruntime 1.31"
    wrong = judge(
        Seen(Reply("ok"), (dataclasses.replace(last, passed=False),), "", by_reference=True), [stage], samples
    )
    assert (wrong.status, wrong.guilty_stage) == ("failed", "artifact")


# ---- samples -----------------------------------------------------------------------------------------------------

IMAGE = TensorSpec("image", (-1, 3, 20, 24))


def test_samples_are_noise_and_photographs() -> None:
    pytest.importorskip("skimage")
    samples = make_samples([IMAGE], Preprocessing(), batch=2)
    assert samples.says == "3 noise, 3 photographs"
    assert [one[0].shape for one in samples.sets] == [(2, 3, 20, 24)] * 6
    assert {one[0].dtype for one in samples.sets} == {np.dtype("float32")}
    again = make_samples([IMAGE], Preprocessing(), batch=2)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(samples.sets, again.sets, strict=True))
    how = Preprocessing()
    low, high = -max(how.mean) / min(how.std), (1 - min(how.mean)) / min(how.std)
    for (photograph,) in samples.sets[3:]:
        assert low <= photograph.min() < photograph.max() <= high
        rows = np.abs(np.diff(photograph, axis=2)).mean()
        assert rows < 0.5 * photograph.std()  # neighbours are alike, as in no noise
    plain = make_samples([IMAGE], Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), crop_pct=1.0))
    assert all(0 <= item[0].min() <= item[0].max() <= 1 for item in plain.sets[3:])


def test_without_scikit_image_the_samples_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "skimage" else find_spec(name, *a)
    )
    samples = make_samples([IMAGE], Preprocessing())
    assert len(samples.sets) == 3
    assert samples.says == "3 noise, no photographs (pip install 'edgevit[photos]', one RGB input)"


@pytest.mark.parametrize(
    "specs",
    [
        [IMAGE, TensorSpec("other", (-1, 3, 4, 4))],
        [TensorSpec("grey", (-1, 1, 8, 8))],
        [TensorSpec("words", (-1, 7), "int64"), TensorSpec("mask", (-1, 7), "bool")],
        [TensorSpec("half", (-1, 3, 8, 8), "float16")],
    ],
)
def test_what_is_no_rgb_image_gets_noise_of_its_kind(specs: list[TensorSpec]) -> None:
    samples = make_samples(specs, Preprocessing(), batch=3)
    assert samples.says.startswith("3 noise, no photographs")
    for one in samples.sets:
        assert [(item.shape, str(item.dtype)) for item in one] == [((3, *s.shape[1:]), s.dtype) for s in specs]
        assert all(item.size < 2 or item.max() > item.min() for item in one)


# ---- the fold, in torch ------------------------------------------------------------------------------------------


class Wrong(nn.Module):
    """A RepVGG-like block; without its shortcut, or with another epsilon, it is nearly the same."""

    def __init__(self, *, shortcut: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.conv, self.norm, self.skip = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3, eps=eps), nn.BatchNorm2d(3)
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x))
        return (y + self.skip(x) if self.shortcut else y).flatten(1)


def wrong(**how: Any) -> nn.Module:
    module = Wrong(**how).eval()
    randomize(module)
    module.skip.weight.data *= 0.01  # type: ignore[operator]
    module.skip.bias.data *= 0.01  # type: ignore[operator]
    module.skip.running_mean *= 0.01  # type: ignore[operator]
    return module


@pytest.mark.parametrize("how", [{"shortcut": False}, {"eps": 1e-3}])
def test_a_missed_branch_and_a_wrong_epsilon_are_caught(how: dict[str, Any]) -> None:
    samples = make_samples([TensorSpec("image", (-1, 3, 8, 8))], Preprocessing())
    x = (torch.zeros(1, 3, 8, 8),)
    right, missed = wrong(), fold(wrong(**how), x)
    (good,) = verify_fold(References.of(samples, right, fold(right, x)))
    (bad,) = verify_fold(References.of(samples, right, missed))
    assert good.passed
    assert not bad.passed
    assert bad.snr_db is not None
    assert bad.snr_db > 25  # a cosine of 0.998 and more


def test_an_unfolded_export_has_no_fold_to_judge() -> None:
    samples = make_samples([TensorSpec("image", (-1, 3, 8, 8))], Preprocessing())
    assert verify_fold(References.of(samples, wrong(), None)) == []


# ---- the guilty stage --------------------------------------------------------------------------------------------


def perturbed(module: Folded) -> Folded:
    next(module.parameters()).data.mul_(1.01)
    return module


def alter(path: Path) -> None:
    """One initializer of an ONNX file, by a percent."""
    import onnx

    model = onnx.load(str(path))
    weight = max(model.graph.initializer, key=lambda item: math.prod(item.dims))
    values = onnx.numpy_helper.to_array(weight) * np.asarray(1.05, "float32")
    kind = onnx.helper.tensor_dtype_to_np_dtype(weight.data_type)
    weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(kind), weight.name))
    onnx.save(model, str(path))


def sabotage(monkeypatch: pytest.MonkeyPatch, stage: str, harm: Callable[[Path], None] = alter) -> None:
    """Let one stage do its work, and harm what it made."""
    if stage == "fold":
        monkeypatch.setattr(pipeline, "fold", lambda *given: perturbed(fold(*given)))
        return
    function = {"convert": "_convert", "simplify": "_simplify_single", "precision": "_halve", "artifact": "annotate"}[
        stage
    ]
    right = getattr(RECIPE, function)

    def wrong(path: Path, *arguments: Any) -> None:
        right(path, *arguments)
        if stage == "artifact" or path.stem == stage:  # fp16 converts and simplifies again, inside its own stage
            harm(path)

    monkeypatch.setattr(RECIPE, function, wrong)


def assert_blamed(caught: pytest.ExceptionInfo[ParityError], out: Path, name: str, stage: str) -> Artifact:
    error = caught.value
    assert error.exit_code == 4
    assert f"stage {stage};" in error.where
    quarantined = out / QUARANTINE / name
    assert str(quarantined) in error.where
    held = open_artifact(quarantined)
    assert held.parity is not None
    assert (held.parity.status, held.parity.guilty_stage) == ("failed", stage)
    assert next(check.stage for check in held.parity.checks if not check.passed) == stage
    assert (quarantined / "stages" / "convert.onnx").is_file()
    assert not (out / name).exists()
    assert [path.name for path in out.iterdir()] == [QUARANTINE]
    assert [path.name for path in (out / QUARANTINE).iterdir()] == [name]
    return held


@onnx_only
@pytest.mark.parametrize(
    ("stage", "precision"),
    [("fold", "fp32"), ("convert", "fp32"), ("simplify", "fp32"), ("artifact", "fp32"), ("simplify", "fp16"),
     ("precision", "fp16")],
)  # fmt: skip
def test_the_stage_that_changed_the_function_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, precision: str
) -> None:
    def worse(path: Path) -> None:  # half precision is judged by its noise
        for _ in range(10):
            alter(path)

    sabotage(monkeypatch, stage, worse if stage == "precision" else alter)
    out = tmp_path / "out"
    with pytest.raises(ParityError) as caught:
        export_subject(tiny_subject(tmp_path), Order("onnx", out, precision))
    held = assert_blamed(caught, out, f"tiny-tiny-onnx-{precision}", stage)
    assert held.parity is not None
    good = [check.stage for check in held.parity.checks if check.passed]
    order = ["fold", "convert", "simplify", "precision", "artifact"]
    assert set(good) == set(order[: order.index(stage)]) - ({"precision"} if precision == "fp32" else set())
    with pytest.raises(ParityError):  # again: the quarantined one is replaced
        export_subject(tiny_subject(tmp_path), Order("onnx", out, precision))


@onnx_only
def test_a_stage_that_leaves_what_no_engine_reads_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch, "simplify", lambda path: path.write_bytes(b"not ONNX") and None)
    out = tmp_path / "out"
    with pytest.raises(ParityError) as caught:
        export_subject(tiny_subject(tmp_path), Order("onnx", out))
    held = assert_blamed(caught, out, "tiny-tiny-onnx-fp32", "simplify")
    assert held.parity is not None
    assert held.parity.max_rel == INFINITE  # not 0, which would say "equal"
    assert held.parity.snr_db == NO_SIGNAL_DB


@onnx_only
def test_an_overflow_in_half_precision_is_caught(tmp_path: Path) -> None:
    large = Toy(lambda net, x: net.b(net.a(x) * 1e6) * 1e-6, a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(4, 5, 3))
    subject = as_subject(Toy(lambda net, x: net.large(x.relu()).mean((2, 3)), large=large))
    with torch.no_grad():
        large.a.weight.mul_(1e5)
        large.b.weight.mul_(1e-5)
    with pytest.raises(ParityError) as caught:
        export_subject(subject, Order("onnx", tmp_path / "out", "fp16"))
    assert_blamed(caught, tmp_path / "out", "net-onnx-fp16", "precision")


@onnx_only
def test_a_model_that_gives_nan_proves_nothing(tmp_path: Path) -> None:
    subject = as_subject(Toy(lambda net, x: net.c(x).mean((2, 3)).abs().neg().sqrt(), c=nn.Conv2d(3, 4, 1)))
    with pytest.raises(ParityError) as caught:
        export_subject(subject, Order("onnx", tmp_path / "out"))
    assert_blamed(caught, tmp_path / "out", "net-onnx-fp32", "fold")


@onnx_only
def test_an_unfolded_export_blames_the_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch, "convert")
    with pytest.raises(ParityError) as caught:
        export_subject(tiny_subject(tmp_path), Order("onnx", tmp_path / "out", unfolded=True))
    assert_blamed(caught, tmp_path / "out", "unfolded-tiny-tiny-onnx-fp32", "convert")


# ---- an artifact, verified again ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("verify")
    return export_subject(tiny_subject(folder), Order("onnx", folder / "out"))


@onnx_only
def test_a_good_artifact_passes_again(good: Artifact) -> None:
    parity = verify_artifact(good)
    assert parity.status == "passed"
    assert parity.max_rel <= 1e-4
    assert [check.stage for check in parity.checks] == ["artifact", "artifact"]
    assert good.parity is not None
    assert parity.inputs == good.parity.inputs
    assert parity.how == good.parity.how


@onnx_only
def test_a_failed_export_leaves_the_good_artifact_alone(good: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch, "simplify")
    folder = good.folder.parent.parent
    with pytest.raises(ParityError):
        export_subject(tiny_subject(folder), Order("onnx", good.folder.parent))
    assert open_artifact(good.folder) == good


@onnx_only
def test_other_weights_are_refused(good: Artifact) -> None:
    folder = good.folder.parent.parent
    tiny_file(folder, seed=1)
    try:
        with pytest.raises(CheckpointError, match="not the weights the artifact was made from"):
            verify_artifact(good)
    finally:
        tiny_file(folder)


@onnx_only
def test_an_artifact_made_from_a_file_asks_for_it(good: Artifact, tmp_path: Path) -> None:
    from_file = dataclasses.replace(good.source, weights="file", weights_file="net.pth")
    with pytest.raises(CheckpointError, match=r"--weights path/to/net\.pth"):
        verify_artifact(dataclasses.replace(good, source=from_file))
    subject = tiny_subject(tmp_path)
    torch.save(subject.module.state_dict(), tmp_path / "net.pth")
    same = dataclasses.replace(from_file, model=good.source.model)
    assert verify_artifact(dataclasses.replace(good, source=same), tmp_path / "net.pth").status == "passed"
    torch.save(tiny_subject(tmp_path, seed=2).module.state_dict(), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="not the weights"):
        verify_artifact(dataclasses.replace(good, source=same), tmp_path / "net.pth")


@onnx_only
def test_an_artifact_of_an_open_batch_is_tried_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[int, ...]] = []
    right = verify_room.compute

    def compute(target: str, payload: Path, samples: Samples, **more: Any) -> Any:
        tried.extend(one[0].shape for one in samples.sets)
        return right(target, payload, samples, **more)

    monkeypatch.setattr(verify_room, "compute", compute)
    artifact = export_subject(tiny_subject(tmp_path), Order("onnx", tmp_path / "out", dynamic_batch=True))
    assert verify_artifact(artifact).status == "passed"
    assert set(tried) == {(2, 3, *SIZE)}


@onnx_only
def test_a_missing_engine_is_not_the_artifacts_fault(good: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgevit.transports.local import LocalTransport

    monkeypatch.setattr(LocalTransport, "run", lambda *a, **k: Reply("unsupported", "onnxruntime cannot be imported"))
    with pytest.raises(TargetUnavailableError, match=r"(?s)cannot run here.*cannot be imported"):
        verify_artifact(good)


@onnx_only
@pytest.mark.parametrize("status", ["crashed", "timeout", "failed"])
def test_an_engine_that_ends_badly_fails_the_artifact(
    good: Artifact, monkeypatch: pytest.MonkeyPatch, status: Any
) -> None:
    from edgevit.transports.local import LocalTransport

    monkeypatch.setattr(LocalTransport, "run", lambda *a, **k: Reply(status, "Segmentation fault"))
    parity = verify_artifact(good)
    assert (parity.status, parity.guilty_stage, parity.max_rel) == ("failed", "artifact", INFINITE)
    assert "Segmentation fault" in parity.tolerance
