"""Tests of texts of others as a screen may show them."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.visible_text import visible, visible_data

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@given(ANY_TEXT)
def test_no_character_that_steers_a_terminal_stays(text: str) -> None:
    shown = visible(text)
    assert {unicodedata.category(letter) for letter in shown}.isdisjoint({"Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn"})
    assert len(shown.splitlines()) <= 1
    # A console of any kind takes it.
    shown.encode("utf-8")


@given(ANY_TEXT)
def test_visible_text_is_shown_as_it_is(text: str) -> None:
    shown = visible(text)
    assert visible(shown) == shown
    # Spaces of any width are seen.
    seen = (letter for letter in text if letter.isprintable() or unicodedata.category(letter) == "Zs")
    assert "".join(seen) == text or shown != text


@pytest.mark.parametrize(
    ("text", "shown"),
    {
        "\x1b[31mred": r"\x1b[31mred",
        "\x9b31m": r"\x9b31m",
        "a\nb\rc\td": r"a\nb\rc\td",
        "safe\u202egnp.exe": r"safe\u202egnp.exe",
        "\u2066a\u2069\u200b\ufeff": r"\u2066a\u2069\u200b\ufeff",
        "\U000e0041": r"\U000e0041",
        "\udc80": r"\udc80",
        "Käfer, 犬, 🐕": "Käfer, 犬, 🐕",
        r"C:\net": r"C:\net",
    }.items(),
)
def test_each_kind_of_character_has_its_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_texts_at_every_depth_of_data_become_visible() -> None:
    data = {"a\x1b": ["\u202e", 1, None, {"b": ("\x07", True)}]}
    assert json.loads(json.dumps(visible_data(data))) == {r"a\x1b": [r"\u202e", 1, None, {"b": [r"\x07", True]}]}
    assert visible("a\nb\r", keep="\n") == "a\nb\\r"
