"""Waiting times of tests grow with the machine's slowness, within limits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import speed


@pytest.fixture(autouse=True)
def measured_anew() -> Iterator[None]:
    speed.slowness.cache_clear()
    yield
    speed.slowness.cache_clear()


@pytest.mark.parametrize(("slowness", "expected"), [("2.5", 7.5), ("0.1", 3.0), ("1e9", 300.0)])
def test_a_given_slowness_stretches_and_never_shrinks(
    slowness: str, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEVIT_TESTS_SLOWNESS", slowness)
    assert speed.seconds(3) == expected


def test_the_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times_s = iter([0.4, 9.0, 0.3])
    monkeypatch.delenv("EDGEVIT_TESTS_SLOWNESS", raising=False)
    monkeypatch.setattr(speed, "_start_s", lambda: next(times_s))
    assert speed.seconds(1) == pytest.approx(4.0), "the median of three starts"
    assert speed.seconds(2) == pytest.approx(8.0)


def test_a_condition_that_never_comes_true_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEVIT_TESTS_SLOWNESS", "1")
    turns = iter([False, False, True])
    assert speed.wait_until(lambda: next(turns))
    assert not speed.wait_until(lambda: False, 0.05)
