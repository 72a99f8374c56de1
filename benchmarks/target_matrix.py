"""Each family's smallest variant in every target and precision: what came of it, how exact, how long, how large.

python benchmarks/target_matrix.py [TARGET...] > targets.json            random weights; half an hour for all
python benchmarks/target_matrix.py --markdown targets.json [sweep.json]  the tables of docs/targets.md

sweep.json is what `edgevit sweep --json` says of the same models on the targets that run here. Each export is made in a
process of its own, whose start is part of its time.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import report

from edgevit.cards import load_cards
from edgevit.errors import EdgevitError
from edgevit.exporting.child_process import export_separately
from edgevit.recipes import list_recipes
from edgevit.records.artifact import ExportRequest
from edgevit.verification.parity import FOLDED_FORM

Table = list[tuple[str, ...]]


def smallest() -> list[str]:
    """The variant with the fewest parameters of each family."""
    cards = sorted(load_cards().values(), key=lambda card: card.params or 0)
    return [next(card.name for card in cards if card.family == family) for family in sorted({c.family for c in cards})]


def measure(name: str, target: str, precision: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        try:
            outcome = export_separately(ExportRequest(target, Path(out), precision, name))
        except EdgevitError as error:
            return {"status": "failed", "error": " ".join(error.lines())}
        wall_s = time.perf_counter() - start
    assert outcome.parity is not None
    last = [check for check in outcome.parity.checks if check.against == FOLDED_FORM][-1]
    return {
        "status": outcome.parity.status,
        "how": outcome.parity.how,
        "stage": last.stage,  # the artifact, or the last one computed where nothing here runs the artifact
        "max_rel": last.max_rel,  # against the folded form
        "snr_db": last.snr_db,
        "wall_s": round(wall_s, 1),
        "stages_s": {stage.name: stage.seconds for stage in outcome.stages},
        "size_bytes": outcome.size_bytes,
        "operators": outcome.operators.counts,
        "fallbacks": outcome.operators.fallbacks,
    }


def exports(results: dict[str, dict[str, Any]]) -> Table:
    head = ("model", "target", "precision", "status", "max_rel", "SNR dB", "seconds", "MB", "operators", "fallbacks")
    rows = [head, ("---",) * len(head)]
    for case, result in results.items():
        name, target, precision = case.split()
        if result["status"] == "failed":
            rows.append((f"`{name}`", target, precision, "failed", *("",) * 6))
            continue
        fallbacks = result["fallbacks"]
        fallback_text = (
            "not reported" if fallbacks is None else ", ".join(f"{n} {kind}" for kind, n in fallbacks.items()) or "none"
        )
        snr = "equal" if result["snr_db"] is None else f"{result['snr_db']:.0f}"
        numbers = (f"{result['max_rel']:.1e}", snr, f"{result['wall_s']:.0f}")
        size, total = f"{result['size_bytes'] / 1e6:.1f}", str(sum(result["operators"].values()))
        rows.append((f"`{name}`", target, precision, result["status"], *numbers, size, total, fallback_text))
    return rows


def latencies(rows: list[dict[str, Any]]) -> Table:
    """p50 by model and engine; the fastest of a model in bold."""
    engines = list(dict.fromkeys(f"{row['target']} {row['precision']}" for row in rows))
    results = {(row["model"], f"{row['target']} {row['precision']}"): row for row in rows}
    table = [("model", *engines), ("---",) * (len(engines) + 1)]
    for model in dict.fromkeys(row["model"] for row in rows):
        ran = {engine: results[model, engine] for engine in engines if (model, engine) in results}
        best = min((row["p50_ns"] for row in ran.values() if row["p50_ns"]), default=None)
        table.append((f"`{model}`", *(_cell(ran.get(engine), best) for engine in engines)))
    return table


def _cell(row: dict[str, Any] | None, best: int | None) -> str:
    if row is None or row["p50_ns"] is None:
        return "" if row is None else str(row["status"])
    text = f"{row['p50_ns'] / 1e6:.1f} {row['grade']}"
    return f"**{text}**" if row["p50_ns"] == best else text


def markdown(table: Table) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in table)


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--markdown"]:
        print(markdown(exports(json.loads(Path(arguments[1]).read_text())["exports"])))
        for file in arguments[2:]:
            print("\n" + markdown(latencies(json.loads(Path(file).read_text())["measurements"])))
        return
    results = {}
    for recipe in list_recipes():
        for name in smallest() if not arguments or recipe.target in arguments else ():
            for precision in recipe.precisions:
                case = f"{name} {recipe.target} {precision}"
                results[case] = measure(name, recipe.target, precision)
                print(case, results[case], file=sys.stderr)
    report("target_matrix", {"exports": results})


if __name__ == "__main__":
    main(sys.argv[1:])
