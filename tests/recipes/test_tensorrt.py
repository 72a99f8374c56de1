"""TensorRT: engines really built by TensorRT-RTX, what lies beside them, and which are ever opened.

No test runs an engine: that takes a GPU. What surrounds a run is tested with stand-ins for the library and the driver.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgevit.artifacts.trust import code_digests
from edgevit.cli import main
from edgevit.devices.registry import load_device
from edgevit.errors import ArtifactError, TargetUnavailableError, UsageError
from edgevit.exporting.convert import convert
from edgevit.exporting.pipeline import export_subject, verify_artifact
from edgevit.exporting.requirements import check_request
from edgevit.folding import fold
from edgevit.measurement.runner import Protocol, profile
from edgevit.recipes import engine_of, load_recipe
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit.store import LatencyDB
from edgevit_runtime.record import UnsupportedError
from support.nets import image
from support.subjects import SIZE, as_subject, tiny_subject

pytestmark = pytest.mark.tensorrt
onnx = pytest.importorskip("onnx")
trt = pytest.importorskip("tensorrt_rtx")
RECIPE = load_recipe("tensorrt")
ONCE = Protocol(processes=1, min_runs=1, min_ns=0, percentile=None)
KNOWN = ("7.5", "8.0", "8.6", "8.9", "12.0")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on a machine that has one: the driver then says that it has none."""
    torch.set_num_threads(1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


# ---- the recipe --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small convolutional network as ONNX, fixed and with an open batch, in both precisions."""
    folder = tmp_path_factory.mktemp("sources")
    source = tiny_subject(folder)
    examples = source.example(1)
    model = fold(source.module, tuple(examples.values()))
    files = {}
    for name, precision, is_open in [("fp32", "fp32", False), ("fp16", "fp16", False), ("open", "fp32", True)]:
        files[name] = folder / name / "net.onnx"
        files[name].parent.mkdir()
        convert(model, load_recipe("onnx"), files[name], inputs=examples, precision=precision, dynamic_batch=is_open)
    return files


def build(folder: Path, source: Path, *, dynamic_batch: bool = False, **options: str) -> Path:
    payload = folder / "net_tensorrt"
    folder.mkdir(exist_ok=True)
    examples = {"image": image(1, 3, *SIZE, dtype=torch.float32)}
    stages = RECIPE.export(
        source, examples, payload, outputs=["output"], precision="fp32", dynamic_batch=dynamic_batch, options=options
    )
    assert [(stage.name, stage.path) for stage in stages] == [("build", folder / "stages" / "build_tensorrt")]
    assert stages[0].seconds > 0
    return payload


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_payload_is_an_engine_its_source_and_a_sidecar(
    sources: dict[str, Path], tmp_path: Path, precision: str, capfd: pytest.CaptureFixture[str]
) -> None:
    payload = build(tmp_path / "built", sources[precision])
    names = ["net.engine", "net.json", "net.onnx", "trtexec.txt"]
    for folder in (payload, tmp_path / "built" / "stages" / "build_tensorrt"):
        assert sorted(path.name for path in folder.iterdir()) == names
    assert (payload / "net.onnx").read_bytes() == sources[precision].read_bytes()
    command = "trtexec --onnx=net.onnx --saveEngine=net.engine --stronglyTyped --noTF32\n"
    assert (payload / "trtexec.txt").read_text() == command
    before = (payload / "net.engine").read_bytes()
    RECIPE.annotate(payload, {"b": "2", "a": "1"})
    assert (payload / "net.engine").read_bytes() == before, "no header of ours"
    assert json.loads((payload / "net.json").read_text()) == {
        "library": "tensorrt_rtx",
        "version": trt.__version__,
        "compute_capability": "",
        "max_batch": None,
        "inputs": ["image"],
        "outputs": ["output"],
        "metadata": {"a": "1", "b": "2"},
    }
    assert capfd.readouterr() == ("", "")


def test_the_precision_is_that_of_the_onnx_file(sources: dict[str, Path], tmp_path: Path) -> None:
    """The builder takes it from there: it would refuse to mix, and stores the weights as they are."""
    wide = wide_source(tmp_path, "float32")
    half = wide_source(tmp_path, "float16")
    sizes = [(build(tmp_path / path.stem, path) / "net.engine").stat().st_size for path in (wide, half)]
    assert sizes[0] - sizes[1] == pytest.approx(2 * 1_000_000, rel=0.02)
    mixed = onnx.load(str(half))
    mixed.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(mixed, str(tmp_path / "mixed.onnx"))
    with pytest.raises(RuntimeError, match=r"multiply.*MatMul"):
        build(tmp_path / "mixed", tmp_path / "mixed.onnx")


def wide_source(folder: Path, dtype: str) -> Path:
    """Write a network y = x @ w with a million weights."""
    helper = onnx.helper
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    weight = np.random.default_rng(0).standard_normal((1000, 1000)).astype(dtype)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="multiply")],
        "wide",
        [helper.make_tensor_value_info("x", kind, [1, 1000])],
        [helper.make_tensor_value_info("y", kind, [1, 1000])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        str(folder / f"{dtype}.onnx"),
    )
    return folder / f"{dtype}.onnx"


def test_an_engine_is_built_for_the_gpus_asked_for(sources: dict[str, Path], tmp_path: Path) -> None:
    sizes = []
    for i in range(1, len(KNOWN) + 1):
        capabilities = ", ".join(KNOWN[:i])
        payload = build(tmp_path / str(i), sources["fp16"], compute_capability=capabilities)
        assert json.loads((payload / "net.json").read_text())["compute_capability"] == capabilities
        sizes.append((payload / "net.engine").stat().st_size)
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0], "code for five GPUs is more than for one"


def test_what_the_library_cannot_build_is_said_in_its_words(sources: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"no engine could be built: .*Turing \(SM75\): FP32 GEMM is not supported"):
        build(tmp_path / "built", sources["fp32"], compute_capability="7.5")


@pytest.mark.parametrize("capabilities", ["9.9", "", "8.6,", "sm_86", "86", "8.6;8.9", "current", "none"])
def test_a_gpu_that_nobody_knows_is_refused(sources: dict[str, Path], tmp_path: Path, capabilities: str) -> None:
    with pytest.raises(ValueError, match=r"no compute capability .*; known: 7\.5, 8\.0, 8\.6, 8\.9, 12\.0"):
        build(tmp_path / "built", sources["fp32"], compute_capability=capabilities)


def test_an_open_batch_has_limits_which_are_told(sources: dict[str, Path], tmp_path: Path) -> None:
    payload = build(tmp_path / "built", sources["open"], dynamic_batch=True)
    assert json.loads((payload / "net.json").read_text())["max_batch"] == 32
    shapes = "--minShapes=image:1x3x16x12 --optShapes=image:1x3x16x12 --maxShapes=image:32x3x16x12"
    assert (payload / "trtexec.txt").read_text().endswith(f"{shapes}\n")
    with pytest.raises(RuntimeError, match=r"(?i)profile"):  # what TensorRT says of an open batch without limits
        build(tmp_path / "none", sources["open"])


def test_a_damaged_onnx_file_is_refused(sources: dict[str, Path], tmp_path: Path) -> None:
    whole = sources["fp32"].read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RuntimeError) as caught:
        build(tmp_path / "built", tmp_path / "cut.onnx")
    assert "it gave no reason" not in str(caught.value)


def test_an_operator_that_tensorrt_lacks_is_named_with_its_node(sources: dict[str, Path], tmp_path: Path) -> None:
    model = onnx.load(str(sources["fp32"]))
    gelu = next(node for node in model.graph.node if node.op_type == "Gelu")
    gelu.op_type, gelu.name = "Nonsense", "strange_one"
    onnx.save(model, str(tmp_path / "strange.onnx"))
    with pytest.raises(RuntimeError, match=r"node strange_one \(Nonsense\): "):
        build(tmp_path / "built", tmp_path / "strange.onnx")


# ---- without a library, and on other machines ----------------------------------------------------------------------


def test_without_a_library_the_folder_holds_what_builds_the_engine(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_library(monkeypatch)
    assert engine_of(RECIPE.RECIPE) == ""
    assert not {name for name in check_request(RECIPE, "fp32") if name.startswith("tensorrt")}
    artifact = export_subject(tiny_subject(tmp_path), ExportRequest("trt", tmp_path / "out"))
    payload = artifact.folder / artifact.payload
    assert sorted(path.name for path in payload.iterdir()) == ["tiny-tiny.json", "tiny-tiny.onnx", "trtexec.txt"]
    assert artifact.parity is not None
    assert artifact.parity.status == "built_not_run"
    assert "holds no engine" in artifact.parity.how
    assert [stage.name for stage in artifact.stages] == ["fold", "convert", "simplify", "verify"]
    with pytest.raises(ValueError, match="TensorRT-RTX, which is not installed"):
        build(tmp_path / "built", sources["fp32"], compute_capability="8.6")


def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def none_of_it(name: str) -> str:
        if name.startswith("tensorrt"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    def absent(library: str) -> Any:
        raise ModuleNotFoundError(library, name=library)

    monkeypatch.setattr(importlib.metadata, "version", none_of_it)
    monkeypatch.setattr(RECIPE, "_import", absent)


def test_tensorrt_itself_comes_first_and_builds_for_its_own_gpu(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in: TensorRT-RTX under the other's name, less what only TensorRT-RTX has."""
    other = SimpleNamespace(**{name: getattr(trt, name) for name in dir(trt) if name != "ComputeCapability"})
    other.__name__ = "tensorrt"
    monkeypatch.setattr(RECIPE, "_import", lambda library: other if library == "tensorrt" else trt)
    payload = build(tmp_path / "built", sources["fp32"])
    assert json.loads((payload / "net.json").read_text())["library"] == "tensorrt"
    with pytest.raises(ValueError, match="for the GPU of the machine"):
        build(tmp_path / "again", sources["fp32"], compute_capability="8.6")


def test_a_broken_library_is_not_taken_for_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(library: str) -> Any:
        raise ModuleNotFoundError("No module named 'tensorrt_libs'", name="tensorrt_libs")

    monkeypatch.setattr(RECIPE, "_import", broken)
    with pytest.raises(ModuleNotFoundError, match="tensorrt_libs"):
        RECIPE._installed()  # type: ignore[attr-defined]


def test_an_engine_of_another_version_is_not_opened(sources: dict[str, Path], tmp_path: Path) -> None:
    payload = build(tmp_path / "built", sources["fp32"])
    sidecar = payload / "net.json"
    sidecar.write_text(sidecar.read_text().replace(trt.__version__, "1.0"))
    with pytest.raises(UnsupportedError, match=r"needs tensorrt_rtx 1\.0, which built the engine"):
        RECIPE.load(payload, threads=1)


# ---- the session, with a driver and a library of memory alone --------------------------------------------------------


class Driver:
    """libcuda.so.1, whose GPU is this process' memory."""

    def __init__(self, **failing: int) -> None:
        self.failing, self.held, self.calls = failing, dict[int, Any](), list[str]()

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name in self.failing:
                return self.failing[name]
            if work := getattr(type(self), f"do_{name}", None):
                work(self, *arguments)
            return 0

        return call

    def do_cuDeviceGetName(self, buffer: Any, size: int, device: Any) -> None:  # noqa: N802
        buffer.value = b"Imagined GPU"

    def do_cuStreamCreate(self, stream: Any, flags: int) -> None:  # noqa: N802
        assert flags == 0, "copies would not be waited for"
        stream._obj.value = 77

    def do_cuMemAlloc_v2(self, address: Any, size: Any) -> None:  # noqa: N802
        block = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(block)
        self.held[address._obj.value] = block

    def do_cuMemFree_v2(self, address: Any) -> None:  # noqa: N802
        del self.held[address.value]

    def do_cuMemcpyHtoD_v2(self, address: Any, raw: bytes, size: Any) -> None:  # noqa: N802
        assert len(self.held[address.value]) >= size.value == len(raw)
        ctypes.memmove(address.value, raw, size.value)

    def do_cuMemcpyDtoH_v2(self, buffer: Any, address: Any, size: Any) -> None:  # noqa: N802
        assert len(self.held[address.value]) >= size.value
        ctypes.memmove(buffer, address.value, size.value)


class Engine:
    """An engine that gives image + 1 as `plus`, and its rows' sums as `sums`; and its own execution context."""

    def __init__(self) -> None:
        self.shapes = {"image": (-1, 2, 3), "plus": (-1, 2, 3), "sums": (-1, 2)}
        self.at: dict[str, int] = {}
        self.batch, self.streams = 0, list[int]()

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def get_tensor_dtype(self, name: str) -> Any:
        return trt.DataType.FLOAT

    def create_execution_context(self) -> Any:
        return self

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.batch = shape[0]
        return shape[0] <= 4

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.at[name] = address
        return name in self.shapes

    def execute_async_v3(self, stream: int) -> bool:
        self.streams.append(stream)
        arrays = {
            name: np.ctypeslib.as_array(
                ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), (self.batch, *self.shapes[name][1:])
            )
            for name, address in self.at.items()
        }
        arrays["plus"][:] = arrays["image"] + 1
        arrays["sums"][:] = arrays["image"].sum(-1)
        return True


def session(monkeypatch: pytest.MonkeyPatch, folder: Path, driver: Driver, engine: Engine | None) -> Any:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda raw: engine if raw == b"engine" else None)
    library = SimpleNamespace(__version__="9.9", ILogger=trt.ILogger, Runtime=lambda logger: runtime)
    monkeypatch.setattr(RECIPE, "_import", lambda name: library)
    (folder / "net.engine").write_bytes(b"engine")
    built = {"library": "tensorrt", "version": "9.9", "inputs": ["image"], "outputs": ["sums", "plus"]}
    (folder / "net.json").write_text(json.dumps(built))
    return RECIPE.load(folder, threads=1)


def test_a_session_moves_tensors_in_the_models_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, engine = Driver(), Engine()
    opened = session(monkeypatch, tmp_path, driver, engine)
    assert (opened.engine_version, opened.provider) == ("9.9", "Imagined GPU")
    assert [(spec.name, spec.shape, spec.dtype) for spec in opened.inputs] == [("image", (-1, 2, 3), "float32")]
    assert [spec.name for spec in opened.outputs] == ["sums", "plus"]
    for batch in (2, 2, 3, 1):
        x = np.random.default_rng(batch).standard_normal((batch, 2, 3)).astype("float32")
        opened.feed([x.tobytes()], batch)
        driver.calls.clear()
        opened.run()
        assert driver.calls == ["cuStreamSynchronize"], "what is timed is the GPU, to its end"
        sums, plus = (np.frombuffer(raw, "float32") for raw in opened.fetch())
        np.testing.assert_allclose(sums, x.sum(-1).ravel(), rtol=1e-6)
        np.testing.assert_array_equal(plus, (x + 1).ravel())
        assert len(driver.held) == 3, "room for one batch"
    assert set(engine.streams) == {77}
    with pytest.raises(RuntimeError, match=r"takes no image of \(5, 2, 3\)"):
        opened.feed([bytes(5 * 24)], 5)


def test_what_a_session_cannot_do_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match=r"needs an NVIDIA GPU: its driver says 100"):
        session(monkeypatch, tmp_path, Driver(cuInit=100), Engine())
    with pytest.raises(UnsupportedError, match=r"Imagined GPU.*cannot run the engine"):
        session(monkeypatch, tmp_path, Driver(), None)
    opened = session(monkeypatch, tmp_path, Driver(cuMemAlloc_v2=2), Engine())
    with pytest.raises(RuntimeError, match="cuMemAlloc_v2: CUDA error 2"):
        opened.feed([bytes(24)], 1)
    opened = session(monkeypatch, tmp_path, Driver(cuStreamSynchronize=700), Engine())
    opened.feed([bytes(24)], 1)
    with pytest.raises(RuntimeError, match="cuStreamSynchronize: CUDA error 700"):
        opened.run()


# ---- artifacts ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("trt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        order = ExportRequest("trt", folder / "out", request.param, options={"compute_capability": "8.6,8.9"})
        return export_subject(tiny_subject(folder), order)


def test_an_artifact_says_what_is_proven_and_what_it_needs(exported: Artifact) -> None:
    half = exported.precision == "fp16"
    steps = ["convert", "simplify", *(["precision"] if half else [])]
    assert [stage.name for stage in exported.stages] == ["fold", *steps, "build", "verify"]
    assert exported.parity is not None
    assert exported.parity.status == "built_not_run"
    assert "needs an NVIDIA GPU" in exported.parity.how
    assert f"{steps[-1]}: onnxruntime {exported.toolchain['onnxruntime']}" in exported.parity.how
    assert [check.stage for check in exported.parity.checks] == [
        "fold",
        *(["half"] if half else []),
        *(step for step in (steps[1:] if half else steps) for _ in (0, 1)),
    ]
    assert exported.parity.tolerance == ("SNR >= 45 dB" if half else "max_rel <= 0.0001")
    assert exported.options == {"compute_capability": "8.6,8.9"}
    assert exported.toolchain["tensorrt_rtx_cu13"] == trt.__version__
    assert (exported.inputs[0].shape, exported.outputs[0].shape) == ((1, 3, *SIZE), (1, 5))
    assert sorted(path.name for path in exported.folder.iterdir()) == ["manifest.json", "tiny-tiny_tensorrt"]
    sidecar = json.loads((exported.folder / exported.payload / "tiny-tiny.json").read_text())
    assert sidecar["metadata"]["edgevit.precision"] == exported.precision
    kinds = {
        tensor.data_type
        for tensor in onnx.load(str(exported.folder / exported.payload / "tiny-tiny.onnx")).graph.initializer
    }
    assert (onnx.TensorProto.FLOAT16 in kinds) == half


def test_a_wrong_option_is_refused(tmp_path: Path) -> None:
    """At once: before the fold, and on the command line before the model is exported."""
    from edgevit.exporting import pipeline
    from edgevit.models import source

    def too_late(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("something slow began")

    subject = tiny_subject(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "fold", too_late)
        patch.setattr(source, "_own", too_late)
        for capabilities in ("3.0", "abc", "8.6,9.9"):
            with pytest.raises(UsageError, match=r"(?s)no compute capability '.*known: 7\.5, 8\.0"):
                export_subject(
                    subject, ExportRequest("trt", tmp_path / "out", options={"compute_capability": capabilities})
                )
            model = [f"{tmp_path}/tiny.py:tiny", "--input-size", "16", "-o", str(tmp_path / "out")]
            assert command("export", *model, "-t", "trt", "--compute-capability", capabilities) == 2
    assert not (tmp_path / "out").exists()


def test_an_engine_of_unknown_origin_is_opened_by_nobody(exported: Artifact) -> None:
    with pytest.raises(ArtifactError, match=r"(?s)not built here.*native code.*--trust"):
        verify_artifact(exported)
    with pytest.raises(ArtifactError, match="not built here"):
        profile(exported, load_device("local"), threads=1, protocol=ONCE)
    row = profile(exported, load_device("local"), threads=1, protocol=ONCE, built_here=code_digests(exported))
    assert row.status == "unsupported"
    assert "needs an NVIDIA GPU" in row.error
    with pytest.raises(TargetUnavailableError, match="needs an NVIDIA GPU"):
        verify_artifact(exported, built_here=code_digests(exported))


def test_the_command_line_remembers_what_it_built(
    tmp_path: Path, warm_children: None, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = str(tmp_path / "ours.db"), str(tmp_path / "theirs.db")
    source = tiny_subject(tmp_path)
    model, out = [source.source.model, "--input-size", f"{SIZE[0]}x{SIZE[1]}"], tmp_path / "out"
    built = ["-t", "trt", "--compute-capability", "8.6", "--db", ours, "-o", str(out), "--seed", "0"]
    assert command("export", *model, *built) == 0
    (folder,) = out.iterdir()
    with LatencyDB.open(ours, shipped=False) as database:
        digests = database.built()
    assert json.loads((folder / "manifest.json").read_text())["artifact"]["sha256"] in digests
    for verb, code in (("verify", 5), ("profile", 1)):  # allowed, and there is no GPU
        capsys.readouterr()
        assert command(verb, str(folder), "--db", ours) == code
        assert "needs an NVIDIA GPU" in "".join(capsys.readouterr())
        assert command(verb, str(folder), "--db", theirs) == 1
        assert "not built here" in capsys.readouterr().err
        assert command(verb, str(folder), "--db", theirs, "--trust") == code
    payload = next(folder.glob("*/*.engine"))
    payload.write_bytes(payload.read_bytes()[:-1] + b"?")
    capsys.readouterr()
    assert command("profile", str(folder), "--db", ours, "--trust") == 1
    assert "the artifact is damaged" in capsys.readouterr().err


def command(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["edgevit", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


def test_rows_from_elsewhere_make_no_engine_trusted(tmp_path: Path, exported: Artifact) -> None:
    row = profile(exported, load_device("local"), threads=1, protocol=ONCE, built_here=code_digests(exported))
    with LatencyDB.open(str(tmp_path / "a.db"), shipped=False) as theirs:
        theirs.record_built(exported)
        theirs.record_built(exported)
        theirs.add(row)
        assert theirs.built() == {exported.sha256}
        theirs.export_jsonl(tmp_path / "rows.jsonl")
    with LatencyDB.open(str(tmp_path / "b.db"), shipped=False) as ours:
        assert ours.import_jsonl(tmp_path / "rows.jsonl").added == 1
        assert ours.built() == frozenset()


def test_a_sweep_makes_an_engine_of_unknown_origin_again(
    exported: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgevit.sweeps import plan

    db, model = str(tmp_path / "x.db"), exported.source.model
    request = ExportRequest("tensorrt", exported.folder.parent, exported.precision, model)
    again = dataclasses.replace(exported, sha256="0" * 64)
    monkeypatch.setattr(plan, "is_current", lambda artifact, request: True)
    monkeypatch.setattr(plan, "_export", lambda request: again)
    assert plan.artifact_for(request, db) == again
    with LatencyDB.open(db) as database:
        assert again.sha256 in database.built()
        database.record_built(exported)
    assert plan.artifact_for(request, db) == exported


# ---- options of the command line -----------------------------------------------------------------------------------


def test_options_go_to_the_targets_that_take_them() -> None:
    from edgevit.cli.export import read_options

    recipes = {name: load_recipe(name).RECIPE for name in ("onnx", "trt")}
    both = {"onnx": {}, "trt": {"compute_capability": "8.6,8.9"}}
    assert read_options([], recipes, "8.6,8.9") == both
    assert read_options(["compute_capability=8.6,8.9"], recipes) == both
    assert read_options(["compute_capability=a=b"], recipes)["trt"] == {"compute_capability": "a=b"}
    for text in ("nonsense=1", "compute_capability", "=", ""):
        with pytest.raises(UsageError, match="no option"):
            read_options([text], recipes)
    with pytest.raises(UsageError, match="no option"):
        read_options([], {"onnx": recipes["onnx"]}, "8.6")


# ---- the zoo -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "dynamic_batch"), [("fp32", True), ("fp16", False)])
def test_a_small_transformer_goes_all_the_way(tmp_path: Path, precision: str, dynamic_batch: bool) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8)
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(self.stem(x).flatten(2).transpose(1, 2))
            y = y + self.attention(y, y, y, need_weights=False)[0]
            logits: torch.Tensor = self.head(nn.functional.gelu(y).amax(1))
            return logits

    order = ExportRequest("trt", tmp_path / "out", precision, dynamic_batch=dynamic_batch)
    artifact = export_subject(as_subject(Mixed()), order)
    assert artifact.parity is not None
    assert artifact.parity.status == "built_not_run"
    batch = -1 if dynamic_batch else 1
    assert (artifact.inputs[0].shape, artifact.outputs[0].shape) == ((batch, 3, *SIZE), (batch, 5))
