"""PyTorch Image Models (timm): its benchmark tables, and its table of accuracies on ImageNet.

A benchmark's file name has precision, layout, version of PyTorch and device; its lines have the mean time of a batch.
Accuracies match rows by image size (input_size) and by the name without the tag of the weights.
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
from edgevit.store import PublishedValues
from edgevit_runtime.record import TensorSpec

FORM = "timm's benchmark-infer-*.csv, or its results-*.csv with accuracies"
LICENCE = "Apache-2.0"
FILE = ""
# Maps timm's name to ours; see zoo_name.
ZOO_NAMES = {"hiera_tiny_224": "hiera_tiny"}
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
# Bytes of a weight, at least.
_BYTES = {"fp32": 4, "amp": 2, "fp16": 2, "bf16": 2}
# Types of images: amp casts inside the network.
_DTYPES = {"fp32": "float32", "amp": "float32", "fp16": "float16", "bf16": "bfloat16"}
# Ratio allowed between the printed rate and the printed time, which come from different clocks.
_SLACK = 1.5
# Other results-*.csv keep the file's own name.
_DATASETS = {"results-imagenet": "imagenet-1k val"}


def recognises(path: Path) -> bool:
    """Return whether the head of the file has the columns of one of the two tables."""
    head = set(csv_head(path))
    return head >= _BENCHMARK or head >= _RESULTS


def read(publication: Publication) -> Iterator[Claim]:
    """Yield every line as a claim. Raises StoreError where the file cannot be read."""
    make = _measured if set(csv_head(publication.path)) >= _BENCHMARK else _evaluated
    return claims(csv_lines(publication.path), partial(make, publication))


def _measured(publication: Publication, line: Line) -> Claim:
    values, name = line.values, _FILE.fullmatch(publication.path.name)
    if name is None:
        why = "the file's name has it in timm's benchmarks, and this is no such name"
        raise ClaimError("no_device", why)
    size, params = (
        whole(values["infer_img_size"], "infer_img_size"),
        from_millions(values["param_count"], "param_count"),
    )
    batch, mean_ns = _batch_and_time(values)
    # Some models have no number of products.
    macs = batch * from_billions(values["infer_gmacs"], "infer_gmacs") if values["infer_gmacs"] else None
    row = PublishedValues(
        source=publication.named(_PROJECT),
        licence=LICENCE,
        model=zoo_name(ZOO_NAMES, values["model"], size, params),
        device=name["device"],
        device_id=f"timm/{name['device']}",
        target=_FRAMEWORK,
        precision=name["precision"],
        engine=_FRAMEWORK,
        engine_version=".".join(name["version"]),
        provider=name["provider"] or "",
        compute_unit="cpu" if name["unit"] == "cpu" else "gpu",
        batch=batch,
        inputs=(TensorSpec("image", (batch, 3, size, size), _DTYPES[name["precision"]]),),
        started=publication.published,
        p50_ns=None,
        mean_ns=mean_ns,
        flags=(MEAN_ONLY,),
        untold=("p50_ns", "processes", "runs", "started"),
    )
    return line.claim(row, cost=Cost(macs, params * _BYTES[name["precision"]]))


def _batch_and_time(values: dict[str, Any]) -> tuple[int, int]:
    """Return images per batch, and its mean nanoseconds. Raises ClaimError where the printed rate contradicts them."""
    batch = whole(values["infer_batch_size"], "infer_batch_size")
    mean_ns = ns_from_ms(values["infer_step_time"], "infer_step_time")
    rate = number(values["infer_samples_per_sec"], "infer_samples_per_sec")
    if batch < 1 or not 1 / _SLACK < rate * mean_ns / 1e9 / batch < _SLACK:
        why = f"{rate:g} images a second, and {mean_ns} ns for a batch of {batch}"
        raise ClaimError("contradicts_itself", why)
    return batch, mean_ns


def _evaluated(publication: Publication, line: Line) -> Claim:
    values = line.values
    name, _, tag = values["model"].partition(".")
    size = whole(values["img_size"], "img_size")
    model = zoo_name(ZOO_NAMES, name, size, from_millions(values["param_count"], "param_count"))
    accuracies = []
    for top in ("top1", "top5"):
        value, wrong = number(values[top], top), number(values[f"{top}_err"], f"{top}_err")
        if abs(value + wrong - 100) > 0.01:
            raise ClaimError("contradicts_itself", f"{value:g}% are right in {top}, and {wrong:g}% are not")
        accuracy = Accuracy(
            "", "published", model=model, family="", metric=f"{top}_percent", value=value, error=None, examples=None,
            dataset=_DATASETS.get(publication.path.stem, publication.path.stem), source=publication.named(_PROJECT),
            licence=LICENCE, untold=("error", "examples"), input_size=(size, size), engine=_FRAMEWORK,
            note=f"weights {tag or 'not named'}; {values['model']} of timm",
        )  # fmt: skip
        accuracies.append(identify_accuracy(accuracy))
    return line.claim(None, accuracies=tuple(accuracies))
