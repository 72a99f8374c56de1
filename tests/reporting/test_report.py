"""The report without a browser: the rows in it, their facts, and that a name in it stays a name."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from conftest import new_file
from edgevit.cli import main
from edgevit.errors import StoreError, TargetUnavailableError, UsageError
from edgevit.records.artifact import Parity, ParityCheck
from edgevit.records.choice import Budget
from edgevit.records.measurement import Measurement
from edgevit.records.model import ModelCard
from edgevit.reporting import Report, ReportOptions, collect, render, write
from edgevit.reporting.page_records import PERCENTILES, Entry
from edgevit.reporting.renderer import SCRIPTS, as_block
from edgevit.selection import PredictionOptions, ask
from edgevit.store import LatencyDB
from support.graders import artifact as made_artifact
from support.measured import SAMPLES, card, failed, floor, measured, published, rated

NOW = datetime(2026, 12, 1, tzinfo=UTC)
CARDS = {"net_s": card("net_s", 75.0, params=4_000_000, folded_params=3_000_000), "net_l": card("net_l", 80.0)}
HOSTILE = "</script><script>document.title='x'</script><!--"


def report_of(
    folder: Path,
    *rows: Measurement,
    cards: dict[str, ModelCard] = CARDS,
    command: str = "edgevit report",
    **options: Any,
) -> Report:
    with LatencyDB.open(new_file(folder / "rows.db"), shipped=False) as database:
        for row in rows:
            database.add(row)
        return collect(database, cards, ReportOptions(**options), command=command, now=NOW)


def slower(factor: float) -> list[list[int]]:
    return [[round(value * factor) for value in process] for process in SAMPLES]


# Which rows, and what of them


def test_an_entry_has_the_facts_of_its_row(tmp_path: Path) -> None:
    report = report_of(tmp_path, row := measured())
    [entry], [device], [model] = report.entries, report.devices, report.models
    assert (entry.model, entry.device, entry.top1_percent, entry.grade, entry.runs) == ("net_s", 0, 75.0, "A", 6)
    assert (entry.p50.ms, entry.p50.low_ms, entry.p50.upper_ms) == (5.11, 5.1, 5.12) == tuple(
        ns / 1e6 for ns in (row.p50_ns, row.p50_low_ns, row.p50_high_ns) if ns)  # fmt: skip
    assert (entry.p90.ms, entry.p90.upper_ms, entry.p90.held_ms) == (6.0, 6.0, 6.0)
    assert (entry.age_days, entry.epoch, entry.provenance) == (9, 0, "measured")
    assert (device.label, device.usable, device.grades) == ("pi5", 1, {"A": 1})
    assert device.hosts == ("Cortex-A76, 4 cores, 7 GiB, Linux 6.6.1",)
    assert device.unmeasured == ("net_l",)
    assert (device.predicted, [many for _, many in device.unpredicted]) == (0, [1])
    assert (model.name, model.params, model.folded_params) == ("net_s", 4_000_000, 3_000_000)
    assert [(proof.target, proof.status, proof.rows) for proof in model.proofs] == [("onnx", "passed", 1)]


def test_what_cannot_be_chosen_is_there_with_the_reason_and_what_is_superseded_is_counted(tmp_path: Path) -> None:
    old, new = measured(started="2026-11-01T00:00:00+00:00", nonce="1"), measured(nonce="2")
    report = report_of(tmp_path, old, new, failed(model="net_l"), measured(rate_hz=30.0, nonce="3", missed=0))
    [usable, crashed] = report.entries
    assert (usable.measurement_id, usable.usable) == (new.measurement_id, True)
    assert (crashed.usable, crashed.reason, crashed.p90.ms) == (False, "cannot run here: crashed: SIGSEGV", None)
    [device] = report.devices
    assert (device.usable, device.unusable, device.superseded, device.not_asked) == (1, 1, 1, 1)


def test_published_rows_are_counted_and_come_when_they_are_asked_for(tmp_path: Path) -> None:
    rows = measured(), published(model="net_l", p90_ns=2_000_000, nonce="9")
    [without], [device] = (report := report_of(tmp_path, *rows)).entries, report.devices
    assert (without.model, device.published_left_out, device.not_asked) == ("net_s", 1, 0)
    entries = report_of(tmp_path, *rows, published=True).entries
    theirs = next(entry for entry in entries if entry.provenance == "published")
    assert (theirs.p90.ms, theirs.p90.upper_ms, theirs.p90.held_ms, theirs.p99.held_ms) == (2.0, None, 2.0, None)
    assert (theirs.source, theirs.licence) == ("arXiv:2206.04040", "CC-BY-4.0")


def test_a_point_is_as_weak_as_the_weaker_of_its_numbers(tmp_path: Path) -> None:
    cards = {"net_s": card("net_s", 75.0, provenance="reconstructed")}
    [entry] = report_of(tmp_path, measured(), cards=cards).entries
    assert (entry.latency_provenance, entry.top1_provenance, entry.provenance) == (
        "measured", "reconstructed", "reconstructed")  # fmt: skip


FAST = {f"net_{number}": 2.0**number for number in range(6)}
ZOO = {name: card(name, 60.0 + number, family="net") for number, name in enumerate(FAST)}


def columns_of(*devices: tuple[str, float, int]) -> list[Measurement]:
    """Return rows of the first so many models on each device, at its speed."""
    return [
        measured(slower(factor * FAST[name]), model=name, device=device, device_id=f"{device}-1", nonce=name + device)
        for device, factor, many in devices
        for name in list(FAST)[:many]
    ]


def filled_with(path: Path, rows: Iterable[Measurement]) -> LatencyDB:
    database = LatencyDB.open(new_file(path), shipped=False)
    for row in rows:
        database.add(row)
    return database


def test_what_no_row_tells_is_predicted_as_the_chooser_predicts_it(tmp_path: Path) -> None:
    with filled_with(tmp_path / "r.db", columns_of(("pi4", 3, 6), ("pi5", 1, 4))) as database:
        announced: list[tuple[str, int]] = []
        options = ReportOptions(confidence=0.8)
        report = collect(database, ZOO, options, now=NOW, on_device=lambda *device: announced.append(device))
        assert announced == [("pi4", 2), ("pi5", 2)]
        [pi4, pi5], entries = report.devices, [entry for entry in report.entries if entry.device == 1]
        assert (pi4.label, pi4.predicted, pi5.usable, pi5.predicted, report.predicted_confidence) == (
            "pi4", 0, 4, 2, 0.8)  # fmt: skip
        for percentile in PERCENTILES:
            budget = Budget(percentile=percentile)
            choice = ask(database, "pi5", budget, cards=ZOO, prediction=PredictionOptions(confidence=0.8))
            expected = {c.measurement_id: (c.latency_ms, c.latency_upper_ms, c.basis) for c in choice.fitting}
            shown = {entry.measurement_id: getattr(entry, f"p{percentile}") for entry in entries}
            assert {name: (one.ms, one.held_ms, one.basis) for name, one in shown.items()} == expected
    guess = next(entry for entry in entries if entry.provenance == "predicted")
    assert guess.p90.basis and (guess.p90.basis.level, guess.p90.basis.anchors) == ("transfer", 4)
    low_ms, held_ms, high_ms = guess.p90.low_ms, guess.p90.held_ms, guess.p90.high_ms
    assert low_ms and held_ms and high_ms
    assert guess.p90.basis.lower_ms == low_ms < held_ms <= high_ms
    assert (guess.family, guess.engine, guess.measured, guess.age_days, guess.epoch, guess.runs, guess.grade) == (
        "net", "onnxruntime", "", None, None, 0, "")  # fmt: skip
    assert {model.name: [proof.rows for proof in model.proofs] for model in report.models}["net_5"] == [1]


def test_without_predictions_there_are_none_and_of_a_confidence_that_is_none_it_complains(tmp_path: Path) -> None:
    with filled_with(tmp_path / "r.db", columns_of(("pi4", 3, 6), ("pi5", 1, 4))) as database:
        report = collect(database, ZOO, ReportOptions(predict=False), now=NOW)
        assert {entry.provenance for entry in report.entries} == {"measured"} and report.predicted_confidence is None
        assert [(part.predicted, part.unpredicted) for part in report.devices] == [(0, ()), (0, ())]
        with pytest.raises(UsageError, match="the confidence is 1"):
            collect(database, ZOO, ReportOptions(confidence=1))


def test_rows_from_before_the_device_changed_are_superseded_as_the_chooser_has_it(tmp_path: Path) -> None:
    """The last rows of net_s open an epoch; those of net_l are older, and predict nothing either."""
    days = [measured(slower(factor), started=f"2026-11-0{day}T00:00:00+00:00", nonce=str(day))
            for day, factor in ((1, 1), (2, 1), (3, 2))]  # fmt: skip
    old = measured(model="net_l", started="2026-11-01T00:00:00+00:00", nonce="l", artifact_sha256="b" * 64)
    with filled_with(tmp_path / "r.db", [*days, old]) as database:
        choice = ask(database, "pi5", Budget(), cards=CARDS)
        [entry], [device] = (report := collect(database, CARDS, now=NOW)).entries, report.devices
    assert [candidate.measurement_id for candidate in choice.fitting] == [entry.measurement_id]
    assert (entry.model, device.superseded) == ("net_s", 3)


def test_of_a_date_that_nobody_tells_no_age_is_made(tmp_path: Path) -> None:
    [entry] = report_of(
        tmp_path, published(untold=("host", "p90_ns", "p99_ns", "samples", "started")), published=True
    ).entries
    assert (entry.measured, entry.age_days, entry.epoch) == ("", None, None)


def test_units_of_one_name_get_a_part_of_their_id_and_local_becomes_the_class(tmp_path: Path) -> None:
    rows = (measured(device_id="one-0001"), measured(device_id="two-0002"), measured(device="local", device_id="three"))
    labels = [device.label for device in report_of(tmp_path, *rows).devices]
    assert labels == ["pi5 (one-0001)", "pi5 (two-0002)", "raspberry-pi-5"]
    only = report_of(tmp_path, *rows, devices=["one-0001"])
    assert [device.label for device in only.devices] == ["pi5"]


def test_noise_epochs_and_measured_accuracies_are_those_of_the_database(tmp_path: Path) -> None:
    with LatencyDB.open(new_file(tmp_path / "rows.db"), shipped=False) as database:
        for day, factor in ((1, 1), (2, 1), (3, 2)):  # the last row opens an epoch, and is of it
            database.add(measured(slower(factor), started=f"2026-11-0{day}T00:00:00+00:00", nonce=str(day)))
        database.add_noise(floor(0.02))
        database.add_accuracy(rated(61.5, provenance="measured", dataset="mine", artifact_sha256="a" * 64, error=1.5,
                                    untold=(), started="2026-11-05T00:00:00+00:00", target="onnx", precision="fp32",
                                    examples=100, source="folder"))  # fmt: skip
        report = collect(database, CARDS, ReportOptions(dataset="mine"), now=NOW)
        epochs = database.epochs("pi-0001")
    [entry], [device] = report.entries, report.devices
    assert epochs and [jump.number for jump in device.epochs] == [epoch.number for epoch in epochs]
    assert entry.epoch == epochs[-1].number
    assert (device.noise_share, report.dataset) == (0.02, "mine")
    assert (entry.top1_percent, entry.top1_error_percent, entry.top1_provenance) == (61.5, 1.5, "measured")


def test_nothing_to_report_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no measurement") as caught:
        report_of(tmp_path)
    assert "edgevit sweep" in caught.value.fix and "rows.db" in caught.value.where
    with pytest.raises(UsageError, match="nothing of one's own") as refused:
        report_of(tmp_path, published())
    assert "--published" in refused.value.fix


# Evidence


CHECK = ParityCheck("payload", "trained", 2e-6, 110.0, 1.0, "max_rel <= 0.0001", True, "engine 1.0")
PARITY = Parity("passed", "engine 1.0, separate process", "4 noise", 2e-6, 110.0, 1.0, CHECK.tolerance, (CHECK,))


def test_artifacts_tell_errors_and_gates_and_damaged_ones_are_named(tmp_path: Path) -> None:
    """Two artifacts: a row was measured of one; the other one was changed after it was sealed."""
    artifacts = [
        made_artifact(tmp_path / name, model="net_s", parity=PARITY, folded=True, fold_summary="3 to 1")
        for name in "ab"
    ]
    (tmp_path / "b" / "payload.txt").write_text("changed")
    row = measured(artifact_sha256=artifacts[0].sha256)
    report = report_of(tmp_path, row, artifacts=tmp_path)
    [model] = report.models
    [artifact] = model.artifacts
    assert (artifact.status, artifact.fold_summary, artifact.in_rows) == ("passed", "3 to 1", True)
    assert artifact.checks == (CHECK,) and report.artifacts_read
    [problem] = report.problems
    assert "damaged" in problem and str(tmp_path / "b") in problem


def test_an_artifact_without_rows_says_so(tmp_path: Path) -> None:
    made_artifact(tmp_path / "a", model="net_l", parity=PARITY)
    report = report_of(tmp_path, measured(), artifacts=tmp_path)
    assert [(model.name, [artifact.in_rows for artifact in model.artifacts]) for model in report.models] == [
        ("net_l", [False]), ("net_s", [])]  # fmt: skip


# The page


class _Elements(HTMLParser):
    """The elements of a page, with their attributes, and the text of its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}", {}))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script":
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = [measured(model=HOSTILE, family=HOSTILE, device=HOSTILE), measured(nonce="1")]
    return render(report_of(tmp_path_factory.mktemp("page"), *rows, command=f"edgevit report --out {HOSTILE}"))


def elements(page: str) -> _Elements:
    parser = _Elements()
    parser.feed(page)
    return parser


def test_a_hostile_name_opens_and_closes_nothing(page: str) -> None:
    parsed = elements(page)
    assert len(parsed.scripts) == 3 and "document.title='x'" not in page.replace("\\u003c", "<")[: page.index("<body")]
    assert "<!--" not in page
    data = json.loads(parsed.scripts[0])
    names, rows = data["entries"]
    assert HOSTILE in {row[names.index("model")] for row in rows} and HOSTILE in data["command"]


def test_the_page_asks_for_nothing_and_runs_only_what_its_policy_lists(page: str) -> None:
    parsed = elements(page)
    attributes = [(tag, name, value) for tag, names in parsed.elements for name, value in names.items()]
    assert not [attribute for attribute in attributes if attribute[1] in ("src", "srcset", "action", "data", "poster")]
    assert [attribute for attribute in attributes if attribute[1] == "href"] == [
        ("link", "href", "data:,"),
        ("a", "href", "#rows"),
    ]
    assert not [attribute for attribute in attributes if attribute[1].startswith("on")]
    policy = next(names["content"] for _, names in parsed.elements if names.get("http-equiv"))
    assert policy and policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy and "script-src 'unsafe" not in policy
    digest = base64.b64encode(hashlib.sha256(parsed.scripts[2].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy


def test_the_same_report_is_the_same_page(tmp_path: Path) -> None:
    report = report_of(tmp_path, measured())
    page = render(report)
    assert page == render(report)
    library = base64.b64decode(elements(page).scripts[1])
    assert library[4:8] == bytes(4), "gzip keeps a time there"


def test_no_script_of_the_page_parses_markup_or_code() -> None:
    folder = Path(sys.modules["edgevit.reporting"].__file__ or "").parent / "page"
    assert {path.name for path in folder.glob("*.js")} == set(SCRIPTS)
    text = "\n".join(path.read_text() for path in folder.glob("*.js"))
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "fetch(",
                 "XMLHttpRequest", "WebSocket", "import("):  # fmt: skip
        assert word not in text


def test_the_data_block_is_the_report(tmp_path: Path) -> None:
    report = report_of(tmp_path, measured(), failed(model="net_l"))
    data = json.loads(as_block(report))
    names, rows = data["entries"]
    assert names == [field.name for field in dataclasses.fields(Entry)]
    assert [row[names.index("measurement_id")] for row in rows] == [entry.measurement_id for entry in report.entries]
    assert rows[0][names.index("p90")] == list(dataclasses.astuple(report.entries[0].p90))
    assert data["devices"][0]["label"] == "pi5" and data["schema_version"] == 1


def test_without_plotly_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = report_of(tmp_path, measured())
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(TargetUnavailableError, match="plotly") as caught:
        write(report, tmp_path / "r.html")
    assert caught.value.fix == "pip install 'edgevit[report]'"
    assert not (tmp_path / "r.html").exists()


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    report = report_of(tmp_path, measured())
    with pytest.raises(StoreError, match="the report cannot be written"):
        write(report, tmp_path / "no folder" / "r.html")
    (tmp_path / "r.html").mkdir()
    with pytest.raises(StoreError, match="the report cannot be written"):
        write(report, tmp_path / "r.html")
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


# The command


def filled(path: Path) -> str:
    with LatencyDB.open(new_file(path), shipped=False) as database:
        database.add(measured(model="mobilevig_ti", family="mobilevig"))
        database.add(measured(model="mobilevig_s", family="mobilevig", device="pi4", device_id="pi-4", nonce="4"))
    return str(path)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["report", *arguments])
    return int(ended.value.code or 0)


def test_the_command_writes_the_page_and_is_told_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("--db", filled(tmp_path / "my rows.db"), "--device", "pi4,pi5", "-o", "out.html") == 0
    assert re.fullmatch(r"2 rows of 2 device\(s\) -> out.html, \d\.\d MB\n", capsys.readouterr().out)
    data = json.loads(elements((tmp_path / "out.html").read_text()).scripts[0])
    assert data["command"] == f"edgevit report --out out.html --device pi4,pi5 --db '{tmp_path / 'my rows.db'}'"


def test_the_command_tells_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--db", filled(tmp_path / "r.db"), "-o", str(tmp_path / "o.html"), "--device", "pi4", "--json") == 0
    output = json.loads(capsys.readouterr().out)
    assert (output["rows"], output["predictions"], output["devices"], output["problems"]) == (1, 0, ["pi4"], [])
    assert output["size_mb"] == (tmp_path / "o.html").stat().st_size / 1e6


def test_the_command_predicts_unless_it_is_told_not_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three models of the zoo as other devices have them: the predictions of the others are from their operators."""
    monkeypatch.chdir(tmp_path)
    names = ("mobilevig_ti", "mobilevig_s", "mobilevig_m")
    rows = [measured(slower(1 + number), model=name, nonce=name) for number, name in enumerate(names)]
    filled_with(tmp_path / "r.db", rows).close()
    assert run("--db", "r.db", "--device", "pi5", "--confidence", "0.8") == 0
    assert re.match(r"3 rows and [1-9]\d* predictions of 1 device", capsys.readouterr().out)
    data = json.loads(elements((tmp_path / "report.html").read_text()).scripts[0])
    assert data["predicted_confidence"] == 0.8 and " --confidence 0.8" in data["command"]
    assert run("--db", "r.db", "--device", "pi5", "--measured-only") == 0
    assert capsys.readouterr().out.startswith("3 rows of 1 device")
    data = json.loads(elements((tmp_path / "report.html").read_text()).scripts[0])
    assert data["predicted_confidence"] is None and data["command"].endswith(" --measured-only")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--confidence", "1.5"], "the confidence is 1.5"),
        (["--device", "pi6"], "no measured device is called 'pi6'"),
        (["--artifacts", "nowhere"], "nowhere is no folder"),
    ],
)
def test_the_command_refuses(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("--db", filled(tmp_path / "r.db"), *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()
