"""`edgevit choose` as it is shown: goldens of its text and JSON, its exit codes, and the same question from Python."""

from __future__ import annotations

import dataclasses
import html
import inspect
import json
import re
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

import edgevit
from edgevit.cli import choose as choose_command
from edgevit.cli import main
from edgevit.errors import UnknownNameError, UsageError
from edgevit.records.choice import (
    Basis,
    Budget,
    Candidate,
    Choice,
    JointChoice,
    JointRejection,
    Note,
    NoteKind,
    Reason,
    ReasonCode,
    Rejection,
    Suggestion,
)
from edgevit.records.measurement import Measurement
from edgevit.selection import api
from edgevit.store import LatencyDB
from support.predictable import SIZES, SLOW, row, rows

GOLDEN = Path(__file__).parents[1] / "golden/choose"
DOCUMENT = Path(__file__).parents[2] / "docs/choose.md"
ZOO = dict(zip(SIZES, ("mobilevig_ti", "mobilevig_s", "vanillanet_5", "vanillanet_6", "affnet", "fmvit_s",
                       "mobilevig_m", "hiera_tiny", "mobilevig_b", "turbovit"), strict=True))  # fmt: skip


def of_the_zoo(measurement: Measurement) -> Measurement:
    """Return the row of a made-up net as one of a model with a card."""
    name = ZOO[measurement.model]
    return dataclasses.replace(measurement, model=name, family=name.split("_")[0], inputs=())


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six models on one device, all ten on another, one that crashed."""
    from edgevit.records.identity import identify

    path = str(tmp_path_factory.mktemp("choose") / "x.db")
    measurements = [*rows(list(SIZES)[:6]), *rows(list(SIZES), 3.0, **SLOW), row("net_6", 1, threads=1)]
    with LatencyDB.open(path, shipped=False) as db:
        for measurement in measurements:
            db.add(identify(of_the_zoo(measurement)))
    return path


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the devices that this machine reaches: pi5, and no pi4."""
    folder = tmp_path_factory.mktemp("devices")
    lines = [f'{name} = "{value}"' for name, value in (("device_id", "pi-0001"), ("device_class", "raspberry-pi-5"),
                                                       ("transport", "ssh"))]  # fmt: skip
    (folder / "pi5.toml").write_text("\n".join(lines))
    return folder


@pytest.fixture(autouse=True)
def no_shipped_rows(monkeypatch: pytest.MonkeyPatch, devices: Path) -> None:
    monkeypatch.setattr("edgevit.store.jsonl.shipped_files", list)
    monkeypatch.setattr("edgevit.devices.registry.user_folder", lambda: devices)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Return the exit code and the printed text."""
    try:
        main(["choose", *arguments])
    except SystemExit as ended:
        code = int(ended.code or 0)
    else:
        code = 0
    return code, capsys.readouterr().out


def plain(text: str) -> str:
    """Return the text without ids, which are digests, and with three digits: linear algebra differs by machine."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "DIGEST", text)
    return re.sub(r"\d+\.\d+(?:e[+-]?\d+)?", lambda match: f"{float(match[0]):.3g}", text)


ANSWERS = {
    "answer.txt": ("--max-latency", "15ms"),
    "why.txt": ("--max-latency", "15ms", "--why", "--threads", "4"),
    "pareto.txt": ("--pareto",),
    "miss.txt": ("--max-latency", "0.1ms", "--measured-only"),
    "answer.json": ("--max-latency", "15ms", "--threads", "4", "--json"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_shown_as_it_was(
    name: str, database: str, capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config
) -> None:
    _, text = run(capsys, "--device", "pi5", "--db", database, *ANSWERS[name])
    if pytestconfig.getoption("--update-goldens"):
        (GOLDEN / name).write_text(plain(text))
    assert plain(text) == (GOLDEN / name).read_text()


def test_an_answer_for_two_devices_is_shown_as_it_was(
    database: str, capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config
) -> None:
    code, text = run(capsys, "--device", "pi5,pi4", "--db", database, "--max-latency", "15ms", "--why")
    if pytestconfig.getoption("--update-goldens"):
        (GOLDEN / "joint.txt").write_text(plain(text))
    assert code == 0 and plain(text) == (GOLDEN / "joint.txt").read_text()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--max-latency", "15ms"), 0),
        (("--pareto",), 0),
        (("--max-latency", "0.1ms"), 3),
        (("--max-latency", "15ms", "--target", "ncnn"), 6),
        (("--max-energy-mj", "5"), 6),
        (("--max-latency", "0.1ms", "--device", "pi5,pi4"), 3),
    ],
)
def test_exit_codes(options: tuple[str, ...], code: int, database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--device", "pi5", "--db", database, *options)[0] == code


def test_nothing_that_runs_is_another_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from support.measured import failed

    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as db:
        db.add(failed("unsupported"))
    code, text = run(capsys, "--device", "pi5", "--db", str(tmp_path / "x.db"), "--json")
    assert code == 5 and json.loads(text)["outcome"] == "unsupported"


# The table


def table(text: str) -> list[str]:
    """Return the lines of a table's rows."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(" ──")) + 1
    return lines[start : lines.index("", start)]


def test_misses_are_shown_by_what_they_miss(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = run(capsys, "--device", "pi5", "--db", database, "--max-latency", "4ms")
    shares = [float(line.rpartition("p90 +")[2].rstrip("%")) for line in table(text) if "p90 +" in line]
    assert len(shares) >= 4 and shares == sorted(shares)
    assert len(table(text)) == 10 and "picked" in table(text)[0]
    counts = [int(number) for number in re.findall(r"\d+", text.split("not shown: ", 1)[1].splitlines()[0])]
    document = json.loads(run(capsys, "--device", "pi5", "--db", database, "--max-latency", "4ms", "--json")[1])
    assert sum(counts) + len(table(text)) == len(document["fitting"]) + len(document["rejected"])


def test_a_limit_that_is_broken_is_named(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--max-size-mb", "1", "--min-top1", "99", "--max-energy-mj", "9", "--measured-only")
    _, text = run(capsys, "--device", "pi5", "--db", database, "--max-latency", "0.8ms", *options)
    verdict = {line.rpartition("  ")[2] for line in table(text) if " mobilevig_m " in line}
    assert verdict == {"p90 +25%, size +300%, energy unknown, top-1 -19%"}


def test_each_line_says_where_its_latency_is_from_and_all_is_told_with_why(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--device", "pi5", "--db", database, "--max-latency", "15ms")
    _, short = run(capsys, *arguments)
    assert {"measured", "predicted"} == {word for line in table(short) for word in line.split() if word.endswith("ed")
                                         and word != "picked"}  # fmt: skip
    assert "predicted by features or transfer from 6 rows of the device; --why tells of each" in short
    _, full = run(capsys, *arguments, "--why")
    document = json.loads(run(capsys, *arguments, "--json")[1])
    rows = [line for line in table(full) if not line.startswith("    ")]
    assert len(rows) == len(document["fitting"]) + len(document["rejected"])
    assert all(" ".join(one["reason"].split()) in " ".join(full.split()) for one in document["rejected"])
    assert "predicted between" in full and "nearest pi4, onnx fp32, 4 thread(s)" in full and "--why" not in full
    _, plain_one = run(capsys, *arguments, "--measured-only")
    assert "predicted" not in plain_one and "latency and size: measured; at most: with 99% confidence;" in plain_one


@pytest.mark.parametrize("more", [(), ("--why",), ("--pareto",), ("--measured-only",), ("--max-latency", "1us")])
def test_answers_fit_a_hundred_columns(
    more: tuple[str, ...], database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    from edgevit.cli import common

    monkeypatch.setattr(common, "_console", lambda: Console(width=100, markup=False, highlight=False))
    _, text = run(capsys, "--device", "pi5", "--db", database, "--max-latency", "15ms", *more)
    assert all(len(line) <= 100 for line in text.splitlines() if not line.startswith("  edgevit ")), text


def test_a_data_set_that_nothing_was_evaluated_on(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "--device", "pi5", "--db", database, "--max-latency", "15ms", "--dataset", "birds")
    assert code == 6 and text.startswith("nothing on pi5 is known to fit the budget, and something may")
    assert "evaluate next: hiera_tiny onnx fp32" not in text, "it may be measured to fit, and other artifacts do fit"
    assert "evaluate next: mobilevig_m onnx fp32" in text and "edgevit evaluate artifacts" not in text


# Objectives, patterns, and accuracies that are not known


@pytest.fixture
def unrated(tmp_path: Path) -> str:
    """Two networks of one's own that were never evaluated."""
    path = str(tmp_path / "own.db")
    with LatencyDB.open(path, shipped=False) as db:
        for model, ms in (("mine.py:small", 3), ("mine.py:large", 8)):
            db.add(row(model, ms))
    return path


def test_nothing_of_unknown_accuracy_is_chosen(unrated: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--device", "pi5", "--db", unrated, "--max-latency", "100fps")
    code, text = run(capsys, *arguments)
    start = "nothing on pi5 is chosen: no accuracy is known of what fits; the fastest is\nmine.py:small, onnx fp32"
    assert code == 7 and text.startswith(start) and "picked" not in "\n".join(table(text))
    assert "vanillanet" not in text, "the zoo was neither measured nor named"
    code, text = run(capsys, *arguments, "--json")
    answer = json.loads(text)
    assert (code, answer["outcome"], answer["picked"]["model"]) == (7, "no_accuracy", "mine.py:small")
    code, text = run(capsys, *arguments, "--min-top1", "70")
    assert code == 7 and text.startswith("nothing on pi5 is chosen: no accuracy is known of what fits the other limits")
    both = run(capsys, "--device", "pi5,raspberry-pi-5", *arguments[2:])
    assert both[0] == 7 and both[1].startswith("nothing on pi5 and raspberry-pi-5 is chosen: no accuracy is known")
    assert "picked" not in both[1].replace("the pick", "")


def test_an_unknown_accuracy_is_handed_over_only_for_another_objective(
    unrated: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgevit.cli import choose_export

    handed: list[str] = []

    def export(picked: Candidate, *_: object) -> Any:
        handed.append(picked.model)
        raise UsageError("exported")

    monkeypatch.setattr(choose_export, "_exported", export)
    arguments = ("--device", "pi5", "--db", unrated, "--export", str(tmp_path / "out"))
    code, text = run(capsys, *arguments)
    assert (code, handed) == (7, []) and "exported" not in text
    assert run(capsys, *arguments, "--objective", "fastest")[0] == 2 and handed == ["mine.py:small"]


def test_what_is_no_choice_is_none_in_python_and_in_notebooks(unrated: str) -> None:
    answer = edgevit.choose("pi5", db=unrated)
    assert answer.outcome == "no_accuracy" and "outcome='no_accuracy'" in repr(answer)
    assert [line[-1] for line in html_rows(answer._repr_html_())] == ["fits", "fits"]
    assert "<caption>pi5: no_accuracy, 2 fit" in answer._repr_html_()
    assert set(answer.to_frame()["verdict"]) == {"fits"}
    both = edgevit.choose(["pi5", "raspberry-pi-5"], db=unrated)
    assert both.outcome == "no_accuracy" and "picked" not in both._repr_html_()
    smallest = edgevit.choose("pi5", objective="smallest", db=unrated)
    assert "<caption>pi5: no_accuracy (smallest), 2 fit" in smallest._repr_html_()


@pytest.mark.parametrize("objective", ["accurate", "fastest", "smallest"])
def test_the_command_and_the_function_answer_alike(
    objective: Any, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--budget", "66.6fps", "--objective", objective, "--models", "vanillanet_*,mobilevig_*", "--task", "any")
    shown = json.loads(run(capsys, "--device", "pi5", "--db", database, *options, "--json")[1])
    answer = edgevit.choose("pi5", max_latency="66.6fps", objective=objective, models=["vanillanet_*", "mobilevig_*"],
                            task="any", db=database)  # fmt: skip
    assert answer.picked and (shown["picked"]["measurement_id"], shown["outcome"]) == (
        answer.picked.measurement_id, "chosen",
    )  # fmt: skip
    assert shown["budget"]["objective"] == answer.budget.objective == objective
    assert shown["budget"]["max_latency_ms"] == pytest.approx(1000 / 66.6)
    assert len(shown["fitting"]) == len(answer.fitting) > 0


def test_the_picture_of_no_choice_names_none(unrated: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "choice.svg"
    assert run(capsys, "--device", "pi5", "--db", unrated, "--plot", str(picture))[0] == 7
    assert "pi5: nothing chosen, as no accuracy is known" in picture.read_text()


# From Python


def test_the_same_question_from_python(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = edgevit.choose("pi5", max_latency="15ms", threads=4, db=database)
    shown = json.loads(run(capsys, "--device", "pi5", "--db", database, *ANSWERS["answer.json"])[1])
    assert isinstance(answer, Choice) and answer.picked is not None
    assert shown["picked"]["model"] == answer.picked.model and shown["outcome"] == answer.outcome
    with LatencyDB.open(database, shipped=False) as db:
        assert edgevit.choose("pi5", max_latency=15, threads=4, db=db) == answer
        both = edgevit.choose(["pi5", "pi4"], max_latency=15, db=db)
    assert isinstance(both, JointChoice) and len(both.picked) == 2 and both.choices[0].device == "pi5"


def test_questions_that_make_no_sense(database: str) -> None:
    wrong: list[dict[str, Any]] = [{"max_latency": "ten"}, {"percentile": 0}, {"confidence": 1.0}]
    for keywords in (*wrong, {"max_memory_mb": -1.0}):
        with pytest.raises(UsageError):
            edgevit.choose("pi5", db=database, **keywords)
    with pytest.raises(UsageError, match="no device named"):
        edgevit.choose([], db=database)
    with pytest.raises(UnknownNameError, match="onx"):
        edgevit.choose("pi5", target="onx", db=database)
    with pytest.raises(TypeError, match="max_latnecy"):
        edgevit.choose("pi5", max_latnecy=3, db=database)  # type: ignore[call-overload]


def test_a_target_may_be_an_alias_and_names_may_be_several(database: str) -> None:
    one = edgevit.choose("pi5", target="ort", precision=["fp32", "int8"], db=database)
    assert one.picked and (one.picked.target, one.picked.precision) == ("onnx", "fp32")
    [code] = {rejection.reasons[0].code for rejection in edgevit.choose("pi5", precision="int8", db=database).rejected}
    assert code == "other_precision"


def test_a_frame_has_a_line_for_each_candidate(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = edgevit.choose("pi5", max_latency="15ms", db=database)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="needs pandas") as caught:
        answer.to_frame()
    assert caught.value.fix == "pip install 'edgevit[pandas]'"

    class Frames:
        @staticmethod
        def DataFrame(lines: list[dict[str, object]]) -> list[dict[str, object]]:  # noqa: N802 (pandas' name)
            return lines

    monkeypatch.setitem(sys.modules, "pandas", Frames)
    lines = answer.to_frame()
    assert len(lines) == len(answer.fitting) + len(answer.rejected)
    assert lines[0]["verdict"] == "picked" and {len(line) for line in lines} == {len(lines[0])}
    assert any(line["basis_level"] == "transfer" for line in lines)
    both = edgevit.choose(["pi5", "pi4"], db=database).to_frame()
    assert {line["device_asked"] for line in both} == {"pi5", "pi4"}


def test_a_real_frame(database: str) -> None:
    import pandas

    frame = edgevit.choose("pi5", max_latency="15ms", db=database).to_frame()
    assert isinstance(frame, pandas.DataFrame) and frame.iloc[0]["verdict"] == "picked"


def test_every_keyword_is_in_the_signature_and_in_its_docstring() -> None:
    parameters = inspect.signature(edgevit.choose).parameters
    assert all(one.kind is one.KEYWORD_ONLY for name, one in parameters.items() if name != "device")
    section = str(inspect.getdoc(edgevit.choose)).split("Parameters\n")[1].split("\nRaises\n")[0]
    named = [name for line in section.splitlines() if line and line[0].isalpha() for name in line.split(", ")]
    assert sorted(named) == sorted(parameters)
    for overload in typing.get_overloads(api.choose):
        assert list(inspect.signature(overload).parameters) == list(parameters)


def test_the_keywords_are_the_options_of_the_command() -> None:
    options = set(inspect.signature(choose_command.run).parameters)
    shown_only = {"pareto", "why", "plot", "measure", "export", "weights", "weights_key", "labels", "artifacts", "out",
                  "quick", "random_weights"}  # fmt: skip
    common = options - shown_only - {"as_json", "quiet", "verbose", "measured_only"} | {"predict"}
    assert common == set(inspect.signature(edgevit.choose).parameters)


def test_an_answer_has_a_short_repr(database: str) -> None:
    answer = edgevit.choose("pi5", max_latency="15ms", db=database)
    assert answer.picked is not None
    start = f"Choice(device='pi5', outcome='chosen', picked='{answer.picked.model} onnx fp32, p90 <= "
    assert repr(answer).startswith(start) and len(repr(answer)) < 200
    assert repr(answer).endswith(f"fitting={len(answer.fitting)}, rejected={len(answer.rejected)})")
    nothing = edgevit.choose("pi5", max_latency="1us", db=database)
    assert "picked=None" in repr(nothing) and "outcome='infeasible'" in repr(nothing)
    both = repr(edgevit.choose(["pi5", "pi4"], max_latency="15ms", db=database))
    assert both.startswith("JointChoice(devices=('pi5', 'pi4'), outcome='chosen'") and len(both) < 300


def html_rows(text: str) -> list[list[str]]:
    """Return the cells of the rows of an HTML table."""
    return [re.findall("<td>(.*?)</td>", line) for line in re.findall("<tr>(.*?)</tr>", text) if "<td>" in line]


def test_an_answer_is_a_table_in_a_notebook(database: str) -> None:
    answer = edgevit.choose("pi5", max_latency="4ms", db=database)
    lines = html_rows(answer._repr_html_())
    assert answer.picked is not None and lines[0][0] == answer.picked.model and lines[0][-1] == "picked"
    assert [line[-1] for line in lines[1:-3]] == ["fits"] * min(5, len(answer.fitting) - 1)
    excesses = sorted(one.excess for one in answer.rejected if one.excess is not None)[:3]
    shown = {one.reason: one.excess for one in answer.rejected}
    assert [shown[html.unescape(line[-1])] for line in lines[-3:]] == excesses
    both = edgevit.choose(["pi5", "pi4"], max_latency="15ms", db=database)._repr_html_()
    assert both.count("<table>") == 3 and html_rows(both)[0][-1] == "picked"


def test_names_are_escaped_in_a_notebook(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>&"
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as db:
        db.add(row(name, 5.0))
        answer = edgevit.choose("pi5", db=db)
    text = answer._repr_html_()
    assert "<script>" not in text and html.escape(name) in text


def test_local_is_this_very_unit() -> None:
    assert api.unit_or_class("pi5") == "pi5" and len(api.unit_or_class("local")) == 64


# Its JSON is told in the guide

RECORDS = (Choice, JointChoice, Candidate, Basis, Rejection, Reason, JointRejection, Note, Suggestion, Budget)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_the_guide_tells_every_key(record: type) -> None:
    section = DOCUMENT.read_text().split(f"### {record.__name__}\n", 1)[1].split("\n### ", 1)[0]
    keys = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert keys == [field.name for field in dataclasses.fields(record)]


def test_the_goldens_have_the_keys_of_the_records() -> None:
    shown = json.loads((GOLDEN / "answer.json").read_text())
    assert shown.keys() == {field.name for field in dataclasses.fields(Choice)}
    assert shown["fitting"][0].keys() == {field.name for field in dataclasses.fields(Candidate)}
    levels = {one["basis"]["level"] for one in shown["fitting"] if one["basis"]}
    assert levels <= set(typing.get_args(typing.get_type_hints(Basis)["level"])) and levels


@pytest.mark.parametrize(("record", "names"), [(Reason, ReasonCode), (Note, NoteKind)])
def test_the_guide_tells_every_code(record: type, names: Any) -> None:
    section = DOCUMENT.read_text().split(f"### {record.__name__}\n", 1)[1].split("\n### ", 1)[0]
    assert not set(typing.get_args(names)) - set(re.findall(r"`(\w+)`", section))
