"""`make system`: it names or installs all system packages that the tests need, once, before the first test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.system import describe_missing

SCRIPT = Path(__file__).parents[2] / ".ci" / "system-packages"
PHONE = {"adb", "mksh", "toybox"}


def run(folder: Path, programs: Mapping[str, str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script with only these programs on the path. Each program is given as its shell code."""
    for name, code in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{code}\n")
        (folder / name).chmod(0o755)
    environment = {"PATH": str(folder), "HOME": os.environ.get("HOME", "/"), **variables}
    bash = shutil.which("bash") or "/bin/bash"
    return subprocess.run([bash, SCRIPT], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("false", 0), ("true", 1)])
def test_without_rights_everything_missing_is_named_once_with_one_command(ci: str, code: int, tmp_path: Path) -> None:
    outcome = run(tmp_path, {"id": "echo 1000"}, CI=ci)
    assert outcome.returncode == code
    (line,) = outcome.stderr.splitlines()
    names, command = line.removeprefix("missing: ").split("; ")
    assert set(names.split()) >= {"make", "python3-venv", "openssh-client", "chromium", *PHONE}
    assert command.endswith(f"To install: sudo apt-get install {names}")


def test_root_installs_what_is_missing_and_nothing_else(tmp_path: Path) -> None:
    programs = dict.fromkeys(("make", "python3", "ssh", "ssh-keygen", "sshd", "initdb", "chromium"), "exit 0")
    log = tmp_path / "log"
    outcome = run(tmp_path, {**programs, "id": "echo 0", "apt-get": f'echo "$@" >>{log}'}, CI="true")
    assert (outcome.returncode, outcome.stderr) == (0, "installing adb mksh toybox\n")
    assert log.read_text().splitlines() == [
        "update -qq",
        "install -y -qq --no-install-recommends adb mksh toybox",
    ]


def test_an_installation_that_fails_ends_as_without_rights(tmp_path: Path) -> None:
    programs = {"id": "echo 0", "apt-get": "exit 100"}
    assert run(tmp_path, programs, CI="true").returncode == 1
    outcome = run(tmp_path, programs)
    assert outcome.returncode == 0 and "missing: make python3-venv" in outcome.stderr


def test_where_all_is_there_nothing_is_said(tmp_path: Path) -> None:
    names = ("make", "python3", "ssh", "ssh-keygen", "sshd", "initdb", "chromium", *PHONE)
    outcome = run(tmp_path, dict.fromkeys(names, "exit 0"), CI="true")
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")


def test_a_test_names_the_missing_programs_and_what_installs_them() -> None:
    assert describe_missing("sh") == ""
    assert describe_missing("sh", "no-such-program") == "no no-such-program on this machine: make system"
