"""A row can never crash choose: any text in any field of any record, through import, choose, report and db show.

No output for people holds a character that steers a terminal, and no page holds an element that a text brought.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgevit.cli import main
from edgevit.store import LatencyDB
from edgevit.visible_text import visible
from support.hostile_text import BASES, CARD, foreign_cards, foreign_records, line_data, variants

DEVICE = "pi-0001"
TEXTS = st.one_of(
    st.text(st.characters(), min_size=1, max_size=40),  # surrogates and controls among them
    st.text(st.sampled_from("\x1b\x9b\x07\r\n\0[2J<>&'\"\u202e\u2028\ud800{}%=,;/ "), min_size=1, max_size=30),
    st.integers(1, 100_000).map(lambda length: "x" * length),
)
MARKUP = "<img src=x onerror=alert(1)></script><script>alert(2)</script><!--"
EXIT_CODES = {0, 2, 3, 7}


class Elements(HTMLParser):
    """Counts the elements of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[f"{tag} {' '.join(sorted(name for name, _ in attrs))}"] += 1


def elements(page: Path) -> Counter[str]:
    parser = Elements()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser.counts


def run(*words: str) -> tuple[int, str]:
    """Run a command in this process. Only SystemExit may end it; return its exit code and all that it printed."""
    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main(list(words))
        except SystemExit as end:
            code = int(end.code or 0)
    assert code in EXIT_CODES, (words, code, out.getvalue()[-2000:])
    return code, out.getvalue()


def check_text(text: str) -> None:
    """Check that a text for people can be written, and steers no terminal."""
    text.encode("utf-8")
    assert visible(text, keep="\n") == text


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """The elements of a page about harmless rows."""
    folder = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgevit.store.jsonl.shipped_files", list)
        import_all(folder, "harmless")
        run("db", "trust", str(folder / "rows.jsonl"), "--db", str(folder / "x.db"))
        run("report", "-o", str(folder / "r.html"), "--measured-only", "--db", str(folder / "x.db"))
    return elements(folder / "r.html")


def import_all(folder: Path, text: str) -> set[str]:
    """Import each record with this text in each of its fields, and return the ids of the rows that were taken."""
    with (folder / "rows.jsonl").open("w", encoding="ascii") as file:
        for _, record in foreign_records(text):
            file.write(json.dumps(line_data(record)) + "\n")
    with LatencyDB.open(str(folder / "x.db"), shipped=False) as db:
        db.import_file(folder / "rows.jsonl")
        return {row.measurement_id for row in db.measurements()}


def test_the_fields_are_those_of_the_records() -> None:
    """Of records within records too: a text in any of them is tried."""
    paths = {name: {path for path, _ in variants(base, "x")} for name, base in BASES.items()}
    assert {"model", "flags[0]", "host.machine", "host.silicon.vendor", "network.file", "inputs[0].name"} <= (
        paths["measurement"]
    )
    assert {"preprocessing.interpolation", "assumed[0]"} <= paths["accuracy"]
    assert paths["noise floor"] == {"device_id", "device", "workload", "started"}
    assert "operators[0].kind" in paths["graph"]
    assert {"latencies[0].device", "preprocessing.colour"} <= {path for path, _ in variants(CARD, "x")}


@pytest.mark.parametrize("text", ["\x1b[2J\x1b]0;title\x07", MARKUP])
def test_most_texts_enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """What is tried below is not refused as a whole."""
    monkeypatch.setattr("edgevit.store.jsonl.shipped_files", list)
    assert len(import_all(tmp_path, text)) > 20


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS)
@example("\x1b[2J\x1b]0;title\x07\x9b1m\u202e")
@example(MARKUP)
@example("\ud800")
@example("nan")
def test_no_text_crashes_an_answer_or_steers_a_screen(
    monkeypatch: pytest.MonkeyPatch, plain: Counter[str], text: str
) -> None:
    monkeypatch.setattr("edgevit.store.jsonl.shipped_files", list)
    monkeypatch.setattr("edgevit.selection.api.load_cards", lambda: foreign_cards(text))
    monkeypatch.setattr("edgevit.verbs.report.load_cards", lambda: foreign_cards(text))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ids = import_all(folder, text)
        db = ("--db", str(folder / "x.db"))
        ask = ("choose", "--device", DEVICE, "--max-latency", "1s", "--origin", "any", "--published", *db)
        first = min(ids)
        for words in (ask, (*ask, "--why"), ("db", "show", *db), ("db", "show", first, *db), ("db", "sources", *db),
                      ("db", "stats", *db), ("db", "quarantine", *db)):  # fmt: skip
            check_text(run(*words)[1])
        for asked in (ask, ("db", "show", *db), ("db", "show", first, *db)):
            answer = run(*asked, "--json")[1]
            assert json.loads(answer) and "\x1b" not in answer
        check_text(run("db", "trust", str(folder / "rows.jsonl"), *db)[1])
        check_text(run("report", "-o", str(folder / "r.html"), "--measured-only", "--published", *db)[1])
        assert elements(folder / "r.html") == plain
        assert visible((page := (folder / "r.html").read_text(encoding="utf-8")), keep="\n") == page
