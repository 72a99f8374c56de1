"""PyTorch Image Models (timm): its benchmark tables, and its table of accuracies on ImageNet.

A benchmark's file name says precision, layout, version of PyTorch and device, its lines say the mean time of a batch.
The accuracies are joined by name without the tag of the weights, and image size: the name and input_size of both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from edgevit.published.importers import Publication
from edgevit.published.importers.reading.names import zoo_name
from edgevit.published.importers.reading.tables import Line, claims, csv_head, csv_lines
from edgevit.published.importers.reading.units import from_billions, from_millions, ns_from_ms, number, whole
from edgevit.published.screening import Claim, ClaimError, Cost
from edgevit.records.identity import identify_accuracy
from edgevit.records.measurement import MEAN_ONLY, Accuracy
from edgevit_runtime.record import TensorSpec

FORM = "timm's benchmark-infer-*.csv, or its results-*.csv with accuracies"
LICENCE = "Apache-2.0"
FILE = ""
SAME = {"hiera_tiny_224": "hiera_tiny"}  # timm's name -> ours; see zoo_name
_PROJECT = "github.com/huggingface/pytorch-image-models, results"
_FRAMEWORK = "PyTorch"
_BENCHMARK = frozenset(
    ("model", "infer_img_size", "infer_samples_per_sec", "infer_step_time", "infer_batch_size", "param_count",
     "infer_gmacs")
)  # fmt: skip
_RESULTS = frozenset(("model", "img_size", "top1", "top1_err", "top5", "top5_err", "param_count"))
_FILE = re.compile(
    r"benchmark-infer-(?P<precision>fp32|amp|fp16|bf16)-(?P<layout>nchw|nhwc)-pt(?P<version>\d{2,4})"
    r"-(?P<unit>cpu|cu\d+)-(?P<device>\w+?)(-(?P<provider>\w+))?\.csv"
)
_BYTES = {"fp32": 4, "amp": 2, "fp16": 2, "bf16": 2}  # of a weight, at least
_DTYPES = {"fp32": "float32", "amp": "float32", "fp16": "float16", "bf16": "bfloat16"}  # of images: amp casts inside
_SLACK = 1.5  # between the printed rate and the printed time, which are taken by different clocks
_DATASETS = {"results-imagenet": "imagenet-1k val"}  # other results-*.csv keep the file's own name


def recognises(path: Path) -> bool:
    """Whether the head of the file has the columns of one of the two tables."""
    head = set(csv_head(path))
    return head >= _BENCHMARK or head >= _RESULTS


def read(publication: Publication) -> Iterator[Claim]:
    """Every line. Raises StoreError where the file cannot be read."""
    make = _measured if set(csv_head(publication.path)) >= _BENCHMARK else _evaluated
    return claims(csv_lines(publication.path), partial(make, publication))


def _measured(publication: Publication, line: Line) -> Claim:
    told, name = line.values, _FILE.fullmatch(publication.path.name)
    if name is None:
        raise ClaimError("no device: the name of the file says it, and this is none of timm's names for a benchmark")
    size, params = whole(told["infer_img_size"], "infer_img_size"), from_millions(told["param_count"], "param_count")
    batch, mean_ns = _batch_and_time(told)
    # The products are not told of all models.
    macs = batch * from_billions(told["infer_gmacs"], "infer_gmacs") if told["infer_gmacs"] else None
    row = {
        "source": publication.named(_PROJECT),
        "licence": LICENCE,
        "model": zoo_name(SAME, told["model"], size, params),
        "device": name["device"],
        "device_id": f"timm/{name['device']}",
        "target": _FRAMEWORK,
        "precision": name["precision"],
        "engine": _FRAMEWORK,
        "engine_version": ".".join(name["version"]),
        "provider": name["provider"] or "",
        "compute_unit": "cpu" if name["unit"] == "cpu" else "gpu",
        "batch": batch,
        "inputs": (TensorSpec("image", (batch, 3, size, size), _DTYPES[name["precision"]]),),
        "started": publication.published,
        "p50_ns": None,
        "mean_ns": mean_ns,
        "flags": (MEAN_ONLY,),
        "untold": ("p50_ns", "processes", "runs", "started"),
    }
    return line.claim(row, cost=Cost(macs, params * _BYTES[name["precision"]]))


def _batch_and_time(told: dict[str, Any]) -> tuple[int, int]:
    """Images in a batch, and the mean nanoseconds of one. Raises ClaimError where the printed rate says otherwise."""
    batch = whole(told["infer_batch_size"], "infer_batch_size")
    mean_ns = ns_from_ms(told["infer_step_time"], "infer_step_time")
    rate = number(told["infer_samples_per_sec"], "infer_samples_per_sec")
    if batch < 1 or not 1 / _SLACK < rate * mean_ns / 1e9 / batch < _SLACK:
        raise ClaimError(f"contradicts itself: {rate:g} images a second, and {mean_ns} ns for a batch of {batch}")
    return batch, mean_ns


def _evaluated(publication: Publication, line: Line) -> Claim:
    told = line.values
    name, _, tag = told["model"].partition(".")
    size = whole(told["img_size"], "img_size")
    model = zoo_name(SAME, name, size, from_millions(told["param_count"], "param_count"))
    found = []
    for top in ("top1", "top5"):
        value, wrong = number(told[top], top), number(told[f"{top}_err"], f"{top}_err")
        if abs(value + wrong - 100) > 0.01:
            raise ClaimError(f"contradicts itself: {value:g}% are right in {top}, and {wrong:g}% are not")
        accuracy = Accuracy(
            "", "published", model=model, family="", metric=f"{top}_percent", value=value, error=None, examples=None,
            dataset=_DATASETS.get(publication.path.stem, publication.path.stem), source=publication.named(_PROJECT),
            licence=LICENCE, untold=("error", "examples"), input_size=(size, size), engine=_FRAMEWORK,
            note=f"weights {tag or 'not named'}; {told['model']} of timm",
        )  # fmt: skip
        found.append(identify_accuracy(accuracy))
    return line.claim(None, accuracies=tuple(found))
