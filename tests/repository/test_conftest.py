"""Rules of conftest.py, tested on a small suite in another pytest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.scheduling import group

SUITE = """
import os
from pathlib import Path

import platformdirs
import pytest


def test_needs_a_tool():
    pytest.importorskip("a_package_that_is_not_installed")


@pytest.mark.skipif(True, reason="not Linux")
def test_of_another_system():
    pass


def test_of_another_processor():
    pytest.skip("this processor lacks bf16, which openvino bf16 is computed in")


@pytest.mark.xfail(reason="known", strict=True)
def test_known_failure():
    raise AssertionError


def test_nothing_is_the_users_own():
    data, cache = platformdirs.user_data_path("edgevit"), platformdirs.user_cache_path("edgevit")
    for place in (Path(os.environ["EDGEVIT_DB"]), data, cache):
        assert Path.home() not in place.parents


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_its_own_database(turn, seen=[]):
    assert os.environ["EDGEVIT_DB"] not in seen
    seen.append(os.environ["EDGEVIT_DB"])
"""
MODULE_SKIP = 'import pytest\n\npytest.importorskip("a_package_that_is_not_installed")\n'


def run(folder: Path, ci: str, *options: str) -> tuple[int, str]:
    shutil.copy(Path(__file__).parents[1] / "conftest.py", folder)
    environment = {**os.environ, "CI": ci, "HOME": str(folder), "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    outcome = subprocess.run(
        [*command, *options, "."], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return outcome.returncode, outcome.stdout


@pytest.mark.parametrize(
    ("ci", "code", "summary"),
    [
        ("", 0, "3 passed, 3 skipped"),
        ("false", 0, "3 passed, 3 skipped"),
        ("true", 1, "1 failed, 3 passed, 2 skipped"),
    ],
)
def test_under_ci_a_missing_package_is_a_failure(tmp_path: Path, ci: str, code: int, summary: str) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    exit_code, output = run(tmp_path, ci)
    assert (exit_code, summary in output) == (code, True), output
    assert ("FAILED test_suite.py::test_needs_a_tool" in output) == bool(code)


@pytest.mark.parametrize(("ci", "code"), [("", 5), ("1", 2)])
def test_a_whole_module_cannot_slip_away(tmp_path: Path, ci: str, code: int) -> None:
    (tmp_path / "test_suite.py").write_text(MODULE_SKIP)
    exit_code, output = run(tmp_path, ci)
    assert exit_code == code, output
    assert "counts as a failure" in output or not ci


WORKERS = """
import os
import time
from pathlib import Path

import pytest


@pytest.mark.parametrize("turn", range(6))
def test_says_who_runs_it(turn):
    time.sleep(0.05)
    with Path(__file__).with_suffix(".workers").open("a") as file:
        print(os.environ["PYTEST_XDIST_WORKER"], file=file)
"""


def test_a_file_stays_with_one_worker(tmp_path: Path) -> None:
    """What its fixtures and caches hold is built once then. The files themselves are spread over both workers."""
    for name in ("first", "second"):
        (tmp_path / f"test_{name}.py").write_text(WORKERS)
    exit_code, output = run(tmp_path, "", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
    assert exit_code == 0, output
    first, second = (set((tmp_path / f"test_{name}.workers").read_text().split()) for name in ("first", "second"))
    assert {len(first), len(second)} == {1} and first != second


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("tests/exporting/test_targets.py::test_raw_pixels_go_in[litert]", "test_targets.py"),
        ("tests/evaluation/test_evaluate.py::test_a[x/y::z]", "test_train_digits.py"),
    ],
)
def test_tests_that_share_something_dear_are_a_group(test: str, expected: str) -> None:
    assert group(test) == expected
