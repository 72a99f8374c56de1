"""The doctor: its cells for what is missing, broken, hidden or elsewhere, and the trials of `--try`."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgevit.cli import doctor as cli
from edgevit.cli import main
from edgevit.doctor import ABILITIES, Cell, Check, Diagnosis, TargetCells, examine, imports, smoke_test, try_targets
from edgevit.doctor.checks import PHOTOGRAPHS
from edgevit.doctor.imports import Import, try_imports
from edgevit.doctor.matrix import needed, target_cells
from edgevit.doctor.smoke_test import Trial
from edgevit.errors import EdgevitError, ExportError, ParityError, TargetUnavailableError
from edgevit.exporting import child_process
from edgevit.recipes import list_recipes, load_recipe
from edgevit.records.artifact import Parity
from edgevit_runtime import environment
from edgevit_runtime.record import HostBound, ProcessorBound, Recipe
from support import command_line
from support.speed import seconds
from support.warm_children import WarmSys

EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TARGETS = [recipe.target for recipe in list_recipes()]
QUICK = ("onnx",)  # to try in seconds
RECIPE = Recipe("fake", ".fake", "fake-engine", ("fp32",), ("fake-converter",), "fake-extra")
YES = Cell("yes")
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux")


def marked(target: str, *marks: pytest.MarkDecorator) -> Any:
    return pytest.param(target, marks=[getattr(pytest.mark, target), *marks])


def states(row: TargetCells) -> list[str]:
    return [cell.state for cell in row.cells.values()]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """install(distribution, code): a distribution with one module, where Python looks and a worker does not."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def put(distribution: str, code: str, version: str = "1.5") -> Path:
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "top_level.txt").write_text(f"{module}\n")
        return tmp_path

    return put


@pytest.fixture(scope="module")
def onnx_imports() -> dict[str, Import]:
    """What the onnx target needs, imported once for all tests that look at something else."""
    recipe = load_recipe("onnx").RECIPE
    imports = try_imports([*needed(recipe), PHOTOGRAPHS], set(needed(recipe)) - {recipe.engine})
    assert all(result.works and not result.hidden for result in imports.values()), imports
    return imports


def import_only(monkeypatch: pytest.MonkeyPatch, name: str, others: dict[str, Import]) -> None:
    """Let the doctor import one distribution, and take the others as they were."""
    monkeypatch.setattr(
        "edgevit.doctor.try_imports",
        lambda names, together: {other: others[other] for other in names} | try_imports([name], together),
    )


def everything(recipe: Recipe, **broken: Import) -> dict[str, Import]:
    """Return working imports of all that a recipe needs, except for the broken ones."""
    failures = {name.replace("_", "-"): failure for name, failure in broken.items()}
    return {name: Import("1.0") for name in (*needed(recipe), *failures)} | failures


# What is missing


def test_a_missing_distribution_is_named_with_what_installs_it() -> None:
    row = target_cells(RECIPE, try_imports(needed(RECIPE)), YES)
    assert states(row) == ["no"] * 4
    assert row.convert.detail == "fake-converter is not installed"
    assert row.run.detail == row.profile.detail == "fake-engine is not installed"
    assert {cell.fix for cell in row.cells.values()} == {"pip install 'edgevit[fake-extra]'"}


def test_an_engine_alone_runs_what_others_built() -> None:
    row = target_cells(RECIPE, everything(RECIPE, fake_converter=Import("")), YES)
    assert states(row) == ["no", "no", "yes", "yes"]
    assert row.run.versions == {"fake-engine": "1.0"}


def test_what_no_engine_can_verify_is_not_built() -> None:
    row = target_cells(RECIPE, everything(RECIPE, fake_engine=Import("")), YES)
    assert states(row) == ["yes", "no", "no", "no"]


@pytest.mark.parametrize("recipe", list_recipes(), ids=lambda recipe: recipe.target)
def test_every_fix_names_an_extra_that_exists(recipe: Recipe) -> None:
    row = target_cells(recipe, {name: Import("") for name in needed(recipe)}, YES)
    assert row.convert.state == row.build.state == "no"
    for cell in row.cells.values():
        extra = re.fullmatch(r"pip install 'edgevit\[(\w+)\]'", cell.fix)
        assert cell.state == "elsewhere" or (extra and extra[1] == recipe.extra and recipe.extra in EXTRAS)


def test_without_one_of_several_engines_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe("fake", ".x", "fake-a", ("fp32",), (), "fake-extra", engine_choices=("fake-b",))
    row = target_cells(recipe, everything(recipe), YES)
    assert states(row) == ["yes", "no", "no", "no"]
    assert row.build.detail.startswith("neither fake-a nor fake-b is installed; an export leaves what builds")


def test_a_target_made_from_another_needs_that_ones_tools() -> None:
    recipe = Recipe("fake", ".x", "fake-engine", ("fp32",), (), "fake-extra", source="onnx")
    row = target_cells(recipe, everything(recipe, onnxsim=Import(""), onnxruntime=Import("")), YES)
    assert (row.convert.state, row.convert.detail) == ("no", "onnxsim, onnxruntime are not installed")


def test_without_a_worker_nothing_is_timed() -> None:
    row = target_cells(RECIPE, everything(RECIPE), Cell("no", "no worker: disk full", fix="rm"))
    assert states(row) == ["yes", "no", "yes", "no"]
    assert row.profile.fix == "rm"


# What is there, and does not work


def test_an_engine_that_crashes_takes_nothing_with_it(install: Any) -> None:
    install("fake-engine", "import os\nos.abort()\n")
    install("fake-converter", "")
    results = try_imports(["fake-engine", "fake-converter"])
    assert results["fake-converter"].works
    assert (results["fake-engine"].version, results["fake-engine"].works) == ("1.5", False)
    assert "signal 6 (Aborted)" in results["fake-engine"].error
    row = target_cells(RECIPE, everything(RECIPE) | results, YES)
    assert states(row) == ["yes", "no", "no", "no"]
    assert row.run.fix == "pip install --force-reinstall --no-deps fake-engine==1.5"


@pytest.fixture
def started(tmp_path: Path) -> Any:
    """`started.code` notes its process when it is imported; `started.by(module)` returns these processes."""
    code = f"import os\nopen({str(tmp_path)!r} + f'/{{__name__}}.pids', 'a').write(f'{{os.getpid()}} ')\n"
    return SimpleNamespace(code=code, by=lambda module: (tmp_path / f"{module}.pids").read_text().split())


def test_converters_share_a_process_and_an_engine_has_its_own(install: Any, started: Any) -> None:
    for name in ("one", "another", "engine"):
        install(name, started.code)
    results = try_imports(["one", "engine", "another"], {"one", "another", "not-installed"})
    assert list(results) == ["one", "engine", "another"] and all(result.works for result in results.values())
    assert started.by("one") == started.by("another") != started.by("engine")
    assert len(started.by("one")) == len(started.by("engine")) == 1


@pytest.mark.parametrize(
    ("end", "error"),
    [
        ("raise ImportError('libgone.so.1')", "ImportError: libgone.so.1"),
        ("os.abort()", "the import ended with signal 6 (Aborted)"),
        ("raise SystemExit('no')", "no"),
        ("os._exit(0)", ""),
        ("import atexit; atexit.register(print, '3')", ""),
        ("import atexit; atexit.register(print, 'bye')", ""),
        ("assert 'other' not in sys.modules", ""),
    ],
)
def test_what_fails_among_others_is_judged_alone(install: Any, started: Any, end: str, error: str) -> None:
    install("other", started.code)
    install("breaker", f"{started.code}import sys\n{end}\n")
    install("last", started.code)
    results = try_imports(["other", "breaker", "last"], {"other", "breaker", "last"})
    assert results["breaker"].error == error and results["breaker"].version == "1.5"
    assert results["other"].works and results["last"].works
    assert len(started.by("breaker")) == 2 and started.by("breaker")[1] not in started.by("other")


@pytest.mark.onnx
def test_a_broken_target_is_told_as_json_and_fails_where_it_was_named(
    install: Any,
    onnx_imports: dict[str, Import],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install("onnxruntime", "raise ImportError('libgone.so.1: cannot open shared object file')\n")
    import_only(monkeypatch, "onnxruntime", onnx_imports)
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--target", "ort", "--json"])
    assert ended.value.code == TargetUnavailableError.exit_code == 5
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["schema_version", "host", "targets", "checks"]
    [row] = report["targets"]
    assert list(row) == ["target", *ABILITIES, "missing_instructions"] and row["target"] == "onnx"
    assert [row[ability]["state"] for ability in ABILITIES] == ["yes", "no", "no", "no"]
    for ability in ABILITIES:
        assert list(row[ability]) == ["state", "detail", "versions", "fix"]
    assert "libgone.so.1" in row["run"]["detail"] and "onnxruntime==1.5" in row["run"]["fix"]
    assert row["convert"]["versions"]["onnx"] in row["convert"]["detail"]
    assert report["host"]["python"] == environment.host().python
    checks = {check["component"]: check for check in report["checks"]}
    assert list(checks) == ["python", "torch", "photographs", "worker", "latency database"]
    assert all(list(check) == ["component", "works", "detail", "fix"] and check["works"] for check in checks.values())
    assert re.search(r"torch 2\S+, safetensors \S+, \d+ thread", checks["torch"]["detail"])


def test_a_worker_does_not_see_what_only_pythonpath_leads_to(install: Any) -> None:
    install("fake-engine", "")
    results = try_imports(["fake-engine"])
    assert results["fake-engine"].works and results["fake-engine"].hidden
    row = target_cells(RECIPE, everything(RECIPE) | results, YES)
    assert states(row) == ["yes", "no", "no", "no"]
    assert "PYTHONPATH" in row.run.detail
    assert not try_imports(["pytest"])["pytest"].hidden


def test_an_import_that_hangs_ends(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "_TIMEOUT_S", 0.5)
    install("fake-engine", "import time\ntime.sleep(60)\n")
    assert try_imports(["fake-engine"])["fake-engine"].error == "no end after 0.5 s"


def test_imports_are_not_interrupted_by_collections_of_garbage(install: Any) -> None:
    install("fake-engine", "import gc\nif gc.isenabled():\n    raise ImportError('it collects')\n")
    assert try_imports(["fake-engine"])["fake-engine"].error == ""
    assert imports._import_together(["fake_engine", "json"]).keys() == {"fake_engine", "json"}


def test_the_folder_one_stands_in_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pytest.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.chdir(tmp_path)
    assert try_imports(["pytest"])["pytest"].works


# What is elsewhere


@pytest.mark.parametrize("target", TARGETS)
def test_a_recipe_that_needs_a_machine_can_tell_whether_this_is_one(target: str) -> None:
    module = load_recipe(target)
    assert isinstance(module, HostBound) == bool(module.RECIPE.needs)


@only_linux
@pytest.mark.parametrize("target", [recipe.target for recipe in list_recipes() if recipe.needs])
@pytest.mark.parametrize("there", [True, False], ids=["installed", "not installed"])
def test_what_cannot_be_had_here_is_elsewhere(target: str, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the same on a machine with a GPU
    recipe = load_recipe(target).RECIPE
    row = target_cells(recipe, {name: Import("1.0" if there else "") for name in needed(recipe)}, YES)
    assert (row.run.state, row.profile.state) == ("elsewhere", "elsewhere")
    assert row.run.fix == f"a device with {recipe.needs}: edgevit profile ARTIFACT --device NAME"
    assert recipe.needs in row.profile.detail
    assert ("reference evaluator" in row.run.detail) == (there and bool(recipe.evaluator))
    assert row.convert.state == ("yes" if there else "no")
    assert row.complete == (row.build.state == "yes")


@pytest.mark.parametrize("target", TARGETS)
def test_a_recipe_with_a_precision_that_needs_instructions_can_tell_whether_they_are_here(target: str) -> None:
    module = load_recipe(target)
    assert isinstance(module, ProcessorBound) == bool(module.RECIPE.processor_needs)


@pytest.mark.openvino
@pytest.mark.parametrize("lacking", ["", "bf16"])
def test_precisions_of_other_processors_are_listed(lacking: str, install: Any) -> None:
    recipe = load_recipe("openvino").RECIPE
    assert recipe.processor_needs == {"bf16": "bf16"}
    patch = f"import edgevit.recipes as r; r.missing_instructions = lambda target, precision: {lacking!r}"
    install("sitecustomize", f"import sys\nif 'missing_instructions' in ' '.join(sys.orig_argv):\n    {patch}\n")
    row = target_cells(recipe, everything(recipe), YES)
    assert row.missing_instructions == ({"bf16": "bf16"} if lacking else {})
    assert row.complete, "the other precisions run"
    printed = list(cli.to_enable(Diagnosis(environment.host(), (row,), ())))
    fix = "a device with bf16: edgevit profile ARTIFACT --device NAME"
    expected = ("openvino bf16 run, profile", "elsewhere, this processor lacks bf16", fix)
    assert printed == ([expected] if lacking else [])


def test_a_trial_on_another_processor_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    parity = Parity("needs_processor", "not run here: needs bf16", "3 noise", 1e-7, 137.0, 1.0, "", (), needs="bf16")
    cell = smoke_test._ran(full("openvino"), parity)
    assert (cell.state, cell.detail) == ("elsewhere", "not run here: needs bf16")
    assert cell.fix == "a device with bf16: edgevit profile ARTIFACT --device NAME"


@pytest.mark.parametrize("target", [recipe.target for recipe in list_recipes() if recipe.needs])
def test_a_search_that_crashes_is_no_answer(target: str, install: Any) -> None:
    recipe = load_recipe(target).RECIPE
    install("sitecustomize", f"import os, sys\nif {target!r} in ' '.join(sys.orig_argv): os.abort()\n")
    row = target_cells(recipe, everything(recipe), YES)
    assert states(row)[1:] == ["no"] * 3
    assert "signal 6" in row.run.detail


@pytest.mark.parametrize(("has_gpu", "library", "expected"), [
    (True, "tensorrt", ["", ""]), (True, "tensorrt_rtx", ["", ""]),
    (False, "tensorrt", ["GPU", "GPU"]), (False, "tensorrt_rtx", ["", "GPU"]),
])  # fmt: skip
def test_tensorrt_needs_a_gpu_to_build_and_tensorrt_rtx_only_to_run(
    has_gpu: bool, library: str, expected: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(cuInit=lambda flags: 0 if has_gpu else 100))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == library else None)
    module = load_recipe("tensorrt")
    assert isinstance(module, HostBound)
    for to, component in zip(("build", "run"), expected, strict=True):
        lacks = module.why_unavailable(to)  # type: ignore[arg-type]
        assert component in lacks and bool(lacks) == bool(component)


# --try


@pytest.mark.parametrize(
    "target", [marked(name, *([] if name in QUICK else [pytest.mark.slow])) for name in TARGETS if name != "fake"]
)
def test_trying_is_proof(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "sys", WarmSys())
    labels: list[str] = []
    [before] = examine([target]).targets
    [row] = try_targets([before], labels.append)
    assert row.complete and states(row) == states(before), row
    assert labels == [f"{target}: {stage}" for stage in ("fold", "export", "verify", "profile")]
    assert re.fullmatch(r"fp\d\d exported in \d+\.\d s", row.convert.detail)
    assert re.fullmatch(r"\d+ kB, (passed|evaluated|built_not_run), max_rel \d\.\de-\d\d", row.build.detail)
    if row.run.state == "yes":
        assert re.search(r", separate process: max_rel \d\.\de-\d\d$", row.run.detail)
        assert re.fullmatch(r"p50 [\d.e-]+ ms of \d+ runs, 1 thread", row.profile.detail)
        assert row.run.versions == before.run.versions
    else:
        assert load_recipe(target).RECIPE.needs
        assert ("evaluated by" in row.run.detail) == bool(load_recipe(target).RECIPE.evaluator)


@pytest.mark.onnx
def test_what_imports_and_then_fails_is_found_by_trying(
    install: Any, onnx_imports: dict[str, Import], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("onnxscript", "")
    import_only(monkeypatch, "onnxscript", onnx_imports)
    [before] = examine(["onnx"]).targets
    assert states(before) == ["yes"] * 4
    [row] = try_targets([before])
    assert states(row) == ["no"] * 4
    assert "onnxscript" in row.convert.detail, "the real error"
    assert re.fullmatch(
        r"see it all: edgevit export \S+smoke_model.py:net --input-size 16x12 --target onnx --precision fp32 -v",
        row.run.fix,
    )


def full(target: str) -> TargetCells:
    return TargetCells(target, *(Cell("yes", versions={"x": "1"}) for _ in ABILITIES))


def scripted(monkeypatch: pytest.MonkeyPatch, **failures: tuple[str, EdgevitError]) -> None:
    """Replace exports by failures at a stage, by target."""
    monkeypatch.setattr(smoke_test, "missing", lambda recipe: [])
    monkeypatch.setattr(
        smoke_test, "_export", lambda target, *_: Trial("fp32", None, failures[target][1], failures[target][0])
    )


def test_a_wrong_payload_was_converted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, onnx=("verify", ParityError("onnx fp32 does not compute what net computes", why="max_rel 1")))
    [row] = try_targets([full("onnx")])
    assert states(row) == ["yes", "no", "no", "no"]
    assert row.build.detail == "onnx fp32 does not compute what net computes: max_rel 1"


@pytest.mark.parametrize(("source_stage", "convert"), [("verify", "yes"), ("export", "no")])
def test_where_a_build_fails_the_conversion_before_it_stands(
    source_stage: str, convert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = ExportError("the converter refused the model")
    scripted(monkeypatch, tensorrt=("export", refused), onnx=(source_stage, refused))
    there = full("tensorrt")
    elsewhere = Cell("elsewhere", "no GPU")
    [row] = try_targets([TargetCells("tensorrt", there.convert, there.build, elsewhere, elsewhere)])
    assert states(row) == [convert, "no", "elsewhere", "elsewhere"]


def test_what_is_missing_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch)  # a KeyError for any target
    missing = Cell("no", "torch is not installed")
    row = TargetCells("onnx", missing, missing, YES, YES)
    assert try_targets([row]) == (row,)


def test_a_measurement_that_fails_is_the_cell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = SimpleNamespace(status="crashed", p50_ns=None, error="trace\nthe worker was killed by SIGSEGV\n")
    monkeypatch.setattr(smoke_test, "profile", lambda *_, **__: row)
    cell = smoke_test._timed(full("onnx"), SimpleNamespace(sha256="0"))  # type: ignore[arg-type]
    assert (cell.state, cell.detail) == ("no", "crashed: the worker was killed by SIGSEGV")


# What is printed

FOUND = Diagnosis(
    environment.host(),
    (
        TargetCells("onnx", *(Cell("yes", versions={"onnx": "1.23.2", "torch": "2.13.0"}) for _ in ABILITIES)),
        TargetCells(
            "coreml",
            *(Cell("no", "coremltools is not installed", fix="pip install 'edgevit[coreml]'") for _ in range(2)),
            *(Cell("elsewhere", "Core ML runs on macOS only", fix="a device with macOS") for _ in range(2)),
        ),
    ),
    (
        Check("torch", True, "torch 2.13.0"),
        Check("photographs", False, "not installed", "pip install 'edgevit[photos]'"),
    ),
)
PRINTED = """
 target   convert   build   run         profile     with
 ──────────────────────────────────────────────────────────────
 onnx     yes       yes     yes         yes         onnx 1.23.2
 coreml   no        no      elsewhere   elsewhere


 here          works   detail
 ───────────────────────────────────
 torch         yes     torch 2.13.0
 photographs   no      not installed


What is not here, and what would enable it:

coreml convert, build: no, coremltools is not installed
    pip install 'edgevit[coreml]'
coreml run, profile: elsewhere, Core ML runs on macOS only
    a device with macOS
photographs: not installed
    pip install 'edgevit[photos]'
"""


def test_the_matrix_as_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    cli.show(FOUND, really=False)
    assert capsys.readouterr().out.strip() == PRINTED.strip()


@pytest.mark.onnx
def test_it_fits_a_terminal_and_imports_no_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "edgevit.cli", "doctor", "-t", "onnx"]
    terminal = os.environ | {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": "80"}
    process = subprocess.run(command, capture_output=True, text=True, env=terminal, timeout=seconds(300), check=False)
    assert process.returncode == 0, process.stderr
    assert max(map(len, process.stdout.splitlines())) <= 80
    assert re.search(r"^ onnx +yes +yes +yes +yes +onnx 1", process.stdout, re.MULTILINE)
    assert re.search(r"^ {40,}\S*.*onnxruntime 1", process.stdout, re.MULTILINE), "no room in the line above"
    imported = {
        line.rsplit("|", 1)[-1].strip() for line in process.stderr.splitlines() if line.startswith("import time:")
    }
    assert "edgevit.doctor.smoke_test" in imported and not imported & {"torch", "onnx", "onnxruntime"}


def test_a_typo_is_refused() -> None:
    assert "did you mean onnx" in command_line.refused(2, "doctor", "-t", "onx")


def test_a_database_that_cannot_be_opened_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together: set[str] = set()

    def imported(names: list[str], converters: set[str]) -> dict[str, Import]:
        together.update(converters)
        return {name: Import("1.0", output="2") for name in names}

    monkeypatch.setattr("edgevit.doctor.try_imports", imported)
    (tmp_path / "text.db").write_text("not a database, but long enough to be read as one" * 40)
    diagnosis = examine(["onnx"], str(tmp_path / "text.db"))
    check = diagnosis.checks[-1]
    assert (check.component, check.works) == ("latency database", False)
    assert "no SQLite database" in check.detail and "--db" in check.fix
    assert [other.works for other in diagnosis.checks[:-1]] == [True] * 4
    assert together == {"torch", "safetensors", "onnx", "onnxscript", "onnxsim"}, "and not its engine"
