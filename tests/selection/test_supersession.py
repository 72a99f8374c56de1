"""The representative row of a candidate: newer rows, newer engines and slower units take precedence."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from edgevit.records.choice import Budget
from edgevit.selection import choose_among
from edgevit.selection.wording import OLDER_ENGINE
from edgevit_runtime.record import TensorSpec
from support.candidates import CARDS, DAYS, answer, picked, reasons, row, texts
from support.measured import failed


def test_the_latest_row_counts() -> None:
    old, new = row("a", 5, started=DAYS[0]), row("a", 9, started=DAYS[1])
    choice = answer(new, old)
    assert choice.picked and choice.picked.measurement_id == new.measurement_id
    assert reasons(choice) == {"a": f"superseded by the row of {DAYS[1]}"}
    # times sort as times; as text "00Z" comes after "00.5+00:00"
    newest = row("a", 7, started="2026-01-03T00:00:00.5+00:00")
    zulu = row("a", 6, started="2026-01-03T00:00:00Z")
    assert answer(old, newest, zulu).fitting[0].measurement_id == newest.measurement_id


@pytest.mark.parametrize("status", ["failed", "crashed", "timeout", "unsupported"])
def test_a_newer_failure_counts(status: str) -> None:
    ok = row("a", started=DAYS[0])
    crash = dataclasses.replace(  # as the profiler writes it: it does not know the engine's version
        failed(status), model="a", started=DAYS[1], engine_version="", provider="", host=None, measurement_id="x"
    )
    choice = answer(ok, crash)
    assert choice.picked is None
    assert [rejection.reason.split(":")[0] for rejection in choice.rejected] == [
        f"superseded by the row of {DAYS[1].split(':')[0]}", "cannot run here",
    ]  # fmt: skip
    assert picked(answer(dataclasses.replace(crash, started=DAYS[0]), dataclasses.replace(ok, started=DAYS[1]))) == "a"


def test_a_throttled_run_does_not_take_back_an_earlier_number() -> None:
    for version in ("1.31.1", "1.32.0"):
        hot = row("a", started=DAYS[1], status="throttled", engine_version=version)
        choice = answer(row("a", started=DAYS[0]), hot)
        assert picked(choice) == "a" and reasons(choice) == {"a": "not measured: the device was throttled"}


def test_different_things_do_not_supersede_each_other() -> None:
    changes: list[dict[str, Any]] = [
        {}, {"threads": 1}, {"precision": "fp16"}, {"target": "coreml"}, {"provider": "xnnpack"},
        {"compute_unit": "gpu"}, {"batch": 8}, {"inputs": (TensorSpec("x", (1, 3, 192, 192)),)},
        {"provenance": "predicted"},
    ]  # fmt: skip
    choice = answer(*(row("a", started=day, **change) for day, change in zip(DAYS + DAYS, changes, strict=False)))
    assert not [rejection for rejection in choice.rejected if "superseded" in rejection.reason]


def test_the_newest_engine_counts() -> None:
    old, new = row("a", 5, engine_version="1.9.1", started=DAYS[3]), row("a", 9, engine_version="1.10.0")
    choice = answer(old, new)
    assert choice.picked and choice.picked.engine_version == "1.10.0" and choice.picked.flags == ()
    assert reasons(choice) == {"a": "older engine: onnxruntime 1.9.1, superseded by 1.10.0"}
    assert choice.rejected[0].candidate.flags == (OLDER_ENGINE,)


def test_an_older_engine_is_used_only_with_a_flag() -> None:
    rows = (row("b", engine_version="1.9.1"), row("a", engine_version="1.10.0"))
    choice = answer(*rows)
    assert choice.picked and choice.picked.model == "b" and choice.picked.flags == (OLDER_ENGINE,)
    assert texts(choice) == ("the pick was measured with onnxruntime 1.9.1; 1.10.0 is on the device: measure again",)
    other_target = answer(rows[0], dataclasses.replace(rows[1], target="openvino", engine="openvino"))
    assert other_target.fitting[0].flags == ()


def test_release_candidates_come_before_the_release() -> None:
    rows = [row("a", engine_version=version) for version in ("1.10", "1.10rc1", "1.9", "1.10.dev20260101")]
    choice = answer(*rows)
    assert choice.picked and choice.picked.engine_version == "1.10"
    assert answer(*rows[1:]).fitting[0].engine_version == "1.10rc1"


def test_of_two_units_the_slower_one_counts() -> None:
    rows = [row("a", 5, device_id="pi-1"), row("a", 9, device_id="pi-2"), row("b", 5, device_id="pi-1")]
    choice = answer(*rows, max_latency_ms=6)
    assert picked(choice) == "b" and texts(choice)[0].startswith("2 units answer to 'pi5'")
    assert sorted(rejection.reason for rejection in choice.rejected) == [
        "p90 is up to 9 ms, above 6 ms", "superseded by the slower unit pi-2",
    ]  # fmt: skip
    crashed = row("b", device_id="pi-2", status="crashed", engine_version="", provider="")
    assert picked(answer(*rows, crashed, max_latency_ms=6)) is None
    throttled = row("b", device_id="pi-2", status="throttled")
    assert picked(answer(*rows, throttled, max_latency_ms=6)) == "b"


def test_a_pick_that_was_evaluated_and_not_run_says_so() -> None:
    choice = choose_among([row(target="coreml", parity_status="evaluated")], "pi-1", Budget(), cards=CARDS)
    assert choice.picked is not None and choice.picked.parity_status == "evaluated"
    assert any("own engine has not been compared" in note for note in texts(choice))
    run = choose_among([row(target="coreml")], "pi-1", Budget(), cards=CARDS)
    assert run.notes == ()
