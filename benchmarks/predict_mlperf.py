"""The predictor on real boards: MLPerf Inference v3.0 edge, 84 classifiers on 14 boards and runtimes, one held out.

python benchmarks/predict_mlperf.py [SEEDS]   random anchors are drawn so often (default 3)

Data: mlperf_edge_krai.csv, from mlcommons/inference_results_v3.0 (Apache-2.0), open division; the 84 models that all 14
systems ran. Split: leave one system out; all models but the anchors are tested. `board` holds out all systems of the
same board, so that no other runtime of it is known. Features are what a model's name says: family, width, resolution,
quantised. Spread anchors are those of `choose_anchors`, which sees the other systems alone.

Selection: for each system and each of its models, that model's true p90 is a budget; edgevit.choose picks the most
accurate model that is said to fit. A violation is a pick whose true p90 is above the budget; regret is the accuracy, in
points, that the best model which truly fits has over the pick, over requests that were answered and not violated.
Measured rows are simulated: a run of 1,024 samples is drawn from the percentiles that MLPerf reports, and edgevit's 99%
upper bound of its p90 is held against the budget; the truth is the reported p90, not that run's.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import reference_file, report
from predict_common import CONFIDENCE, Trial, figure, hold_out, random_anchors, summary
from store_scale import CARDS, TEMPLATE

from edgevit.measurement.summary import upper_bound
from edgevit.prediction import Predictor, Row, choose_anchors
from edgevit.records.choice import Basis, Budget
from edgevit.records.measurement import Measurement
from edgevit.selection import Cell as SelectionCell
from edgevit.selection import Evidence, PredictedCell, choose_among

PERCENTILES = ((0.0, "min"), (0.5, "p50"), (0.9, "p90"), (0.95, "p95"), (0.97, "p97"), (0.99, "p99"), (1.0, "max"))
RUNS = 1024  # of a simulated measurement: as many as MLPerf asks for
CARD = next(iter(CARDS.values()))  # of a made-up model; each model here gets its own name and accuracy
Features = dict[str, dict[str, float]]


class Cell(NamedTuple):
    """One model on one system."""

    times_ns: dict[str, float]  # by MLPerf's name of the percentile
    accuracy: float  # top-1 on 50,000 images, percent


Table = dict[tuple[str, str], Cell]  # (model, system)


def read(file: Path) -> Table:
    """The v3.0 open slice: the models that all systems ran which ran at least 84."""
    cells: Table = {}
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if (row["round"], row["division"], row["scenario"]) == ("v3.0", "open", "SingleStream"):
                times = {name: float(row[name]) for _, name in PERCENTILES}
                cells[row["model"], row["system"]] = Cell(times, float(row["accuracy"] or "nan"))
    systems = {name for _, name in cells}
    large = {name for name in systems if sum(system == name for _, system in cells) >= 84}
    shared = {model for model, _ in cells if all((model, system) in cells for system in large)}
    return {key: cell for key, cell in cells.items() if key[0] in shared and key[1] in large}


def named(model: str) -> dict[str, float]:
    """What a name says: mobilenet-v2-0.75-160-quantized, mobilenet-v3-large_224_0.75_float, efficientnet-lite2-..."""
    collected = re.match(r"(mobilenet-v[12])-([\d.]+)-(\d+)|([a-z0-9-]+)_(\d+)_([\d.]+)", model)
    if collected is None:
        family, resolution, width = model.split("-")[0], 224.0, 1.0
    elif collected[1]:
        family, resolution, width = collected[1], float(collected[3]), float(collected[2])
    else:
        family, resolution, width = collected[4], float(collected[5]), float(collected[6])
    quantised = float(model.endswith("uint8") or (model.endswith("quantized") and "non-" not in model))
    sizes = {"log width": np.log(width), "log resolution": np.log(resolution), "quantised": quantised}
    return {**sizes, f"family {family}": 1.0, f"quantised {family}": quantised}


def board(system: str) -> str:
    return system.split("-")[0]


def rows_of(cells: Table, percentile: str) -> dict[str, list[Row]]:
    """System -> its rows at this percentile."""
    collected: dict[str, list[Row]] = {}
    for (model, system), cell in sorted(cells.items()):
        collected.setdefault(system, []).append(Row(model, system, cell.times_ns[percentile]))
    return collected


def spread(known_rows: list[Row], held_out_rows: list[Row], count: int, features: Features) -> tuple[str, ...]:
    return choose_anchors(Predictor(known_rows, features=features), held_out_rows[0].column, count=count)


def trials(
    rows: dict[str, list[Row]], features: Features, count: int, *, seeds: int | None, alike: Callable[[str], str] = str
) -> list[Trial]:
    """Each system held out once with spread anchors, or once per seed with random ones."""
    collected = []
    for system, held_out_rows in rows.items():
        known_rows = [row for other, each in rows.items() if alike(other) != alike(system) for row in each]
        picks = (
            [spread(known_rows, held_out_rows, count, features)]
            if seeds is None
            else [random_anchors(held_out_rows, count, seed) for seed in range(seeds)]
        )
        collected += [hold_out(known_rows, held_out_rows, anchors, features=features) for anchors in picks]
    return collected


# ---- selection ------------------------------------------------------------------------------------------------------


def simulated_bound(cell: Cell, rng: np.random.Generator) -> float:
    """The 99% upper bound of p90 that a run of ours would have given here."""
    shares, names = zip(*PERCENTILES, strict=True)
    drawn = np.interp(rng.random(RUNS), shares, [cell.times_ns[name] for name in names])
    bound = upper_bound([round(value) for value in drawn], 0.9)
    assert bound is not None
    return float(bound)


def select(
    truth: dict[str, float], claims: dict[str, float], accuracy: dict[str, float], predicted: Collection[str] = ()
) -> list[tuple[bool, float]]:
    """For each budget: whether the pick breaks it, and its regret in points. Unanswered requests are left out.

    edgevit.choose picks: from rows with these claims as their bounds, and from predictions where they are `predicted`.
    """
    guesses = [guess_of(name, claims[name]) for name in sorted(predicted)]
    rows = [row_of(name, claims[name]) for name in truth if name not in predicted]
    cards = {name: replace(CARD, name=name, top1_percent=accuracy[name]) for name in truth}
    collected = []
    for budget_ns in truth.values():
        budget, evidence = Budget(budget_ns / 1e6, 90), Evidence(predicted=guesses)
        picked = choose_among(rows, "board", budget, cards=cards, evidence=evidence).picked
        if picked is not None:
            best = max(accuracy[name] for name in truth if truth[name] <= budget_ns)
            collected.append((truth[picked.model] > budget_ns, best - accuracy[picked.model]))
    return collected


def row_of(model: str, claim_ns: float) -> Measurement:
    """A row whose p90 is at most this."""
    claim = round(claim_ns)
    facts: dict[str, Any] = {
        "measurement_id": model,
        "model": model,
        "device_id": "unit",
        "started": "2023-04-05T00:00:00+00:00",
    }
    return replace(TEMPLATE, **facts, inputs=(), p90_ns=claim, p90_upper_ns=claim)


def guess_of(model: str, claim_ns: float) -> PredictedCell:
    """A prediction whose p90 is at most this."""
    like = row_of(model, claim_ns)
    configuration = (like.target, like.precision, like.threads, like.engine, like.device, like.device_id)
    cell = SelectionCell(f"predicted {model}", model, *configuration, parity_status=like.parity_status)
    return PredictedCell(cell, (round(claim_ns), round(claim_ns)), Basis("transfer", CONFIDENCE))


def selection(cells: Table, predicted: list[Trial]) -> dict[str, Any]:
    """The choosers side by side. An anchor of a predicted system is measured, its p90 taken as it is."""
    collected: dict[str, list[list[tuple[bool, float]]]] = {}
    rng = np.random.default_rng(0)
    for trial in predicted:
        mine = {model: cell for (model, system), cell in sorted(cells.items()) if system == trial.column}
        truth = {model: cell.times_ns["p90"] for model, cell in mine.items()}
        prediction_of = {prediction.model: prediction for prediction in trial.predictions}
        claims: dict[str, dict[str, float]] = {
            "measured_upper_bound": {model: simulated_bound(cell, rng) for model, cell in mine.items()},
            "measured_p50": {model: cell.times_ns["p50"] for model, cell in mine.items()},
            "predicted_no_margin": truth | {name: figure(entry.latency_ns) for name, entry in prediction_of.items()},
            "predicted_interval": truth | {name: figure(entry.upper_ns) for name, entry in prediction_of.items()},
            "predicted_at_most": truth | {name: figure(entry.at_most_ns) for name, entry in prediction_of.items()},
        }
        accuracy = {model: cell.accuracy for model, cell in mine.items()}
        for chooser, claim in claims.items():
            guessed = set(prediction_of) if chooser.startswith("predicted") else set()
            collected.setdefault(chooser, []).append(select(truth, claim, accuracy, guessed))
    requests = sum(len({model for model, system in cells if system == trial.column}) for trial in predicted)
    return {chooser: outcome(systems, requests) for chooser, systems in collected.items()}


def outcome(systems: list[list[tuple[bool, float]]], requests: int) -> dict[str, float]:
    answers = [answer for system in systems for answer in system]
    fitting_regrets = [regret for broken, regret in answers if not broken]
    worst = max(float(np.mean([broken for broken, _ in system])) for system in systems)
    return {
        "violations": round(float(np.mean([broken for broken, _ in answers])), 4),
        "worst_system_violations": round(worst, 4),
        "regret_points": round(float(np.mean(fitting_regrets)), 3),
        "answered": round(len(answers) / requests, 4),
    }


def main(seeds: int = 3) -> None:
    file = reference_file("mlperf_edge_krai.csv")
    if file is None:
        return report("predict_mlperf", {"skipped": "reference data absent"})
    cells = read(file)
    features = {model: named(model) for model, _ in cells}
    result: dict[str, Any] = {
        "models": len({model for model, _ in cells}),
        "systems": len({system for _, system in cells}),
    }
    for percentile in ("p50", "p90"):
        rows = rows_of(cells, percentile)
        for count in (10, 20):
            name = f"{percentile}_k{count}"
            chosen = trials(rows, features, count, seeds=None)
            result[name] = {
                "spread": summary(chosen),
                "random": summary(trials(rows, features, count, seeds=seeds)),
            }
            if percentile == "p50":
                result[name] |= {
                    "spread_board_out": summary(trials(rows, features, count, seeds=None, alike=board)),
                    "spread_no_features": summary(trials(rows, {}, count, seeds=None)),
                }
            else:
                result[f"selection_k{count}"] = selection(cells, chosen)
    return report("predict_mlperf", {"split": "leave one system out", "confidence": 0.9, "seeds": seeds, **result})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
