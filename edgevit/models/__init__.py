"""The models room: names in, modules in their training form out. A family is one file here; nothing else names it.

A module of this package is a family if it has CARDS and build(name); the other modules are helpers. A family may have
ALIASES, the official code's names of its variants: then `mode` or `family_mode` also name the model.
"""

from __future__ import annotations

import fnmatch
import functools
import pkgutil
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from edgevit.errors import OWN_MODEL, ModelError, UnknownNameError
from edgevit.models.checkpoint import load_weights
from edgevit.models.random_weights import randomize
from edgevit.records.model import ModelCard

__all__ = ["create_model", "list_models", "load_weights", "model_card", "randomize"]


class Family(Protocol):
    """The interface of a family's module."""

    CARDS: tuple[ModelCard, ...]

    def build(self, name: str, *, classes: int = 1000) -> nn.Module:
        """Build a variant in training form, freshly initialised, with `classes` outputs."""


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the zoo that match a shell pattern, in the order of the families' cards."""
    return [name for name in _zoo() if fnmatch.fnmatchcase(name, pattern)]


def model_card(name: str) -> ModelCard:
    """Return the card as the family's file states it: published facts, nothing counted. Raises UnknownNameError."""
    return _find(name)[0]


def create_model(
    name: str, weights: str | Path | None = None, *, weights_key: str = "", classes: int = 1000, seed: int = 0
) -> nn.Module:
    """Create a model in training form, in evaluation mode. `name` is one of list_models(), or an official alias.

    `weights` is a checkpoint of a model with as many classes, and `weights_key` one of several sets of weights in it;
    default: the averaged one. Without a checkpoint the weights are random, on the CPU the same for the same seed; the
    CPU's global random state stays as it was. Raises UnknownNameError and CheckpointError. A CheckpointError names
    another number of classes, if the file has one.
    """
    card, family = _find(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = family.build(card.name, classes=classes)
    # A fold reads the input's size from the card. It is no state, so it does not pass through __setattr__.
    model.__dict__["card"] = card
    if weights is not None:
        load_weights(model, Path(weights), key=weights_key, classes=classes)
    return model.eval()


def _find(name: str) -> tuple[ModelCard, Family]:
    name = _aliases().get(name, name)
    if name not in _zoo():
        raise UnknownNameError("model", name, _zoo(), listing="edgevit models", or_else=OWN_MODEL)
    return _zoo()[name]


@functools.cache
def _aliases() -> dict[str, str]:
    """Return official name -> our name: bare where one family claims it, and always with the family's name before it.

    Our own names are never aliases: the cards take precedence.
    """
    claims: dict[str, set[str]] = {}
    for family in _families():
        for alias, name in getattr(family, "ALIASES", {}).items():
            for spelling in (alias, f"{_zoo()[name][0].family}_{alias}"):
                claims.setdefault(spelling, set()).add(name)
    return {alias: names.pop() for alias, names in claims.items() if len(names) == 1 and alias not in _zoo()}


@functools.cache
def _zoo() -> dict[str, tuple[ModelCard, Family]]:
    """Return name -> card and family. Raises ModelError where two families claim one name."""
    zoo: dict[str, tuple[ModelCard, Family]] = {}
    for family in _families():
        for card in family.CARDS:
            if card.name in zoo:
                raise ModelError(
                    f"two cards are called {card.name!r}", where=f"{card.family}, {zoo[card.name][0].family}"
                )
            zoo[card.name] = (card, family)
    return zoo


def _families() -> list[Family]:
    modules = (pkgutil.resolve_name(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return [module for module in modules if hasattr(module, "CARDS")]
