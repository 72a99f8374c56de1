"""The strict codec of records: what is wrong is refused with its place, and what is right comes back as it was."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.records.measurement import Measurement
from edgevit_runtime.codec import RecordError, from_data, from_json, to_data, to_json
from support.stored_rows import SHAPES


@dataclass(frozen=True)
class Inner:
    """A record in a record."""

    size: int
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    """One of each kind of field."""

    name: str
    kind: Literal["a", "b"]
    inner: Inner | None
    many: tuple[Inner, ...] = ()
    pair: tuple[str, int] = ("", 0)
    by_name: dict[str, Inner] | None = None
    is_real: bool = True
    folder: Path = Path()
    either: int | str | None = None
    anything: Any = None
    nested: tuple[tuple[int, ...], ...] = ()


GOOD: dict[str, Any] = {
    "name": "x", "kind": "a", "inner": {"size": 1, "share": 2}, "many": [{"size": 1}, {"size": 2}], "pair": ["y", 3],
    "by_name": {"k": {"size": 4}}, "is_real": False, "folder": "a/b", "either": "text", "anything": [1, {"z": None}],
    "nested": [[1, 2], []],
}  # fmt: skip


def test_what_is_right_is_read() -> None:
    record = from_data(Outer, GOOD)
    assert record == Outer(
        "x", "a", Inner(1, 2.0), (Inner(1), Inner(2)), ("y", 3), {"k": Inner(4)}, False, Path("a/b"), "text",
        [1, {"z": None}], ((1, 2), ()),
    )  # fmt: skip
    assert record.inner is not None and type(record.inner.share) is float
    assert from_json(Outer, to_json(record)) == record and from_data(Outer, to_data(record)) == record


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "text for a number": ({"inner": {"size": "1"}}, r"Outer\.inner\.size: expected int, found '1'"),
    "truth for a number": ({"inner": {"size": True}}, r"Outer\.inner\.size: expected int"),
    "fraction for a number": ({"nested": [[1], [2, 0.5]]}, r"Outer\.nested\[1\]\[1\]: expected int, found '0.5'"),
    "NaN": ({"inner": {"size": 1, "share": float("nan")}}, r"Outer\.inner\.share: expected a finite number"),
    "number for truth": ({"is_real": 1}, r"Outer\.is_real: expected bool"),
    "number for text": ({"name": 1}, r"Outer\.name: expected str"),
    "null": ({"name": None}, r"Outer\.name: expected str, found 'None'"),
    "none of the words": ({"kind": "c"}, r"Outer\.kind: expected one of 'a', 'b', found 'c'"),
    "object for an array": ({"many": {}}, r"Outer\.many: expected an array"),
    "array for an object": ({"inner": []}, r"Outer\.inner: expected an object"),
    "deep in an array": ({"many": [{"size": 1}, {"size": None}]}, r"Outer\.many\[1\]\.size: expected int"),
    "deep in an object": ({"by_name": {"k": {"size": []}}}, r"Outer\.by_name\.k\.size: expected int"),
    "too short": ({"pair": ["y"]}, r"Outer\.pair: expected 2 items"),
    "too long": ({"pair": ["y", 3, 4]}, r"Outer\.pair: expected 2 items"),
    "none of two kinds": ({"either": []}, r"Outer\.either: expected str"),
    "no path": ({"folder": 1}, r"Outer\.folder: expected a path"),
    "missing below": ({"many": [{}]}, r"Outer\.many\[0\]: size missing"),
    "unknown": ({"more": 1, "another": 2}, r"Outer: unknown another, more; a newer edgevit may have written it"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_with_its_place(name: str) -> None:
    change, message = WRONG[name]
    with pytest.raises(RecordError, match=f"^{message}"):
        from_data(Outer, GOOD | change)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(RecordError, match=r"^here: kind, name missing$"):
        from_data(Outer, {"inner": None}, "here")
    with pytest.raises(RecordError, match=r"^tuple\[1\]: expected int"):
        from_json(tuple[int, ...], '[1, "2"]')
    with pytest.raises(RecordError, match="not JSON"):
        from_json(Outer, "{")
    with pytest.raises(RecordError, match="Infinity is not a number"):
        from_json(Outer, '{"name": Infinity}')


@pytest.mark.parametrize("name", SHAPES)
def test_rows_come_back_as_they_were(name: str) -> None:
    text = to_json(SHAPES[name])
    assert from_json(Measurement, text) == SHAPES[name]
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(GOOD)), inner, max_size=3),
)


@given(st.sampled_from(list(GOOD)), JSON)
def test_whatever_comes_is_read_or_refused(name: str, value: Any) -> None:
    try:
        record = from_data(Outer, GOOD | {name: value})
    except RecordError as error:
        assert str(error).startswith("Outer")
    else:
        assert name == "anything" or from_data(Outer, to_data(record)) == record
