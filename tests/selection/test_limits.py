"""Latencies as people write them."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.errors import UsageError
from edgevit.selection import parse_latency


@pytest.mark.parametrize(
    ("text", "latency_ms"),
    [
        ("25ms", 25), ("25 ms", 25), (" 25 MS ", 25), ("0.025s", 25), ("25000us", 25), ("25000 µs", 25),
        ("25000μs", 25), ("25", 25), ("2.5e1", 25), (".5ms", 0.5), ("25000000ns", 25), ("1s", 1000),
    ],
)  # fmt: skip
def test_parse_latency(text: str, latency_ms: float) -> None:
    assert parse_latency(text) == pytest.approx(latency_ms)


@pytest.mark.parametrize(
    "text",
    [
        "ten",
        "",
        "ms",
        "-25ms",
        "0",
        "0ms",
        "nan",
        "inf",
        "1e999",
        "25 minutes",
        "25,5ms",
        "25m\u017f",
        "\u0662\u0665ms",
        "25ms 3",
        "1e-999",
    ],
)
def test_parse_latency_refuses(text: str) -> None:
    with pytest.raises(UsageError, match="25ms"):
        parse_latency(text)


@settings(deadline=None)
@given(st.text())
def test_parse_latency_never_fails_otherwise(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert 0 < parse_latency(text) < math.inf
