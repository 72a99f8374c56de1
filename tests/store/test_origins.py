"""Where records came from: kept beside them for every way into a database, and outside of every digest."""

from __future__ import annotations

import json
from pathlib import Path

import platformdirs
import pytest

from edgevit.errors import StoreError, UnknownNameError, UsageError
from edgevit.records.measurement import NoiseFloor
from edgevit.records.origin import OriginPolicy
from edgevit.store import LatencyDB
from edgevit.store.connect import create, database_url
from edgevit.store.json_records import PortableRecord
from edgevit.store.jsonl import write_lines
from edgevit.store.origins import installation_id, record_id
from support.command_line import edgevit
from support.graders import artifact
from support.measured import floor, measured, operators, published, rated
from support.old_databases import migrate
from support.stored_rows import RECORDS, add_record, execute


def kinds(db: LatencyDB, record: str) -> list[str]:
    return [origin.kind for origin in db.origins([record]).get(record, ())]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Be another installation from here on."""
    monkeypatch.setattr("platformdirs.user_data_path", lambda name: tmp_path / "elsewhere" / name)


def test_every_kind_of_record_keeps_that_it_was_measured_here(empty_url: str) -> None:
    with LatencyDB.open(empty_url, shipped=False) as db:
        for record in RECORDS:
            add_record(db, record)
        assert {record_id(record): kinds(db, record_id(record)) for record in RECORDS} == {
            record_id(record): ["measured"] for record in RECORDS
        }
        [source] = db.sources()
        assert source.is_own and source.origin.source == source.origin.installation == installation_id()
        assert source.records == len({record_id(record) for record in RECORDS})


def test_imports_and_merges_are_told_apart(empty_url: str, tmp_path: Path) -> None:
    first, second, other = measured(nonce="1"), measured(nonce="2"), str(tmp_path / "other.db")
    with LatencyDB.open(other, shipped=False) as db:
        for record in (first, second, rated(), floor(), operators()):
            add_record(db, record)
        file = tmp_path / "rows.jsonl"
        db.export_jsonl(file)
        assert "installation" not in file.read_text(), "a file cannot vouch for itself"
    with LatencyDB.open(empty_url, shipped=False) as db:
        db.add(first)
        assert db.import_jsonl(file).added == 4
        assert db.merge(other).duplicates == 5
        assert kinds(db, first.measurement_id) == ["measured", "imported", "merged"]
        for record in (second, rated(), floor(), operators()):
            assert kinds(db, record_id(record)) == ["imported", "merged"]
        read = [source.origin for source in db.sources() if not source.is_own]
        assert [origin.source for origin in read] == [str(file.absolute()), other]
        assert all(origin.installation == installation_id() and origin.since for origin in read)
        assert db.import_jsonl(file).duplicates == 5
        assert [source.records for source in db.sources()] == [1, 5, 5, 5], "each import is one of its own"
        assert db.check().problems == ()


def test_what_was_refused_has_no_origin(empty_url: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"no": "row"}\n')
    with LatencyDB.open(empty_url, shipped=False) as db:
        assert len(db.import_jsonl(file).refused) == 1
        assert db.sources() == []
        with pytest.raises(StoreError):
            db.add_noise(NoiseFloor("x", "x", "w", 1, -1.0, (), "2026-11-22T10:00:00+00:00"))
        assert db.sources() == []


def test_two_installations_at_one_database(empty_url: str, request: pytest.FixtureRequest) -> None:
    with LatencyDB.open(empty_url, shipped=False) as db:
        db.add(measured())
    mine = installation_id()
    request.getfixturevalue("elsewhere")
    assert installation_id() != mine
    assert installation_id() == installation_id(), "it was made once"
    with LatencyDB.open(empty_url, shipped=False) as db:
        db.add(measured(nonce="theirs"))
        assert [(one.origin.installation, one.is_own) for one in db.sources()] == [
            (mine, False), (installation_id(), True),
        ]  # fmt: skip


def test_code_that_another_installation_built_may_not_run_here(
    empty_url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A shared database has the permissions of all its writers; a digest without an origin gives none."""
    mine = installation_id()
    with LatencyDB.open(empty_url, shipped=False) as db:
        db.record_built(code := artifact(tmp_path / "made"), ["a" * 64, "b" * 64])
        assert db.built() == {"a" * 64, "b" * 64}
        assert db.check().problems == ()
    request.getfixturevalue("elsewhere")
    with LatencyDB.open(empty_url, shipped=False) as db:
        assert db.built() == frozenset()
        db.record_built(code, ["b" * 64])
        assert db.built() == {"b" * 64}, "it was built here too"
        db.trust(mine)
        assert db.built() == {"a" * 64, "b" * 64}
    execute(empty_url, "DELETE FROM record_origin")
    with LatencyDB.open(empty_url, shipped=False) as db:
        assert db.built() == frozenset()


def test_shipped_rows_say_so(tmp_path: Path) -> None:
    with LatencyDB.open(str(tmp_path / "x.db")) as db:
        [source] = db.sources()
        assert (source.origin.kind, source.origin.source, source.is_own) == ("shipped", "edgevit", False)
        assert source.records == db.stats().tables["measurement"]


def test_older_records_have_no_recorded_origin(empty_url: str) -> None:
    with LatencyDB.open(empty_url, shipped=False) as db:
        for record in (measured(), rated(), floor(), operators()):
            add_record(db, record)
    engine = create(database_url(empty_url))
    migrate(engine, "downgrade", "0008")
    engine.dispose()
    with LatencyDB.open(empty_url, shipped=False) as db:
        [source] = db.sources()
        assert (source.origin.kind, source.records, source.is_own) == ("unrecorded", 4, False)
        for record in (measured(), rated(), floor(), operators()):
            assert kinds(db, record_id(record)) == ["unrecorded"]
        assert db.check().problems == ()


@pytest.mark.parametrize(
    "record", [measured(), rated(), floor(), operators()], ids=lambda record: type(record).__name__
)
def test_a_record_without_origin_is_a_problem(empty_url: str, record: PortableRecord) -> None:
    with LatencyDB.open(empty_url, shipped=False) as db:
        add_record(db, record)
        assert db.check().problems == ()
    execute(empty_url, "DELETE FROM record_origin")
    with LatencyDB.open(empty_url, shipped=False) as db:
        assert [problem.partition(": ")[2] for problem in db.check().problems] == [
            "nothing says where 1 records came from"
        ]


def test_an_id_that_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(platformdirs, "user_data_path", lambda name: tmp_path / "file" / name)
    with pytest.raises(StoreError, match="XDG_DATA_HOME"):
        installation_id()


def test_sources_are_shown(tmp_path: Path) -> None:
    row = measured()
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as db:
        db.add(row)
    shown = edgevit("db", "sources", "--db", "x.db", folder=tmp_path)
    assert shown.returncode == 0 and "shipped" in shown.stdout and "measured" in shown.stdout
    one = edgevit("db", "show", row.measurement_id[:12], "--db", "x.db", folder=tmp_path)
    assert "origins" in one.stdout and '"measured"' in one.stdout


# Whose records decide


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A file of a row and an accuracy of the own device, and of a noise floor."""
    file = tmp_path / "foreign.jsonl"
    floors = floor(0.5, started="2026-11-23T10:00:00+00:00")
    write_lines(file, [measured(nonce="forged", model="net_x"), rated(99.0), floors])
    return file


def test_imported_records_decide_once_their_source_is_trusted(empty_url: str, foreign: Path) -> None:
    source = str(foreign.absolute())
    with LatencyDB.open(empty_url, shipped=False) as db:
        db.add(own := measured())
        db.import_jsonl(foreign)
        cases: tuple[tuple[OriginPolicy, bool], ...] = (("own", False), ("trusted", False), ("any", True))
        for policy, is_in in cases:
            view = db.trusting(policy)
            rows = [row.measurement_id for row in view.measurements(device=own.device_id)]
            assert len(rows) == 1 + is_in and own.measurement_id in rows
            assert len(view.measurements(device=own.device_id, current_epoch=True)) == 1 + is_in
            assert len(view.history(own.device_id)[0]) == 1 + is_in
            assert len(view.accuracies()) == is_in and (view.noise("pi-0001") is not None) == is_in
            assert view.left_out(own.device_id) == ({} if is_in else {source: 1})
        db.trust(source)
        assert len(db.trusting("trusted").accuracies()) == 1 and db.trusting("trusted").left_out(own.device_id) == {}
        assert db.trusting("own").accuracies() == []
        db.trust(source, is_trusted=False)
        assert db.trusting("trusted").accuracies() == []
        with pytest.raises(UnknownNameError, match="did you mean"):
            db.trust(source + "x")
        assert db.check().problems == ()


def test_a_record_decides_if_one_of_its_origins_does(empty_url: str, tmp_path: Path) -> None:
    row, file, other = measured(), tmp_path / "rows.jsonl", tmp_path / "copy.jsonl"
    for path in (file, other):
        write_lines(path, [row])
    with LatencyDB.open(empty_url, shipped=False) as db:
        db.import_jsonl(file)
        assert db.trusting("trusted").measurements() == []
        db.import_jsonl(other)
        db.trust(str(other))
        assert len(db.trusting("trusted").measurements()) == 1
        db.trust(str(other), is_trusted=False)
        db.add(row)
        assert len(db.trusting("own").measurements()) == 1


def test_forged_rows_open_no_epoch_and_pass_for_no_measurement(empty_url: str, tmp_path: Path) -> None:
    """Ten repeats of the own row, all five times as slow and later: as a change of the device they would end it."""
    own, file = measured(), tmp_path / "forged.jsonl"
    slow = tuple(tuple(5 * ns for ns in process) for process in own.samples_ns)
    forged = [
        measured(slow, started=f"2026-11-{day}T10:00:00+00:00", nonce=str(day)) for day in range(22, 30)
    ]  # fmt: skip
    write_lines(file, forged)
    with LatencyDB.open(empty_url, shipped=False) as db:
        db.add(own)
        assert db.import_jsonl(file).added == len(forged)
        assert own.measurement_id in db.history("pi-0001")[1], "all together they tell that the device changed"
        rows, former = db.trusting("trusted").history("pi-0001")
        assert ([row.measurement_id for row in rows], former) == ([own.measurement_id], frozenset())


def test_epochs_are_those_of_the_rows_that_are_left(empty_url: str, tmp_path: Path) -> None:
    """The device did change, and rows that are forgotten told it first."""
    own, file = measured(), tmp_path / "forged.jsonl"
    slow = tuple(tuple(5 * ns for ns in process) for process in own.samples_ns)
    first, second, later = (
        measured(slow, started=f"2026-11-{day}T10:00:00+00:00", nonce=str(day)) for day in (22, 23, 25)
    )
    write_lines(file, [first, second])
    with LatencyDB.open(empty_url, shipped=False) as db:
        db.add(own)
        db.import_jsonl(file)
        db.add(later)
        assert [epoch.measurement_id for epoch in db.epochs()] == [first.measurement_id]
        db.forget(str(file))
        assert [epoch.measurement_id for epoch in db.epochs()] == [later.measurement_id]
        assert db.check().problems == ()


def test_choices_say_what_they_leave_out(tmp_path: Path, foreign: Path) -> None:
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as db:
        db.import_jsonl(foreign)
    options = ("choose", "--device", "pi5", "--max-latency", "1s", "--measured-only", "--db", "x.db")
    refused = edgevit(*options, folder=tmp_path)
    assert refused.returncode == 2 and f"edgevit db trust {foreign.absolute()}" in refused.stderr
    once = edgevit(*options, "--origin", "any", folder=tmp_path)
    assert "net_x" in once.stdout and "read from" in once.stdout + once.stderr
    assert edgevit("db", "trust", str(foreign.absolute()), "--db", "x.db", folder=tmp_path).returncode == 0
    trusted = edgevit(*options, folder=tmp_path)
    assert "net_x" in trusted.stdout and "not trusted" not in trusted.stdout + trusted.stderr
    wrong = edgevit(*options, "--origin", "mine", folder=tmp_path)
    assert wrong.returncode == 2 and "own" in wrong.stderr


def test_tables_have_origins_where_not_all_rows_are_own(tmp_path: Path) -> None:
    file = tmp_path / "from a board.jsonl"
    own, read = measured(model="net_own"), measured(model="net_read", nonce="read")
    write_lines(file, [read, published(), rated(70.0, model="net_own"), rated(60.0, model="net_read")])
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as db:
        db.add(own)
        assert db.foreign_origins() == {}
    choose = ("choose", "--device", "pi5", "--max-latency", "1s", "--measured-only", "--origin", "any", "--db", "x.db")
    for command in (choose, ("db", "show", "-d", "pi5", "--db", "x.db")):
        alone = edgevit(*command, folder=tmp_path)
        assert "net_own" in alone.stdout and "here" not in alone.stdout
    assert edgevit("db", "import", str(file), "--db", "x.db", folder=tmp_path).returncode == 0
    for command in (choose, ("db", "show", "-d", "pi5", "--db", "x.db")):
        lines = edgevit(*command, folder=tmp_path).stdout.splitlines()
        [of_own], [of_read] = (
            [one for one in lines if name in one and " onnx " in one and "fp32  " in one]
            for name in ("net_own", "net_read")
        )
        assert "here" in of_own.split() and "imported" in of_read and "imported" not in of_own
    answer = json.loads(edgevit(*choose, "--json", folder=tmp_path).stdout)
    labels = {one["model"]: one["origin"] for one in answer["fitting"]}
    assert labels == {"net_own": "", "net_read": f"imported {file}"}
    shown = json.loads(edgevit("db", "show", "-d", "pi5", "--db", "x.db", "--json", folder=tmp_path).stdout)[
        "measurements"
    ]
    origins = {one["model"]: one["origin"] for one in shown if one["provenance"] == "measured"}
    assert origins["net_own"] is None and origins["net_read"]["kind"] == "imported"
    assert "imported" in edgevit("db", "show", "--provenance", "published", "--db", "x.db", folder=tmp_path).stdout


def test_a_forgotten_source_does_not_come_back(empty_url: str, tmp_path: Path) -> None:
    """Of all kinds of records; what came from elsewhere too, and what was measured here, stays."""
    own, file, other = measured(nonce="own"), tmp_path / "bad.jsonl", str(tmp_path / "other.db")
    write_lines(file, [own, *RECORDS])
    with LatencyDB.open(other, shipped=False) as db:
        db.import_jsonl(file)
    with LatencyDB.open(empty_url, shipped=False) as db:
        db.add(own)
        before = db.stats().tables
        db.import_jsonl(file)
        source = str(file.absolute())
        assert db.forget(source) == len({record_id(record) for record in RECORDS} - {own.measurement_id})
        assert [row.measurement_id for row in db.measurements()] == [own.measurement_id]
        after = db.stats().tables
        for name in ("measurement", "sample", "accuracy", "graph", "confusion", "noise", "epoch"):
            assert after[name] == before[name], name
        assert db.check().problems == () and kinds(db, own.measurement_id) == ["measured"]
        again = db.import_jsonl(file)
        assert again == (0, 1, ()) and db.left_forgotten == after["forgotten"]
        assert db.merge(other).added == 0
        assert db.remember(source) == after["forgotten"]
        assert db.merge(other).added == after["forgotten"] and db.check().problems == ()
        with pytest.raises(UnknownNameError):
            db.remember(source)
        with pytest.raises(UnknownNameError):
            db.forget("nowhere")
        with pytest.raises(UsageError, match="cannot be forgotten"):
            db.forget(installation_id())


def test_forgetting_on_the_command_line(tmp_path: Path, foreign: Path) -> None:
    (tmp_path / "foreign.jsonl").write_bytes(foreign.read_bytes())
    for command in (
        ("db", "import", "foreign.jsonl"), ("db", "forget", "foreign.jsonl"), ("db", "import", "foreign.jsonl"),
        ("db", "forget", "foreign.jsonl", "--undo"), ("db", "import", "foreign.jsonl"),
    ):  # fmt: skip
        done = edgevit(*command, "--db", "x.db", folder=tmp_path)
        assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 added")


def test_reports_and_gates_leave_out_what_is_not_trusted(tmp_path: Path, foreign: Path) -> None:
    own = measured(model="net_x")
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as db:
        db.import_jsonl(foreign)
        report = ("report", "-o", "r.html", "--device", "pi5", "--measured-only", "--db", "x.db")
        nothing = edgevit(*report, folder=tmp_path)
        assert nothing.returncode == 2 and f"edgevit db trust {foreign.absolute()}" in nothing.stderr
        db.add(own)
    written = edgevit(*report, folder=tmp_path)
    assert written.stdout.startswith("1 rows of 1 device") and "left out: 1 rows from" in written.stdout
    gate = ("db", "compare", "net_x", own.measurement_id[:12], "-d", "pi5", "--db", "x.db")
    assert "A and B are one row" in edgevit(*gate, folder=tmp_path).stderr, "the imported row has the name too"
    assert edgevit("db", "trust", str(foreign.absolute()), "--db", "x.db", folder=tmp_path).returncode == 0
    assert "left out" not in edgevit(*report, folder=tmp_path).stdout
