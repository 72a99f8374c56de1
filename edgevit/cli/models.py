"""`edgevit models`: what the zoo holds."""

from __future__ import annotations

import fnmatch
from typing import Annotated

import typer

from edgevit.cli.common import millions, print_json, print_table, say
from edgevit.cli.options import OutputOptions, grouped


@grouped
def run(
    pattern: Annotated[str, typer.Argument(help="Shell pattern of model names, such as 'mobilevig_*'")] = "*",
    refresh: Annotated[
        bool, typer.Option("--refresh", help="New count of all models, written into latency_db/")
    ] = False,
    *,
    output: OutputOptions,
) -> None:
    """List the models of the zoo with their cards."""
    from edgevit.cards import load_cards

    if refresh:
        _refresh()
    cards = [card for name, card in load_cards().items() if fnmatch.fnmatchcase(name, pattern)]
    if output.as_json:
        print_json({"models": cards})
        return
    columns = ("model", "design", ">params M", ">folded", ">GMACs", ">folded", ">top-1 %", "published in")
    print_table(
        columns,
        (
            (
                card.name,
                card.provenance,
                millions(card.params),
                millions(card.folded_params),
                f"{(card.macs or 0) / 1e9:.3f}",
                f"{(card.folded_macs or 0) / 1e9:.3f}",
                card.top1_percent,
                card.top1_source,
            )
            for card in cards
        ),
    )
    say("params and MACs: counted by edgevit at the card's input size; top-1: published, for the official weights")


def _refresh() -> None:
    from importlib import resources

    from edgevit.cards import CARDS_FILE, OPERATORS_FILE, write_lines
    from edgevit.recipes import require_torch

    require_torch()
    from edgevit.cli.refresh_cards import counted_cards

    folder = resources.files("edgevit.latency_db")
    cards, operators = zip(*counted_cards(), strict=True)
    write_lines(cards, str(folder / CARDS_FILE))
    write_lines(operators, str(folder / OPERATORS_FILE))
