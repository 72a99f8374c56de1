"""The evaluations of a report: the accuracy of each class and the confusion matrix, with what they rest on."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from edgevit.records.identity import identify_confusion
from edgevit.records.measurement import CLASS_ORDER, NO_CLASS
from edgevit.reporting import ReportOptions, collect
from edgevit.reporting.evaluations import evaluation_parts
from edgevit.reporting.renderer import as_block
from edgevit.store import LatencyDB
from support.measured import measured, rated

SHA = "a" * 64
FACTS = {
    "provenance": "measured", "artifact_sha256": SHA, "target": "onnx", "precision": "fp32", "error": 1.0, "untold": (),
    "examples": 9, "dataset": "digits",
}  # fmt: skip
COUNTS = {(0, 0): 3, (0, 1): 1, (0, NO_CLASS): 1, (1, 1): 2, (1, 0): 2}


def test_a_page_has_each_class_and_the_matrix_of_the_newest_evaluation(tmp_path: Path) -> None:
    older, newer = (
        rated(value, **FACTS, started=f"2026-11-2{day}T10:00:00+00:00", assumed=assumed)
        for value, day, assumed in ((10.0, 1, ()), (55.5, 2, ("mean", CLASS_ORDER)))
    )
    with LatencyDB.open(str(tmp_path / "a.db"), shipped=False) as database:
        database.add(measured(artifact_sha256=SHA))
        for accuracy in (newer, older):
            database.add_evaluation([accuracy], identify_confusion(accuracy.accuracy_id, ("cat", "dog"), COUNTS))
        report = collect(database, {}, ReportOptions(), now=datetime(2026, 12, 1, tzinfo=UTC))
    [model] = report.models
    [part] = model.evaluations
    assert (part.percent, part.assumed) == (55.5, "assumed preprocessing (mean) and class order")
    assert part.matrix == ((3, 1), (2, 2)) and part.labels == ("cat", "dog")
    assert [(one.label, one.right, one.images, one.taken_for, one.taken) for one in part.classes] == [
        ("dog", 2, 4, "cat", 2), ("cat", 3, 5, "dog", 1),
    ]  # fmt: skip
    assert json.loads(as_block(report))["models"][0]["evaluations"][0]["matrix"] == [[3, 1], [2, 2]]


def test_a_thousand_classes_are_listed_worst_first_without_a_matrix() -> None:
    accuracy = rated(50.0, **FACTS, started="2026-11-21T10:00:00+00:00")
    counts = {(number, number if number % 2 else 0): 1 + number for number in range(1000)}
    confusion = identify_confusion(accuracy.accuracy_id, tuple(map(str, range(1000))), counts)
    ((part,),) = evaluation_parts([accuracy], [confusion]).values()
    assert part.matrix == () and part.labels == () and len(part.classes) == 100
    assert all(one.right == 0 and one.taken_for == "0" for one in part.classes)
