"""Tests of the store on SQLite and PostgreSQL: rows come back unchanged, and impossible rows are refused."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from conftest import new_file
from edgevit.errors import StoreError
from edgevit.records.identity import identify
from edgevit.records.measurement import Accuracy, Measurement
from edgevit.store import LatencyDB, jsonl, row_checksums, rows, validate_measurement
from edgevit.store.json_records import checksum_of
from edgevit.store.row_checksums import row_sha256
from edgevit.store.rows import pack, unpack
from edgevit.store.schema import HEAD
from edgevit_runtime.codec import to_json
from support.measured import HOST, INPUT, SAMPLES, VENDOR_SUMMARY, failed, floor, measured, rated, snapshot, vendor_row
from support.stored_rows import SHAPES, execute, transcribed, variants


@pytest.fixture
def db(url: str) -> Iterator[LatencyDB]:
    with LatencyDB.open(url, shipped=False) as database:
        yield database


# Rows come back unchanged


@pytest.mark.parametrize("name", SHAPES)
def test_a_row_comes_out_as_it_went_in(db: LatencyDB, name: str) -> None:
    row = SHAPES[name]
    assert db.add(row) is True
    whole, [listed] = db.get(row.measurement_id), db.measurements()
    assert whole == row and listed == dataclasses.replace(row, samples_ns=(), snapshots=(), told=())
    # The store sets the fields itself, without the constructor.
    assert vars(whole).keys() == vars(listed).keys() == vars(row).keys()


RECORDS_OF_BEFORE = (measured(), rated(), floor(p50s_ns=(100, 102)))


def test_digests_stay_as_they_are() -> None:
    """Compare digests with fixed ones: databases and exports have them, and a new column must not change them."""
    digests = {type(record).__name__: checksum_of(record)[:16] for record in RECORDS_OF_BEFORE}
    assert digests == {
        "Measurement": "770e6ea873361d4d", "Accuracy": "67f0bdcbfb9b18d0", "NoiseFloor": "917258606fb8f194",
    }  # fmt: skip


def test_a_digest_is_of_all_columns_of_a_row() -> None:
    values = rows.head_values(vendor_row())
    assert {*values, "device_no", "row_sha256"} == {column.key for column in rows.head_query().selected_columns}
    digests = {row_sha256(values), *(row_sha256({**values, name: "x"}) for name in values)}
    assert len(digests) == 1 + len(values)


def test_a_column_of_a_later_schema_changes_no_older_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    values = rows.head_values(measured())
    before = row_sha256(values)
    monkeypatch.setitem(row_checksums.LATER, "colour", "")
    assert row_sha256({**values, "colour": ""}) == before != row_sha256({**values, "colour": "red"})


def test_adding_again_changes_nothing(db: LatencyDB) -> None:
    for row in (*SHAPES.values(), *SHAPES.values()):
        db.add(row)
    assert [db.add(row) for row in SHAPES.values()] == [False] * len(SHAPES)
    assert db.stats().tables["measurement"] == len(SHAPES)


def test_what_repeats_is_kept_once(db: LatencyDB) -> None:
    for row in variants(12):
        db.add(row)
    counts = db.stats().tables
    assert {name: counts[name] for name in ("model", "artifact", "device", "environment", "sample")} == {
        "model": 3, "artifact": 3, "device": 2, "environment": 1, "sample": 12,
    }  # fmt: skip


def test_one_id_with_two_contents_is_refused(db: LatencyDB) -> None:
    row = measured()
    db.add(row)
    with pytest.raises(StoreError, match="another grade, flags"):
        db.add(dataclasses.replace(row, grade="D", flags=("stolen",)))
    assert db.get(row.measurement_id) == row


def test_listing_takes_what_is_asked_for(db: LatencyDB) -> None:
    rows = [
        measured(started="2026-01-02T00:00:00Z", model="b", threads=2),
        measured(started="2026-01-01T23:59:59.5+00:00", target="coreml", precision="fp16"),
        failed(started="2026-01-03T00:00:00+00:00", device="mac", device_id="m-1", device_class="m4"),
    ]
    for row in rows:
        db.add(row)
    filters: list[tuple[str, Any]] = [
        ("device", "pi5"), ("device", "m-1"), ("device", "m4"), ("device", "pi"), ("model", "b"),
        ("target", "coreml"), ("precision", "fp16"), ("threads", 2), ("status", "crashed"), ("status", "timeout"),
    ]  # fmt: skip
    listed = [[row.measurement_id for row in db.measurements(**{key: value})] for key, value in filters]
    b, coreml, crashed = (row.measurement_id for row in rows)
    assert listed == [[coreml, b], [crashed], [crashed], [], [b], [coreml], [coreml], [b], [crashed], []]
    assert [row.measurement_id for row in db.measurements()] == [coreml, b, crashed]
    assert db.measurements(device="pi5", model="net_s", threads=2) == []


def test_keys_that_were_tried_are_known(db: LatencyDB) -> None:
    ok, crashed = measured(), failed(threads=1)
    assert not db.has(ok.measurement_key)
    db.add(ok)
    db.add(crashed)
    assert db.has(ok.measurement_key) and db.has(crashed.measurement_key) and not db.has("0" * 64)


def test_devices_and_stats(db: LatencyDB) -> None:
    assert db.devices() == []
    db.add(measured(started="2026-01-02T00:00:00Z"))
    db.add(failed(started="2026-01-03T00:00:00Z"))
    [device] = db.devices()
    assert dataclasses.astuple(device) == ("pi5", "pi-0001", "raspberry-pi-5", 2, "2026-01-03T00:00:00+00:00")
    stats = db.stats()
    assert stats.status == {"crashed": 1, "ok": 1} and stats.revision == HEAD and stats.location == db.location
    assert json.loads(to_json(stats))["tables"]["measurement"] == 2


def test_unknown_id_is_an_error(db: LatencyDB) -> None:
    with pytest.raises(StoreError, match="no measurement has the id 'abc'"):
        db.get("abc")


@settings(deadline=None)
@given(st.lists(st.integers(1, 2**63 - 1)))
def test_packed_samples_come_out_as_they_went_in(samples: list[int]) -> None:
    assert unpack(pack(tuple(samples)), len(samples)) == tuple(samples)


def test_packing_is_tight() -> None:
    noise = random.Random(0)
    samples = tuple(int(5e6 * (1 + 0.03 * noise.lognormvariate(0, 1))) for _ in range(662))
    assert len(pack(samples)) < 3 * len(samples)


# Impossible rows are refused

TIMES = {name: value for name, value in vars(measured()).items() if name.endswith("_ns") and isinstance(value, int)}
WRONG: dict[str, dict[str, Any]] = {
    "NaN": {"p50_ns": float("nan")},
    "infinite": {"p99_ns": float("inf")},
    "fraction": {"p90_ns": 5.5e6},
    "truth value": {"iqr_ns": True},
    "text for a number": {"threads": "4"},
    "fraction of a thread": {"threads": 4.0},
    "no text": {"model": None},
    "list for a tuple": {"flags": ["stolen"]},
    "negative": {"p50_ns": -5_000_000},
    "zero": {"load_ns": 0},
    "negative spread": {"mad_ns": -1},
    "p50 above p90": {"p50_ns": 5_900_000, "p50_high_ns": 5_900_000, "p90_ns": 5_200_000},
    "p90 above p99": {"p90_ns": 6_000_000, "p99_ns": 5_500_000},
    "low above p50": {"p50_low_ns": 5_200_000},
    "p50 above high": {"p50_high_ns": 5_050_000},
    "bound below its percentile": {"p90_upper_ns": 5_500_000},
    "p99 bound below its percentile": {"p99_upper_ns": 5_500_000},
    "min above p50": {"min_ns": 5_500_000},
    "swapped units": {name: value // 1000 for name, value in TIMES.items()},
    "milliseconds": {name: max(1, value // 1_000_000) for name, value in TIMES.items()},
    "bound of another row": {"p99_upper_ns": 6_500_000},
    "ok without times": dict.fromkeys(TIMES),
    "told and sampled": {"told": (VENDOR_SUMMARY,)},
    "no samples and nothing told": {"samples_ns": (), "flags": ("summary_only",)},
    "ok without a range": {"p50_low_ns": None, "p50_high_ns": None},
    "no samples": {"samples_ns": (), "processes": 0, "runs": 0},
    "runs that were not made": {"runs": 662},
    "processes that were not run": {"processes": 5},
    "negative sample": {"samples_ns": ((-1, 5_100_000, 5_300_000), SAMPLES[1])},
    "sample of NaN": {"samples_ns": ((float("nan"), 5_100_000, 5_300_000), SAMPLES[1])},
    "sample beyond 64 bits": {"samples_ns": ((2**63, 5_100_000, 5_300_000), SAMPLES[1])},
    "unknown status": {"status": "fine"},
    "unknown provenance": {"provenance": "guessed"},
    "no batch": {"batch": 0},
    "negative threads": {"threads": -1},
    "negative size": {"artifact_bytes": -1},
    "beyond 64 bits": {"peak_rss_bytes": 2**63},
    "digest cut short": {"artifact_sha256": "abc"},
    "no time at all": {"started": "yesterday"},
    "before anything": {"started": "2014-12-31T23:59:59+00:00"},
    "days ahead": {"started": (datetime.now(UTC) + timedelta(days=2)).isoformat()},
    "proof of another kind": {"parity_status": "believed"},
    "a version like a book": {"engine_version": "1" * 201},
    "an artifact of nothing": {"artifact_bytes": 0},
    "an empty input": {"inputs": (dataclasses.replace(INPUT, shape=(1, 3, 0, 224)),)},
    "local time": {"started": "2026-11-21T10:00:00+01:00"},
    "time without a zone": {"started": "2026-11-21T10:00:00"},
    "half a surrogate": {"error": "\ud800"},
    "NUL": {"model": "net\0"},
    "no rate": {"rate_hz": 0.0},
    "rate of NaN": {"rate_hz": float("nan")},
    "infinite rate": {"rate_hz": float("inf")},
    "infinite energy": {"energy_j": float("inf")},
    "energy that was not measured": {"energy_j": 0.0},
    "missed frames without a rate": {"missed": 1},
    "negative blocks": {"discarded": -1},
    "a part longer than the whole": {"import_ns": 90_000_001},
    "NUL in a host": {"host": dataclasses.replace(HOST, kernel="\0")},
    "threads beyond 32 bits": {"threads": 2**31},
    "missed beyond 32 bits": {"rate_hz": 30.0, "missed": 2**31},
    "cores beyond 32 bits": {"host": dataclasses.replace(HOST, cores=2**31)},
    "a graph that is no digest": {"graph_digest": "abc"},
    "faster than its bytes": {"artifact_bytes": 10**12},
    "another median": {"p50_ns": 5_111_000},
    "another lowest median": {"p50_low_ns": 5_050_000},
    "another highest median": {"p50_high_ns": 5_130_000},
    "another least": {"min_ns": 5_010_000},
    "load of NaN": {"snapshots": (dataclasses.replace(snapshot(), load_1min=float("nan")), snapshot())},
    "infinite load": {"snapshots": (dataclasses.replace(snapshot(), load_1min=float("inf")), snapshot())},
}


def test_whole_numbers_are_fractions_too(db: LatencyDB) -> None:
    """Store 30 and 30.0: they are one number and two texts, and have one digest."""
    camera = measured(rate_hz=30, energy_j=1)
    assert camera.measurement_id == measured(rate_hz=30.0, energy_j=1.0).measurement_id
    db.add(camera)
    db.add_noise(floor(1))
    db.add_accuracy(rated(75))
    assert db.get(camera.measurement_id) == camera and db.accuracies() == [rated(75.0)]
    assert db.noise("pi-0001") == floor(1.0) and db.check().problems == ()


def with_digests(row: Measurement) -> Measurement:
    """Return a forged row with the right digests."""
    try:
        return identify(row)
    # NaN has no digest.
    except ValueError:
        return row


WRONG_SUMMARIES: dict[str, dict[str, Any]] = {
    "no flag": {"flags": ()},
    "p90 from nowhere": {"p90_ns": 5_200_000},
    "p99 bound from nowhere": {"p99_upper_ns": 5_600_000},
    "spread from nowhere": {"iqr_ns": 100_000},
    "bound from nowhere": {"p90_upper_ns": 5_500_000},
    "outside what was told": {"p50_ns": 5_700_000, "p50_high_ns": 5_700_000},
    "a mean for a median": {"p50_ns": None, "p50_low_ns": None, "p50_high_ns": None},
    "the wrong flag": {"flags": ("mean_only", "summary_only")},
    "runs that were not told": {"runs": 300},
    "processes that were not told": {"processes": 5},
    "out of order": {"told": (dataclasses.replace(VENDOR_SUMMARY, median_ns=4_000_000), VENDOR_SUMMARY)},
    "a mean that cannot be": {"told": (dataclasses.replace(VENDOR_SUMMARY, mean_ns=6_000_000), VENDOR_SUMMARY)},
    "no runs": {"told": (dataclasses.replace(VENDOR_SUMMARY, runs=0), VENDOR_SUMMARY)},
    "a p95 beyond the largest": {"told": (dataclasses.replace(VENDOR_SUMMARY, p95_ns=9_000_000), VENDOR_SUMMARY)},
    "a time of zero": {"told": (dataclasses.replace(VENDOR_SUMMARY, min_ns=0), VENDOR_SUMMARY)},
}


@pytest.mark.parametrize("name", WRONG_SUMMARIES)
def test_impossible_summaries_are_refused(name: str) -> None:
    validate_measurement(vendor_row())
    with pytest.raises(StoreError, match="the row is refused"):
        validate_measurement(with_digests(dataclasses.replace(vendor_row(), **WRONG_SUMMARIES[name])))


def test_what_was_told_is_part_of_the_id(db: LatencyDB) -> None:
    other = (dataclasses.replace(VENDOR_SUMMARY, max_ns=5_650_000), VENDOR_SUMMARY)
    assert identify(dataclasses.replace(vendor_row(), told=other)).measurement_id != vendor_row().measurement_id
    with pytest.raises(StoreError, match="is not that of the row"):
        db.add(dataclasses.replace(vendor_row(), told=other))


@pytest.mark.parametrize("name", WRONG)
def test_impossible_rows_are_refused(name: str) -> None:
    row = with_digests(dataclasses.replace(measured(), **WRONG[name]))
    with pytest.raises(StoreError, match="the row is refused") as caught:
        validate_measurement(row)
    assert caught.value.why


def test_a_row_that_is_refused_leaves_nothing_behind(db: LatencyDB) -> None:
    for wrong in WRONG.values():
        with pytest.raises(StoreError, match="the row is refused"):
            db.add(with_digests(dataclasses.replace(measured(), **wrong)))
    assert not any(count for name, count in db.stats().tables.items() if name != "meta")


def test_altered_rows_are_refused(db: LatencyDB) -> None:
    changes: dict[str, Any] = {"measurement_id": "0" * 64, "device_id": "pi-2", "started": "2026-01-01T00:00:00Z"}
    for name, value in changes.items():
        with pytest.raises(StoreError, match="is not that of the row"):
            db.add(dataclasses.replace(measured(), **{name: value}))
    listed = dataclasses.replace(measured(), samples_ns=(), snapshots=())
    with pytest.raises(StoreError):
        validate_measurement(listed)


CHECKS = {
    "status": "status = 'fine'",
    "provenance": "provenance = 'guessed'",
    "digests": "measurement_key = 'abc'",
    "row_sha256": "row_sha256 = 'abc'",
    "positive": "load_ns = 0",
    "spread": "iqr_ns = -1",
    "ordered": "p50_ns = p90_ns + 1",
    "timed": "p50_ns = NULL, mean_ns = NULL",
    "counts": "batch = 0",
    "blocks": "discarded = -1",
    "rates": "energy_j = 0.0",
    "missed": "missed = 1",
    "cannot store TEXT value in INTEGER|invalid input syntax for type integer": "threads = 'four'",
    "NOT NULL|not-null": "nonce = NULL",
    "FOREIGN KEY|foreign key": "device_no = 99",
}


@pytest.mark.parametrize("constraint", CHECKS)
def test_the_tables_refuse_it_too(db: LatencyDB, url: str, constraint: str) -> None:
    db.add(measured())
    with pytest.raises(DBAPIError, match=constraint):
        execute(url, f"UPDATE measurement SET {CHECKS[constraint]}")


# Import and export


def test_export_reads_in_batches(db: LatencyDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgevit.store.exchange.BATCH_ROWS", 3)
    for row in variants(7):
        db.add(row)
    assert db.export_jsonl(tmp_path / "all.jsonl") == 7
    with LatencyDB.open(new_file(tmp_path / "y.db"), shipped=False) as other:
        assert other.import_jsonl(tmp_path / "all.jsonl") == (7, 0, ())


def poison() -> dict[str, bytes]:
    """Return lines that are no rows, by their problem."""
    good = to_json(measured())
    altered = {name: to_json(dataclasses.replace(measured(), **change)) for name, change in (
        ("swapped units", {"p50_ns": 5_110, "p50_low_ns": 5_100, "p50_high_ns": 5_120, "min_ns": 5_000}),
        ("p50 above p90", WRONG["p50 above p90"]),
        ("negative", WRONG["negative"]),
        ("id of another row", {"measurement_id": measured([[1]]).measurement_id}),
        ("key of another row", {"measurement_key": measured(threads=1).measurement_key}),
        ("samples of another row", {"samples_ns": (SAMPLES[1], SAMPLES[0])}),
        ("half a surrogate", WRONG["half a surrogate"]),
        ("altered and not altered", {"grade": "D"}),
    )}  # fmt: skip
    texts = altered | {
        "NaN": good.replace('"p50_ns":', '"p50_ns":NaN,"p50_ns_":'),
        "infinity": re.sub(r'"p99_ns":\d+', '"p99_ns":Infinity', good),
        "half a nanosecond": re.sub(r'"p99_ns":\d+', '"p99_ns":0.5', good),
        "unknown field": good.replace('"p50_ns":', '"new":1,"p50_ns":'),
        "not all of it": good[:200],
        "no object": "[]",
        "no JSON": "hello",
        "thousands of digits": re.sub(r'"p99_ns":\d+', f'"p99_ns":{"9" * 5000}', good),
        "beyond 64 bits": re.sub(r'"threads":\d+', f'"threads":{2**63}', good),
        "deep": "[" * 100_000,
    }
    return {name: text.encode() for name, text in texts.items()} | {"not UTF-8": b'{"model": "\xff"}'}


def test_poisoned_rows_are_refused_one_by_one(db: LatencyDB, tmp_path: Path) -> None:
    lines, file = poison(), tmp_path / "poison.jsonl"
    good = [to_json(measured()).encode(), *(to_json(row).encode() for row in variants(3))]
    file.write_bytes(b"\n".join([*good, *lines.values(), b"", good[0]]))
    added, duplicates, refused = db.import_jsonl(file)
    assert (added, duplicates) == (4, 1)
    assert [refusal.location for refusal in refused] == [f"poison.jsonl, line {5 + i}" for i in range(len(lines))]
    reasons = dict(zip(lines, (refusal.text for refusal in refused), strict=True))
    codes = dict(zip(lines, (refusal.code for refusal in refused), strict=True))
    for name, code in {
        "NaN": "malformed",
        "negative": "impossible",
        "altered and not altered": "contradiction",
    }.items():
        assert codes[name] == code, name
    for name, words in {
        "swapped units": "outside its samples",
        "p50 above p90": "p50_ns .* is above p90_ns",
        "negative": "not positive",
        "NaN": "NaN is not a number",
        "infinity": "Infinity is not a number",
        "half a nanosecond": "expected int",
        "id of another row": "measurement_id is not that",
        "key of another row": "measurement_key is not that",
        "samples of another row": "measurement_id is not that",
        "altered and not altered": "another grade",
        "unknown field": "unknown new",
    }.items():
        assert re.search(words, reasons[name]), (name, reasons[name])
    assert db.stats().tables["measurement"] == 4


def test_files_that_cannot_be_read_or_written(db: LatencyDB, tmp_path: Path) -> None:
    for call in (db.import_jsonl, db.export_jsonl):
        with pytest.raises(StoreError) as caught:
            call(tmp_path / "missing" / "x.jsonl")
        assert caught.value.where and caught.value.why and caught.value.fix


def test_a_broken_export_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    jsonl.write_lines(file, variants(2))
    before = file.read_bytes()

    def rows() -> Iterator[Measurement]:
        yield measured()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jsonl.write_lines(file, rows())
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


def test_an_export_takes_the_place_of_the_old_file_at_once(tmp_path: Path) -> None:
    file, link = tmp_path / "rows.jsonl", tmp_path / "link"
    jsonl.write_lines(file, variants(2))
    link.hardlink_to(file)
    before = file.read_bytes()
    assert jsonl.write_lines(file, variants(3)) == 3
    # There is a new file under the name, not new bytes in the old one.
    assert link.read_bytes() == before != file.read_bytes()


def test_shipped_rows_are_loaded_once(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    rows = variants(4)
    jsonl.write_lines(files[0], rows[:2])
    jsonl.write_lines(files[1], rows[1:3])
    monkeypatch.setattr(jsonl, "shipped_files", lambda: files)
    with LatencyDB.open(url) as db:
        assert db.stats().tables["measurement"] == 3
        assert db.load_shipped() == (0, 0, ())
        jsonl.write_lines(files[1], rows[1:])
        assert db.load_shipped() == (1, 4, ())
    with monkeypatch.context() as patch, LatencyDB.open(url):
        # It is not called again.
        patch.setattr(jsonl, "parse_lines", None)
    with LatencyDB.open(new_file(tmp_path / "y.db"), shipped=False) as db:
        assert db.stats().tables["measurement"] == 0


def test_bad_shipped_rows_are_said_and_do_not_stop_the_rest(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(to_json(dataclasses.replace(measured(), p50_ns=-1)) + "\n" + to_json(measured()))
    monkeypatch.setattr(jsonl, "shipped_files", lambda: [file])
    with pytest.warns(UserWarning, match=r"1 rows that come with edgevit were refused: a.jsonl, line 1"):
        LatencyDB.open(url).close()
    # The warning comes once.
    with LatencyDB.open(url) as db:
        assert db.stats().tables["measurement"] == 1


def test_what_edgevit_ships_is_sound(url: str) -> None:
    with LatencyDB.open(url) as db:
        shipped = sum(file.read_bytes().count(b"\n") for file in jsonl.shipped_files())
        assert db.stats().tables["measurement"] == shipped


def test_rows_without_newer_fields_are_taken(db: LatencyDB, tmp_path: Path) -> None:
    """Import a row without newer fields: it ran in a closed loop, and no block was discarded."""
    row = measured()
    old = json.loads(to_json(row))
    newer = ("rate_hz", "missed", "discarded", "import_ns", "compile_ns", "cold_load_ns", "energy_j", "told")
    for name in (*newer, "licence", "untold", "graph_digest"):
        del old[name]
    for old_snapshot in old["snapshots"]:
        for name in ("nominal_khz", "throttled", "throttle_events"):
            del old_snapshot[name]
    (tmp_path / "old.jsonl").write_text(json.dumps(old))
    assert db.import_jsonl(tmp_path / "old.jsonl").refused == ()
    assert db.get(row.measurement_id) == row


# Noise floors


def test_the_newest_noise_floor_counts(db: LatencyDB) -> None:
    assert db.noise("pi-0001") is None
    newest = floor(0.03, started="2026-11-22T10:00:00+00:00")
    of_another_protocol = floor(0.9, started="2026-11-23T10:00:00+00:00", protocol_version=99)
    for noise in (floor(), newest, floor(), floor(0.5, device_id="pi-2"), of_another_protocol):
        db.add_noise(noise)
    assert db.noise("pi-0001") == newest
    for wrong in (floor(float("nan")), floor(-0.1), floor(device_id=""), floor(p50s_ns=(100, 110))):
        with pytest.raises(StoreError, match="refused"):
            db.add_noise(wrong)


def test_rows_are_found_by_the_beginning_of_their_id(db: LatencyDB) -> None:
    row = measured()
    db.add(row)
    assert db.find(row.measurement_id[:8]) == [row.measurement_id]
    assert db.find("%") == db.find("zz") == []


def test_a_refused_line_is_kept_in_quarantine(db: LatencyDB, tmp_path: Path) -> None:
    lines, file = poison(), tmp_path / "poison.jsonl"
    file.write_bytes(b"\n".join([to_json(measured()).encode(), *lines.values()]))
    # The second import gives the same result.
    for _ in range(2):
        refused = db.import_jsonl(file).refused
        records = db.quarantine()
        assert {(record.location, record.reason) for record in records} == {(one.location, one.text) for one in refused}
        assert sorted(record.content.rstrip(b"\n") for record in records) == sorted(lines.values())
    assert db.stats().tables["quarantine"] == len(lines) and db.stats().tables["measurement"] == 1


def test_of_a_large_line_the_beginning_is_kept(db: LatencyDB, tmp_path: Path) -> None:
    (tmp_path / "large.jsonl").write_bytes(b"x" * (2**20 + 7))
    db.import_jsonl(tmp_path / "large.jsonl")
    [record] = db.quarantine()
    assert (record.size_bytes, len(record.content)) == (2**20 + 7, 2**20)


# Accuracies


def measured_top1(**changes: Any) -> Accuracy:
    fields: dict[str, Any] = {
        "provenance": "measured", "error": 0.4, "started": "2026-11-21T10:00:00+00:00", "untold": (), "target": "onnx",
        "precision": "fp32", "artifact_sha256": "a" * 64, "input_size": (224, 224),
    }  # fmt: skip
    accuracy: Accuracy = rated(**(fields | changes))
    return accuracy


def test_accuracies_come_out_as_they_went_in(db: LatencyDB) -> None:
    top5, measured_one = rated(92.4, metric="top5_percent"), measured_top1(value=74.9)
    accuracies = [rated(), top5, measured_one, rated(model="net_m", note="Füße")]
    assert [db.add_accuracy(accuracy) for accuracy in accuracies] == [True] * 4
    assert [db.add_accuracy(accuracy) for accuracy in accuracies] == [False] * 4
    assert set(db.accuracies()) == set(accuracies)
    assert db.accuracies(model="net_m") == [accuracies[3]]
    assert db.accuracies(metric="top1_percent", provenance="measured", artifact_sha256="a" * 64) == [measured_one]
    assert db.accuracies(dataset="digits") == []


def test_whole_numbers_and_fractions_are_one_accuracy(db: LatencyDB) -> None:
    assert rated(75).accuracy_id == rated(75.0).accuracy_id
    assert db.add_accuracy(rated(75)) and not db.add_accuracy(rated(75.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"value": 101.0}, {"value": -1.0}, {"value": float("nan")}, {"error": -0.1}, {"error": float("inf")},
        {"examples": 0}, {"model": ""}, {"metric": ""}, {"dataset": ""}, {"provenance": "guessed"}, {"source": ""},
        {"licence": ""}, {"untold": ()}, {"artifact_sha256": "abc"}, {"started": "yesterday"}, {"note": "\0"},
        {"provenance": "measured"}, {"started": "2026-11-21T10:00:00"},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_accuracies_are_refused(db: LatencyDB, changes: dict[str, Any]) -> None:
    try:
        wrong = rated(**changes)
    # NaN has no digest.
    except ValueError:
        wrong = dataclasses.replace(rated(), **changes)
    with pytest.raises(StoreError, match="the accuracy is refused"):
        db.add_accuracy(wrong)
    assert db.accuracies() == []


def test_an_altered_accuracy_is_refused(db: LatencyDB) -> None:
    with pytest.raises(StoreError, match="accuracy_id is not that"):
        db.add_accuracy(dataclasses.replace(rated(), value=76.0))


# Published rows


def test_published_rows_say_what_their_source_leaves_out(db: LatencyDB) -> None:
    row = transcribed(p90_ns=22_000_000, threads=4)
    assert db.add(row) and not db.add(transcribed(p90_ns=22_000_000, threads=4))
    assert db.get(row.measurement_id) == row
    assert {"samples", "host", "p99_ns", "started", "engine_version"} <= set(row.untold)
    assert not {"p90_ns", "threads", "licence"} & set(row.untold)
    assert transcribed(p50_ns=22_000_000).measurement_id != transcribed().measurement_id
    nameless = transcribed(licence="")
    assert "licence" in nameless.untold and db.add(nameless)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"source": ""}, "no source"),
        ({"licence": ""}, "the licence is empty"),
        ({"untold": ()}, "p99_ns missing"),
        ({"host": HOST}, "those of a measurement"),
        ({"samples_ns": ((1,),)}, "those of a measurement"),
        ({"artifact_bytes": 25_000_000, "p50_ns": 21}, "no memory is as fast"),
    ],
)
def test_published_rows_without_their_origin_are_refused(db: LatencyDB, changes: dict[str, Any], why: str) -> None:
    row = identify(dataclasses.replace(transcribed(p90_ns=22_000_000), **changes))
    with pytest.raises(StoreError, match=why):
        db.add(row)


# Sweeps


def test_a_sweep_knows_its_rows(db: LatencyDB, url: str) -> None:
    from edgevit.records.measurement import Device

    sweep = db.begin_sweep(Device("pi5", "pi-0001", "raspberry-pi-5", "ssh"), 4, ["net_s onnx fp32"])
    db.add(measured(), sweep_id=sweep.sweep_id)
    db.add(failed(), sweep_id=sweep.sweep_id)
    db.add(measured(nonce="other"))
    ids = execute(url, "SELECT measurement_id FROM sweep_row")
    assert {name for (name,) in ids} == {measured().measurement_id, failed().measurement_id}
    assert execute(url, "SELECT asked_json, threads FROM sweep") == [('["net_s onnx fp32"]', 4)]
