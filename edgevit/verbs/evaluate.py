"""`edgevit.evaluate(...)`: the accuracy of an artifact on a folder of images."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgevit.artifacts.folder import open_artifact
from edgevit.evaluation import Evaluation, EvaluationRequest
from edgevit.evaluation import evaluate as evaluate_images
from edgevit.records.artifact import Artifact, WeightsRequest
from edgevit.records.preprocessing import read_stated
from edgevit.store import LatencyDB
from edgevit.sweeps.plan import built_here


def evaluate(
    artifact: str | Path | Artifact,
    data: str | Path,
    *,
    limit: int | None = None,
    threads: int | None = None,
    batch_size: int | None = None,
    classes: str | Path | None = None,
    dataset: str = "",
    skip_unreadable: bool = False,
    against_model: bool = False,
    weights: str | Path | None = None,
    weights_key: str = "",
    model: str | None = None,
    trust: bool = False,
    db: str | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure top-1 and top-5 accuracy through an exported artifact, and keep it in the database.

        >>> import edgevit
        >>> evaluation = edgevit.evaluate("artifacts/mobilevig_ti-onnx-fp32", "imagenet/val", limit=5000)
        >>> evaluation.top1.percent, evaluation.top1.interval_percent

    Parameters
    ----------
    artifact
        Folder that `edgevit.export` wrote, or the artifact that it returned. Its weights must be trained ones.
    data
        Folder of class folders with images: data/CLASS/image.jpg.
    limit
        Number of images, drawn at random, the same each time; default: all.
    threads, batch_size
        Engine threads, default: all cores. Batch size for artifacts with an open batch, default: 1.
    classes
        File of class folder names in the order of the outputs, one per line.
    dataset
        Name of the data set; default: the folder's.
    skip_unreadable
        Leave out and count files that cannot be read.
    against_model, weights, weights_key, model
        Compare with the model itself, in torch, from this checkpoint and this set of its weights; default: the set that
        the artifact was made from. The model's name, given again, lets its code run.
    trust, db
        Permission to run code that this database did not record as built here; the database.
    preprocessing
        What differs from the artifact's preprocessing, as for `edgevit.export`.
    on_progress
        Function that is called with the number of images done and of all, from another thread.

    Raises UsageError for random weights, data that do not fit the model, unreadable images, and an order of the classes
    that has to be stated; ArtifactError,
    CheckpointError, TargetUnavailableError where nothing here runs it.
    """
    opened = open_artifact(artifact.folder if isinstance(artifact, Artifact) else Path(artifact))
    request = EvaluationRequest(
        data=Path(data),
        limit=limit,
        threads=threads or os.cpu_count() or 1,
        batch=batch_size,
        names=None if classes is None else Path(classes),
        dataset=dataset,
        skip_unreadable=skip_unreadable,
        against_model=against_model,
        weights=WeightsRequest(None if weights is None else Path(weights), weights_key),
        model=model or "",
        preprocessing=read_stated(preprocessing or {}),
    )
    evaluation = evaluate_images(
        opened,
        request,
        built_here=built_here([opened], db, trust=trust),
        on_progress=on_progress or (lambda finished, total: None),
    )
    with LatencyDB.open(db) as database:
        database.add_evaluation(evaluation.accuracies, evaluation.confusion)
    return evaluation
