"""Random flipped bits in finished artifacts of every target. Every reader refuses them before an engine reads them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgevit.artifacts.folder import MANIFEST, open_artifact
from edgevit.artifacts.trust import code_digests
from edgevit.cli import main
from edgevit.devices.registry import local_device
from edgevit.devices.transports import WORKER, load_transport
from edgevit.devices.worker_archive import pack
from edgevit.errors import ArtifactError
from edgevit.exporting.pipeline import verify_artifact
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact
from edgevit.verification import parity as verify_room
from edgevit_runtime.record import Job, Reply
from edgevit_runtime.worker import perform
from support.exported import tiny_copy
from support.speed import seconds
from support.targets import targets

TARGETS = targets()
# Flips per target in the process of this test.
FLIPS = 1000
# Flips per target that each have their own worker.
IN_A_PROCESS = 3


@pytest.fixture(scope="module", params=TARGETS)
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny_copy(tmp_path_factory.mktemp(request.param) / "artifact", request.param)


@contextmanager
def flipped(path: Path, draw: random.Random) -> Iterator[None]:
    """Flip one bit anywhere in the file, for a while."""
    with path.open("r+b", buffering=0) as file:
        position = draw.randrange(path.stat().st_size)
        [good] = os.pread(file.fileno(), 1, position)
        os.pwrite(file.fileno(), bytes([good ^ 1 << draw.randrange(8)]), position)
        try:
            yield
        finally:
            os.pwrite(file.fileno(), bytes([good]), position)


def files(artifact: Artifact) -> list[Path]:
    """Return every file, the manifest last. Each is equally likely to be hit, however small it is."""
    paths = sorted(path for path in artifact.folder.rglob("*") if path.is_file() and path.stat().st_size)
    return sorted(paths, key=lambda path: path.name == MANIFEST)


def never(*arguments: Any, **options: Any) -> Any:
    raise AssertionError("an engine was given a damaged artifact")


def test_every_flipped_bit_is_refused_and_its_file_named(artifact: Artifact) -> None:
    draw, hit, paths = random.Random(artifact.target), set[Path](), files(artifact)
    for _ in range(FLIPS):
        path = draw.choice(paths)
        with flipped(path, draw), pytest.raises(ArtifactError) as caught:
            open_artifact(artifact.folder)
        assert caught.value.where == str(path)
        hit.add(path)
    assert hit == set(paths)
    assert open_artifact(artifact.folder) == artifact


def test_verification_refuses_what_was_damaged_since_it_was_opened(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_room, "compute", never)
    draw = random.Random(artifact.target)
    # The manifest is read by then.
    for path in files(artifact)[:-1]:
        with flipped(path, draw), pytest.raises(ArtifactError, match="damaged") as caught:
            verify_artifact(artifact, built_here=code_digests(artifact))
        assert caught.value.where == str(path)


def test_the_command_line_refuses_it(artifact: Artifact, monkeypatch: Any, capsys: Any) -> None:
    draw = random.Random(artifact.target)
    for verb in ("verify", "profile"):
        for path in files(artifact):
            monkeypatch.setattr("sys.argv", ["edgevit", verb, str(artifact.folder)])
            with flipped(path, draw), pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 1
            assert path.name in "".join(capsys.readouterr().err.split())


def job(artifact: Artifact, folder: str) -> Job:
    return Job("time", artifact.target, folder, artifact.payload, artifact.sha256, threads=1, min_runs=1, min_ns=0)


def test_the_workers_own_check_refuses_it(artifact: Artifact) -> None:
    """The worker gets the payload's files and a digest; it does not read the manifest."""
    recipe: Any = SimpleNamespace(RECIPE=load_recipe(artifact.target).RECIPE, load=never)
    draw, paths = random.Random(artifact.target), files(artifact)[:-1]
    for _ in range(FLIPS // 10):
        with flipped(draw.choice(paths), draw):
            reply = perform(job(artifact, str(artifact.folder)), recipe, Reply("crashed"))
        assert reply.status == "failed"
        assert "the artifact is damaged" in reply.error
    # Without damage, the worker gives the artifact to the engine.
    with pytest.raises(AssertionError, match="an engine was given"):
        perform(job(artifact, str(artifact.folder)), recipe, Reply("crashed"))


def test_a_worker_in_a_process_of_its_own_refuses_it(artifact: Artifact, tmp_path: Path) -> None:
    draw, worker = random.Random(artifact.target), pack(artifact.target, tmp_path / WORKER)
    packages = {WORKER: worker, "artifact": artifact.folder}
    for _ in range(IN_A_PROCESS):
        with flipped(draw.choice(files(artifact)[:-1]), draw):
            run = load_transport("local").run
            reply = run(local_device(), packages, job(artifact, "artifact"), timeout_s=seconds(60))
        assert (reply.status, reply.provider) == ("failed", "")
        assert "the artifact is damaged" in reply.error
