"""Containment: the weights of an ONNX file lie in its own folder, or nothing opens it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevit.artifacts.folder import open_artifact, seal
from edgevit.errors import ArtifactError
from edgevit.measurement.runner import Protocol, profile
from edgevit.records.artifact import Artifact
from edgevit_runtime.containment import ContainmentError, check_contained, external_locations
from support import toys

pytestmark = pytest.mark.onnx
onnx = pytest.importorskip("onnx")

WEIGHTS = "weights.bin"
ESCAPES = [
    "../weights.bin", "../../etc/passwd", "sub/../../weights.bin", "./../weights.bin", "..", "../",
    "sub/../../artifact/weights.bin", "sub/../weights.bin", "a/b/../../../weights.bin", "sub/..//../weights.bin",
    "/etc/passwd", "//etc/passwd", "///etc/passwd", "/weights.bin", "/proc/self/environ", "/dev/zero",
    "{folder}/weights.bin", "C:\\weights.bin", "C:/weights.bin", "C:weights.bin", "\\weights.bin", "..\\weights.bin",
    "sub\\..\\..\\weights.bin", "\\\\server\\share\\weights.bin", "\\\\?\\C:\\weights.bin", "~/weights.bin",
    "~root/weights.bin", "file:///etc/passwd", "*/_ORT_MEM_ADDR_/*", "missing.bin", "", ".", "sub", "\0",
    "weights.bin\0.txt",
]  # fmt: skip


def point(model: Path, location: str) -> None:
    """Let the first weight of an ONNX file lie at this location."""
    proto = onnx.load(str(model), load_external_data=False)
    outside(proto.graph.initializer[0], location)
    onnx.save(proto, str(model))


def outside(tensor: Any, location: str) -> Any:
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return toys.onnx_artifact(tmp_path / "artifact", external=True)


def test_weights_beside_the_file_are_welcome(artifact: Artifact) -> None:
    model = artifact.folder / artifact.payload
    assert set(external_locations(model)) == {WEIGHTS}
    assert open_artifact(artifact.folder) == artifact
    assert profile(artifact, toys.LOCAL, threads=1, protocol=Protocol(1, 1, 0, None)).status == "ok"
    (artifact.folder / "sub").mkdir()
    (artifact.folder / WEIGHTS).rename(artifact.folder / "sub" / WEIGHTS)
    for location in ("sub/weights.bin", "./sub/weights.bin", "sub//weights.bin"):
        point(model, location)
        outside_other(model, "sub/weights.bin")
        check_contained(artifact.folder)


def outside_other(model: Path, location: str) -> None:
    proto = onnx.load(str(model), load_external_data=False)
    outside(proto.graph.initializer[1], location)
    onnx.save(proto, str(model))


def test_there_are_thirty_ways_out_and_more() -> None:
    assert len(set(ESCAPES)) == len(ESCAPES) >= 30


@pytest.mark.parametrize("location", ESCAPES)
def test_weights_elsewhere_are_refused_before_anything_opens_the_file(artifact: Artifact, location: str) -> None:
    (artifact.folder / "sub").mkdir()
    # A way out of the folder leads to an existing file.
    (artifact.folder.parent / WEIGHTS).write_bytes(bytes(64))
    point(artifact.folder / artifact.payload, location.format(folder=artifact.folder))
    with pytest.raises(ContainmentError, match="wants weights from"):
        check_contained(artifact.folder)
    # Any other person can write a manifest and seal it.
    sealed = seal(artifact)
    with pytest.raises(ArtifactError, match=r"(?s)not safe to open.*wants weights from"):
        open_artifact(artifact.folder)
    assert sealed.sha256 != artifact.sha256


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd"])
def test_the_worker_refuses_too(artifact: Artifact, location: str) -> None:
    """A device has no edgevit. Only the worker stands between the artifact and the engine."""
    point(artifact.folder / artifact.payload, location)
    row = profile(seal(artifact), toys.LOCAL, threads=1, protocol=Protocol(1, 1, 0, None))
    assert row.status == "failed"
    assert "not safe to open" in row.error


def test_another_name_hides_no_payload(artifact: Artifact) -> None:
    point(artifact.folder / artifact.payload, "/etc/passwd")
    (artifact.folder / artifact.payload).rename(artifact.folder / "model.pb")
    renamed = seal(dataclasses.replace(artifact, payload="model.pb"))
    assert "not safe to open" in profile(renamed, toys.LOCAL, threads=1, protocol=Protocol(1, 1, 0, None)).error


@pytest.mark.parametrize(
    ("kind", "message"), [("file", "through a link"), ("folder", "through a link"), ("hard", "second name")]
)
def test_links_are_refused(artifact: Artifact, kind: str, message: str) -> None:
    elsewhere = artifact.folder.parent / "elsewhere"
    elsewhere.mkdir()
    weights = artifact.folder / WEIGHTS
    if kind == "folder":
        weights.rename(elsewhere / WEIGHTS)
        (artifact.folder / "sub").symlink_to(elsewhere, target_is_directory=True)
        point(artifact.folder / artifact.payload, "sub/weights.bin")
        outside_other(artifact.folder / artifact.payload, "sub/weights.bin")
    else:
        weights.rename(elsewhere / WEIGHTS)
        getattr(weights, "symlink_to" if kind == "file" else "hardlink_to")(elsewhere / WEIGHTS)
    with pytest.raises(ContainmentError, match=message):
        check_contained(artifact.folder)
    with pytest.raises(ArtifactError):
        open_artifact(artifact.folder)


def tensor() -> Any:
    return outside(onnx.numpy_helper.from_array(np.ones(2, "float32"), "w"), "/x")


def attribute(kind: str, value: Any) -> Any:
    proto = onnx.AttributeProto(name="a")
    (getattr(proto, kind).append if kind in ("tensors", "graphs", "sparse_tensors") else getattr(proto, kind).CopyFrom)(
        value
    )
    return proto


def node(child: Any) -> Any:
    return onnx.NodeProto(op_type="Any", attribute=[child])


def graph(**fields: Any) -> Any:
    return onnx.GraphProto(**fields)


PLACES: dict[str, Callable[[], Any]] = {
    "initializer": lambda: onnx.ModelProto(graph=graph(initializer=[tensor()])),
    "sparse values": lambda: onnx.ModelProto(
        graph=graph(sparse_initializer=[onnx.SparseTensorProto(values=tensor())])
    ),
    "sparse indices": lambda: onnx.ModelProto(
        graph=graph(sparse_initializer=[onnx.SparseTensorProto(indices=tensor())])
    ),
    "constant": lambda: onnx.ModelProto(graph=graph(node=[node(attribute("t", tensor()))])),
    "list of tensors": lambda: onnx.ModelProto(graph=graph(node=[node(attribute("tensors", tensor()))])),
    "sparse attribute": lambda: onnx.ModelProto(
        graph=graph(node=[node(attribute("sparse_tensor", onnx.SparseTensorProto(values=tensor())))])
    ),
    "sparse list": lambda: onnx.ModelProto(
        graph=graph(node=[node(attribute("sparse_tensors", onnx.SparseTensorProto(values=tensor())))])
    ),
    "branch": lambda: onnx.ModelProto(
        graph=graph(node=[node(attribute("g", graph(initializer=[tensor()])))])
    ),
    "branches": lambda: onnx.ModelProto(
        graph=graph(node=[node(attribute("graphs", graph(node=[node(attribute("t", tensor()))])))])
    ),
    "function": lambda: onnx.ModelProto(functions=[onnx.FunctionProto(node=[node(attribute("t", tensor()))])]),
    "function's default": lambda: onnx.ModelProto(
        functions=[onnx.FunctionProto(attribute_proto=[attribute("t", tensor())])]
    ),
    "training": lambda: onnx.ModelProto(
        training_info=[onnx.TrainingInfoProto(initialization=graph(initializer=[tensor()]))]
    ),
    "training step": lambda: onnx.ModelProto(
        training_info=[onnx.TrainingInfoProto(algorithm=graph(initializer=[tensor()]))]
    ),
}  # fmt: skip


@pytest.mark.parametrize("field", PLACES)
def test_weights_are_found_wherever_they_are(tmp_path: Path, field: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(PLACES[field]().SerializeToString())
    assert external_locations(path) == ["/x"]
    with pytest.raises(ContainmentError, match="not relative"):
        check_contained(tmp_path)


def test_every_tensor_of_the_format_is_looked_for() -> None:
    """A field that a later ONNX adds, and that leads to tensors, needs a line in _CHILDREN."""
    from edgevit_runtime.containment import _CHILDREN

    names = {"ModelProto": "model", "TrainingInfoProto": "training", "FunctionProto": "function", "GraphProto": "graph",
             "SparseTensorProto": "sparse", "NodeProto": "node", "AttributeProto": "attribute",
             "TensorProto": "tensor"}  # fmt: skip
    for kind, message in names.items():
        fields = getattr(onnx, kind).DESCRIPTOR.fields
        children = {
            f.number: names[f.message_type.name] for f in fields if f.message_type and f.message_type.name in names
        }
        entries = {f.number: "entry" for f in fields if f.name == "external_data"}
        assert _CHILDREN[message] == children | entries, kind


def test_what_is_no_onnx_file_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    good = (artifact.folder / artifact.payload).read_bytes()
    path = tmp_path / "m.onnx"
    path.write_bytes(b"")
    assert external_locations(path) == []
    draw, refused = random.Random(0), 0
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(draw.randrange(1, 4)):
            bad[draw.randrange(len(bad))] = draw.randrange(256)
        path.write_bytes(bad[: draw.randrange(1, len(bad) + 1)])
        try:
            external_locations(path)
        except ContainmentError as error:
            assert "m.onnx is no ONNX file" in str(error)
            refused += 1
    assert refused > 50
    for junk in (b"\x3a\xff\xff\xff\xff\x0f", b"\x0b", b"\xff" * 12, b"\x00\x00", b"\x3a"):
        path.write_bytes(junk)
        with pytest.raises(ContainmentError):
            check_contained(tmp_path)
