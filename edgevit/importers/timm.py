"""PyTorch Image Models (timm): its benchmark tables, and its table of accuracies on ImageNet.

A benchmark's file name says precision, layout, version of PyTorch and device, its lines say the mean time of a batch.
The accuracies are joined by name without the tag of the weights, and image size: the name and input_size of both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgevit.identity import identify_accuracy
from edgevit.importers import Publication
from edgevit.screening import Claim, ClaimError, Cost
from edgevit.screening.names import zoo_name
from edgevit.screening.tables import Line, csv_head, csv_lines
from edgevit.screening.units import from_billions, from_millions, ns_from_ms, number, utc, whole
from edgevit.types import Accuracy
from edgevit_runtime.record import TensorSpec

FORM = "timm's benchmark-infer-*.csv, or its results-*.csv with accuracies"
LICENCE = "Apache-2.0"
FILE = ""
SAME = {"hiera_tiny_224": "hiera_tiny"}  # timm's name -> ours; see zoo_name
_PROJECT = "github.com/huggingface/pytorch-image-models, results"
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
_SLACK = 1.5  # between the printed rate and the printed time, which are taken by different clocks
_DATASETS = {"results-imagenet": "imagenet-1k val"}  # other results-*.csv keep the file's own name


def recognises(path: Path) -> bool:
    """Whether the head of the file has the columns of one of the two tables."""
    head = set(csv_head(path))
    return head >= _BENCHMARK or head >= _RESULTS


def read(publication: Publication) -> Iterator[Claim]:
    """Every line. Raises StoreError where the file cannot be read."""
    make = _measured if set(csv_head(publication.path)) >= _BENCHMARK else _evaluated
    for line in csv_lines(publication.path):
        try:
            if line.values is None:
                raise ClaimError("not a line of the table: it has another number of cells than the head")
            yield make(line, line.values, publication)
        except ClaimError as error:
            yield Claim(line.place, line.content, reason=str(error))


def _measured(line: Line, told: dict[str, Any], publication: Publication) -> Claim:
    name = _FILE.fullmatch(publication.path.name)
    if name is None:
        raise ClaimError("no device: the name of the file says it, and this is none of timm's names for a benchmark")
    batch, size = whole(told["infer_batch_size"], "infer_batch_size"), whole(told["infer_img_size"], "infer_img_size")
    mean_ns = ns_from_ms(told["infer_step_time"], "infer_step_time")
    rate = number(told["infer_samples_per_sec"], "infer_samples_per_sec")
    if batch < 1 or not 1 / _SLACK < rate * mean_ns / 1e9 / batch < _SLACK:
        raise ClaimError(f"contradicts itself: {rate:g} images a second, and {mean_ns} ns for a batch of {batch}")
    params = from_millions(told["param_count"], "param_count")
    macs = (
        batch * from_billions(told["infer_gmacs"], "infer_gmacs") if told["infer_gmacs"] else None
    )  # not of all models
    cost = Cost(macs, params * _BYTES[name["precision"]])
    dtype = "float32" if name["precision"] == "fp32" else name["precision"]
    row = {
        "source": publication.named(_PROJECT),
        "licence": LICENCE,
        "model": zoo_name(SAME, told["model"], size, params),
        "device": name["device"],
        "device_id": f"timm/{name['device']}",
        "target": "pytorch",
        "precision": name["precision"],
        "engine": "PyTorch",
        "engine_version": ".".join(name["version"]),
        "provider": name["provider"] or "",
        "compute_unit": "cpu" if name["unit"] == "cpu" else "gpu",
        "batch": batch,
        "inputs": (TensorSpec("image", (batch, 3, size, size), dtype),),
        "started": utc(publication.published, "--published") if publication.published else "",
        "p50_ns": mean_ns,  # a row needs a headline; the flag and `untold` say which it is
        "mean_ns": mean_ns,
        "flags": ("headline_mean",),
        "untold": ("p50_ns", "processes", "runs", "started"),
    }
    return Claim(line.place, line.content, row, cost=cost)


def _evaluated(line: Line, told: dict[str, Any], publication: Publication) -> Claim:
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
            licence=LICENCE, untold=("error", "examples"), input_size=(size, size), engine="PyTorch",
            note=f"weights {tag or 'not named'}; {told['model']} of timm",
        )  # fmt: skip
        found.append(identify_accuracy(accuracy))
    return Claim(line.place, line.content, None, tuple(found))
