"""Manifests of strangers: opening their folder ends in one ArtifactError, and soon."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgevit.artifacts.folder import MANIFEST, _text_of, find_artifact, folder_of, open_artifact
from edgevit.errors import ArtifactError
from edgevit.records.artifact import Artifact, ExportRequest
from support.exported import tiny_copy

SOON_S = 5


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return tiny_copy(tmp_path / "net-onnx-fp32", "onnx")


def refusal(folder: Path) -> ArtifactError:
    """Return the error of a folder that cannot be opened, which has all four parts and comes soon."""
    start = time.process_time()
    with pytest.raises(ArtifactError) as caught:
        open_artifact(folder)
    error = caught.value
    assert error.what and error.where and error.why and error.fix and time.process_time() - start < SOON_S
    # Nothing else that looks at manifests takes more.
    assert find_artifact(folder.parent, "0" * 64) is None
    folder_of(ExportRequest("onnx", folder.parent, model="net"))
    return error


def forge(artifact: Artifact, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest and seal it again, as any program can."""
    path = artifact.folder / MANIFEST
    data = json.loads(path.read_text())["artifact"]
    change(data)
    path.write_text(_text_of(data))


def test_a_manifest_that_is_no_plain_file_is_refused(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    path = artifact.folder / MANIFEST
    content = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    assert "no plain file" in refusal(artifact.folder).why
    # To open a device may already do something.
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", None)
        assert "no plain file" in refusal(artifact.folder).why
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "no plain file" in refusal(artifact.folder).why
    path.unlink()
    path.mkdir()
    assert "directory" in refusal(artifact.folder).why or "no plain file" in refusal(artifact.folder).why
    path.rmdir()
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        # The name of a socket has 108 bytes at most.
        os.chdir(artifact.folder)
        try:
            listener.bind(MANIFEST)
        finally:
            os.chdir(here)
        assert refusal(artifact.folder).why
    path.unlink()
    elsewhere = artifact.folder.parent / "elsewhere.json"
    elsewhere.write_bytes(content)
    path.symlink_to(elsewhere)
    assert "is a link" in refusal(artifact.folder).why


@pytest.mark.parametrize("name", ["pipe", "weights.bin"])
def test_a_pipe_beside_the_payload_is_refused(artifact: Artifact, name: str) -> None:
    os.mkfifo(artifact.folder / name)
    assert "special file" in refusal(artifact.folder).why


BROKEN: dict[str, str | bytes] = {
    "nothing": "",
    "a list": "[]",
    "a list as the record": '{"artifact": [1]}',
    "a text as the record": '{"artifact": "x"}',
    "a number": "7",
    "null": '{"artifact": null}',
    "deep lists": '{"artifact": ' + "[" * 5_000 + "]" * 5_000 + "}",
    "deep objects": '{"artifact": ' + '{"a": ' * 5_000 + "1" + "}" * 5_000 + "}",
    "just too deep": '{"artifact": ' + "[" * 65 + "]" * 65 + "}",
    "a number of 5,000 digits": '{"artifact": {"size_bytes": ' + "9" * 5_000 + "}}",
    "a number of 65 bits": '{"artifact": {"size_bytes": 36893488147419103232}}',
    "NaN": '{"artifact": {"size_bytes": NaN}}',
    "Infinity": '{"artifact": {"size_bytes": -Infinity}}',
    "an infinite number": '{"artifact": {"size_bytes": 1e999}}',
    "half a surrogate pair": '{"artifact": {"model": "\\ud800"}}',
    "bytes that are no text": b'{"artifact": {"model": "\xff"}}',
    "a zero byte": b'{"artifact": {}}\0',
    "another version": '{"artifact": {"schema_version": 99, "model": "a; rm -rf ~", "target": "t", "precision": "p"}}',
}


WHY = {
    "deep lists": "nested deeper",
    "deep objects": "nested deeper",
    "just too deep": "nested deeper",
    "a number of 5,000 digits": "larger than any number",
    "a number of 65 bits": "larger than any number",
    "NaN": "NaN is not a number",
    "Infinity": "-Infinity is not a number",
    "an infinite number": "1e999 is not a finite number",
    "half a surrogate pair": "not JSON",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_manifest_that_is_no_record_is_refused(artifact: Artifact, name: str) -> None:
    content = BROKEN[name]
    (artifact.folder / MANIFEST).write_bytes(content if isinstance(content, bytes) else content.encode())
    error = refusal(artifact.folder)
    assert WHY.get(name, "") in error.why and "rm -rf" not in error.fix.replace("'a; rm -rf ~'", "")


def test_a_manifest_larger_than_memory_is_refused(artifact: Artifact) -> None:
    with (artifact.folder / MANIFEST).open("r+b") as file:
        file.truncate(1 << 40)
    assert "MiB" in refusal(artifact.folder).why


def test_a_forged_manifest_that_could_be_true_is_opened(artifact: Artifact) -> None:
    forge(artifact, lambda data: data.update(family="other"))
    assert open_artifact(artifact.folder).family == "other"


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "model": {"model": "another"},
    "precision": {"precision": "fp7"},
    "payload outside": {"payload": "../net.onnx"},
    "payload anywhere": {"payload": "/etc/passwd"},
    "no payload": {"payload": ""},
    "payload is the folder": {"payload": "."},
    "payload is the manifest": {"payload": MANIFEST},
    "no inputs": {"inputs": []},
    "no outputs": {"outputs": []},
    "no batch": {"inputs": [{"name": "image", "shape": [], "dtype": "float32"}]},
    "negative size": {"inputs": [{"name": "image", "shape": [1, 3, -7, 12], "dtype": "float32"}]},
    "empty input": {"model_inputs": [{"name": "image", "shape": [-1, 0, 16, 12], "dtype": "float32"}]},
    "a petabyte": {"model_inputs": [{"name": "image", "shape": [-1, 3, 10**7, 10**7], "dtype": "float32"}]},
    "no such type": {"model_inputs": [{"name": "image", "shape": [-1, 3, 16, 12], "dtype": "load"}]},
    "many axes": {"inputs": [{"name": "image", "shape": [1] * 1000, "dtype": "float32"}]},
    "negative bytes": {"size_bytes": -1},
    "negative parameters": {"params": -1},
    "no batch size": {"batch": 0},
    "range": {"input_range": [1.0, 0.0]},
    "time": {"created": "yesterday"},
    "time without a zone": {"created": "2026-11-30T08:00:00"},
    "half a character": {"family": "\ud800"},
    "wrong type": {"params": "many"},
    "truth for a number": {"params": True},
    "unknown field": {"surprise": 1},
    "labels": {"labels": [1]},
    "files": {"files": [["a", "b"]]},
    "source": {"source": None},
    "parity": {"parity": {"status": "perfect"}},
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_manifest_that_cannot_be_true_is_refused(artifact: Artifact, name: str) -> None:
    forge(artifact, lambda data: data.update(IMPOSSIBLE[name]))
    assert "sealed" not in refusal(artifact.folder).why


@pytest.mark.parametrize(
    "change",
    [
        {"std": [0.0, 0.0, 0.0]},
        {"mean": []},
        {"mean": [0.5, 0.5]},
        {"crop_pct": -1.0},
        {"range": [1.0, 1.0]},
        {"interpolation": "magic"},
        {"colour": "XYZ"},
        {"resize": [-5]},
        {"resize": [1, 2, 3]},
    ],
    ids=str,
)
def test_a_preprocessing_that_no_image_can_have_is_refused(artifact: Artifact, change: dict[str, Any]) -> None:
    forge(artifact, lambda data: data["preprocessing"].update(change))
    assert "preprocessing" in refusal(artifact.folder).why


def test_a_field_that_is_missing_is_named(artifact: Artifact) -> None:
    for name in ("model", "source", "inputs", "created"):
        content = (artifact.folder / MANIFEST).read_bytes()
        forge(artifact, lambda data, name=name: data.pop(name))  # type: ignore[misc]
        assert name in refusal(artifact.folder).why
        (artifact.folder / MANIFEST).write_bytes(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_value_in_any_field_is_read_or_refused(artifact: Artifact, data: st.DataObject) -> None:
    path = artifact.folder / MANIFEST
    content = path.read_text()
    document = json.loads(content)
    record = document["artifact"]
    inside = data.draw(st.sampled_from([record, record["source"], record["preprocessing"], record["inputs"][0]]))
    inside[data.draw(st.sampled_from(sorted(inside)))] = data.draw(JSON)
    path.write_text(json.dumps(document))
    try:
        open_artifact(artifact.folder)
    except ArtifactError as error:
        assert error.where and error.why and error.fix
    finally:
        path.write_text(content)
