"""Exports in int8: calibrated on a person's samples, verified again, exported anew when they change."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgevit.artifacts.export_command import export_command
from edgevit.artifacts.folder import open_artifact
from edgevit.errors import QuantizationError, UsageError
from edgevit.exporting import quantized_again
from edgevit.exporting.pipeline import export_subject, verify_artifact
from edgevit.models.source import Subject, state_sha256
from edgevit.recipes import list_recipes, load_recipe
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit.records.model import ASSUMED_PREPROCESSING
from edgevit.records.quantization import QuantizationRequest
from edgevit.sweeps.freshness import is_current_so_far, lost_statements
from edgevit.verification.file_numbers import NUMBERS
from edgevit_runtime.dialect import QUANTIZED, UNSATURATED_WEIGHT, Dialect
from edgevit_runtime.record import ProcessorError, Quantizing
from support.saboteurs import residual_net
from support.subjects import as_subject

pytestmark = pytest.mark.onnx


def photographs(place: Path, count: int = 12, *, seed: int = 0) -> Path:
    """Write pictures of noise that no two networks would call alike."""
    rng = np.random.default_rng(seed)
    place.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (16, 12, 3), dtype=np.uint8)).save(place / f"{number:02}.png")
    return place


@pytest.fixture(scope="module")
def subject() -> Subject:
    return as_subject(residual_net())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, subject: Subject) -> Artifact:
    """An artifact in int8 of a network and a folder of images."""
    folder = tmp_path_factory.mktemp("made")
    return export_subject(subject, order(folder, photographs(folder / "photos")))


def order(folder: Path, data: Path | None = None, precision: str = "int8", **more: object) -> ExportRequest:
    quantization = QuantizationRequest(data, **more)  # type: ignore[arg-type]
    return ExportRequest("onnx", folder / "out", precision, quantization=quantization)


def test_the_manifest_tells_the_samples_the_layers_and_the_agreement(made: Artifact) -> None:
    report = open_artifact(made.folder).quantization
    assert report == made.quantization and report is not None
    assert (report.description, report.is_assumed, report.samples) == ("9 of photos", False, 9)
    assert [layer.module for layer in report.layers] == ["stem", "wide", "narrow", "head"]
    assert report.agreement is not None and report.agreement[1] == 12
    assert made.parity is not None and "3 of photos" in made.parity.inputs
    last = made.parity.checks[-1]
    assert (last.stage, last.against) == ("artifact", "folded form") and made.parity.snr_db == last.snr_db


def test_it_can_be_verified_again_from_the_same_samples(made: Artifact, subject: Subject, tmp_path: Path) -> None:
    parity = verify_artifact(made, model=subject.module)
    assert parity.status == "passed"
    assert {check.against for check in parity.checks} == {"folded form", "simulation", NUMBERS}
    assert made.quantization is not None and made.quantization.request.data is not None
    place = made.quantization.request.data
    moved = place.rename(tmp_path / "moved")
    try:
        with pytest.raises(UsageError, match="not there") as missing:
            verify_artifact(made, model=subject.module)
        assert "--data" in missing.value.fix
        assert verify_artifact(made, model=subject.module, data=moved).status == "passed"
        with pytest.raises(UsageError, match="not the samples"):
            verify_artifact(made, model=subject.module, data=photographs(tmp_path / "other", seed=1))
    finally:
        moved.rename(place)


def test_what_was_decided_at_the_export_is_verified_and_not_what_would_be_now(
    made: Artifact, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noises() -> list[float | None]:
        return [check.snr_db for check in verify_artifact(made, model=subject.module).checks]

    assert made.quantization is not None and made.parity is not None
    exported = [check.snr_db for check in made.parity.checks if check.stage in ("quantize", "artifact")]
    assert noises() == exported, "to the bit"
    undecided = dataclasses.replace(made.quantization, steps=made.quantization.steps[:1])
    right: Any = quantized_again.requantize  # type: ignore[attr-defined]
    monkeypatch.setattr(quantized_again, "requantize", lambda *parts: right(*parts[:3], undecided))
    assert noises() != exported


def test_it_is_current_only_for_the_same_samples_and_settings(made: Artifact, tmp_path: Path) -> None:
    assert made.quantization is not None
    data = made.quantization.request.data
    assert data is not None
    same = dataclasses.replace(order(made.folder.parent.parent, data), model="net.py:net")
    assert is_current_so_far(made, same)
    for other in (
        QuantizationRequest(data, floor_db=20.0),
        QuantizationRequest(data, method="mse"),
        QuantizationRequest(data, corrects=False),
        QuantizationRequest(photographs(tmp_path / "others", seed=2)),
        QuantizationRequest(),
    ):
        assert not is_current_so_far(made, dataclasses.replace(same, quantization=other))
    nothing_else = dataclasses.replace(made, preprocessing=ASSUMED_PREPROCESSING)
    assert lost_statements(nothing_else, dataclasses.replace(same, quantization=QuantizationRequest())) == [
        "--data FOLDER"
    ]
    assert lost_statements(nothing_else, same) == []


def test_the_command_that_exports_it_again_has_its_options(made: Artifact) -> None:
    assert made.quantization is not None
    words = export_command(made)
    assert f"--data {made.quantization.request.data}" in words and "--floor" not in words
    changed = dataclasses.replace(
        made.quantization,
        request=QuantizationRequest(None, floor_db=20.0, method="mse", absorbs=False, corrects=False),
    )
    words = export_command(dataclasses.replace(made, quantization=changed))
    assert "--floor=20" in words and "--ranges mse" in words and "--no-absorb" in words and "--no-correct" in words


def test_the_training_form_is_refused(tmp_path: Path, subject: Subject) -> None:
    request = dataclasses.replace(order(tmp_path), unfolded=True)
    with pytest.raises(UsageError, match="folded form"):
        export_subject(subject, request)
    assert not (tmp_path / "out").exists()


def test_a_floor_out_of_reach_leaves_nothing_behind(tmp_path: Path, subject: Subject) -> None:
    with pytest.raises(QuantizationError, match="cannot reach"):
        export_subject(subject, order(tmp_path, floor_db=90.0))
    assert not (tmp_path / "out").exists()


def test_layers_below_the_floor_stay_in_float_in_the_file(tmp_path: Path) -> None:
    """The second layer's weights have two magnitudes in each row, which no scale fits."""
    first, second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)
    subject = as_subject(nn.Sequential(first, nn.GELU(), second, nn.GELU(), nn.Conv2d(8, 4, 1)))
    with torch.no_grad():
        first.weight[0] *= 1e-4
        second.weight[:, 0] *= 3000
        for layer in (first, second):
            assert layer.bias is not None
            layer.bias.zero_()
    artifact = export_subject(subject, order(tmp_path, floor_db=18.0))
    report = artifact.quantization
    assert report is not None and [layer.module for layer in report.layers if layer.excluded] == ["2"]
    assert artifact.operators.counts["Conv"] == 3 and artifact.operators.int8 == {"QLinearConv": 2}


def test_precisions_from_samples_come_with_a_dialect() -> None:
    for described in list_recipes():
        recipe = load_recipe(described.target)
        offered = [precision for precision in described.precisions if precision in QUANTIZED]
        assert bool(offered) == isinstance(recipe, Quantizing), described.target
        for precision in offered:
            dialect = recipe.dialect(precision, {})  # type: ignore[attr-defined]
            assert isinstance(dialect, Dialect) and (dialect.activations == "float") == (precision != "int8")


def test_a_file_for_every_processor_has_weights_of_seven_bits() -> None:
    for target in ("onnx", "openvino"):
        recipe = load_recipe(target)
        assert isinstance(recipe, Quantizing)
        assert recipe.dialect("int8", {}).largest_weight == UNSATURATED_WEIGHT
        assert recipe.dialect("int8", {"processor": "vnni"}).largest_weight == 127
    with pytest.raises(ValueError, match="processor=8086"):
        load_recipe("onnx").check({"processor": "8086"})  # type: ignore[attr-defined]


def test_tensorrt_never_gets_a_number_without_sign(tmp_path: Path, subject: Subject) -> None:
    """It takes a uint8 for an int8, and then a ReLU that the grid replaced is gone."""
    import onnx
    from onnx import numpy_helper

    request = dataclasses.replace(order(tmp_path), target="tensorrt")
    artifact = export_subject(subject, request)
    (file,) = (artifact.folder / artifact.payload).glob("*.onnx")
    model = onnx.load(str(file))
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    zeros = [constants[node.input[2]] for node in model.graph.node if "Linear" in node.op_type]
    assert len(zeros) == 18 and all(zero.dtype == np.int8 and not zero.any() for zero in zeros)


def test_weights_that_overflow_16_bits_are_not_run_where_they_do(
    tmp_path: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = dataclasses.replace(order(tmp_path), options={"processor": "vnni"})
    artifact = export_subject(subject, request)
    assert artifact.parity is not None and artifact.parity.status in ("passed", "needs_processor")
    recipe = load_recipe("onnx")
    file = artifact.folder / artifact.payload
    silicon = dataclasses.make_dataclass("S", ["instruction_sets"])
    monkeypatch.setattr(recipe.platform, "machine", lambda: "x86_64")  # type: ignore[attr-defined]
    monkeypatch.setattr(recipe, "read_silicon", lambda: silicon(("avx2", "avx512f")))
    with pytest.raises(ProcessorError, match="needs a processor with vnni"):
        recipe.load(file, threads=1)
    monkeypatch.setattr(recipe, "read_silicon", lambda: silicon(("avx2", "avx_vnni")))
    recipe.load(file, threads=1)
    monkeypatch.setattr(recipe.platform, "machine", lambda: "aarch64")  # type: ignore[attr-defined]
    monkeypatch.setattr(recipe, "read_silicon", lambda: silicon(("asimd",)))
    recipe.load(file, threads=1)


def test_sums_of_another_processor_are_simulated(made: Artifact, subject: Subject, tmp_path: Path) -> None:
    parity = verify_artifact(made, model=subject.module, processor="x86-without-vnni")
    assert parity.status == "evaluated" and "simulated" in parity.how and "no sum clipped" in parity.how
    request = dataclasses.replace(order(tmp_path, floor_db=15.0), options={"processor": "vnni"})
    loud = as_subject(residual_net())
    with torch.no_grad():
        # All products of the second layer have one sign, and are as large as they can be.
        wide = loud.module.get_submodule("wide")
        assert isinstance(wide, nn.Conv2d)
        wide.weight.fill_(1.0)
    source = dataclasses.replace(loud.source, state_sha256=state_sha256(loud.module))
    loud = dataclasses.replace(loud, source=source)
    artifact = export_subject(loud, request)
    clipped = verify_artifact(artifact, model=loud.module, processor="x86-without-vnni")
    assert clipped.status == "failed" and clipped.failing_stage == "artifact" and "sums clipped" in clipped.how
    with pytest.raises(UsageError, match="no processor 'avx2'"):
        verify_artifact(made, model=subject.module, processor="avx2")
    with pytest.raises(UsageError, match="only sums of int8"):
        verify_artifact(dataclasses.replace(made, precision="w8"), model=subject.module, processor="x86-without-vnni")
