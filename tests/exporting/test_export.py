"""Export: the ONNX recipe's model, the artifact folder, and the state that a failure leaves."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgevit
from edgevit.artifacts.folder import MANIFEST, folder_name, open_artifact, publish, seal
from edgevit.artifacts.trust import code_digests
from edgevit.errors import ArtifactError, ExportError, ModelError, TargetUnavailableError, UnknownNameError, UsageError
from edgevit.exporting import pipeline, preparation
from edgevit.exporting.convert import convert
from edgevit.exporting.pipeline import export_subject, verify_artifact
from edgevit.exporting.requirements import check_request
from edgevit.folding import Folded, fold
from edgevit.models import create_model, randomize
from edgevit.models.source import load_subject, with_preprocessing
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit.records.model import Preprocessing
from edgevit_runtime.codec import to_json
from edgevit_runtime.record import TensorSpec
from support.exporters import forget_registry
from support.nets import Toy, image
from support.present_attributes import attributes
from support.subjects import SIZE, tiny_file, tiny_subject

pytestmark = pytest.mark.onnx
onnx = pytest.importorskip("onnx")
RECIPE = load_recipe("onnx")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# ---- the recipe --------------------------------------------------------------------------------------------------


def network() -> nn.Module:
    body = (nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU(), nn.Conv2d(4, 6, 1), nn.GELU())
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).eval()


def converted(
    folder: Path,
    model: nn.Module,
    *inputs: Tensor,
    precision: str = "fp32",
    dynamic_batch: bool = False,
    **options: Any,
) -> Any:
    """Convert a module with the recipe, folded or not, and return the ONNX model."""
    names = {f"in_{i}": tensor for i, tensor in enumerate(inputs)}
    options = {"inputs": names, "precision": precision, "dynamic_batch": dynamic_batch, **options}
    stages = convert(model, RECIPE, folder / "net.onnx", **options)
    expected = ["convert", "simplify", "precision"][: 3 if precision == "fp16" else 2]
    assert [stage.name for stage in stages] == expected
    assert [stage.path for stage in stages] == [folder / "stages" / f"{name}.onnx" for name in expected]
    assert all(stage.seconds > 0 for stage in stages)
    assert sorted(path.name for path in (folder / "stages").iterdir()) == sorted(f"{name}.onnx" for name in expected)
    model_ = onnx.load(str(folder / "net.onnx"))
    onnx.checker.check_model(model_, full_check=True)
    return model_


def operators(model: Any) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def shapes(values: Any) -> dict[str, list[int | str]]:
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def run(path: Path, *inputs: Tensor) -> list[np.ndarray]:
    """Run a model through the recipe's own load()."""
    session = RECIPE.load(path, threads=1)
    session.feed([np.ascontiguousarray(tensor.numpy()).tobytes() for tensor in inputs], inputs[0].shape[0])
    session.run()
    specs = [spec.at_batch(inputs[0].shape[0]) for spec in session.outputs]
    raw = zip(session.fetch(), specs, strict=True)
    return [np.frombuffer(data, spec.dtype).reshape(spec.shape) for data, spec in raw]


@pytest.mark.parametrize("dynamic_batch", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_recipe_writes_what_it_says(tmp_path: Path, precision: str, dynamic_batch: bool) -> None:
    model = network()
    randomize(model)
    x = image(1, 3, 8, 6, dtype=torch.float32)
    converted_model = converted(tmp_path, fold(model, (x,)), x, precision=precision, dynamic_batch=dynamic_batch)
    assert [(opset.domain, opset.version) for opset in converted_model.opset_import if opset.domain == ""] == [("", 20)]
    kinds = operators(converted_model)
    assert kinds["Gelu"] == 2
    assert kinds["Conv"] == 2
    assert not {"BatchNormalization", "Erf", "Sqrt", "Div"} & set(kinds)
    batch = "batch" if dynamic_batch else 1
    assert shapes(converted_model.graph.input) == {"in_0": [batch, 3, 8, 6]}
    assert shapes(converted_model.graph.output) == {"output": [batch, 5]}
    float_types = {opset.data_type for opset in converted_model.graph.initializer} & {1, 10, 11}
    assert float_types == {onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.FLOAT}
    for rows in (1, 3) if dynamic_batch else (1,):
        batch_input = image(rows, 3, 8, 6, seed=rows, dtype=torch.float32)
        (computed,) = run(tmp_path / "net.onnx", batch_input)
        # Inputs and outputs of fp16 are float32 as well.
        assert computed.dtype == np.float32
        expected = model(batch_input).detach().numpy()
        assert np.abs(computed - expected).max() <= (5e-3 if precision == "fp16" else 1e-6) * np.abs(expected).max()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_artifact_may_take_raw_pixels(tmp_path: Path, precision: str) -> None:
    """A camera gives uint8 (N, H, W, 3), which cannot be normalised wrongly."""
    plain = tiny_subject(tmp_path)
    subject = with_preprocessing(dataclasses.replace(plain, preprocessing=Preprocessing(mean=(0.5, 0.2, 0.1))))
    artifact = export_subject(subject, ExportRequest("onnx", tmp_path / "out", precision))
    assert artifact.inputs == (TensorSpec("image", (1, *SIZE, 3), "uint8"),)
    assert artifact.parity is not None
    assert artifact.preprocessing_inside and artifact.parity.status == "passed"
    raw = torch.randint(0, 256, (1, *SIZE, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.5, 0.2, 0.1), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = plain.module((raw.permute(0, 3, 1, 2) / 255 - mean) / std).numpy()
    (computed,) = run(artifact.folder / artifact.payload, raw)
    assert np.abs(computed - expected).max() <= (1e-2 if precision == "fp16" else 1e-5) * np.abs(expected).max()
    metadata = {entry.key: entry.value for entry in onnx.load(str(artifact.folder / artifact.payload)).metadata_props}
    assert metadata["imgsz"] == str(list(SIZE)) and metadata["edgevit.preprocessing_inside"] == "true"
    assert verify_artifact(artifact, built_here=code_digests(artifact)).status == "passed"


def test_what_takes_no_image_cannot_take_raw_pixels(tmp_path: Path) -> None:
    subject = tiny_subject(tmp_path)
    with pytest.raises(UsageError, match="takes no image"):
        with_preprocessing(dataclasses.replace(subject, inputs=(TensorSpec("x", (-1, 4)),)))


@pytest.mark.parametrize(("precision", "spelled"), [("fp32", {"Sum": 1, "Add": 2}), ("fp16", {"Sum": 0, "Add": 3})])
def test_a_sum_that_only_norms_read_is_spelled_sum(tmp_path: Path, precision: str, spelled: dict[str, int]) -> None:
    def compute(net: Any, x: Tensor) -> Tensor:
        once = x.relu() + x.sigmoid()
        twice = x.sin() + x.tanh()
        result: Tensor = net.n(once) * net.n(twice) + twice
        return result

    model = Toy(compute, n=nn.LayerNorm(6)).eval()
    x = image(1, 5, 6, dtype=torch.float32)
    kinds = operators(converted(tmp_path, fold(model, (x,)), x, precision=precision))
    assert {name: kinds[name] for name in spelled} == spelled
    tolerance = 1e-2 if precision == "fp16" else 1e-5
    np.testing.assert_allclose(run(tmp_path / "net.onnx", x)[0], model(x).detach().numpy(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_several_inputs_and_outputs_keep_their_order(tmp_path: Path, dynamic_batch: bool) -> None:
    def compute(net: Any, words: Tensor, x: Tensor) -> Any:
        y = net.embed(words).mean(1)
        return {"words": y, "both": [y + net.fc(x), x.relu()]}

    model = Toy(compute, embed=nn.Embedding(9, 4), fc=nn.Linear(6, 4)).eval()
    words, x = torch.tensor([[1, 2, 8]]), image(1, 6, dtype=torch.float32)
    converted_model = converted(tmp_path, fold(model, (words, x)), words, x, dynamic_batch=dynamic_batch)
    batch = "batch" if dynamic_batch else 1
    assert shapes(converted_model.graph.input) == {"in_0": [batch, 3], "in_1": [batch, 6]}
    assert shapes(converted_model.graph.output) == {
        "words": [batch, 4],
        "both_0": [batch, 4],
        "both_1": [batch, 6],
    }
    expected = torch.utils._pytree.tree_leaves(model(words, x))
    for one, other in zip(run(tmp_path / "net.onnx", words, x), expected, strict=True):
        np.testing.assert_allclose(one, other.detach().numpy(), rtol=1e-5)


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_an_unfolded_model_is_refused_unless_asked_for(tmp_path: Path, dynamic_batch: bool) -> None:
    model, x = network(), image(1, 3, 8, 6, dtype=torch.float32)
    with pytest.raises(ExportError, match=r"(?s)Sequential is not folded.*--unfolded"):
        converted(tmp_path, model, x, dynamic_batch=dynamic_batch)
    assert not list(tmp_path.iterdir())
    converted(tmp_path, model, x, dynamic_batch=dynamic_batch, allow_unfolded=True)


def test_an_export_says_nothing_of_its_own_accord(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """pytest turns warnings into errors. This test looks for lines on the screen and in torch's logger."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    records: list[logging.LogRecord] = []
    listener = logging.Handler()
    listener.emit = records.append  # type: ignore[method-assign, assignment]
    logger.addHandler(listener)
    filters = list(logger.filters)
    try:
        x = image(1, 3, 8, 6, dtype=torch.float32)
        forget_registry()
        converted(tmp_path, fold(network(), (x,)), x, precision="fp16")
    finally:
        logger.removeHandler(listener)
    assert records == []
    assert logger.filters == filters
    assert capfd.readouterr() == ("", "")


def test_what_a_target_cannot_do_is_refused_before_anything_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"torch", "onnx", "onnxruntime"} <= set(check_request(RECIPE, "fp32"))
    with pytest.raises(UsageError, match=r"(?s)no precision 'int4'.*--precision fp32 or fp16"):
        check_request(RECIPE, "int4")

    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(TargetUnavailableError, match=r"(?s)needs torch.*pip install 'edgevit\[export\]'") as caught:
        check_request(RECIPE, "fp32")
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("message", ["no kernel for this\nsecond line", "\n\n  no kernel for this", ""])
def test_a_converter_that_refuses_is_quoted(tmp_path: Path, message: str) -> None:
    def export(*arguments: Any, **options: Any) -> Any:
        raise NotImplementedError(message)

    refusing = SimpleNamespace(RECIPE=RECIPE.RECIPE, export=export)
    with pytest.raises(ExportError, match="onnx's converter refused the model") as caught:
        convert(
            network(),
            refusing,
            tmp_path / "x",
            inputs={"image": torch.zeros(1, 3, 8, 8)},
            precision="fp32",
            allow_unfolded=True,
        )
    assert caught.value.why == ("no kernel for this" if message else "NotImplementedError")
    assert isinstance(caught.value.__cause__, NotImplementedError)


# ---- an artifact -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, list[str]]:
    """An exported artifact, and its announced stages. Tests that change it copy it."""
    folder = tmp_path_factory.mktemp("export")
    stages: list[str] = []
    return export_subject(tiny_subject(folder), ExportRequest("ort", folder / "out"), stages.append), stages


@pytest.fixture
def artifact(exported: tuple[Artifact, list[str]], tmp_path: Path) -> Artifact:
    folder = tmp_path / exported[0].folder.name
    shutil.copytree(exported[0].folder, folder)
    return dataclasses.replace(exported[0], folder=folder)


def test_an_artifact_is_a_payload_and_a_manifest(exported: tuple[Artifact, list[str]]) -> None:
    artifact, stages = exported
    assert stages == ["fold", "export", "verify"]
    assert [path.name for path in artifact.folder.parent.iterdir()] == ["tiny-tiny-onnx-fp32"]
    assert sorted(path.name for path in artifact.folder.iterdir()) == [MANIFEST, "tiny-tiny.onnx"]
    assert artifact.payload == "tiny-tiny.onnx"
    assert artifact.size_bytes == (artifact.folder / artifact.payload).stat().st_size
    assert [stage.name for stage in artifact.stages] == ["fold", "convert", "simplify", "verify"]
    assert all(stage.seconds > 0 for stage in artifact.stages)
    assert (artifact.target, artifact.precision) == ("onnx", "fp32")
    assert artifact.folded
    assert not artifact.dynamic_batch
    assert artifact.inputs == (TensorSpec("image", (1, 3, *SIZE)),)
    assert artifact.outputs == (TensorSpec("output", (1, 5)),)
    # The bias of the last 1x1 is the head's now.
    assert artifact.params == 4 * 27 + 4 + 6 * 4 + 6 + 6 * 6 + 5 * 6 + 5
    assert artifact.macs == SIZE[0] * SIZE[1] * (4 * 27 + 6 * 4) + 6 * 6 + 5 * 6
    assert artifact.source.weights == "function"
    assert set(artifact.toolchain) == {"edgevit", "torch", "onnx", "onnxscript", "onnxsim", "onnxruntime"}
    assert artifact.parity is not None
    assert artifact.parity.status == "passed"
    twice = [stage for stage in ("simplify", "artifact") for _ in ("folded form", "training form")]
    assert [check.stage for check in artifact.parity.checks] == ["fold", *twice]
    engine = f"onnxruntime {artifact.toolchain['onnxruntime']} CPUExecutionProvider"
    assert artifact.parity.how == f"{engine}, separate process"


def test_a_payload_says_what_it_is(exported: tuple[Artifact, list[str]]) -> None:
    model = onnx.load(str(exported[0].folder / exported[0].payload))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    keys = "author batch date description edgevit.fold edgevit.parity edgevit.precision edgevit.preprocessing"
    more_keys = "edgevit.preprocessing_inside edgevit.source edgevit.toolchain imgsz license stride task version"
    assert list(metadata) == [*keys.split(), *more_keys.split()]
    assert metadata["stride"] == "1", "this net keeps its size"
    assert (metadata["batch"], metadata["imgsz"], metadata["edgevit.fold"]) == ("1", str(list(SIZE)), "folded")
    assert metadata["edgevit.parity"].startswith("passed: max_rel")
    assert json.loads(metadata["edgevit.source"])["state_sha256"] == exported[0].source.state_sha256
    assert json.loads(metadata["edgevit.toolchain"])["onnx"] == onnx.__version__


def test_an_artifact_is_read_back_as_it_was_written(exported: tuple[Artifact, list[str]]) -> None:
    assert open_artifact(exported[0].folder) == exported[0]


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return damage


PAYLOAD = "tiny-tiny.onnx"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / PAYLOAD).unlink(), "damaged"),
        (lambda folder: (folder / PAYLOAD).rename(folder / "other.onnx"), "damaged"),
        (lambda folder: (folder / "more.txt").write_text(""), "damaged"),
        (lambda folder: (folder / MANIFEST).unlink(), r"(?s)not an artifact.*No such file"),
        (lambda folder: shutil.rmtree(folder), "not an artifact"),
        (lambda folder: (folder / "link").symlink_to(folder / PAYLOAD), "is a link"),
        (lambda folder: (folder / "link").symlink_to("/nowhere"), "is a link"),
        (lambda folder: (folder / "folder").symlink_to(folder.parent, target_is_directory=True), "is a link"),
        (rewrite(PAYLOAD, lambda data: data[:-1]), "damaged"),
        (rewrite(PAYLOAD, lambda data: b""), "damaged"),
        (rewrite(MANIFEST, lambda data: data[: len(data) // 2]), "damaged"),
        (rewrite(MANIFEST, lambda data: b""), "damaged"),
        (rewrite(MANIFEST, lambda data: b"[]"), "damaged"),
        (rewrite(MANIFEST, lambda data: b'{"artifact": 3}'), "damaged"),
        (rewrite(MANIFEST, lambda data: data.replace(b"\n", b"\r\n")), "changed"),
        (rewrite(MANIFEST, lambda data: data + b"\n"), "changed"),
        (rewrite(MANIFEST, lambda data: data.replace(b'"fp32"', b'"fp16"')), "changed"),
        (rewrite(MANIFEST, lambda data: data.replace(b'"params": ', b'"params": NaN, "other": ')), "damaged"),
        (rewrite(MANIFEST, lambda data: data.replace(b'"target"', b'"targets"')), "damaged"),
    ],
)  # fmt: skip
def test_what_is_not_the_sealed_artifact_is_refused(
    artifact: Artifact, damage: Callable[[Path], object], message: str
) -> None:
    damage(artifact.folder)
    with pytest.raises(ArtifactError, match=message) as caught:
        open_artifact(artifact.folder)
    assert "edgevit export" in caught.value.fix


def test_a_manifest_of_another_version_is_refused(artifact: Artifact) -> None:
    path = artifact.folder / MANIFEST
    data = json.loads(path.read_text())["artifact"] | {"schema_version": 1}
    digest = hashlib.sha256(to_json(data).encode()).hexdigest()
    path.write_text(json.dumps({"artifact": data, "manifest_sha256": digest}, indent=1, sort_keys=True) + "\n")
    command = rf"edgevit export {re.escape(artifact.model)} --target onnx --precision fp32"
    written_by_another = rf"(?s)another version of edgevit wrote .*version 1, .*reads 3.*{command}"
    with pytest.raises(ArtifactError, match=written_by_another):
        open_artifact(artifact.folder)


def test_a_manifest_that_is_a_link_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    manifest = artifact.folder / MANIFEST
    shutil.move(manifest, tmp_path / "elsewhere.json")
    manifest.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ArtifactError, match="is a link"):
        open_artifact(artifact.folder)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("mobilevig_ti", "mobilevig_ti-onnx-fp16"),
        ("nets/my net.py:small", "my-net-small-onnx-fp16"),
        ("/tmp/x/net.py:small", "net-small-onnx-fp16"),
        ("../net.py:small", "net-small-onnx-fp16"),
        (".hidden.py:small", "hidden-small-onnx-fp16"),
    ],
)
def test_folder_names(model: str, name: str) -> None:
    assert folder_name(model, "onnx", "fp16") == name


# ---- publishing --------------------------------------------------------------------------------------------------


def draft(folder: Path, like: Artifact, content: str) -> Artifact:
    folder.mkdir()
    (folder / "payload").write_text(content)
    return seal(dataclasses.replace(like, folder=folder, payload="payload"))


def test_an_older_artifact_is_replaced_whole(artifact: Artifact, tmp_path: Path) -> None:
    new = publish(draft(tmp_path / ".new", artifact, "new"), artifact.folder)
    assert new.folder == artifact.folder
    assert open_artifact(artifact.folder) == new
    assert sorted(path.name for path in artifact.folder.iterdir()) == [MANIFEST, "payload"]
    assert [path.name for path in tmp_path.iterdir()] == [artifact.folder.name]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_older_artifact_stays_whole_where_the_new_one_cannot_take_its_place(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    new = draft(tmp_path / ".new", artifact, "new")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self == new.folder:
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises((ArtifactError, KeyboardInterrupt)):
        publish(new, artifact.folder)
    assert open_artifact(artifact.folder) == artifact
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new", artifact.folder.name]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_artifact_is_not_replaced(artifact: Artifact, tmp_path: Path, kind: str) -> None:
    final = tmp_path / "taken"
    if kind == "file":
        final.write_text("mine")
    else:
        final.mkdir()
        (final / "thesis.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="something else"):
        publish(draft(tmp_path / ".new", artifact, "new"), final)
    assert (final if kind == "file" else final / "thesis.txt").read_text() == "mine"


# ---- failures leave nothing behind --------------------------------------------------------------------------------


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, BaseException], None]:
    def arrange(step: str, error: BaseException) -> None:
        def raising(*arguments: Any, **options: Any) -> Any:
            raise error

        targets = {"recipe": (RECIPE, "export"), "fold_and_digest": (preparation, step)}
        monkeypatch.setattr(*targets.get(step, (pipeline, step)), raising)

    return arrange


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Folded:
    """The fold that exports begin with, made once for failures of the later steps."""
    subject = tiny_subject(tmp_path_factory.mktemp("folded"))
    return fold(subject.module, tuple(subject.example().values()))


@pytest.mark.parametrize("step", ["fold_and_digest", "recipe", "verify_stages", "seal", "publish"])
@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_a_failed_export_leaves_nothing_behind(
    exported: tuple[Artifact, list[str]],
    folded: Folded,
    tmp_path: Path,
    fails: Any,
    monkeypatch: Any,
    step: str,
    error: BaseException,
) -> None:
    # Writes the payload, without the work of a converter.
    def export(model: Any, inputs: Any, path: Path, **options: Any) -> tuple[()]:
        (path.parent / "stages").mkdir()
        shutil.copyfile(exported[0].folder / exported[0].payload, path)
        return ()

    subject = tiny_subject(tmp_path)
    old = tmp_path / "old"
    shutil.copytree(exported[0].folder.parent, old)
    monkeypatch.setattr(RECIPE, "export", export)
    monkeypatch.setattr(preparation, "fold_and_digest", lambda module, inputs: (folded, ""))
    fails(step, error)
    for out in (tmp_path / "out" / "deeper", old):
        with pytest.raises((ExportError, RuntimeError, KeyboardInterrupt)):
            export_subject(subject, ExportRequest("onnx", out))
    assert not (tmp_path / "out" / "deeper").exists()
    assert [path.name for path in old.iterdir()] == [exported[0].folder.name]
    assert open_artifact(old / exported[0].folder.name).sha256 == exported[0].sha256


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Tests may run as root, who may write everywhere, but no user can write below a file."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArtifactError, match=r"(?s)cannot write to the output folder.*file.*-o FOLDER") as caught:
        export_subject(tiny_subject(tmp_path), ExportRequest("onnx", tmp_path / "file" / "out"))
    assert caught.value.exit_code == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_missing_converter_is_found_before_anything_is_written(tmp_path: Path, monkeypatch: Any) -> None:
    recipe = dataclasses.replace(RECIPE.RECIPE, requires=("no-such-converter",))
    monkeypatch.setattr(RECIPE, "RECIPE", recipe)
    with pytest.raises(TargetUnavailableError, match="no-such-converter"):
        export_subject(tiny_subject(tmp_path), ExportRequest("onnx", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# ---- a person's own file -----------------------------------------------------------------------------------------


def test_a_function_in_a_file_is_a_model(tmp_path: Path) -> None:
    subject = load_subject(f"{tiny_file(tmp_path)}:tiny", input_size=(8, 9))
    assert subject.inputs == (TensorSpec("image", (-1, 3, 8, 9)),)
    assert (subject.family, subject.source.weights, subject.card) == ("custom", "function", None)
    assert isinstance(fold(subject.module, tuple(subject.example().values())), Folded)


def test_a_file_may_have_the_name_of_a_package(tmp_path: Path) -> None:
    file = tiny_file(tmp_path).rename(tmp_path / "onnx.py")
    load_subject(f"{file}:tiny", input_size=(8, 8))
    assert sys.modules["onnx"] is onnx


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("missing.py:tiny", ModelError, "no such file"),
        ("tiny.py:tyni", UnknownNameError, r"did you mean .*\btiny\b"),
        ("tiny.py:not_a_model", ModelError, "returned int, not a torch.nn.Module"),
        ("tiny.py:training", ModelError, "training mode"),
        ("tiny.py:tiny", UsageError, "--input-size"),
    ],
)
def test_a_file_that_gives_no_model_is_refused(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    tiny_file(tmp_path)
    with pytest.raises(error, match=message):
        load_subject(str(tmp_path / text))


# ---- batches, sizes, the zoo -------------------------------------------------------------------------------------


def test_a_model_that_fixes_its_batch_is_exported_at_that_batch(tmp_path: Path) -> None:
    artifact = export_subject(
        tiny_subject(tmp_path, function="two_at_a_time"), ExportRequest("onnx", tmp_path, batch=2)
    )
    assert artifact.inputs[0].shape == (2, 3, *SIZE)
    assert artifact.outputs[0].shape == (10,)
    # MACs are those of one image.
    assert artifact.macs == SIZE[0] * SIZE[1] * (4 * 27 + 6 * 4) + 6 * 6 + 5 * 6
    assert pipeline.verify_artifact(artifact, built_here=code_digests(artifact)).status == "passed"
    with pytest.raises(ModelError):
        export_subject(tiny_subject(tmp_path, function="two_at_a_time"), ExportRequest("onnx", tmp_path / "one"))
    assert not (tmp_path / "one").exists()


def test_an_exported_module_is_the_same_afterwards(tmp_path: Path) -> None:
    """It fills a cache at its first call, counts its calls, and has a buffer with the history of its gradient."""

    def compute(net: Any, x: torch.Tensor) -> Any:
        net.calls += 1
        y = net.conv(x) * net.scale
        if not hasattr(net, "grid"):
            net.grid = torch.linspace(0, 1, y.shape[-1])
        return y + net.grid

    model = Toy(compute, conv=nn.Conv2d(3, 4, 3)).eval()
    model.raw = nn.Parameter(torch.linspace(-1, 1, 4)[:, None, None])
    model.register_buffer("scale", model.raw.sigmoid())
    vars(model)["calls"] = 0
    before = attributes(model)
    artifact = edgevit.export(model, "onnx", inputs=[image(1, 3, *SIZE, dtype=torch.float32)], out=tmp_path)
    assert artifact.parity is not None and artifact.parity.status == "passed"
    assert edgevit.verify(artifact, model=model).status == "passed"
    assert attributes(model) == before


def test_an_unfolded_half_precision_artifact_of_any_batch(tmp_path: Path) -> None:
    order = ExportRequest("onnx", tmp_path / "out", "fp16", dynamic_batch=True, unfolded=True)
    artifact = export_subject(tiny_subject(tmp_path), order)
    assert artifact.folder.name == "unfolded-tiny-tiny-onnx-fp16"
    assert artifact.inputs[0].shape == (-1, 3, *SIZE)
    assert (artifact.folded, artifact.fold_summary, artifact.dynamic_batch) == (False, "not folded", True)
    assert [stage.name for stage in artifact.stages] == ["convert", "simplify", "precision", "verify"]
    assert artifact.parity is not None
    assert {check.against for check in artifact.parity.checks} == {"training form"}
    assert artifact.parity.tolerance == "SNR >= 45 dB"
    (computed,) = run(artifact.folder / artifact.payload, image(3, 3, *SIZE, dtype=torch.float32))
    assert computed.shape == (3, 5)


def test_the_graph_of_a_zoo_model_is_the_folded_one(tmp_path: Path) -> None:
    model = create_model("mobilevig_ti")
    randomize(model)
    x = image(1, 3, 224, 224, dtype=torch.float32)
    converted_model = converted(tmp_path, fold(model, (x,)), x)
    kinds = operators(converted_model)
    assert kinds["Gelu"] == sum(isinstance(module, nn.GELU) for module in model.modules()) + sum(
        isinstance(getattr(module, "act", None), nn.GELU) and hasattr(module, "mid") for module in model.modules()
    )  # the blocks' one GELU module is called twice
    assert kinds["Conv"] + kinds["Gemm"] + kinds["MatMul"] == 47
    assert not {"BatchNormalization", "Sub", "Max", "Erf", "Mul"} & set(kinds)
    expected = model(x).detach().numpy()
    assert np.abs(run(tmp_path / "net.onnx", x)[0] - expected).max() <= 1e-5 * np.abs(expected).max()
