"""Tests of importers on small files of each source's exact form, with made-up numbers."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from edgevit.cli import app
from edgevit.errors import StoreError, UnknownNameError, UsageError
from edgevit.published.importers import Publication, list_importers, load_importer, screened
from edgevit.published.importers.reading.units import number
from edgevit.records.measurement import Accuracy, Measurement
from edgevit.store import ACCURACIES, LatencyDB, RefusalCode
from edgevit.store.validate import validate_measurement
from support.measured import measured

FILES = Path(__file__).parents[1] / "published"
CARDS = Path(__file__).parents[2] / "latency_db/models.jsonl"
AIHUB, MLPERF = FILES / "aihub_perf.csv", FILES / "mlperf.csv"
NESTED, LISTED = FILES / "made_net/perf.yaml", FILES / "older_net/perf.yaml"
TIMM, RESULTS = FILES / "benchmark-infer-fp32-nchw-pt240-cpu-i7_12700h-dynamo.csv", FILES / "results-imagenet.csv"
FORMS = [("aihub", AIHUB), ("aihub", NESTED), ("aihub", LISTED), ("mlperf", MLPERF), ("timm", TIMM), ("timm", RESULTS)]
FORMS += [("papers", CARDS)]


class Imported(NamedTuple):
    """An import: rows and accuracies as the database has them, the codes of refusals, and the screening's counts."""

    rows: list[Measurement]
    accuracies: list[Accuracy]
    codes: list[RefusalCode]
    counts: Counter[str]


def imported(form: str, path: Path, source: str = "", published: str = "") -> Imported:
    """Import a file into an empty database."""
    screening = screened(form, [Publication(path, source, published)])
    with tempfile.TemporaryDirectory() as folder, LatencyDB.open(f"{folder}/one.db", shipped=False) as db:
        result = db.import_records(screening.records(), "a file")
        codes = sorted(refusal.code for refusal in result.refused)
        return Imported(db.measurements(), db.accuracies(), codes, screening.counts)


def by_model(rows: list[Measurement]) -> dict[str, Measurement]:
    """Return rows by their models."""
    return {row.model: row for row in rows}


# Every form


@pytest.mark.parametrize(("form", "path"), FORMS, ids=lambda value: getattr(value, "name", value))
def test_rows_say_where_they_are_from_and_what_is_not_told(form: str, path: Path) -> None:
    rows, accuracies, _, _ = imported(form, path)
    assert rows or accuracies
    for row in rows:
        assert row.provenance == "published" and row.source
        assert row.licence or "licence" in row.untold
        assert {"samples", "host", "runs", "processes"} <= set(row.untold)
        assert row.grade == "" and row.threads == 0 and "threads" in row.untold
        assert (row.p90_ns is None) == ("p90_ns" in row.untold)
        assert row.p50_low_ns is row.p50_high_ns is row.iqr_ns is None
    for accuracy in accuracies:
        assert accuracy.provenance == "published" and accuracy.source
        assert accuracy.error is None and "error" in accuracy.untold


@pytest.mark.parametrize(("form", "path"), FORMS, ids=lambda value: getattr(value, "name", value))
def test_importing_twice_changes_nothing(form: str, path: Path) -> None:
    with LatencyDB.open(shipped=False) as db:
        first = db.import_records(screened(form, [Publication(path)]).records(), "a file")
        again = db.import_records(screened(form, [Publication(path)]).records(), "a file")
        assert (again.added, again.duplicates) == (0, first.added)
        assert db.check().problems == ()


@pytest.mark.parametrize(("form", "path"), FORMS, ids=lambda value: getattr(value, "name", value))
def test_a_file_is_recognised_by_its_own_form_only(form: str, path: Path) -> None:
    assert [name for name in list_importers() if load_importer(name).recognises(path)] == [form]


def test_forms_are_the_files_of_the_package() -> None:
    assert list_importers() == ["aihub", "mlperf", "papers", "timm"]
    with pytest.raises(UnknownNameError, match="mlperf"):
        load_importer("mlpref")


def test_a_file_of_another_form_is_refused_with_the_form_that_fits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--from mlperf"):
        screened("aihub", [Publication(AIHUB), Publication(MLPERF)])
    (strange := tmp_path / "strange.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match=r"aihub: .*; mlperf: .*; papers: .*; timm: "):
        screened("aihub", [Publication(strange)])
    with pytest.raises(UsageError, match="no file"):
        screened("aihub", [Publication(tmp_path / "absent.csv")])
    with pytest.raises(UsageError, match="--published is 'yesterday'"):
        screened("aihub", [Publication(AIHUB, published="yesterday")])


def test_files_named_together_are_judged_together(tmp_path: Path) -> None:
    """Import files that each have one model, and nothing to compare a number with."""
    head, line = AIHUB.read_text().splitlines()[:2]
    paths = []
    for model in range(12):
        lines = [head]
        for device in range(12):
            ms = (1 + model) * (1 + device) * (3 if (model, device) == (5, 5) else 1)
            cells = f"net_{model},Net {model},float,Phone {device},tflite,j{model}x{device},Passed,{ms},"
            lines.append(cells + line.split("Passed,1.25,")[1])
        (path := tmp_path / f"{model}.csv").write_text("\n".join(lines) + "\n")
        paths.append(Publication(path))
    records = screened("aihub", paths).records()
    refused = [(parsed.location, parsed.refusal.code) for parsed in records if parsed.refusal is not None]
    assert refused == [("5.csv, line 7", "doubtful")]
    alone = screened("aihub", paths[5:6])
    assert all(parsed.record is not None for parsed in alone.records()) and alone.counts["without_neighbours"] == 12


def test_a_line_that_is_cut_short_is_refused_alone(tmp_path: Path) -> None:
    lines = MLPERF.read_text().splitlines()
    (cut := tmp_path / "cut.csv").write_text("\n".join([*lines[:3], lines[1][:100]]) + "\n")
    result = imported("mlperf", cut)
    assert len(result.rows) == 2 and result.codes == ["not_a_table_line"]


def test_bytes_that_are_no_text_are_an_error_and_no_crash(tmp_path: Path) -> None:
    lines = MLPERF.read_bytes() + 100 * MLPERF.read_bytes().splitlines(keepends=True)[1]
    (broken := tmp_path / "broken.csv").write_bytes(lines + b"\xff\xfe\n")
    with pytest.raises(StoreError, match="cannot be read"):
        list(screened("mlperf", [Publication(broken)]).records())


def test_quarantine_has_the_line_as_it_came() -> None:
    with LatencyDB.open(shipped=False) as db:
        db.import_records(screened("aihub", [Publication(AIHUB)]).records(), "a file")
        records = {record.location: record for record in db.quarantine()}
    lines = list(csv.reader(io.StringIO(AIHUB.read_text())))
    assert set(records) == {f"aihub_perf.csv, line {number}" for number in (8, 9, 10, 11)}
    assert json.loads(records["aihub_perf.csv, line 9"].content) == lines[8]


# With any contents of a file, each line is taken or refused, and nothing else happens


def settle(form: str, path: Path) -> None:
    """Check that each line of a file becomes a record or a refusal."""
    for parsed in screened(form, [Publication(path)]).records():
        # The database refuses impossible records afterwards.
        with contextlib.suppress(StoreError):
            if isinstance(parsed.record, Measurement):
                validate_measurement(parsed.record)
            elif isinstance(parsed.record, Accuracy):
                ACCURACIES.validate(parsed.record)
        assert (parsed.record is None) == (parsed.refusal is not None)


def test_what_is_a_blank_for_python_is_one_in_a_number() -> None:
    # float() takes no separators of ASCII.
    assert number("\x1f0.5\x1f", "time") == 0.5


@settings(deadline=None)
@given(st.data())
@pytest.mark.parametrize(("form", "path"), [("aihub", AIHUB), ("mlperf", MLPERF), ("timm", TIMM), ("timm", RESULTS)])
def test_any_cell_may_say_anything(form: str, path: Path, data: st.DataObject) -> None:
    head, *lines = csv.reader(io.StringIO(path.read_text()))
    line, column = data.draw(st.sampled_from(lines)), data.draw(st.integers(0, len(head) - 1))
    odd = st.sampled_from(["nan", "-0", "1e999", "9" * 400, "1_000", "0x1", " 5 ", "½", "\0", "\ud7ff"])
    line[column] = data.draw(st.one_of(odd, st.floats().map(repr), st.text(st.characters(exclude_categories=["Cs"]))))
    with tempfile.TemporaryDirectory() as folder:
        with (changed := Path(folder) / path.name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([head, *lines])
        settle(form, changed)


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.dates(), st.datetimes(), st.text(),
    st.just([]), st.just({}), st.just({"a": [1]}), st.lists(st.integers(), max_size=2),
)  # fmt: skip


@settings(deadline=None)
@given(st.data())
@pytest.mark.parametrize("path", [NESTED, LISTED], ids=lambda path: path.parent.name)
def test_any_part_of_a_yaml_file_may_be_anything(path: Path, data: st.DataObject) -> None:
    document = yaml.safe_load(path.read_text())
    at: Any = document
    while True:
        key = (
            data.draw(st.sampled_from(sorted(at)))
            if isinstance(at, dict)
            else data.draw(st.sampled_from(range(len(at))))
        )
        if not (isinstance(at[key], dict | list) and at[key] and data.draw(st.integers(0, 5))):
            break
        at = at[key]
    at[key] = data.draw(ODD)
    with tempfile.TemporaryDirectory() as folder:
        (changed := Path(folder) / "perf.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        # Some files cannot be read at all.
        with contextlib.suppress(StoreError):
            settle("aihub", changed)


# Qualcomm AI Hub


def test_aihub_csv() -> None:
    result = imported("aihub", AIHUB, source="https://example.org v1", published="2026-02-24")
    jobs = {(row.model, row.device, row.engine): row for row in result.rows}
    first = jobs["made_net", "Phone A", "tflite"]
    assert (first.p50_ns, first.target, first.precision, first.compute_unit) == (1_250_000, "litert", "float", "npu")
    assert (first.engine_version, first.device_id) == ("2.17.0; qairt 2.43.0.1", "aihub/Phone A")
    assert first.source == "https://example.org v1, job jaaa00001" and first.licence == "BSD-3-Clause"
    assert first.started == "2026-02-24T00:00:00+00:00" and {"started", "batch", "p50_ns"} <= set(first.untold)
    assert first.flags == ("headline_unstated",)
    other = jobs["made_net", "Phone A", "onnx"]
    assert (other.target, other.engine_version) == ("onnx", "1.24.1; qairt 2.42.0.1")
    assert jobs["made_net", "Sister Board", "qairt"].target == "qnn_dlc"
    assert jobs["made_parts/PartEncoder", "Phone A", "tflite"].compute_unit == "cpu"
    failed = jobs["made_parts/PartDecoder", "Phone A", "tflite"]
    assert (failed.status, failed.p50_ns) == ("failed", None)
    assert result.codes == ["beyond_64_bits", "no_latency", "not_a_number", "not_positive"]
    assert len(result.rows) == 6


def test_a_run_that_two_devices_have_is_flagged_on_both() -> None:
    result = imported("aihub", AIHUB)
    assert {row.device for row in result.rows if "copied" in row.flags} == {"Board (Proxy)", "Sister Board"}
    assert result.counts["copied"] == 2


def test_a_copy_with_another_number_is_refused(tmp_path: Path) -> None:
    text = AIHUB.read_text().replace(
        "Sister Board,qnn_dlc,jaaa00003,Passed,3.5", "Sister Board,qnn_dlc,jaaa00003,Passed,7"
    )
    (path := tmp_path / "aihub.csv").write_text(text)
    result = imported("aihub", path)
    assert "Sister Board" not in {row.device for row in result.rows}
    assert "two_numbers_of_one_run" in result.codes


def test_aihub_says_the_task_of_a_model_in_the_file_beside(tmp_path: Path) -> None:
    for name in (AIHUB, NESTED):
        (tmp_path / name.name).write_text(name.read_text())
    (tmp_path / "aihub_info.csv").write_text("model,use_case\nmade_net,Object Detection\nmade_parts,Robotics\nshort\n")
    rows = imported("aihub", tmp_path / AIHUB.name).rows
    tasks = {(row.model, flag) for row in rows for flag in row.flags if flag.startswith("task:")}
    assert tasks == {("made_net", "task:detect")}, "a part of a model does not do what the model does"
    (folder := tmp_path / "made_net").mkdir()
    (folder / "perf.yaml").write_text(NESTED.read_text())
    (folder / "info.yaml").write_text("name: Made-Net\nuse_case: Image Classification\n")
    flags = [row.flags for row in imported("aihub", folder / "perf.yaml").rows]
    assert flags and all("task:classify" in of_row for of_row in flags)


def test_aihub_yaml_says_what_the_table_says() -> None:
    rows, _, codes, _ = imported("aihub", NESTED, source="x")
    assert codes == []
    measured = next(row for row in rows if row.status == "ok")
    table = next(row for row in imported("aihub", AIHUB, source="x").rows if row.source == "x, job jaaa00001")
    assert measured == table
    assert [row.device for row in rows if row.status == "failed"] == ["Sister Board"]


def test_aihub_yaml_of_before_has_microseconds_and_a_time() -> None:
    rows, _, codes, _ = imported("aihub", LISTED)
    assert codes == [] and {row.model for row in rows} == {"older_net"}
    assert {row.target: row.p50_ns for row in rows} == {"litert": 1_250_000, "onnx": 1_500_000}
    assert {row.started for row in rows} == {"2025-01-02T03:04:05+00:00"}
    assert all("started" not in row.untold for row in rows)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("precisions: &a {x: *a}\n", "aliases"),
        ("precisions: [1, 2\n", "flow sequence"),
        ("models: !!python/object/apply:os.system [true]\n", "constructor"),
        ("models:\n- &x [1]\n- *x\n", "aliases"),
    ],
)
def test_hostile_yaml_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (path := tmp_path / "perf.yaml").write_text(text)
    with pytest.raises(StoreError, match=why):
        list(screened("aihub", [Publication(path)]).records())


def test_aihub_history(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    line = {
        "job_id": "jaaa1", "model": "made_net", "component": "Made-Net", "precision": "fp16", "device": "Phone A",
        "chipset": "Made", "os": 13.0, "runtime": "tflite", "status": "Passed", "latency_ms": 1.25, "mem_min_mb": 0.5,
        "mem_max_mb": 3.25, "unit": "NPU", "layers": 70, "npu": 70.0, "qairt": None, "tflite": None,
        "onnx_runtime": None, "timestamp": "2025-01-02T03:04:05.5Z", "schema": 1, "first_release": "v0.3.0",
        "last_release": "v0.4.0", "commit_date": "2025-02-03T04:05:06-08:00", "__index_level_0__": 0,
    }  # fmt: skip
    later = line | {"job_id": "jaaa2", "timestamp": None, "qairt": "2.43", "tflite": "2.17.0", "schema": 2}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([line, later]), path := tmp_path / "history.parquet")
    rows, _, codes, _ = imported("aihub", path)
    assert codes == []
    assert [row.started for row in rows] == ["2025-01-02T03:04:05.500000+00:00", "2025-02-03T12:05:06+00:00"]
    assert [row.engine_version for row in rows] == ["", "2.17.0; qairt 2.43"]
    assert ["started" in row.untold for row in rows] == [False, True]
    assert "v0.3.0" in rows[0].source and {row.engine for row in rows} == {"tflite"}


# MLPerf


def test_mlperf() -> None:
    rows, accuracies, codes, _ = imported("mlperf", MLPERF)
    by_target = {row.target: row for row in rows}
    row = by_target["litert"]
    assert (row.min_ns, row.mean_ns, row.p50_ns) == (4_900_000, 5_050_000, 5_000_000)
    assert (row.p90_ns, row.p99_ns, row.p90_upper_ns) == (5_200_000, 5_500_000, None)
    assert (row.engine, row.engine_version, row.provider) == ("TFLite", "2.11.0", "ruy")
    assert (row.device, row.compute_unit, row.precision) == ("Made Board (made)", "cpu", "not stated")
    assert row.source == "github.com/mlcommons/inference_results_v9.9, mlperf.csv, open/Maker/board-tflite"
    assert (by_target["ArmNN"].provider, by_target["ArmNN"].compute_unit) == ("OpenCL", "Made GPU G1")
    assert (by_target["Made SDK"].engine_version, by_target["Made SDK"].provider) == ("1.2", "")
    assert {(one.model, one.value, one.examples) for one in accuracies} == {("madenet-quantized", 70.5, 50_000)}
    assert {accuracy.dataset for accuracy in accuracies} == {"imagenet-1k val"}, "the detector's metric is not named"
    assert codes == ["contradicts_itself", "no_valid_latency", "out_of_order"]


def test_mlperf_says_the_task_by_the_name_of_its_benchmark(tmp_path: Path) -> None:
    (path := tmp_path / "mlperf.csv").write_text(MLPERF.read_text().replace("madedetector", "retinanet"))
    tasks = {row.model: row.flags for row in imported("mlperf", path).rows}
    assert tasks["retinanet"] == ("task:detect",) and tasks["madenet-quantized"] == ()


# timm


def test_timm_benchmark() -> None:
    rows, _, codes, _ = imported("timm", TIMM)
    row = by_model(rows)["made_net"]
    assert (row.mean_ns, row.p50_ns, row.flags) == (20_000_000, None, ("mean_only",))
    assert "p50_ns" in row.untold and row.batch == 1 and row.inputs[0].shape == (1, 3, 224, 224)
    assert (row.engine, row.engine_version, row.provider) == ("PyTorch", "2.4.0", "dynamo")
    assert (row.device, row.device_id, row.precision) == ("i7_12700h", "timm/i7_12700h", "fp32")
    assert codes == ["contradicts_itself", "faster_than_possible", "faster_than_possible"]


def test_a_name_of_ours_is_given_where_size_and_parameters_agree() -> None:
    rows = imported("timm", TIMM).rows
    assert [row.inputs[0].shape[-1] for row in rows if row.model == "hiera_tiny"] == [224]
    assert [row.inputs[0].shape[-1] for row in rows if row.model == "hiera_tiny_224"] == [256]
    assert {accuracy.model for accuracy in imported("timm", RESULTS).accuracies} == {"made_net", "hiera_tiny"}


def test_a_name_of_ours_is_not_given_to_another_network(tmp_path: Path) -> None:
    (path := tmp_path / RESULTS.name).write_text(RESULTS.read_text().replace("27.91", "27.93"))
    assert {accuracy.model for accuracy in imported("timm", path).accuracies} == {"made_net", "hiera_tiny_224"}


def test_timm_accuracies() -> None:
    _, accuracies, codes, _ = imported("timm", RESULTS)
    by_metric = {(accuracy.model, accuracy.metric): accuracy for accuracy in accuracies}
    top1 = by_metric["made_net", "top1_percent"]
    # top1_err is the share of wrong answers, not the error of the top-1.
    assert (top1.value, top1.error, top1.examples) == (75.5, None, None)
    assert top1.input_size == (224, 224) and "made_in1k" in top1.note and top1.dataset == "imagenet-1k val"
    assert by_metric["made_net", "top5_percent"].value == 92.0
    assert codes == ["contradicts_itself"]


def test_accuracies_of_another_set_keep_the_name_of_the_file(tmp_path: Path) -> None:
    (path := tmp_path / "results-imagenet-real.csv").write_text(RESULTS.read_text())
    assert {accuracy.dataset for accuracy in imported("timm", path).accuracies} == {"results-imagenet-real"}


def test_a_benchmark_under_another_name_says_no_device(tmp_path: Path) -> None:
    (path := tmp_path / "mine.csv").write_text(TIMM.read_text())
    result = imported("timm", path)
    assert result.rows == [] and set(result.codes) == {"no_device"}


# Papers


def test_papers_are_what_the_cards_quote() -> None:
    cards = [json.loads(line) for line in CARDS.read_text().splitlines()]
    rows, accuracies, codes, _ = imported("papers", CARDS)
    assert codes == []
    quoted = {
        (card["name"], latency["device"], latency["engine"], latency["latency_ms"])
        for card in cards
        for latency in card["latencies"]
    }
    assert {(row.model, row.device, row.engine, (row.p50_ns or 0) / 1e6) for row in rows} == quoted
    assert {row.target for row in rows} == {"coreml", "tensorrt", "PyTorch"}
    assert len(accuracies) == sum(card["top1_percent"] is not None for card in cards)
    reconstructed = {card["name"] for card in cards if card["provenance"] == "reconstructed"}
    assert {accuracy.model for accuracy in accuracies if accuracy.note} == reconstructed


# Command line


def run(*arguments: object) -> tuple[int, str]:
    """Run edgevit; return its exit code and its output."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    return result.exit_code, result.output


def test_db_import_from(tmp_path: Path) -> None:
    code, text = run("db", "import", AIHUB, "--from", "aihub", "--published", "2026-02-24")
    assert code == 1 and "6 added, 0 known already, 4 refused" in text and "2 rows are one run" in text
    code, text = run("db", "import", "--from", "papers", "--json")
    report = json.loads(text)
    assert code == 0 and report["added"] > 20 and report["counts"]["without_neighbours"] == 33


def test_refusals_are_counted_by_their_reason(tmp_path: Path) -> None:
    code, text = run("db", "import", AIHUB, "--from", "aihub", "--db", tmp_path / "a.db", "--json")
    codes = ("no_latency", "beyond_64_bits", "not_a_number", "not_positive")
    assert code == 1 and json.loads(text)["refused_because"] == dict.fromkeys(codes, 1)
    assert {refusal["code"] for refusal in json.loads(text)["refused"]} == set(codes)
    many = "\n".join([AIHUB.read_text().strip(), *AIHUB.read_text().splitlines()[-2:] * 10])
    (path := tmp_path / "many.csv").write_text(many + "\n")
    code, text = run("db", "import", path, "--from", "aihub", "--db", tmp_path / "b.db")
    assert "... and 4 more: edgevit db quarantine; together: 1 no latency, 1 beyond 64 bits" in text
    assert "11 not a number, 11 not positive" in text


def test_db_show_tells_what_others_published_from_what_was_measured(tmp_path: Path) -> None:
    db = tmp_path / "rows.db"
    run("db", "import", AIHUB, "--from", "aihub", "--db", db, "--published", "2026-02-24")
    run("db", "import", TIMM, "--from", "timm", "--db", db, "--source", "https://example.org/timm")
    with LatencyDB.open(str(db)) as database:
        database.add(measured())
    # Newer rows ship with edgevit.
    _, text = run("db", "show", "--db", db, "--limit", "1000")
    assert "published: by the sources named, and not measured here" in text
    assert re.search("^measured: .*onnxruntime", text, re.MULTILINE)
    assert "2026-02-24 (published)" in text and "https://example.org/timm" in text

    def shown(*arguments: object) -> set[tuple[str, str]]:
        rows = json.loads(run("db", "show", "--db", db, "--json", *arguments)[1])["measurements"]
        return {(row["provenance"], row["device"]) for row in rows}

    # They include those that ship with edgevit.
    ours = shown("--provenance", "measured")
    assert ("measured", "pi5") in ours and {kind for kind, _ in ours} == {"measured"}
    assert shown("--source", "example.org/timm") == {("published", "i7_12700h")}
    assert {kind for kind, _ in shown("--provenance", "published")} == {"published"}
    assert shown("--provenance", "published", "--model", "made_parts/PartEncoder") == {("published", "Phone A")}
    _, text = run("db", "show", "--db", db, "--provenance", "published", "--limit", "2")
    assert f"{6 + 3 - 2} more rows" in text
    result = CliRunner().invoke(app, ["db", "show", "--db", str(db), "--provenance", "publshed"])
    assert isinstance(result.exception, UnknownNameError)


def test_choose_leaves_out_what_others_published_unless_asked(tmp_path: Path) -> None:
    db, device = tmp_path / "rows.db", "aihub/Phone A"
    run("db", "import", AIHUB, "--from", "aihub", "--db", db)
    question = ("choose", "--device", device, "--max-latency", "2ms", "--percentile", "50", "--db", db)
    code, text = run(*question)
    assert code == 6 and "4 published row(s) left out" in text and "made_net" not in text
    code, text = run(*question, "--published")
    assert code == 6 and "published row(s) left out, whose models have another task or an unknown one" in text
    of_any_task = (*question, "--task", "any", "--published")
    code, text = run(*of_any_task)
    assert code == 7 and text.startswith("nothing on aihub/Phone A is chosen: no accuracy is known of what fits")
    assert "made_net, litert float, threads not told" in text
    assert "p50 1.25 ms (published), no bound" in text and "headline_unstated" in text and "parity unknown" in text
    picked = json.loads(run(*of_any_task, "--json")[1])["picked"]
    assert (picked["latency_provenance"], picked["latency_ms"], picked["latency_upper_ms"]) == ("published", 1.25, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["db", "import", AIHUB], "--from aihub"),
        (["db", "import", NESTED], "--from aihub"),
        (["db", "import", CARDS], "--from papers"),
        (["db", "import", "strange.csv"], "no file"),
        (["db", "import"], "no FILE"),
        (["db", "import", "--from", "mlperf"], "no FILE"),
        (["db", "import", AIHUB, "--from", "aihub2"], "aihub"),
        (["db", "import", MLPERF, "--from", "aihub"], "--from mlperf"),
        (["db", "import", "rows.jsonl", "--source", "x"], "published files"),
    ],
)
def test_no_form_is_assumed(arguments: list[object], message: str) -> None:
    """Name no form, or a wrong one: the form that fits is named and not assumed."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert isinstance(result.exception, UsageError) or result.exit_code == 2
    assert message in result.output + str(result.exception)


def test_the_guide_lists_every_form() -> None:
    guide = (Path(__file__).parents[2] / "docs/published.md").read_text()
    rows = [line.split("|") for line in guide.splitlines() if line.startswith("| `")]
    listed = {row[1].strip(" `"): row[3].strip() for row in rows if len(row) == 6}
    assert listed == {name: load_importer(name).LICENCE or "none is named" for name in list_importers()}
