"""`edgevit targets`: what models can be exported to."""

from __future__ import annotations

from edgevit.cli.common import print_json, print_table, say
from edgevit.cli.options import OutputOptions, grouped


@grouped
def run(output: OutputOptions) -> None:
    """List the targets, their aliases and precisions."""
    from edgevit.recipes import list_recipes

    recipes = list_recipes()
    if output.as_json:
        print_json({"targets": recipes})
        return
    rows = [
        (r.target, ", ".join(r.aliases), ", ".join(r.precisions), r.engine, f"pip install 'edgevit[{r.extra}]'")
        for r in recipes
    ]
    print_table(("target", "also called", "precisions", "engine", "needs"), rows)
    for recipe in recipes:
        for precision, instructions in recipe.processor_needs.items():
            say(f"{recipe.target} {precision} runs on processors with {instructions}; it is built on any")
