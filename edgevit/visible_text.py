"""Text of others as a screen may show it: what would steer a terminal, or reorder its line, becomes visible."""

from __future__ import annotations

import re
import unicodedata

# Controls, marks of direction and other invisible formats, separators of lines and paragraphs, lone surrogates, and
# code points without a meaning that is agreed on.
_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn"})
_PRINTABLE_ASCII = re.compile(r"[ -~]*")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_LATIN, _BASIC = 0xFF, 0xFFFF


def visible(text: str, *, keep: str = "") -> str:
    r"""Return a text in which each invisible character stands as its escape in Python: `\x1b`, `\n`, `\u202e`.

    keep: characters that stay as they are. Line breaks are invisible: a text of one line stays one line.
    """
    if _PRINTABLE_ASCII.fullmatch(text):
        return text
    return "".join(letter if letter in keep else _shown(letter) for letter in text)


def visible_traceback(text: str) -> str:
    """Return a traceback whose every line is indented, so that none in an exception's message poses as one of ours."""
    return "".join(f"  | {line}\n" for line in visible(text, keep="\n").rstrip("\n").split("\n"))


def _shown(letter: str) -> str:
    if unicodedata.category(letter) not in _INVISIBLE:
        return letter
    number = ord(letter)
    digits = f"x{number:02x}" if number <= _LATIN else f"u{number:04x}" if number <= _BASIC else f"U{number:08x}"
    return _SHORT.get(letter, f"\\{digits}")


def visible_data(data: object) -> object:
    """Return JSON data with every text in it, and every key, made visible; line breaks stay."""
    if isinstance(data, str):
        return visible(data, keep="\n")
    if isinstance(data, dict):
        return {visible(str(name), keep="\n"): visible_data(value) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [visible_data(value) for value in data]
    return data
