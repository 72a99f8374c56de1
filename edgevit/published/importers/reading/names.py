"""Equivalent names: names of sources and names of ours that mean the same thing."""

from __future__ import annotations

import re
from functools import cache

from edgevit.cards import load_cards
from edgevit.recipes import list_recipes
from edgevit.records.model import ModelCard

NOT_STATED = "not stated"


@cache
def target_of(runtime: str) -> str:
    """Return the target that a source's runtime is, by its name or an alias; else the source's own name."""
    plain = _plain(runtime)
    targets = [recipe.target for recipe in list_recipes() if plain in map(_plain, (recipe.target, *recipe.aliases))]
    return targets[0] if targets else runtime


@cache
def is_target(word: str) -> bool:
    """Return whether a word is the name of a target, or an alias."""
    return any(_plain(word) in map(_plain, (recipe.target, *recipe.aliases)) for recipe in list_recipes())


def zoo_name(zoo_names: dict[str, str], name: str, size: int, params: float | None) -> str:
    """Return the name in our zoo of a source's model, else the source's own name.

    `zoo_names` is the importer's list of models that are ours under another name. An entry counts only where the size
    of the image and the number of parameters are those of our card. Sources print two digits of a million.
    """
    card = _cards().get(zoo_names.get(name, ""))
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
    """Return whether two names differ in capitals and punctuation only."""
    return _plain(first) == _plain(second)
