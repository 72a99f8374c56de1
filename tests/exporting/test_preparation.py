"""The preparation that exports of one network share: each gets the answers to its own samples."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from edgevit.exporting.preparation import Preparation
from edgevit.records.artifact import ExportRequest, SampleRequest
from support.subjects import tiny_subject


def test_answers_are_those_to_the_samples_and_the_batch_of_a_request(tmp_path: Path) -> None:
    request = ExportRequest("onnx", tmp_path / "out")
    prepared = Preparation(tiny_subject(tmp_path), request)
    noise = prepared.references(request)
    assert prepared.references(dataclasses.replace(request, target="ncnn", precision="fp16")) is noise, (
        "they are shared"
    )
    pixels = prepared.references(dataclasses.replace(request, samples=SampleRequest((0.0, 255.0))))
    two = prepared.references(dataclasses.replace(request, dynamic_batch=True))
    assert [len(answers.trained[0][0]) for answers in (noise, pixels, two)] == [1, 1, 2]
    assert max(float(np.abs(sample[0]).max()) for sample in pixels.samples.sets) > 100
    assert not np.array_equal(pixels.trained[0][0], noise.trained[0][0])
