"""Verification: what a comparison says, which stage is blamed, and what becomes of an artifact that fails."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgevit.artifacts.folder import open_artifact
from edgevit.artifacts.trust import code_digests
from edgevit.errors import CheckpointError, ParityError, TargetUnavailableError, UsageError
from edgevit.exporting.pipeline import export_subject, verify_artifact
from edgevit.folding import fold
from edgevit.models import randomize
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact, ExportRequest, Parity, ParityCheck, SampleRequest, WeightsRequest
from edgevit.records.model import Preprocessing
from edgevit.verification import (
    FOLD_GATE,
    GATES,
    Gate,
    References,
    Samples,
    VerificationRun,
    judge,
    make_samples,
    verify_fold,
)
from edgevit.verification import parity as verify_room
from edgevit.verification.compare import NO_SIGNAL_DB, compare, max_rel, snr_db
from edgevit.verification.engine import Computed, compute
from edgevit_runtime.codec import from_json, to_json
from edgevit_runtime.record import Reply, TensorSpec
from support.narrowing import present
from support.nets import Toy
from support.subjects import SIZE, as_subject, tiny_file, tiny_subject

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
        (GATES["fp16"], 3.0, 45.0, True),
        (GATES["fp16"], 0.0, 44.9, False),
        (GATES["bf16"], 3.0, 29.0, True),
        (GATES["bf16"], 0.0, 28.9, False),
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
    assert GATES["fp32"].label == "max_rel <= 0.0001"
    assert Gate(1e-3, 40.0).label == "max_rel <= 0.001, SNR >= 40 dB"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_worst_set_of_inputs_decides(order: tuple[int, int]) -> None:
    reference = [(array(1, 2),), (array(10, 20),)]
    others = [(array(1, 2),), (array(10, 22),)]
    pairs = [(reference[i], others[i]) for i in order]
    check = compare("s", "folded form", [a for a, _ in pairs], [b for _, b in pairs], GATES["fp32"])
    assert (check.passed, check.top1_agreement) == (False, 1.0)
    assert check.max_rel == pytest.approx(0.1)
    assert check.snr_db == pytest.approx(10 * math.log10(500 / 4))


@pytest.mark.parametrize("bad", [array(NAN, 1), array(INF, 1), array(1, 2, 3)])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_one_bad_value_among_good_outputs_fails_on_either_side(bad: np.ndarray, side: int, gate: Gate) -> None:
    good = array(1, 2)
    sides = [[(good, good), (good, good)], [(good, good), (good, good)]]
    for position in (0, 1):
        sides[side] = [(good, good), (bad, good)] if position else [(bad, good), (good, good)]
        reference, other = sides
        check = compare("s", "folded form", reference, other, gate)
        assert (check.passed, check.max_rel, check.snr_db, check.figures) == (False, None, None, ("-", "-"))
        assert "output 0" in check.problem


def test_a_lost_output_fails_and_says_so() -> None:
    one = array(1, 2)
    check = compare("convert", "folded form", [(one, one)], [(one,)], GATES["fp32"])
    assert not check.passed
    assert check.problem == "1 outputs, and the model has 2"


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
    parity = judge(VerificationRun(Reply("failed"), (), ""), checks, samples)
    assert (parity.status, parity.failing_stage, parity.max_rel) == ("failed", "convert", 0.5)
    parity = judge(VerificationRun(Reply("ok"), tuple(checks[2:]), ""), checks[:2], samples)
    assert (parity.status, parity.failing_stage, parity.max_rel) == ("failed", "convert", 0.5)


def test_the_status_says_what_computed_the_artifact() -> None:
    samples, stage = Samples((), "3 noise", 1), check_of("convert", "folded form", True, 2e-7)
    stage = dataclasses.replace(stage, how="onnxruntime 1.31")
    last = dataclasses.replace(stage, stage="artifact", max_rel=3e-7, how="an engine 2.0")
    ran = judge(VerificationRun(Reply("ok"), (last,), last.how), [stage], samples)
    assert (ran.status, ran.failing_stage, ran.max_rel, ran.how) == ("passed", "", 3e-7, "an engine 2.0")
    reference = judge(VerificationRun(Reply("ok"), (last,), last.how, by_reference=True), [stage], samples)
    assert (reference.status, reference.max_rel) == ("evaluated", 3e-7)
    lacking = VerificationRun(Reply("unsupported", missing_instructions="bf16"), (), "not run here: needs bf16")
    processor = judge(lacking, [stage], samples)
    assert (processor.status, processor.needs, processor.max_rel) == ("needs_processor", "bf16", stage.max_rel)
    assert judge(lacking, [dataclasses.replace(stage, passed=False)], samples).status == "failed"
    nothing = judge(VerificationRun(Reply("unsupported"), (), "not run here: needs a GPU"), [stage], samples)
    assert (nothing.status, nothing.max_rel) == ("built_not_run", 2e-7)
    assert nothing.how == "not run here: needs a GPU; convert: onnxruntime 1.31"
    wrong = judge(
        VerificationRun(Reply("ok"), (dataclasses.replace(last, passed=False),), "", by_reference=True),
        [stage],
        samples,
    )
    assert (wrong.status, wrong.failing_stage) == ("failed", "artifact")


def test_what_nothing_here_computes_has_no_numbers() -> None:
    """An unfolded export of a target whose engine is elsewhere: not even the fold was compared."""
    parity = judge(
        VerificationRun(Reply("unsupported"), (), "not run here: needs a GPU"), (), Samples((), "3 noise", 1)
    )
    assert (parity.status, parity.checks, parity.failing_stage) == ("built_not_run", (), "")
    assert (parity.max_rel, parity.snr_db, parity.top1_agreement, parity.tolerance) == (None, None, None, "")
    assert parity.how == "not run here: needs a GPU; no stage of it was computed here"
    assert from_json(Parity, to_json(parity)) == parity


# ---- samples -----------------------------------------------------------------------------------------------------

IMAGE = TensorSpec("image", (-1, 3, 20, 24))


def test_samples_are_noise_and_photographs() -> None:
    pytest.importorskip("skimage")
    samples = make_samples([IMAGE], Preprocessing(), batch=2)
    assert samples.description == "2 noise, 3 photographs, 3 extremes"
    assert [one[0].shape for one in samples.sets] == [(2, 3, 20, 24)] * 8
    assert {one[0].dtype for one in samples.sets} == {np.dtype("float32")}
    again = make_samples([IMAGE], Preprocessing(), batch=2)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(samples.sets, again.sets, strict=True))
    preprocessing = Preprocessing()
    low, high = (
        -max(preprocessing.mean) / min(preprocessing.std),
        (1 - min(preprocessing.mean)) / min(preprocessing.std),
    )
    for (photograph,) in samples.sets[2:5]:
        assert low <= photograph.min() < photograph.max() <= high
        rows = np.abs(np.diff(photograph, axis=2)).mean()
        assert rows < 0.5 * photograph.std()  # neighbours are alike, as in no noise
    crops = [crop.tobytes() for (photograph,) in samples.sets[2:5] for crop in photograph]
    assert len(set(crops)) == 6, "each is a part of its own"
    plain = make_samples([IMAGE], Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), crop_pct=1.0))
    assert all(0 <= sample[0].min() <= sample[0].max() <= 1 for sample in plain.sets[2:5])


def test_without_scikit_image_the_samples_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "skimage" else find_spec(name, *a)
    )
    samples = make_samples([IMAGE], Preprocessing())
    assert len(samples.sets) == 5
    missing = "no photographs (pip install 'edgevit[photos]', one image as input)"
    assert samples.description == f"2 noise, {missing}, 3 extremes"


RAW = TensorSpec("image", (-1, 20, 24, 3), "uint8")


def test_raw_pixels_are_tried_at_both_ends() -> None:
    pytest.importorskip("skimage")
    samples = make_samples([RAW], Preprocessing(mean=(0.9, 0.9, 0.9)), batch=2)
    assert samples.description == "2 noise, 3 photographs, black, white"
    assert [(one[0].shape, one[0].dtype) for one in samples.sets] == [((2, 20, 24, 3), np.dtype("uint8"))] * 7
    for (noise,) in samples.sets[:2]:
        assert (noise.min(), noise.max()) == (0, 255)
    for (photograph,) in samples.sets[2:5]:  # as a camera gives them: not normalised
        assert photograph.max() > 127 > photograph.min()
        assert np.abs(np.diff(photograph.astype("int"), axis=1)).mean() < 0.5 * photograph.std()
    assert [set(np.unique(one[0])) for one in samples.sets[5:]] == [{0}, {255}]


def test_floating_inputs_are_tried_dim_constant_and_spiky() -> None:
    samples = make_samples([TensorSpec("pair", (-1, 2, 40, 40))], Preprocessing())
    noise, _, dim, constant, spiky = (one[0] for one in samples.sets)
    assert 0.005 < dim.std() / noise.std() < 0.02
    assert constant.min() == constant.max() == 0.5
    assert 0.5 < np.mean(spiky == 0) < 1 and set(np.abs(spiky[spiky != 0])) == {4}


@pytest.mark.parametrize("spec", [TensorSpec("grey", (-1, 1, 40, 40)), IMAGE], ids=["grey", "picture"])
def test_a_range_holds_every_sample_and_is_named(spec: TensorSpec) -> None:
    samples = make_samples([spec], Preprocessing(), SampleRequest((0.0, 255.0)))
    assert samples.description.startswith("2 noise from 0 to 255, ")
    assert samples.value_range == (0.0, 255.0)
    highest = [float(one[0].max()) for one in samples.sets]
    assert min(float(one[0].min()) for one in samples.sets) >= 0
    assert 250 < max(highest) <= 255
    assert highest[-3:] == [pytest.approx(2.55, rel=0.05), 127.5, 255]


def test_a_range_is_not_claimed_of_integers() -> None:
    samples = make_samples([RAW], Preprocessing(), SampleRequest((0.0, 1.0)))
    assert samples.value_range is None and " from " not in samples.description
    assert max(int(one[0].max()) for one in samples.sets) == 255


def test_samples_of_a_file_are_compared_on(tmp_path: Path) -> None:
    file, spec = tmp_path / "mine.npy", TensorSpec("spectrum", (-1, 5, 7))
    rows = np.random.default_rng(0).uniform(10, 20, (3, 5, 7))
    np.save(file, rows)
    samples = make_samples([spec], Preprocessing(), SampleRequest(file=file), batch=2)
    assert samples.description == "2 noise from 10.0 to 20.0, 3 of mine.npy, 3 extremes".replace(
        "from 10.0 to 20.0", f"from {np.float32(rows.min()):g} to {np.float32(rows.max()):g}"
    )
    mine = [one[0] for one in samples.sets[2:4]]
    assert np.array_equal(np.concatenate(mine), np.resize(rows.astype("float32"), (4, 5, 7)))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (np.zeros((3, 5, 6)), "its shape is"),
        (np.zeros((0, 5, 7)), "its shape is"),
        (np.full((2, 5, 7), NAN), "not finite"),
        (np.array(["a", "b"]), "no array of numbers"),
        (b"no array", "no array of numbers"),
        (None, "No such file"),
    ],
)
def test_samples_that_do_not_fit_are_refused_with_the_reason(tmp_path: Path, content: Any, why: str) -> None:
    file = tmp_path / "mine.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        np.save(file, content)
    with pytest.raises(UsageError, match="cannot be used") as caught:
        make_samples([TensorSpec("spectrum", (-1, 5, 7))], Preprocessing(), SampleRequest(file=file))
    assert why in caught.value.why
    assert "numpy.save('mine.npy', array)" in caught.value.fix


def test_samples_of_a_file_are_of_one_input_and_its_type(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.full((1, 4), 0.5))
    request = SampleRequest(file=tmp_path / "mine.npy")
    with pytest.raises(UsageError, match="cannot be used") as caught:
        make_samples([TensorSpec("a", (-1, 4)), TensorSpec("b", (-1, 4))], Preprocessing(), request)
    assert "2 inputs" in caught.value.why
    with pytest.raises(UsageError, match="cannot be used") as caught:
        make_samples([TensorSpec("a", (-1, 4), "uint8")], Preprocessing(), request)
    assert "not all of uint8" in caught.value.why


@pytest.mark.parametrize(
    ("dtype", "lowest", "highest"),
    [("bool", 0, 1), ("uint8", 0, 255), ("int8", -128, 127), ("int32", 0, 1), ("int64", 0, 1)],
)
def test_integers_are_all_that_they_may_be(dtype: str, lowest: int, highest: int) -> None:
    samples = make_samples([TensorSpec("x", (-1, 4000), dtype)], Preprocessing())
    for (noise,) in samples.sets:
        assert (noise.min(), noise.max(), noise.dtype) == (lowest, highest, np.dtype(dtype))
    assert ("integers 0 and 1" in samples.description) == (dtype in ("int32", "int64"))


@onnx_only
def test_a_model_of_words_is_verified_by_valid_ones(tmp_path: Path) -> None:
    """An index that its table does not have would be the samples' fault."""
    model = Toy(lambda net, words: net.head(net.embed(words).mean(1)), embed=nn.Embedding(9, 4), head=nn.Linear(4, 3))
    subject = as_subject(model, TensorSpec("words", (-1, 7), "int64"))
    parity = export_subject(subject, ExportRequest("onnx", tmp_path / "out")).parity
    assert parity is not None
    assert parity.status == "passed"
    assert parity.inputs.startswith("2 noise (integers 0 and 1), no photographs")


@pytest.mark.parametrize(
    "specs",
    [
        [IMAGE, TensorSpec("other", (-1, 3, 4, 4))],
        [TensorSpec("four", (-1, 4, 8, 8))],
        [TensorSpec("words", (-1, 7), "int64"), TensorSpec("mask", (-1, 7), "bool")],
        [TensorSpec("half", (-1, 3, 8, 8), "float16")],
    ],
)
def test_what_is_no_image_gets_noise_of_its_kind(specs: list[TensorSpec]) -> None:
    samples = make_samples(specs, Preprocessing(), batch=3)
    assert "2 noise" in samples.description and "no photographs" in samples.description
    for one in samples.sets:
        assert [(array.shape, str(array.dtype)) for array in one] == [((3, *s.shape[1:]), s.dtype) for s in specs]
    for one in samples.sets[:2]:
        assert all(array.size < 2 or array.max() > array.min() for array in one)


# ---- the fold, in torch ------------------------------------------------------------------------------------------


class Wrong(nn.Module):
    """A RepVGG-like block; without its shortcut, or with another epsilon, it is nearly the same."""

    def __init__(self, *, shortcut: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.conv, self.norm, self.skip = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3, eps=eps), nn.BatchNorm2d(3)
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x))
        logits: torch.Tensor = (y + self.skip(x) if self.shortcut else y).flatten(1)
        return logits


def wrong(**options: Any) -> nn.Module:
    module = Wrong(**options).eval()
    randomize(module)
    module.skip.weight.data *= 0.01
    module.skip.bias.data *= 0.01
    present(module.skip.running_mean).mul_(0.01)
    return module


@pytest.mark.parametrize("options", [{"shortcut": False}, {"eps": 1e-3}])
def test_a_missed_branch_and_a_wrong_epsilon_are_caught(options: dict[str, Any]) -> None:
    samples = make_samples([TensorSpec("image", (-1, 3, 8, 8))], Preprocessing())
    x = (torch.zeros(1, 3, 8, 8),)
    right, missed = wrong(), fold(wrong(**options), x)
    (good,) = verify_fold(References.of(samples, right, fold(right, x)))
    (bad,) = verify_fold(References.of(samples, right, missed))
    assert good.passed
    assert not bad.passed
    assert bad.snr_db is not None
    assert bad.snr_db > 25  # a cosine of 0.998 and more


def test_an_unfolded_export_has_no_fold_to_judge() -> None:
    samples = make_samples([TensorSpec("image", (-1, 3, 8, 8))], Preprocessing())
    assert verify_fold(References.of(samples, wrong(), None)) == []


@onnx_only
def test_an_unfolded_export_that_nothing_here_computes_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgevit.cli.export import finishing_line
    from edgevit.devices.transports.local import LocalTransport

    monkeypatch.setattr(LocalTransport, "run", lambda *a, **k: Reply("unsupported", "needs a GPU"))
    monkeypatch.setattr(RECIPE, "RECIPE", dataclasses.replace(RECIPE.RECIPE, needs="a GPU"))
    artifact = export_subject(tiny_subject(tmp_path), ExportRequest("onnx", tmp_path / "out", unfolded=True))
    assert artifact == open_artifact(artifact.folder)
    assert artifact.parity is not None
    assert (artifact.parity.status, artifact.parity.max_rel, artifact.parity.checks) == ("built_not_run", None, ())
    assert "nothing compared" in finishing_line(artifact)
    assert artifact.outputs == (TensorSpec("output", (1, 5)),)
    import onnx

    props = onnx.load(str(artifact.folder / artifact.payload)).metadata_props
    assert {entry.key: entry.value for entry in props}["edgevit.parity"].startswith("not verified")


# ---- an artifact, verified again ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("verify")
    return export_subject(tiny_subject(folder), ExportRequest("onnx", folder / "out"))


@onnx_only
def test_a_good_artifact_passes_again(good: Artifact) -> None:
    parity = verify_artifact(good, built_here=code_digests(good))
    assert parity.status == "passed"
    assert present(parity.max_rel) <= 1e-4
    assert [check.stage for check in parity.checks] == ["artifact", "artifact"]
    assert good.parity is not None
    assert parity.inputs == good.parity.inputs
    assert parity.how == good.parity.how


@onnx_only
def test_a_failed_export_leaves_the_good_artifact_alone(good: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RECIPE, "_simplify_single", lambda path, source: path.write_bytes(b"not ONNX"))
    folder = good.folder.parent.parent
    with pytest.raises(ParityError):
        export_subject(tiny_subject(folder), ExportRequest("onnx", good.folder.parent))
    assert open_artifact(good.folder) == good


@onnx_only
def test_other_weights_are_refused(good: Artifact) -> None:
    folder = good.folder.parent.parent
    tiny_file(folder, seed=1)
    try:
        with pytest.raises(CheckpointError, match="not the weights the artifact was made from") as caught:
            verify_artifact(good, built_here=code_digests(good))
        assert "export the artifact again" in caught.value.fix
    finally:
        tiny_file(folder)


@onnx_only
def test_an_artifact_made_from_a_file_asks_for_it(good: Artifact, tmp_path: Path) -> None:
    from_file = dataclasses.replace(good.source, weights="file", weights_file="net.pth")
    with pytest.raises(CheckpointError, match=r"--weights path/to/net\.pth"):
        verify_artifact(dataclasses.replace(good, source=from_file), built_here=code_digests(good))
    subject = tiny_subject(tmp_path)
    torch.save(subject.module.state_dict(), tmp_path / "net.pth")
    same = dataclasses.replace(from_file, model=good.source.model)
    request, from_checkpoint = WeightsRequest(tmp_path / "net.pth"), dataclasses.replace(good, source=same)
    assert verify_artifact(from_checkpoint, request, built_here=code_digests(good)).status == "passed"
    torch.save(tiny_subject(tmp_path, seed=2).module.state_dict(), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="not the weights"):
        verify_artifact(from_checkpoint, request, built_here=code_digests(good))


@onnx_only
def test_an_artifact_of_an_open_batch_is_tried_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[int, ...]] = []

    def compute_and_note(target: str, payload: Path, samples: Samples, **more: Any) -> Computed:
        tried.extend(one[0].shape for one in samples.sets)
        return compute(target, payload, samples, **more)

    monkeypatch.setattr(verify_room, "compute", compute_and_note)
    artifact = export_subject(tiny_subject(tmp_path), ExportRequest("onnx", tmp_path / "out", dynamic_batch=True))
    assert verify_artifact(artifact, built_here=code_digests(artifact)).status == "passed"
    assert set(tried) == {(2, 3, *SIZE)}


@onnx_only
def test_a_missing_engine_is_not_the_artifacts_fault(good: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgevit.devices.transports.local import LocalTransport

    monkeypatch.setattr(LocalTransport, "run", lambda *a, **k: Reply("unsupported", "onnxruntime cannot be imported"))
    with pytest.raises(TargetUnavailableError, match=r"(?s)cannot run here.*cannot be imported"):
        verify_artifact(good, built_here=code_digests(good))


@onnx_only
@pytest.mark.parametrize("status", ["crashed", "timeout", "failed"])
def test_an_engine_that_ends_badly_fails_the_artifact(
    good: Artifact, monkeypatch: pytest.MonkeyPatch, status: Any
) -> None:
    from edgevit.devices.transports.local import LocalTransport

    monkeypatch.setattr(LocalTransport, "run", lambda *a, **k: Reply(status, "Segmentation fault"))
    parity = verify_artifact(good, built_here=code_digests(good))
    assert (parity.status, parity.failing_stage, parity.max_rel) == ("failed", "artifact", None)
    assert "Segmentation fault" in parity.checks[-1].problem
