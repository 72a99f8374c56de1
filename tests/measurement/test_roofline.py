"""Against the machine's peak, and operator by operator, in the engines that tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevit.measurement import roofline
from edgevit.measurement.noise_floor import Peak
from edgevit.measurement.roofline import layer_times, roofline_point
from edgevit.measurement.runner import Protocol, profile
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact
from edgevit.records.measurement import Device
from edgevit_runtime import operator_cost
from edgevit_runtime.record import Job, LayerTime, Reply
from support import toys
from support.exported import tiny_artifact
from support.measured import measured

PEAK = Peak("local", 1, gflops=100.0, gb_per_s=10.0)


def model(tmp_path: Path, **changes: Any) -> Artifact:
    artifact = toys.fake_artifact(tmp_path / "a")
    ends: dict[str, Any] = {"inputs": (artifact.inputs[0],), "outputs": ()}
    return dataclasses.replace(artifact, **ends, **changes)


def test_a_model_bound_by_compute(tmp_path: Path) -> None:
    row = dataclasses.replace(measured(), p50_ns=40_000_000, batch=2)
    point: Any = roofline_point(row, model(tmp_path, macs=500_000_000, size_bytes=4_000_000), PEAK)
    assert point.gflops == pytest.approx(50.0), "2 x 2 x 0.5 G in 40 ms"
    assert (point.bound_by, point.limit_gflops, point.share) == ("compute", 100.0, pytest.approx(0.5))
    assert point.flop_per_byte == pytest.approx(2e9 / (4_000_000 + 2 * 4 * 4))
    assert (point.least_ns, point.note) == (pytest.approx(20_000_000), "")


def test_a_model_bound_by_memory(tmp_path: Path) -> None:
    row = dataclasses.replace(measured(), p50_ns=20_000_000)
    point: Any = roofline_point(row, model(tmp_path, macs=50_000_000, size_bytes=100_000_000 - 16), PEAK)
    assert (point.bound_by, point.least_ns) == ("memory", pytest.approx(10_000_000))
    assert point.limit_gflops == pytest.approx(10.0), "one FLOP per byte at 10 GB/s"
    assert point.share == pytest.approx(0.5)


def test_what_cannot_be_held_against_the_peak_is_said(tmp_path: Path) -> None:
    row = dataclasses.replace(measured(), p50_ns=1_000_000, precision="bf16")
    artifact = model(tmp_path, macs=500_000_000, size_bytes=4_000_000)
    point: Any = roofline_point(row, artifact, PEAK)
    assert point.share == pytest.approx(10.0)
    assert "computes in bf16, the peak is in float32" in point.note and "beats the limit" in point.note
    with pytest.raises(ValueError, match="no latency"):
        roofline_point(dataclasses.replace(row, p50_ns=None), artifact, PEAK)


def test_layers_are_sorted_and_shared_out() -> None:
    times = (
        LayerTime("small", "Add", 1_000, macs=0, bytes=4_000),
        LayerTime("large", "Conv", 8_000, macs=200_000, bytes=1_000),
        LayerTime("dark", "Attention", 1_000),
        LayerTime("quick", "Add", 0, macs=0, bytes=10),
    )
    table = roofline._table(("m", "t", "fp32"), times, PEAK)
    assert [layer.name for layer in table.layers] == ["large", "small", "dark", "quick"]
    assert [layer.share for layer in table.layers] == pytest.approx([0.8, 0.1, 0.1, 0.0])
    assert [layer.limit_share for layer in table.layers] == [pytest.approx(0.5), pytest.approx(0.4), None, None]
    assert table.by_operator == pytest.approx({"Conv": 0.8, "Add": 0.1, "Attention": 0.1})
    assert roofline._table(("m", "t", "fp32"), times, None).layers[0].limit_share is None


def test_an_engine_that_does_not_tell_is_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        def run(self, device: Device, files: Mapping[str, Path], job: Job, *, timeout_s: float) -> Reply:
            assert job.task == "layers"
            return Reply("unsupported", "nobody asks it")

    monkeypatch.setattr(roofline, "load_transport", lambda name: Silent())
    artifact = dataclasses.replace(toys.fake_artifact(tmp_path / "a"), target="onnx")
    table = layer_times(artifact, toys.LOCAL, threads=1)
    assert (table.layers, table.note) == ((), "unsupported: nobody asks it")


@pytest.mark.parametrize(
    ("weight", "output", "macs"),
    [
        ((8, 3, 3, 3), (1, 8, 16, 16), 8 * 16 * 16 * 27),
        ((8, 1, 3, 3), (2, 8, 16, 16), 2 * 8 * 16 * 16 * 9),  # depthwise
        ((4, 2, 6, 3, 3), (1, 8, 16, 16), 8 * 16 * 16 * 54),  # with the groups first
    ],
)
def test_macs_of_a_convolution(weight: tuple[int, ...], output: tuple[int, ...], macs: int) -> None:
    assert operator_cost.convolution_macs(weight, output) == macs


def test_macs_and_bytes_of_a_product() -> None:
    assert operator_cost.product_macs((2, 7, 5), (2, 5, 3), (2, 7, 3)) == 2 * 7 * 5 * 3
    assert operator_cost.product_macs((2, 5, 7), (3, 5), (2, 7, 3)) == 2 * 7 * 5 * 3, "both transposed"
    assert operator_cost.product_macs((2, 7, 5), (), (2, 7, 3)) == 2 * 7 * 5 * 3, "packed weights are not told"
    assert operator_cost.product_macs((7, 5), (3,), (7, 3)) == 7 * 5 * 3, "a bias in the place of packed weights"
    assert operator_cost.tensors_bytes([(2, 3), (4,), ()], 4) == 4 * 11


# The engines themselves


@pytest.mark.parametrize(
    ("target", "compiles"),
    [
        pytest.param("onnx", False, marks=pytest.mark.onnx),
        pytest.param("openvino", True, marks=pytest.mark.openvino),
        pytest.param("executorch", True, marks=pytest.mark.executorch),
        pytest.param("litert", False, marks=pytest.mark.litert),
        pytest.param("ncnn", False, marks=pytest.mark.ncnn),
    ],
)
def test_the_parts_of_a_load(target: str, compiles: bool) -> None:
    artifact = tiny_artifact(target)
    protocol = Protocol(processes=1, min_runs=3, min_ns=0, percentile=None)
    row: Any = profile(artifact, toys.LOCAL, threads=1, protocol=protocol)
    assert row.status == "ok", row.error
    assert 0 < row.import_ns < row.load_ns, "the import is the first part of load()"
    assert row.import_ns > 0.2 * row.load_ns, "of a small network it is the most of it: nothing was imported before"
    assert (row.compile_ns is not None) is compiles
    assert row.compile_ns is None or row.import_ns + row.compile_ns < row.load_ns * 1.5


@pytest.mark.onnx
def test_layers_of_onnx_runtime_count_what_it_computes(tmp_path: Path) -> None:
    table = layer_times(toys.onnx_artifact(tmp_path / "a"), toys.LOCAL, threads=1, batch=2, peak=PEAK)
    [layer] = table.layers
    assert (layer.operator, layer.macs, layer.bytes) == ("Gemm", 24, 4 * (8 + 12 + 3 + 6)), table.note
    assert layer.share in (0.0, 1.0), "a microsecond is its clock's step"


@pytest.mark.parametrize(
    ("target", "counts"),
    [
        pytest.param("onnx", True, marks=pytest.mark.onnx),
        pytest.param("openvino", True, marks=pytest.mark.openvino),
        pytest.param("executorch", False, marks=pytest.mark.executorch),
    ],
)
def test_layers_of_an_exported_network(target: str, counts: bool) -> None:
    artifact = tiny_artifact(target)
    table = layer_times(artifact, toys.LOCAL, threads=1, peak=PEAK)
    assert table.layers, table.note
    assert sum(layer.ns for layer in table.layers) > 0
    assert sum(layer.share for layer in table.layers) == pytest.approx(1.0)
    assert [layer.ns for layer in table.layers] == sorted((layer.ns for layer in table.layers), reverse=True)
    macs = sum(layer.macs or 0 for layer in table.layers)
    assert macs >= artifact.macs if counts else macs == 0, "blocked layouts pad channels, and none is left out"


@pytest.mark.openvino
def test_a_product_quicker_than_the_clock_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = tiny_artifact("openvino")
    recipe: Any = load_recipe("openvino")
    counters = recipe.OpenVinoSession.counters
    monkeypatch.setattr(recipe.OpenVinoSession, "counters", lambda session: dict.fromkeys(counters(session), 0))
    zeros = np.zeros([size for spec in artifact.inputs for size in spec.shape], np.float32).tobytes()
    layers = recipe.layers(artifact.folder / artifact.payload, threads=1, tensors=[zeros], batch=1, runs=1)
    assert {layer.ns for layer in layers} == {0}
    assert sum(layer.macs for layer in layers) >= artifact.macs
    assert all(layer.macs for layer in layers), "what multiplies nothing and took no time is not there"
