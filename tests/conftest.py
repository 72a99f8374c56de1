"""Rules for every test: the user's own data is not touched, cores are shared out, and a skip fails under CI."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Generator, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from support import command_line, warm_python
from support.heap import former_files_stay, imports_stay

if TYPE_CHECKING:
    from support.digits import Digits

__all__ = ["former_files_stay", "imports_stay"]

# A skip is honest where the test cannot mean anything on this machine. A missing tool or package is no such reason.
HONEST_SKIPS = ("not Linux", "only Linux", "only x86-64", "reference data absent", "this processor lacks ",
                "no control group can be made on this machine")  # fmt: skip

# The longest come first, so that no worker is left alone with one of them at the end.
LONG_FILES = (
    "docs targets cli failing_stage engine_threads zoo damaged_files checkpoints freshness executorch cases roofline "
    "coreml_int8 evaluate doctor packaging page export litert one_judge ncnn hostile_text tensorrt bit_flips "
    "zoo_models ncnn_int8 adb importers exchange recording db_command faults notebooks int8_mistakes bit_flips_of_rows "
    "kills fmvit quantized_exports enroll library_networks ssh graph_digest mil verify"
)
FIRST = tuple(f"test_{name}.py" for name in LONG_FILES.split())

# Objects between two collections of garbage, and smaller collections between two larger ones: the usual numbers cost a
# twentieth of the time.
COLLECTED_EACH = (20_000, 20, 100)

# Instruction sets that OpenVINO and its oneDNN may use: AVX2, for example.
WEAKER_PROCESSOR = ("OV_CPU_MAX_ISA", "ONEDNN_MAX_CPU_ISA")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
_HOME = Path(tempfile.mkdtemp(prefix="edgevit-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="write what tests find over tests/golden")


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment before any test module is imported. Every process that a test starts inherits it."""
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        # platformdirs reads these on Linux and macOS.
        os.environ[name] = str(_HOME / name.lower())
    os.environ["EDGEVIT_DB"] = str(_HOME / "session.db")
    os.environ["NO_COLOR"] = "1"
    # A pytest that a test starts uses the warm programs of the outer run.
    if sys.platform == "linux" and command_line.WARM not in os.environ:
        start_warm_python()
    # Workers that each take all cores wait for each other. torch reads this once, when it is imported.
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    for pool in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[pool] = threads
    # Threads that wait leave their core to the other worker. Measured processes do not see this.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def start_warm_python() -> None:
    """Write the programs that fork commands and workers from processes which have imported their engines."""
    folder, root = _HOME / "warm", Path(__file__).parents[1]
    files = [*(root / "export_recipes").iterdir(), *(root / "edgevit" / "verification").iterdir()]
    targets = tuple(sorted({file.stem for file in files if not file.name.startswith("_")}))
    warm_python.Run(str(folder), os.getpid(), sys.executable, targets).write_scripts()
    os.environ[command_line.WARM] = str(folder)


@pytest.fixture(autouse=True, scope="session")
def warm_workers() -> Iterator[None]:
    """Workers that compute are forked as well. Timed workers and those of made-up engines are new Pythons."""
    from edgevit.devices import transports
    from edgevit.devices.transports import local

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "sys", SimpleNamespace(executable=str(command_line.programs() / "python")))
        # By these a whole run tries a weaker processor; a measured process sees no other variable of its caller.
        patch.setattr(local, "INHERITED", (*transports.INHERITED, *WEAKER_PROCESSOR))
        yield


@pytest.fixture(autouse=True, scope="session")
def one_registry() -> None:
    """torch's exporter to ONNX keeps its registry between exports, if some test has imported torch."""
    if "torch" in sys.modules and find_spec("onnxscript"):
        from support.exporters import share_registry

        share_registry()


@pytest.fixture(autouse=True, scope="session")
def collected_objects_stay() -> None:
    """Collections of garbage are rare, and look only at objects of tests."""
    gc.set_threshold(*COLLECTED_EACH)
    gc.collect()
    gc.freeze()


@pytest.fixture
def fresh_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are new Pythons, for tests of a worker that starts from nothing."""
    from edgevit.devices.transports import local

    monkeypatch.setattr(local, "sys", sys)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests without collections of garbage, which take a tenth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first."""
    items.sort(key=lambda test: FIRST.index(test.path.name) if test.path.name in FIRST else len(FIRST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep a file with one worker."""
    from support.scheduling import ByFile

    return ByFile(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def own_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a database of its own, which does not exist until the test opens it."""
    monkeypatch.setenv("EDGEVIT_DB", str(_HOME / f"{uuid.uuid4().hex}.db"))


@pytest.fixture(scope="session")
def trained_digits() -> Digits:
    """Two small networks trained on real digits, and the images that they are tested on."""
    from support import digits

    folder = _HOME / "digits"
    folder.mkdir(exist_ok=True)
    return digits.trained(folder)


DATABASES = ("sqlite", "postgresql")


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database with nothing in its tables: an SQLite file, or one on a PostgreSQL server of our own."""
    return new_database(request.param, tmp_path, empty=False)


@pytest.fixture(params=DATABASES)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database without tables."""
    return new_database(request.param, tmp_path)


def new_database(kind: str, folder: Path, *, empty: bool = True) -> str:
    """Create a database of this kind, with tables or without. Without PostgreSQL, skip: a failure under CI."""
    if kind == "sqlite":
        path = folder / f"{uuid.uuid4().hex}.db"
        return str(path) if empty else new_file(path)
    from support import postgres

    if postgres.programs() is None:
        pytest.skip("no PostgreSQL on this machine: make system")
    return postgres.server().database(empty=empty)


def new_file(path: Path) -> str:
    """Create an SQLite database of this name with empty tables. It is a copy, because migrating takes longer."""
    shutil.copy(_with_tables(), path)
    return str(path)


@cache
def _with_tables() -> Path:
    from edgevit.store import LatencyDB

    path = _HOME / "with_tables.db"
    LatencyDB.open(str(path), shipped=False).close()
    return path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _no_silent_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _no_silent_skip((yield))


def _no_silent_skip(report: Report) -> Report:
    """Turn a skip into a failure under CI, unless its reason is honest. An xfail is not a skip."""
    if report.outcome != "skipped" or hasattr(report, "wasxfail") or not _under_ci():
        return report
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr).removeprefix(
        "Skipped: "
    )
    if not reason.startswith(HONEST_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, which counts as a failure under CI: {reason}"
    return report


def _under_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false", "no")
