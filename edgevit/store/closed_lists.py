"""Closed lists: targets, precisions and engines that a record may name, and parity statuses.

What edgevit measured is of a target, a precision and an engine of its recipes. A publication has runtimes of its own,
and no list of them is complete: its names only need the form of a name.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from edgevit.records.artifact import Parity
from edgevit.records.measurement import UNVERIFIED, Accuracy, Measurement
from edgevit.records.tuning import OperatorTime, Tuning

# What a row may say of the proof of its artifact; published rows say nothing.
PARITY_STATUSES = ("", UNVERIFIED, *typing.get_args(typing.get_type_hints(Parity)["status"]))
REFERENCE_ENGINE = "torch"  # of accuracies: it computes the model itself, and what a reference evaluator evaluates
LONGEST_NAME = 100  # characters


class Names(NamedTuple):
    """The names that records of measurements may have."""

    target: tuple[str, ...]
    precision: tuple[str, ...]
    engine: tuple[str, ...]


def problems(record: Measurement | Accuracy) -> Iterator[str]:
    """Yield the target, the precision and the engine of a record that no recipe knows."""
    if record.provenance == "published":
        for field in Names._fields:
            name = getattr(record, field)
            if len(name) > LONGEST_NAME or not name.isprintable():
                yield f"{field} is {name[:LONGEST_NAME]!r}, which is no name"
        return
    # An accuracy of the model in its own framework has no target, and a reference evaluator is an engine of its own.
    yield from measured_problems(record, ("", REFERENCE_ENGINE) if isinstance(record, Accuracy) else ())


def measured_problems(
    record: Measurement | Accuracy | OperatorTime | Tuning, more: Sequence[str] = ()
) -> Iterator[str]:
    """Yield the names of a record that was measured that no recipe knows, and that are not among `more`."""
    for field, known in zip(Names._fields, _names(), strict=True):
        name = getattr(record, field)
        if name not in known and name not in more:
            yield f"{field} is {name[:LONGEST_NAME]!r}, which is none of {', '.join(known)}"


@cache
def _names() -> Names:
    from edgevit.recipes import list_recipes

    recipes = list_recipes()
    precisions = sorted({precision for recipe in recipes for precision in recipe.precisions})
    engines = {name for recipe in recipes for name in (recipe.engine, *recipe.engine_choices, recipe.native) if name}
    return Names(tuple(recipe.target for recipe in recipes), tuple(precisions), tuple(sorted(engines)))
