"""ML programs as files: how they are read, what half precision rounds, where values overflow, and what is refused."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import weakref
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgevit.devices.worker_archive import pack_recipe
from edgevit.exporting.convert import convert
from edgevit.folding import fold
from edgevit.recipes import evaluator_source, load_recipe
from edgevit.verification.divergence import first_divergence
from edgevit.verification.mil import OPERATORS, load, read_program, run_program, trace
from edgevit_runtime.record import UnsupportedError
from support.ml_programs import RECIPE, X, assert_close, evaluate, saved
from support.nets import Toy, image

pytestmark = pytest.mark.coreml


def test_every_operator_is_tried() -> None:
    """Each is in a table or a test of the files about ML programs."""
    files = sorted(Path(__file__).parent.glob("test_mil*.py"))
    names = [f"test_mil{part}.py" for part in ("", "_inference", "_layers", "_quantization")]
    assert [file.name for file in files] == names
    words = "".join(file.read_text(encoding="utf-8") for file in files)
    assert not {name for name in OPERATORS if f'"{name}"' not in words and f"mb.{name}(" not in words}


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(8 * 16, 5)).eval()


def exported(folder: Path, model: nn.Module, x: Tensor, precision: str) -> Path:
    folder.mkdir()
    path = folder / "net.mlpackage"
    convert(fold(model, (x,)), RECIPE, path, inputs={"x": x}, precision=precision)
    return path


def test_a_package_is_read_as_coremltools_reads_it(ct: Any, tmp_path: Path) -> None:
    from coremltools.converters.mil.frontend.milproto.load import load as load_program

    x = image(1, 3, 6, 6, dtype=torch.float32)
    path = exported(tmp_path / "a", network(), x, "fp16")
    spec = ct.utils.load_spec(str(path))
    theirs = load_program(spec, spec.specificationVersion, str(path / "Data/com.apple.CoreML/weights"))
    ours = read_program(path)
    constants = {op.outputs[0].name: op.val.val for op in theirs.functions["main"].operations if op.op_type == "const"}
    assert constants.keys() == ours.constants.keys()
    assert any(np.ndim(value) == 4 for value in constants.values())
    for name, value in ours.constants.items():
        np.testing.assert_array_equal(value, constants[name])
    operations = [op for op in theirs.functions["main"].operations if op.op_type != "const"]
    assert [(step.operator, step.results[0].name) for step in ours.operations] == [
        (o.op_type, o.outputs[0].name) for o in operations
    ]
    assert [spec.shape for spec in ours.inputs] == [(1, 3, 6, 6)]


def test_a_damaged_weight_file_is_refused(ct: Any, tmp_path: Path) -> None:
    path = exported(tmp_path / "a", network(), image(1, 3, 6, 6, dtype=torch.float32), "fp32")
    weights = path / "Data/com.apple.CoreML/weights/weight.bin"
    weights.write_bytes(b"\0" * weights.stat().st_size)
    with pytest.raises(ValueError, match=r"weight.bin holds no float32 of \["):
        read_program(path)


def test_half_precision_rounds_every_result_to_it(ct: Any, tmp_path: Path) -> None:
    x = image(1, 3, 6, 6, dtype=torch.float32)
    path = exported(tmp_path / "a", network(), x, "fp16")
    program = read_program(path)
    for result in run_program(program, {"x": x}):
        for spec, value in zip(result.operation.results, result.values, strict=True):
            assert value.dtype == torch.float32
            assert spec.dtype == "float32" or torch.equal(value, value.half().float())
    kinds = {spec.dtype for operation in program.operations for spec in operation.results}
    assert kinds == {"float16", "float32"}
    traces = trace(path, {"x": x})
    assert [entry.operation for entry in traces] == list(program.operations)
    assert all(entry.is_finite and entry.peak > 0 and entry.seconds > 0 for entry in traces)


def test_an_overflow_is_found_where_it_happens(ct: Any, tmp_path: Path) -> None:
    """Half precision ends at 65504; the square of 300 is more, its root is not."""
    model = Toy(lambda net, x: net.fc(x.square().mean(-1, keepdim=True).sqrt()), fc=nn.Linear(1, 4)).eval()
    x = 300 * image(2, 6, dtype=torch.float32)
    single, half = (exported(tmp_path / p, model, x, p) for p in ("fp32", "fp16"))
    assert_close(evaluate(single, x)[0], model(x).detach(), 1e-4)
    assert not np.isfinite(evaluate(half, x)[0]).all()
    assert first_divergence(single, [x]) is None
    divergence = first_divergence(half, [x])
    assert divergence is not None
    assert (divergence.kind, divergence.operation.operator, divergence.operation.name) == (
        "overflow",
        "mul",
        "square_cast_fp16",
    )
    assert divergence.peak == pytest.approx(float(x.square().max()), rel=1e-2)
    assert divergence.error_before < 1e-3
    assert divergence.operation.name in divergence.label


def test_a_cancellation_is_found_where_it_happens(ct: Any, tmp_path: Path) -> None:
    def build(mb: Any, v: Any) -> Any:
        far = mb.add(x=mb.tanh(x=v), y=np.float16(4096), name="away")
        return mb.exp(x=mb.sub(x=far, y=np.float16(4096), name="back"))

    path = saved(tmp_path, build, X, half=True)
    divergence = first_divergence(path, [X])
    assert divergence is not None
    assert (divergence.kind, divergence.operation.operator, divergence.operation.name) == ("explosion", "sub", "back")
    assert divergence.error > 0.1 > divergence.error_before
    assert first_divergence(saved(tmp_path, lambda mb, v: mb.tanh(x=v), X, half=True), [X]) is None


def test_values_are_released_after_their_last_use(ct: Any, tmp_path: Path) -> None:
    """Of a chain with one branch, only the branch's value and the chain's last two live while it runs."""

    def build(mb: Any, v: Any) -> Any:
        branch = mb.add(x=v, y=np.ones((2, 4, 5, 6), np.float32), name="branch")
        end = mb.tanh(x=branch)
        for _ in range(6):
            end = mb.tanh(x=end)
        return mb.add(x=end, y=branch)

    program = read_program(saved(tmp_path, build, X))
    values = []
    for result in run_program(program, {program.inputs[0].name: X}):
        values += [(result.operation.index, weakref.ref(value)) for value in result.values]
        living = [index for index, reference in values if reference() is not None]
        assert len(living) <= 2, f"{living} live after operation {result.operation.index}"
    assert len(values) == 9


def test_a_package_travels_to_the_worker_whole(tmp_path: Path) -> None:
    """Without any of edgevit on its path, it is imported under the name that it has in the archive."""
    source = evaluator_source(load_recipe("coreml").RECIPE)
    archive = pack_recipe(source, tmp_path / "worker.pyz")
    modules = {f"edgevit_recipes/mil/{file.relative_to(source)}" for file in source.rglob("*.py")}
    assert len(modules) > 10 and modules <= set(zipfile.ZipFile(archive).namelist())
    code = "import sys, edgevit_recipes.mil as mil; print(mil.RECIPE.target, 'edgevit' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(archive)}, cwd=tmp_path,
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert process.stdout.split() == ["mil", "False"]


def test_an_unknown_operator_is_named_with_its_place(ct: Any, tmp_path: Path) -> None:
    path = saved(tmp_path, lambda mb, v: mb.identity(x=mb.non_zero(x=mb.relu(x=v), name="where")), X)
    with pytest.raises(UnsupportedError, match=r"operator of non_zero 'where' \(operation \d+\)"):
        load(path, threads=1)


def test_a_result_of_another_shape_than_declared_is_an_error(
    ct: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, lambda mb, v: mb.relu(x=v, name="one"), X)
    monkeypatch.setitem(OPERATORS, "relu", lambda a: a["x"][:1])
    with pytest.raises(
        ValueError, match=r"relu 'one' \(operation 0\) declares \[2, 4, 5, 6\] and gives \[1, 4, 5, 6\]"
    ):
        evaluate(path, X)


def test_infinite_constants_are_no_overflow(ct: Any, tmp_path: Path) -> None:
    mask = np.array([0, -math.inf, 0, 0, -math.inf, 0], np.float16)
    path = saved(tmp_path, lambda mb, v: mb.softmax(x=mb.add(x=v, y=mask), axis=-1), X, half=True)
    assert first_divergence(path, [X]) is None
    assert (evaluate(path, X)[0][..., 1] == 0).all()
