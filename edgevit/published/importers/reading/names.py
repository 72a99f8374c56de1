"""Names of sources and names of ours: where both mean the same thing, and only there."""

from __future__ import annotations

import re
from functools import cache

from edgevit.cards import load_cards
from edgevit.recipes import list_recipes
from edgevit.records.model import ModelCard

NOT_STATED = "not stated"


@cache
def target_of(runtime: str) -> str:
    """The target of ours that a source's runtime is, by its name or an alias; else the source's own word for it."""
    plain = _plain(runtime)
    named = [item.target for item in list_recipes() if plain in map(_plain, (item.target, *item.aliases))]
    return named[0] if named else runtime


@cache
def is_target(word: str) -> bool:
    """Whether a word is the name of a target, or an alias."""
    return any(_plain(word) in map(_plain, (item.target, *item.aliases)) for item in list_recipes())


def zoo_name(same: dict[str, str], name: str, size: int, params: float | None) -> str:
    """The name in our zoo of a source's model, else the source's own name.

    `same` is the importer's list of models that are ours under another name. It is believed only where the size of the
    image and the number of parameters, to the two digits of a million that sources print, are those of our card.
    """
    card = _cards().get(same.get(name, ""))
    if card is None or card.params is None or params is None:
        return name
    fits = card.inputs[0].shape[-2:] == (size, size) and abs(card.params - params) <= 0.005e6
    return card.name if fits else name


@cache
def _cards() -> dict[str, ModelCard]:
    return load_cards()


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def same_name(first: str, second: str) -> bool:
    """Whether two names differ in capitals and punctuation only."""
    return _plain(first) == _plain(second)
