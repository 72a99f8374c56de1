"""Installation: the wheel's files, and the commands that work with the core dependencies only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from edgevit.store import LatencyDB
from support.measured import measured
from support.speed import seconds

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Each package with its folder of the repository. The files in these folders are shipped.
HOMES = PYPROJECT["tool"]["setuptools"]["package-dir"]
PACKAGES = set(PYPROJECT["tool"]["setuptools"]["packages"])
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", "build", "dist", ".*")
# Files of a folder that are for readers of the repository.
NOT_SHIPPED = {"README.md"}
SLOW_NETWORK_S = 300


def shipped_files() -> dict[str, Path]:
    """Return the file here for each path inside the wheel."""
    files = {}
    for package, folder in HOMES.items():
        home = ROOT / folder
        for file in home.rglob("*"):
            parts = file.relative_to(home).parts
            if file.is_file() and "__pycache__" not in parts and file.name not in NOT_SHIPPED:
                files["/".join([*package.split("."), *parts])] = file
    return files


def run(*command: str | Path, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=seconds(SLOW_NETWORK_S),
        check=False,
    )


def succeed(*command: str | Path, folder: Path) -> str:
    outcome = run(*command, folder=folder)
    assert outcome.returncode == 0, f"{command}\n{outcome.stdout[-2000:]}\n{outcome.stderr[-4000:]}"
    return outcome.stdout


def make_venv(folder: Path) -> Path:
    """Make a venv and return its bin folder. It has no pip, because the pip that runs the tests installs into it."""
    succeed(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder.parent)
    return folder / "bin"


def pip_install(venv: Path, *requirements: str | Path) -> None:
    # Python compiles what it imports; pip would compile all that is there.
    options = ("--quiet", "--disable-pip-version-check", "--no-compile", "-c", ROOT / ".ci/constraints.txt")
    succeed(
        sys.executable, "-m", "pip", "--python", venv / "bin/python", "install", *options, *requirements, folder=venv
    )


def site_packages(venv: Path) -> Path:
    return next(venv.glob("lib/python*/site-packages"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that a build reads. In the repository, a build would find files of earlier builds."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for top in {home.split("/")[0] for home in HOMES.values()}:
        shutil.copytree(ROOT / top, folder / top, ignore=IGNORED)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    succeed(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", out, folder=source)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with the wheel and its core dependencies, no extra."""
    venv = tmp_path_factory.mktemp("bare") / "venv"
    make_venv(venv)
    pip_install(venv, wheel)
    return venv


@pytest.fixture(scope="module")
def editable(source: Path, bare: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A venv with the same dependencies, and edgevit as a developer installs it."""
    venv = tmp_path_factory.mktemp("editable") / "venv"
    make_venv(venv)
    no_edgevit = shutil.ignore_patterns("edgevit*")
    shutil.copytree(site_packages(bare), site_packages(venv), ignore=no_edgevit, dirs_exist_ok=True)
    before = {path.name for path in site_packages(venv).iterdir()}
    pip_install(venv, "--no-deps", "--editable", source)
    return venv, {path.name for path in site_packages(venv).iterdir()} - before


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of one row: 5.05 ms of a model of the zoo on a board."""
    file = tmp_path_factory.mktemp("db") / "latency.db"
    with LatencyDB.open(str(file)) as opened:
        opened.add(measured(model="vanillanet_5", family="vanillanet"))
    return file


# The list of packages


def test_every_folder_with_code_is_listed() -> None:
    with_code = {name.rpartition("/")[0].replace("/", ".") for name in shipped_files() if name.endswith(".py")}
    assert with_code == PACKAGES


def test_every_listed_folder_is_a_package() -> None:
    for package, folder in HOMES.items():
        assert (ROOT / folder / "__init__.py").is_file(), f"{package}: editable installs break (setuptools 4943)"


# The wheel


def test_wheel_holds_the_shipped_files_and_no_other(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == set(shipped_files())


def test_wheel_installs_two_packages_and_nothing_else(wheel: Path) -> None:
    version = PYPROJECT["project"]["version"]
    top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert top == {"edgevit", "edgevit_runtime", f"edgevit-{version}.dist-info"}


@pytest.mark.parametrize("name", ["edgevit/py.typed", "edgevit_runtime/py.typed", "edgevit/latency_db/models.jsonl",
                                  "edgevit/latency_db/operators.jsonl",
                                  "edgevit/latency_db/migrations/env.py", "edgevit/export_recipes/onnx.py"],
                         )  # fmt: skip
def test_wheel_holds(wheel: Path, name: str) -> None:
    assert name in zipfile.ZipFile(wheel).namelist()


def test_wheel_carries_its_licence_and_version(wheel: Path) -> None:
    from edgevit import __version__

    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    assert __version__ == PYPROJECT["project"]["version"]


# With the core dependencies only


def test_no_torch_comes_along(bare: Path) -> None:
    outcome = run(bare / "bin/python", "-c", "import torch", folder=bare)
    assert "No module named 'torch'" in outcome.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["models"], ["models", "mobilevig_*", "--json"], ["targets"],
                                       ["devices"], ["doctor"], ["db", "stats"], ["choose", "--help"]],
                         ids=" ".join)  # fmt: skip
def test_works_without_extras(bare: Path, tmp_path: Path, arguments: list[str]) -> None:
    outcome = run(bare / "bin/edgevit", *arguments, folder=tmp_path)
    assert (outcome.returncode, outcome.stderr) == (0, ""), outcome.stderr
    assert outcome.stdout


@pytest.mark.parametrize(("budget", "code", "picked"), [("25ms", 0, "vanillanet_5"), ("1ms", 3, None)])
def test_chooses_without_extras(
    bare: Path, tmp_path: Path, database: Path, budget: str, code: int, picked: str | None
) -> None:
    options = ("--device", "pi5", "--max-latency", budget, "--db", database, "--json")
    outcome = run(bare / "bin/edgevit", "choose", *options, folder=tmp_path)
    assert (outcome.returncode, outcome.stderr) == (code, "")
    choice = json.loads(outcome.stdout)
    assert (choice["picked"] or {"model": None})["model"] == picked


@pytest.mark.parametrize(
    "arguments",
    [
        ["fold", "vanillanet_5"],
        ["export", "vanillanet_5", "--target", "onnx"],
        ["sweep", "--models", "vanillanet_5", "--targets", "onnx"],
        ["models", "--refresh"],
    ],
    ids=" ".join,
)
def test_what_needs_torch_says_how_to_get_it(bare: Path, tmp_path: Path, arguments: list[str]) -> None:
    outcome = run(bare / "bin/edgevit", *arguments, folder=tmp_path)
    assert "Traceback" not in outcome.stderr, outcome.stderr
    assert "pip install 'edgevit[export]'" in outcome.stderr
    assert outcome.returncode == 5
    assert not list(tmp_path.iterdir()), "nothing is left behind"


# Editable


def test_editable_install_puts_only_edgevit_in_site_packages(editable: tuple[Path, set[str]]) -> None:
    version = PYPROJECT["project"]["version"]
    _, landed = editable
    assert f"edgevit-{version}.dist-info" in landed
    assert all(name.startswith(("edgevit-", "__editable__")) or name == "__pycache__" for name in landed), landed


def test_editable_install_works(editable: tuple[Path, set[str]], tmp_path: Path) -> None:
    venv, _ = editable
    assert "vanillanet_5" in succeed(venv / "bin/edgevit", "models", folder=tmp_path)
    assert "onnx" in succeed(venv / "bin/edgevit", "targets", folder=tmp_path)


def test_editable_install_reads_the_source_and_does_not_spill(
    editable: tuple[Path, set[str]], source: Path, tmp_path: Path
) -> None:
    venv, _ = editable
    code = "import edgevit, edgevit_runtime; print(edgevit.__file__, edgevit_runtime.__file__)"
    for module_file in succeed(venv / "bin/python", "-c", code, folder=tmp_path).split():
        assert source in Path(module_file).parents
    for name in ("export_recipes", "latency_db", "runtime", "tests"):
        assert "No module named" in run(venv / "bin/python", "-c", f"import {name}", folder=tmp_path).stderr


def test_both_installs_pack_the_same_worker(bare: Path, editable: tuple[Path, set[str]], tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgevit.devices.worker_archive import pack\n"
        "pack('onnx', Path(sys.argv[1]))"
    )
    for name, venv in (("bare", bare), ("editable", editable[0])):
        succeed(venv / "bin/python", "-c", code, name, folder=tmp_path)
    assert (tmp_path / "bare").read_bytes() == (tmp_path / "editable").read_bytes()
