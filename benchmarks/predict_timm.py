"""The predictor on families that it never saw: timm's zoo on one CPU, from features, and with another CPU's rows.

python benchmarks/predict_timm.py

Data: benchmark-infer-fp32-nchw-pt240-cpu-{i9_10940x,i7_12700h}-dynamo.csv of huggingface/pytorch-image-models
(Apache-2.0), batch 1. Split: five folds of families, so that no family is in two folds; a model is a name and an image
size. Two ways to tell a family: `by_prefix`, the letters that a name begins with (vit, resnetv, tf...), and `merged`,
the stricter one, where all names with the same stem (any resnet or resnext, any efficientnet...) are one family.
Features are what the file says (parameters, GMACs, activations, image size) and words of the name.
"""

from __future__ import annotations

import csv
import math
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import reference_file, report
from predict_common import Trial, hold_out

from edgevit.prediction import Row

FILES = {
    "i9": "benchmark-infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo.csv",
    "i7": "benchmark-infer-fp32-nchw-pt240-cpu-i7_12700h-dynamo.csv",
}
FOLDS = 5
STEMS = (
    "efficientnet", "efficientformer", "efficientvit", "mobilenet", "mobilevit", "mobileone", "regnet", "hrnet",
    "convnext", "convformer", "caformer", "swin", "xcit", "maxxvit", "maxvit", "coatnet", "coat", "crossvit",
    "levit", "nfnet", "hgnet", "densenet", "ghostnet", "poolformer", "deit", "beit", "eva", "cait", "pit",
    "repvgg", "vgg", "inception", "xception", "darknet", "hiera", "samvit", "dla", "dpn", "focal", "edgenext",
    "fastvit", "repvit", "volo", "mixer", "mlp", "rexnet", "mnasnet", "lcnet", "fbnet",
)  # fmt: skip
WORDS = (
    "vit", "swin", "net", "former", "mlp", "mixer", "se", "eca", "rep", "mobile", "efficient", "res", "next",
    "patch16", "patch14", "patch32", "window", "reg", "hr", "dense", "distilled", "v2", "v3", "ghost", "gc",
    "blur", "aa", "halo", "bot", "cs", "b0", "nf", "conv", "attn", "rw", "dlinear", "fast", "hybrid", "hg",
    "xcit", "coat", "max", "lambda", "lite",
)  # fmt: skip


def read(file: Path) -> dict[str, dict[str, float]]:
    """Model and image size -> its line; those without a count are left out."""
    collected = {}
    with file.open(encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            values = {key: float(value) for key, value in line.items() if key != "model" and value}
            if all(values.get(key, 0) > 0 for key in ("infer_step_time", "param_count", "infer_gmacs", "infer_macts")):
                collected[f"{line['model']} {line['infer_img_size']}"] = values
    return collected


def by_prefix(model: str) -> str:
    collected = re.match(r"[a-z]+", model)
    return collected[0] if collected else model


def merged(model: str) -> str:
    name = re.split(r"[. ]", model)[0]
    if re.search(r"resne[tsx]|botnet|halonet|senet", name):
        return "resnet"
    stem = next((stem for stem in STEMS if stem in name), None)
    return stem or ("vit" if "vit" in name.split("_") else by_prefix(name))


def features(model: str, line: dict[str, float]) -> dict[str, float]:
    params, macs, acts = (math.log(line[key]) for key in ("param_count", "infer_gmacs", "infer_macts"))
    side = math.log(line["infer_img_size"])
    sizes = {"log params": params, "log macs": macs, "log acts": acts, "log side": side}
    ratios = {
        "log macs per param": macs - params,
        "log acts per mac": acts - macs,
        "log macs per pixel": macs - 2 * side,
    }
    name = re.split(r"[. ]", model)[0]
    return {**sizes, **ratios, **{f"word {word}": float(word in name) for word in WORDS}}


def folds(families: dict[str, str]) -> dict[str, int]:
    """Model -> fold. The largest families are dealt first, each to the fold with the fewest models."""
    sizes: dict[str, int] = {}
    for family in families.values():
        sizes[family] = sizes.get(family, 0) + 1
    load, fold_of = [0] * FOLDS, {}
    for family in sorted(sizes, key=lambda name: (-sizes[name], name)):
        fold_of[family] = load.index(min(load))
        load[fold_of[family]] += sizes[family]
    return {model: fold_of[family] for model, family in families.items()}


def cross_validate(tell: Callable[[str], str], times: dict[str, dict[str, dict[str, float]]], *, other: bool) -> Any:
    """Each fold of families predicted from the others' rows on the i9, with or without all rows of the i7."""
    models = sorted(set(times["i9"]) & set(times["i7"]))
    families = {model: tell(model) for model in models}
    fold = folds(families)
    known_rows = [Row(model, "i7", 1e6 * times["i7"][model]["infer_step_time"]) for model in models if other]
    held_out_rows = [Row(model, "i9", 1e6 * times["i9"][model]["infer_step_time"]) for model in models]
    described = {model: features(model, times["i9"][model]) for model in models}
    trials = []
    for number in range(FOLDS):
        anchors = [model for model in models if fold[model] != number]
        trials.append(hold_out(known_rows, held_out_rows, anchors, features=described, families=families))
    return outcome(trials, families)


def outcome(trials: list[Trial], families: dict[str, str]) -> dict[str, Any]:
    errors = np.concatenate([np.abs(trial.errors) for trial in trials])
    names = [families[prediction.model] for trial in trials for prediction in trial.predictions]
    by_family = {name: errors[[i for i, family in enumerate(names) if family == name]] for name in set(names)}
    worst = max((float(each.mean()), name) for name, each in by_family.items() if len(each) >= 10)
    return {
        "models": len(errors),
        "families": len(by_family),
        "mape": round(float(errors.mean()), 4),
        "median": round(float(np.median(errors)), 4),
        "mape_by_fold": [round(float(np.abs(trial.errors).mean()), 4) for trial in trials],
        "worst_family_of_10": {worst[1]: round(worst[0], 4)},
        "within": round(float((errors <= 0.1).mean()), 4),
        "covered": round(float(np.average([t.covered for t in trials], weights=[len(t.truths) for t in trials])), 4),
        "covered_by_fold": [round(trial.covered, 4) for trial in trials],
    }


def main() -> None:
    files = {name: reference_file(file) for name, file in FILES.items()}
    if None in files.values():
        return report("predict_timm", {"skipped": "reference data absent"})
    times = {name: read(file) for name, file in files.items() if file}
    collected: dict[str, Any] = {"split": "five folds of families", "confidence": 0.9}
    for tell in (by_prefix, merged):
        for other in (False, True):
            start = time.perf_counter()
            name = f"{tell.__name__}_{'with_i7' if other else 'features_only'}"
            collected[name] = cross_validate(tell, times, other=other)
            collected[name]["seconds"] = round(time.perf_counter() - start, 1)
            print(name, collected[name], file=sys.stderr)
    return report("predict_timm", collected)


if __name__ == "__main__":
    main()
