"""The evaluations of a report: the accuracy of each class and the confusion matrix, with what they rest on."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from edgevit.records.identity import identify_confusion
from edgevit.records.measurement import CLASS_ORDER, NO_CLASS
from edgevit.reporting import Report, ReportOptions, collect, write
from edgevit.reporting.evaluations import evaluation_parts
from edgevit.reporting.renderer import as_block
from edgevit.store import LatencyDB
from support import browser
from support.measured import measured, rated

SHA = "a" * 64
FACTS = {
    "provenance": "measured", "artifact_sha256": SHA, "target": "onnx", "precision": "fp32", "error": 1.0, "untold": (),
    "examples": 9, "dataset": "digits",
}  # fmt: skip
COUNTS = {(0, 0): 3, (0, 1): 1, (0, NO_CLASS): 1, (1, 1): 2, (1, 0): 2}


def report_of(folder: Path) -> Report:
    """Return the report of a row whose artifact was evaluated twice, the second time with assumptions."""
    older, newer = (
        rated(value, **FACTS, started=f"2026-11-2{day}T10:00:00+00:00", assumed=assumed)
        for value, day, assumed in ((10.0, 1, ()), (55.5, 2, ("mean", CLASS_ORDER)))
    )
    with LatencyDB.open(str(folder / "a.db"), shipped=False) as database:
        database.add(measured(artifact_sha256=SHA))
        for accuracy in (newer, older):
            database.add_evaluation([accuracy], identify_confusion(accuracy.accuracy_id, ("cat", "dog"), COUNTS))
        return collect(database, {}, ReportOptions(dataset="digits"), now=datetime(2026, 12, 1, tzinfo=UTC))


def test_a_page_has_each_class_and_the_matrix_of_the_newest_evaluation(tmp_path: Path) -> None:
    report = report_of(tmp_path)
    [model] = report.models
    [part] = model.evaluations
    assert (part.percent, part.assumed) == (55.5, "assumed preprocessing (mean) and class order")
    assert part.matrix == ((3, 1), (2, 2)) and part.labels == ("cat", "dog")
    assert [(one.label, one.right, one.images, one.taken_for, one.taken) for one in part.classes] == [
        ("dog", 2, 4, "cat", 2), ("cat", 3, 5, "dog", 1),
    ]  # fmt: skip
    assert json.loads(as_block(report))["models"][0]["evaluations"][0]["matrix"] == [[3, 1], [2, 2]]


def test_the_page_shows_classes_and_matrix_and_marks_the_number(tmp_path: Path) -> None:
    # An accuracy that rests on nothing assumed comes first, so the older one is the candidate's here.
    report = report_of(tmp_path)
    assert [entry.top1_assumed for entry in report.entries] == [()]
    marked = replace(report, entries=tuple(replace(entry, top1_assumed=("mean",)) for entry in report.entries))
    write(marked, tmp_path / "report.html")
    with browser.launched() as chromium:
        page = chromium.open(tmp_path / "report.html")
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        text = page.locator("#model-parts").inner_text()
        table = page.locator("#table").inner_text()
    assert "onnx fp32 on digits, top-1 55.50 ± 1.00% of 9 images, measured 2026-11-22" in text
    assert "it rests on assumed preprocessing (mean) and class order" in text
    cells = " ".join(text.split())
    assert "dog 50.0 4 cat 2 cat 60.0 5 dog 1" in cells and "images of cat dog cat 3 1 dog 2 2" in cells.lower()
    assert "accuracy assumed" in table


def test_a_thousand_classes_are_listed_worst_first_without_a_matrix() -> None:
    accuracy = rated(50.0, **FACTS, started="2026-11-21T10:00:00+00:00")
    counts = {(number, number if number % 2 else 0): 1 + number for number in range(1000)}
    confusion = identify_confusion(accuracy.accuracy_id, tuple(map(str, range(1000))), counts)
    ((part,),) = evaluation_parts([accuracy], [confusion]).values()
    assert part.matrix == () and part.labels == () and len(part.classes) == 100
    assert all(one.right == 0 and one.taken_for == "0" for one in part.classes)
