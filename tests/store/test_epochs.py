"""Tests of epochs: a device that changed for good opens one, a device with noisy times does not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import new_file
from edgevit.errors import StoreError
from edgevit.records.measurement import EMULATED, Measurement
from edgevit.records.network import Network
from edgevit.store import LatencyDB, epochs, jsonl
from edgevit.store.epochs import JUMP, UNKNOWN_FLOOR, TimedRow
from support.measured import failed, floor
from support.stored_rows import execute, row_of_day, transcribed


@pytest.fixture
def db(url: str) -> Iterator[LatencyDB]:
    with LatencyDB.open(url, shipped=False) as database:
        yield database


def test_a_swapped_board_opens_an_epoch_and_says_so(db: LatencyDB) -> None:
    for row in (row_of_day(1, 5_000_000), row_of_day(2, 5_020_000)):
        db.add(row)
    assert db.opened_epochs == [] and db.epochs() == []
    swapped = row_of_day(3, 20_000_000)
    db.add(swapped)
    [epoch] = db.epochs()
    assert db.opened_epochs == [epoch]
    assert (epoch.number, epoch.measurement_id, epoch.started) == (1, swapped.measurement_id, swapped.started)
    assert epoch.reference_id == row_of_day(2, 5_020_000).measurement_id
    assert epoch.ratio == pytest.approx(20_000_000 / 5_010_000) and epoch.limit == JUMP * UNKNOWN_FLOOR
    db.add(row_of_day(4, 20_100_000))
    assert len(db.epochs()) == 1 and len(db.opened_epochs) == 1
    # The first board comes back.
    db.add(row_of_day(5, 5_000_000))
    assert [epoch.number for epoch in db.epochs()] == [1, 2]


def test_rows_of_the_current_epoch(db: LatencyDB) -> None:
    old, new = row_of_day(1, 5_000_000), row_of_day(3, 20_000_000)
    alone = row_of_day(2, 7_000_000, model="net_m", artifact_sha256="c" * 64)
    elsewhere = row_of_day(1, 5_000_000, device="pi6", device_id="pi-0002")
    for row in (old, alone, new, elsewhere):
        db.add(row)
    names = {row.measurement_id for row in db.measurements(current_epoch=True)}
    assert names == {new.measurement_id, elsewhere.measurement_id}
    assert [row.measurement_id for row in db.measurements(device="pi5", current_epoch=True)] == [new.measurement_id]
    assert len(db.measurements(device="pi5")) == 3
    assert db.measurements(device="pi5", model="net_m", current_epoch=True) == []


def test_the_noise_floor_decides_what_is_a_jump(db: LatencyDB) -> None:
    for day, p50_ns in enumerate((5_000_000, 5_600_000), start=1):
        db.add(row_of_day(day, p50_ns))
    # The rows differ by 12%, and the noise floor of the device is unknown.
    assert db.epochs() == []
    db.add_noise(floor(0.02))
    assert len(db.epochs()) == 1
    db.add_noise(floor(0.05, started="2026-12-01T00:00:00+00:00"))
    assert db.epochs() == []


@pytest.mark.parametrize(
    "other",
    [
        {"threads": 2}, {"engine": "openvino"}, {"engine_version": "1.32.0"}, {"precision": "fp16"}, {"batch": 8},
        {"artifact_sha256": "b" * 64, "model": "net_m"}, {"rate_hz": 30.0}, {"compute_unit": "gpu"}, {"affinity": (0,)},
        {"device_id": "pi-0002"}, {"target": "openvino"}, {"protocol_version": 2},
        {"network": Network("random", forms="portable")}, {"network": Network("random", embed_preprocess=True)},
        {"network": Network("random", forms="default:depthwise_rows:3f0c2a91")},
        {"network": Network("random", options=(("opset", "18"),))},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_repeat_opens_nothing(db: LatencyDB, other: dict[str, Any]) -> None:
    db.add(row_of_day(1, 5_000_000))
    db.add(row_of_day(2, 50_000_000, **other))
    assert db.epochs() == []


def test_rows_that_say_nothing_of_speed_open_nothing(db: LatencyDB) -> None:
    db.add(row_of_day(1, 5_000_000))
    db.add(row_of_day(2, 50_000_000, flags=(EMULATED,)))
    db.add(failed(started="2026-11-03T10:00:00+00:00"))
    db.add(row_of_day(4, 50_000_000, status="throttled"))
    assert db.epochs() == []


def test_checkpoints_of_one_graph_repeat_each_other(db: LatencyDB) -> None:
    db.add(row_of_day(1, 5_000_000, graph_digest="d" * 64))
    db.add(row_of_day(2, 20_000_000, graph_digest="d" * 64, artifact_sha256="b" * 64, model="tuned"))
    assert len(db.epochs()) == 1


def test_processes_that_overlap_are_no_jump(db: LatencyDB) -> None:
    db.add(row_of_day(1, 5_000_000))
    # Its fastest process was as fast.
    db.add(row_of_day(2, 10_000_000, spread=0.6))
    assert db.epochs() == []


def test_the_order_in_which_rows_come_does_not_matter(db: LatencyDB, tmp_path: Path) -> None:
    rows = [
        row_of_day(day, ns) for day, ns in enumerate((5_000_000, 5_050_000, 9_000_000, 9_100_000, 5_000_000), start=1)
    ]
    for row in random.Random(0).sample(rows, len(rows)):
        db.add(row)
    jsonl.write_lines(tmp_path / "rows.jsonl", rows[::-1])
    with LatencyDB.open(new_file(tmp_path / "other.db"), shipped=False) as other:
        other.import_jsonl(tmp_path / "rows.jsonl")
        assert other.epochs() == db.epochs() and len(other.opened_epochs) == 2
        assert other.check().problems == db.check().problems == ()


def job(month: int, model: str, ms: float) -> Measurement:
    # Each job has its own time of the day.
    started = f"2025-{month:02}-01T00:0{ord(model) % 8}:00+00:00"
    fields: dict[str, Any] = {"device": "QCS (Proxy)", "started": started, "engine_version": f"0.{month}"}
    return transcribed(model=model, p50_ns=round(ms * 1e6), **fields)


def test_published_rows_must_agree(db: LatencyDB) -> None:
    for month, factor in enumerate((1.0, 1.02, 0.99, 4.0, 4.1), start=1):
        for model, ms in {"a": 2.0, "b": 5.0, "c": 9.0, "d": 30.0, "e": 4.0}.items():
            # One job has the time of a larger model.
            odd = 6.0 if (month, model) == (2, "a") else 1.0
            db.add(job(month, model, ms * factor * odd))
    [epoch] = db.epochs("QCS (Proxy)")
    assert epoch.started.startswith("2025-04") and epoch.ratio == pytest.approx(4.0, rel=0.1)
    assert "published" in epoch.reason


def test_what_is_judged_together_is_judged_anew(db: LatencyDB) -> None:
    """Add a row after the one that opened an epoch, of the same day, that repeats rows of the previous epoch."""
    for month, factor in ((1, 1.0), (2, 4.0)):
        for model in "abcdefg":
            db.add(job(month, model, 5.0 * factor))
    [epoch] = db.epochs()
    assert epoch.reason.startswith("7 ") and db.check().problems == ()


def test_of_rows_of_one_moment_any_may_be_the_first(db: LatencyDB) -> None:
    db.add(row_of_day(1, 5_000_000))
    # The first of them by its id is the one reported.
    for p50_ns in range(20_000_000, 20_600_000, 100_000):
        db.add(row_of_day(2, p50_ns))
        assert len(db.epochs()) == 1 and db.check().problems == ()


def test_a_row_is_held_against_those_before_its_moment(db: LatencyDB) -> None:
    # The last is far from the first alone.
    for row in (row_of_day(1, 5_000_000), row_of_day(2, 6_300_000), row_of_day(2, 8_000_000)):
        db.add(row)
    assert len(db.opened_epochs) == len(db.epochs()) == 1 and db.check().problems == ()


def test_what_changes_nothing_is_not_read_again(db: LatencyDB, monkeypatch: pytest.MonkeyPatch) -> None:
    db.add(row_of_day(1, 5_000_000))
    with monkeypatch.context() as patch:
        # It is not called.
        patch.setattr("edgevit.store.epoch_table.refresh", None)
        db.add(row_of_day(2, 5_010_000))
        db.add(row_of_day(2, 9_000_000, model="net_m", artifact_sha256="b" * 64))
        # Two rows of one moment have no order.
        db.add(row_of_day(2, 60_000_000, model="net_m", artifact_sha256="b" * 64))
    with pytest.raises(TypeError):
        monkeypatch.setattr("edgevit.store.epoch_table.refresh", None)
        db.add(row_of_day(3, 20_000_000))


def test_what_is_alike_but_no_repeat_does_not_hide_a_jump(db: LatencyDB) -> None:
    """Add a batch of 8 between two rows: it takes longer, and leaves room for any jump."""
    for row in (row_of_day(1, 5_000_000), row_of_day(2, 80_000_000, batch=8), row_of_day(3, 20_000_000)):
        db.add(row)
    assert len(db.opened_epochs) == 1 and db.opened_epochs == db.epochs() and db.check().problems == ()


def test_a_row_that_comes_late_is_judged_where_it_belongs(db: LatencyDB) -> None:
    for row in (row_of_day(1, 5_000_000), row_of_day(5, 20_000_000), row_of_day(2, 20_100_000)):
        db.add(row)
    [epoch] = db.epochs()
    assert epoch.measurement_id == row_of_day(2, 20_100_000).measurement_id and db.opened_epochs[-1] == epoch
    assert db.check().problems == ()


def test_a_device_keeps_its_epochs_under_another_name(db: LatencyDB) -> None:
    for row in (row_of_day(1, 5_000_000), row_of_day(2, 20_000_000, device="pi5-new")):
        db.add(row)
    assert db.measurements(device="pi5", current_epoch=True) == []
    assert len(db.measurements(device="pi5-new", current_epoch=True)) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3), st.integers(900, 1100)), max_size=30))
def test_noise_within_the_limit_opens_nothing(rows: list[tuple[int, int, int]]) -> None:
    timed = [TimedRow(str(i), "pi", day, (key,), ns, ns - 5, ns + 5) for i, (day, key, ns) in enumerate(rows)]
    assert epochs.find_epochs("pi-1", timed, 0.08) == []


@settings(deadline=None)
@given(st.permutations(range(8)), st.integers(2, 9))
def test_one_jump_is_one_epoch_in_any_order(order: list[int], factor: int) -> None:
    timed = [TimedRow(str(i), "pi", i, ("net",), 1000 * (factor if i > 4 else 1), None, None) for i in range(8)]
    timed = [row._replace(low_ns=row.p50_ns, high_ns=row.p50_ns) for row in timed]
    [epoch] = epochs.find_epochs("pi-1", [timed[i] for i in order], 0.01)
    assert (epoch.number, epoch.measurement_id, epoch.ratio) == (1, "5", factor)


@pytest.mark.parametrize("adds", [True, False], ids=["a row", "an import"])
def test_an_import_that_was_killed_leaves_the_epochs_to_the_next(
    db: LatencyDB, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adds: bool
) -> None:
    jsonl.write_lines(tmp_path / "rows.jsonl", [row_of_day(1, 5_000_000), row_of_day(2, 20_000_000)])

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("edgevit.store.epoch_table.refresh", killed)
        with pytest.raises(KeyboardInterrupt):
            db.import_jsonl(tmp_path / "rows.jsonl")
        # A reader may not be allowed to write.
        with LatencyDB.open(url, shipped=False) as reader:
            assert len(reader.measurements(current_epoch=True)) == 1 and reader.check().problems == ()
    with LatencyDB.open(url, shipped=False) as again:
        assert again.opened_epochs == [] and len(again.epochs()) == 1
        if adds:
            again.add(row_of_day(3, 20_000_000))
        else:
            assert again.import_jsonl(tmp_path / "rows.jsonl").duplicates == 2
        assert again.opened_epochs == again.epochs() and len(again.opened_epochs) == 1 and again.check().problems == ()


@pytest.mark.parametrize("damaged", ["[", "5"])
def test_a_damaged_list_of_what_is_due_is_told(db: LatencyDB, url: str, tmp_path: Path, damaged: str) -> None:
    jsonl.write_lines(tmp_path / "rows.jsonl", [row_of_day(1, 5_000_000)])
    db.import_jsonl(tmp_path / "rows.jsonl")
    execute(url, f"UPDATE meta SET value = '{damaged}' WHERE key = 'epochs_due'")
    assert len(db.measurements()) == 1 and "due" in db.check().problems[0]
    with pytest.raises(StoreError, match="not as it was written"):
        db.add(row_of_day(2, 5_000_000))
