"""Whose code may run: a manifest, a row or a folder of strangers names code, and no verb runs it unasked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgevit
from conftest import new_database
from edgevit.artifacts.folder import MANIFEST, seal
from edgevit.artifacts.trust import code_digests, model_digest
from edgevit.cli import main
from edgevit.cli.choose_export import Sources, require_known_code
from edgevit.cli.export import show
from edgevit.errors import ArtifactError, EdgevitError, UsageError
from edgevit.evaluation import EvaluationRequest, evaluate
from edgevit.exporting.pipeline import verify_artifact
from edgevit.records.artifact import NO_CHECKPOINT, Artifact, Parity
from edgevit.records.model_reference import ModelReference
from edgevit.sweeps.plan import record_built
from support.exported import tiny_copy
from support.subjects import tiny_file

EVIL = "\nfrom pathlib import Path\n\nPath({marker!r}).touch()\n"


@pytest.fixture
def db(tmp_path: Path) -> str:
    return new_database("sqlite", tmp_path, empty=False)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that exists once a stranger's code has run."""
    return tmp_path / "owned"


def evil_code(folder: Path, marker: Path, name: str = "evil.py") -> Path:
    """Write the tiny network's code, and a line that leaves a mark when it is imported."""
    folder.mkdir(exist_ok=True, parents=True)
    file = tiny_file(folder)
    file.write_text(file.read_text() + EVIL.format(marker=str(marker)))
    return file.rename(folder / name)


def of_model(artifact: Artifact, model: str) -> Artifact:
    """Return an artifact whose manifest names another model, sealed as any program can."""
    source = dataclasses.replace(artifact.source, model=model, origin=ModelReference.parse(model).origin)
    return seal(dataclasses.replace(artifact, model=model, source=source))


@pytest.fixture
def foreign(tmp_path: Path, marker: Path) -> Artifact:
    """A stranger's artifact that computes just what its code computes, and whose code leaves a mark."""
    code = evil_code(tmp_path / "clone", marker)
    return of_model(tiny_copy(tmp_path / "clone/net", "onnx"), f"{code}:tiny")


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Run `edgevit ...`; return its exit code and what it printed."""
    code: Any = 0
    try:
        main(list(map(str, words)))
    except SystemExit as end:
        code = end.code or 0
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_code_that_a_manifest_names_is_not_run(
    foreign: Artifact, db: str, marker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Callable[[], Parity]] = [
        lambda: edgevit.verify(foreign.folder, db=db),
        lambda: verify_artifact(foreign),
    ]
    for call in calls:
        with pytest.raises(ArtifactError, match="names code of its own") as caught:
            call()
        error = caught.value
        assert "evil.py:tiny would run" in error.why and "--model" in error.fix and "--trust" in error.fix
    code, _, text = run(capsys, "verify", foreign.folder, "--db", db)
    assert code == 1 and "names code of its own" in text and not marker.exists()


def test_trust_runs_it(foreign: Artifact, db: str, marker: Path) -> None:
    assert edgevit.verify(foreign.folder, db=db, trust=True).status == "passed"
    assert marker.exists()


def test_a_model_that_is_named_again_runs(foreign: Artifact, db: str, marker: Path, tmp_path: Path) -> None:
    """Name the code where it lies here: the name given is what runs, not the manifest's."""
    own = evil_code(tmp_path / "mine", tmp_path / "mine ran")
    parity = edgevit.verify(foreign.folder, model=f"{own}:tiny", db=db)
    assert parity.status == "passed" and parity.network is not None and parity.network.model == f"{own}:tiny"
    assert (tmp_path / "mine ran").exists() and not marker.exists()


@pytest.mark.parametrize(
    "name", ["other.py:tiny", "evil.py:other", "evil:tiny", "mobilevig_ti", "timm:evil", "hf:evil"]
)
def test_another_model_s_name_is_refused(foreign: Artifact, db: str, marker: Path, name: str) -> None:
    with pytest.raises(UsageError, match="was not made from") as caught:
        edgevit.verify(foreign.folder, model=name, db=db)
    assert "evil.py:tiny" in caught.value.why and not marker.exists()


def test_what_was_built_here_runs(foreign: Artifact, db: str, marker: Path, tmp_path: Path) -> None:
    record_built(foreign, db)
    assert edgevit.verify(foreign.folder, db=db).status == "passed"
    # Elsewhere, nothing is known of it.
    other = new_database("sqlite", tmp_path, empty=False)
    with pytest.raises(ArtifactError, match="names code of its own"):
        edgevit.verify(foreign.folder, db=other)


def test_a_copy_of_a_payload_built_here_does_not_vouch_for_other_code(
    tmp_path: Path, db: str, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger takes a payload that was built here, and puts a manifest beside it that names another file."""
    mine, clone = tmp_path / "mine", tmp_path / "clone"
    mine.mkdir()
    monkeypatch.chdir(mine)
    tiny_file(mine)
    artifact = of_model(tiny_copy(mine / "net", "onnx"), "tiny.py:tiny")
    record_built(artifact, db)
    assert edgevit.verify(mine / "net", db=db).status == "passed"
    stolen = tiny_copy(clone / "net", "onnx")
    assert stolen.sha256 == artifact.sha256
    of_model(stolen, f"{evil_code(clone, marker)}:tiny")
    # The same name means another file in the stranger's folder.
    evil_code(clone, marker, "tiny.py")
    of_model(tiny_copy(clone / "same-name", "onnx"), "tiny.py:tiny")
    monkeypatch.chdir(clone)
    for folder in (clone / "net", clone / "same-name", mine / "net"):
        with pytest.raises(ArtifactError, match="names code of its own"):
            edgevit.verify(folder, db=db)
    assert not marker.exists()


def test_every_kind_of_name_that_runs_code_is_guarded(
    tmp_path: Path, db: str, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = tmp_path / "clone"
    evil_code(clone, marker)
    (clone / "package").mkdir()
    evil_code(clone / "package", marker, "__init__.py")
    # A folder takes precedence over timm's own name.
    (clone / "resnet18").mkdir()
    monkeypatch.chdir(clone)
    names = ["evil.py:tiny", "./evil.py:tiny", "evil:tiny", "package:tiny", "hf:resnet18", "timm:resnet18"]
    for number, name in enumerate([*names, "os:getcwd"]):
        artifact = of_model(tiny_copy(clone / f"net{number}", "onnx"), name)
        with pytest.raises(ArtifactError, match="names code of its own"):
            edgevit.verify(artifact.folder, db=db)
    assert not marker.exists()
    assert not ModelReference.parse("timm:resnet50").runs_code and not ModelReference.parse("mobilevig_ti").runs_code


def test_evaluate_loads_a_foreign_model_only_where_it_may(foreign: Artifact, marker: Path, tmp_path: Path) -> None:
    request = EvaluationRequest(tmp_path, against_model=True)
    with pytest.raises(EdgevitError) as caught:
        evaluate(foreign, request)
    assert "names code of its own" in caught.value.what and not marker.exists()


def test_profile_does_not_load_the_model(foreign: Artifact, db: str, marker: Path) -> None:
    assert edgevit.profile(foreign.folder, quick=True, db=db).status == "ok"
    assert not marker.exists()


def test_passed_says_against_which_network(foreign: Artifact, db: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "verify", foreign.folder, "--trust", "--db", db)
    network = (
        f"{foreign.source.model}, network {foreign.network_sha256[:12]}, weights {foreign.source.state_sha256[:12]}"
    )
    assert code == 0 and f"compared with {network}" in out
    parity = edgevit.verify(foreign.folder, trust=True, db=db)
    show([dataclasses.replace(foreign, parity=parity)], [], as_json=False, verbose=False)
    assert f"compared with {network}" in capsys.readouterr().out, "as export shows it"
    _, out, _ = run(capsys, "verify", foreign.folder, "--trust", "--db", db, "--json")
    assert json.loads(out)["parity"]["network"] == {
        "model": foreign.source.model,
        "network_sha256": foreign.network_sha256,
        "weights_sha256": foreign.source.state_sha256,
    }


def test_a_digest_of_another_torch_is_not_claimed(foreign: Artifact, db: str) -> None:
    """The digest of a manifest that another torch wrote was compared with nothing."""
    forged = dataclasses.replace(foreign, network_sha256="f" * 64, toolchain={**foreign.toolchain, "torch": "1.0"})
    seal(forged)
    network = edgevit.verify(foreign.folder, db=db, trust=True).network
    assert network is not None and network.network_sha256 == "" and "without a digest" in network.label


def test_an_export_is_recorded_with_its_code(tmp_path: Path, db: str) -> None:
    model = f"{tiny_file(tmp_path)}:tiny"
    artifact = edgevit.export(model, "onnx", out=tmp_path / "out", input_size=(16, 12), own_process=False, db=db)
    assert edgevit.verify(artifact, db=db).status == "passed"
    assert artifact.parity is not None and artifact.parity.network is not None
    assert artifact.parity.network.model == model
    assert artifact.parity.network.network_sha256 == artifact.network_sha256 != ""
    manifest = json.loads((artifact.folder / MANIFEST).read_text())["artifact"]
    assert manifest["parity"]["network"]["model"] == model


def test_a_row_does_not_name_code_that_choose_runs(foreign: Artifact, db: str) -> None:
    model, sources = foreign.source.model, Sources((), Path("out"), NO_CHECKPOINT)
    with pytest.raises(UsageError, match="rows of the database name code") as caught:
        require_known_code(model, (foreign.sha256, ""), sources, db)
    assert f"--models {model}" in caught.value.fix
    require_known_code(model, (foreign.sha256,), sources._replace(named=frozenset([model])), db)
    require_known_code("mobilevig_ti", (), sources, db)
    record_built(foreign, db)
    require_known_code(model, (foreign.sha256,), sources, db)
    assert code_digests(foreign) == {model_digest(foreign.sha256, model)}
