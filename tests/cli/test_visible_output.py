"""Tests that no row, manifest, label, device or engine steers the terminal that edgevit prints on. JSON stays exact."""

from __future__ import annotations

import ast
import dataclasses
import json
import logging
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from conftest import new_database
from edgevit.cli import common, logs, main
from edgevit.errors import ArtifactError
from edgevit.records.choice_views import _table
from edgevit.store import LatencyDB
from support.exported import tiny_copy
from support.measured import failed, measured

ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp\u2066\r\nerror: forged\u2028x\udc80"
CLI = Path(common.__file__).parent


def invisible(text: str) -> set[str]:
    """Return the characters of a printed text that a terminal would act upon, line ends aside."""
    return {letter for letter in text if unicodedata.category(letter) in {"Cc", "Cf", "Zl", "Zp", "Cs"}} - {"\n"}


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[str, str]:
    """Run `edgevit ...`; return what it printed on both streams."""
    with pytest.raises(SystemExit):
        main(list(map(str, words)))
    printed = capsys.readouterr()
    return printed.out, printed.err


@pytest.fixture
def hostile_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database whose rows have escapes in each text that is shown."""
    monkeypatch.setattr("edgevit.store.jsonl.shipped_files", list)
    url, text = new_database("sqlite", tmp_path, empty=False), ESCAPES.replace("\udc80", "")
    with LatencyDB.open(url, shipped=False) as db:
        db.add(measured(model=f"net{text}", engine_version=f"1{text}"))
        db.add(failed(model=f"other{text}", error=f"the engine said {text}"))
    return url


def test_rows_cannot_steer_the_terminal(hostile_rows: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ("db", "show"),
        ("db", "stats"),
        ("db", "sql", "SELECT * FROM model"),
        ("choose", "--device", "local", "--max-latency-ms", "1000", "--why"),
        ("report", "--out", Path(hostile_rows).with_suffix(".html")),
    ):
        out, error = run(capsys, *words, "--db", hostile_rows)
        assert not invisible(out + error), words
        assert not any(line.startswith("error: forged") for line in (out + error).splitlines()), words
    assert r"net\x1b[2J" in run(capsys, "db", "show", "--db", hostile_rows)[0].replace("\n", "")
    page = Path(hostile_rows).with_suffix(".html").read_text(encoding="utf-8")
    assert r"net\\x1b[2J" in page and r"\u202e" not in page.replace(r"\\u202e", "")


def test_json_has_the_very_characters_of_a_row(hostile_rows: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "db", "show", "--json", "--db", hostile_rows)
    models = {row["model"] for row in json.loads(out)["measurements"]}
    assert f"net{ESCAPES.replace(chr(0xDC80), '')}" in models


def test_a_manifest_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = tiny_copy(tmp_path / "net\x1b[2J\n", "onnx")
    out, error = run(capsys, "verify", artifact.folder / "missing\x1b[2J\rx")
    assert not invisible(out + error) and r"missing\x1b[2J\rx" in error
    (artifact.folder / "added\x1b[2J\n  fix: run this").touch()
    out, error = run(capsys, "verify", artifact.folder)
    assert not invisible(out + error) and r"added\x1b[2J\n  fix: run this was added" in error


def test_every_way_to_print_shows_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    error = ArtifactError(ESCAPES, where=ESCAPES, why=ESCAPES, fix=ESCAPES)
    common.say(ESCAPES)
    common.say_wrapped(f"{ESCAPES} " * 30)
    common.warn(ESCAPES)
    common.print_table((ESCAPES, f">{ESCAPES}"), [(ESCAPES, None)], title=ESCAPES)
    common.print_table(("a",), [("b",)], below=[ESCAPES])
    common.report_error(error, as_json=False, verbose=True)
    with common.progress(quiet=False) as bars:
        task = bars.add_task(ESCAPES)
        description: Any = bars.columns[0]
        assert not invisible(str(description.render(bars.tasks[task])))
    printed = capsys.readouterr()
    assert not invisible(printed.out + printed.err)
    assert printed.err.count("\nerror: ") == 1


def test_the_log_shows_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    # pytest keeps the record and sends it to another process, which takes no half of a surrogate pair.
    escapes = ESCAPES.encode("utf-8", "ignore").decode()
    logs.set_verbosity(2)
    try:
        try:
            raise ValueError(escapes)
        except ValueError:
            logging.getLogger("edgevit.tests").warning("%s", escapes, exc_info=True)
    finally:
        logs.set_verbosity(0)
    error = capsys.readouterr().err
    assert not invisible(error) and r"edgevit.tests: \x1b[2J" in error and "Traceback" in error


def test_a_cell_is_neither_markup_nor_an_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    common.print_table(("a",), [("net.py:b:",), ("[red]x[/red]",)])
    out = capsys.readouterr().out
    assert "net.py:b:" in out and "[red]x[/red]" in out


def test_tables_of_notebooks_show_escapes() -> None:
    text = _table(f"<b>{ESCAPES}", [ESCAPES], [[f"<script>{ESCAPES}"]])
    assert not invisible(text) and "<script>" not in text and "<b>" not in text


def test_verbs_print_through_one_file() -> None:
    for file in sorted(CLI.glob("*.py")):
        calls = [node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        names = {call.id for call in calls if isinstance(call, ast.Name)}
        writes = [ast.unparse(call) for call in calls if isinstance(call, ast.Attribute) and call.attr == "write"]
        assert file.name == "common.py" or ("print" not in names and not writes), file.name


def test_texts_of_records_have_the_fields_that_are_shown() -> None:
    """The rows above set fields by name, which must exist."""
    names: Any = {field.name for field in dataclasses.fields(measured())}
    assert {"model", "engine_version", "error"} <= names
