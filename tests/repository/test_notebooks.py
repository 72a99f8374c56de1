"""Stored outputs of the notebooks: each notebook runs in its own kernel and an empty folder, and prints them again."""

from __future__ import annotations

import copy
import math
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from support.speed import seconds

FOLDER = Path(__file__).parents[2] / "docs/notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NUMBER = re.compile(r"\d+(?:\.\d+)?")
# Numbers may differ by this share: another processor adds in another order, and predictions follow.
SHARE = 0.02
CELL_S = 120


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a notebook runs in, beside Jupyter's files. PATH has the `edgevit` of this Python."""
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter" / name.lower()))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for name in ("jupyter", "folder"):
        (tmp_path / name).mkdir()
    return tmp_path / "folder"


def run(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Run a notebook and return it with its new outputs."""
    ran = copy.deepcopy(notebook)
    NotebookClient(
        ran, timeout=round(seconds(CELL_S)), kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    for cell in ran.cells:
        # The times of the run.
        cell.metadata.pop("execution", None)
    return ran


def texts(cell: nbformat.NotebookNode) -> list[str]:
    """Return the texts that a cell shows: its printed lines, and the value of its last one."""
    shown = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.get("outputs", [])]
    # The text of a picture begins with "<IPython".
    return [text for text in shown if not text.startswith("<IPython")]


def alike(one: str, other: str) -> bool:
    """Return whether two texts differ only in widths of columns and a little in their numbers."""
    plain = [re.sub(r"\s+", " ", NUMBER.sub("#", text)).strip() for text in (one, other)]
    numbers = zip(NUMBER.findall(one), NUMBER.findall(other), strict=False)
    return plain[0] == plain[1] and all(math.isclose(float(a), float(b), rel_tol=SHARE) for a, b in numbers)


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.name for path in NOTEBOOKS])
def test_a_notebook_prints_what_is_stored_in_it(path: Path, home: Path, pytestconfig: pytest.Config) -> None:
    stored = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    ran = run(stored, home)
    if pytestconfig.getoption("--update-goldens"):
        nbformat.write(ran, path)  # type: ignore[no-untyped-call]
        return
    for before, now in zip(stored.cells, ran.cells, strict=True):
        stored_texts, new_texts = texts(before), texts(now)
        same = len(stored_texts) == len(new_texts) and all(map(alike, stored_texts, new_texts))
        assert same, f"{before.source}\n--- stored:\n{stored_texts}\n--- now:\n{new_texts}"
    assert any(texts(cell) for cell in stored.cells), "nothing is stored: --update-goldens"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.name for path in NOTEBOOKS])
def test_a_stored_notebook_is_whole(path: Path) -> None:
    """It was run from top to bottom, has no error, and is small enough to look at."""
    stored = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(stored)
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    assert path.stat().st_size < 300_000


@pytest.mark.parametrize(
    ("other", "same"), [("p90  16.4 ms", True), ("p90 17 ms", False), ("p90 16.2", False), ("p99 16.2 ms", False)]
)
def test_another_output_is_noticed(other: str, same: bool) -> None:
    assert alike("p90 16.2 ms", other) is same
