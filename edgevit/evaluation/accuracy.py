"""evaluate: an artifact and a data set -> its accuracy, with its error, as rows for the database."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from edgevit.artifacts.folder import require_sealed
from edgevit.artifacts.trust import require_built_here
from edgevit.errors import ArtifactError, UsageError
from edgevit.evaluation.engine import classify
from edgevit.evaluation.image_folder import ImageFolder, examples_sha256, read_folder
from edgevit.evaluation.images import image_size
from edgevit.evaluation.prefetch import Batch, ImageFeed
from edgevit.evaluation.proportion import Proportion
from edgevit.evaluation.reference_model import ReferenceModel
from edgevit.recipes import load_recipe
from edgevit.records.artifact import PROVEN, Artifact
from edgevit.records.identity import identify_accuracy
from edgevit.records.measurement import Accuracy
from edgevit_runtime.record import Reply

_TOP5 = 5
_DIMENSIONS = 2  # of a classifier's output: (N, classes)


@dataclass(frozen=True)
class EvaluationRequest:
    """What is to be evaluated on, and how. workers: threads that decode images; None: as many as there are cores."""

    data: Path
    limit: int | None = None
    threads: int = 1
    batch: int | None = None  # None: the artifact's own, 1 where that is open
    names: Path | None = None  # file with the names of the class folders, in the order of the outputs
    dataset: str = ""  # its name; default: what the folder is called
    skip_unreadable: bool = False
    against_model: bool = False
    weights: Path | None = None  # that the artifact was made from; for against_model
    workers: int | None = None


@dataclass(frozen=True)
class Agreement:
    """The model that the artifact was made from, on the same pixels.

    changed: images to which the artifact gives another class. lost: of these, those that the model had right; gained:
    those that only the artifact has right.
    """

    top1: Proportion
    changed: int
    lost: int
    gained: int


@dataclass(frozen=True)
class Evaluation:
    """What came of one artifact. top5 is None for five classes or fewer, agreement where it was not asked for."""

    artifact: Path
    model: str
    target: str
    precision: str
    dataset: str
    dataset_sha256: str
    images: str  # what they are: "360 images of 10 classes"
    top1: Proportion
    top5: Proportion | None
    agreement: Agreement | None
    engine: str  # with version and provider
    unreadable: tuple[str, ...]  # files that were left out, with the reason
    seconds: float
    notes: tuple[str, ...]
    accuracies: tuple[Accuracy, ...] = field(repr=False)


def evaluate(
    artifact: Artifact,
    request: EvaluationRequest,
    *,
    built_here: Container[str] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Run the images of a folder through an artifact and count how often it is right. Nothing is stored.

    `built_here` are the digests of artifacts that may run their own code; `on_progress` is told how many images of how
    many have been given to the engine, from another thread. Raises UsageError for random weights, for a data set that
    does not fit the model and for an image that cannot be read, ArtifactError for an artifact that is damaged, of
    unknown origin, no classifier, or fails, TargetUnavailableError where nothing here runs it.
    """
    require_sealed(artifact)
    require_built_here(artifact, load_recipe(artifact.target).RECIPE, built_here)
    _require_trained(artifact)
    classes = class_count(artifact)
    batch = batch_size(artifact, request.batch)
    image_size(artifact.inputs, artifact.preprocessing)  # refused before the folder is read
    folder = read_folder(
        request.data,
        classes,
        labels=artifact.labels,
        names=request.names,
        dataset=request.dataset,
        limit=request.limit,
    )
    reference = ReferenceModel.of(artifact, request.weights, request.threads) if request.against_model else None
    workers = request.workers or os.cpu_count() or 1
    feed = ImageFeed(folder.examples, artifact.preprocessing, artifact.inputs[0], workers, request.skip_unreadable)
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    total = len(folder.examples)
    batches = _counted(feed.batches(batch), batch, total, on_progress)
    if reference is not None:
        batches = reference.beside(batches)
    how = {"batch": batch, "threads": request.threads, "keep": min(_TOP5, classes)}
    with closing(batches):  # with the threads that decode, where the engine did not want all of them
        reply, by_reference = classify(artifact, batches, math.ceil(total / batch), **how)
    found = _Found(artifact, folder, feed, reply, by_reference, reference, started)
    return found.evaluation(time.perf_counter() - clock)


def _require_trained(artifact: Artifact) -> None:
    if artifact.source.weights == "random":
        fix = f"edgevit export {artifact.source.model} --weights CHECKPOINT --target {artifact.target}"
        raise UsageError(
            "the weights are random: they have no accuracy that would mean anything",
            where=str(artifact.folder),
            fix=fix,
        )


def class_count(artifact: Artifact) -> int:
    """How many classes a classifier has. Raises ArtifactError for an artifact that puts out something else."""
    if len(artifact.outputs) == 1 and len(artifact.outputs[0].shape) == _DIMENSIONS:
        return artifact.outputs[0].shape[1]
    told = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in artifact.outputs)
    raise ArtifactError("the artifact is no classifier", where=str(artifact.folder), why=f"it puts out {told}")


def batch_size(artifact: Artifact, asked: int | None) -> int:
    """The batch to run at. Raises UsageError for another one than a fixed batch."""
    own = artifact.inputs[0].shape[0]
    if own == -1:
        return asked or 1
    if asked not in (None, own):
        fix = f"--batch-size {own}, or export it with --dynamic-batch"
        raise UsageError(f"the artifact has a fixed batch of {own}", where=str(artifact.folder), fix=fix)
    return own


def _counted(
    batches: Iterator[Batch], batch: int, total: int, on_progress: Callable[[int, int], None]
) -> Generator[Batch]:
    for number, item in enumerate(batches, start=1):
        yield item
        on_progress(min(number * batch, total), total)


@dataclass(frozen=True)
class _Found:
    """All that is known once the engine has seen every image."""

    artifact: Artifact
    folder: ImageFolder
    feed: ImageFeed
    reply: Reply
    by_reference: bool
    reference: ReferenceModel | None
    started: str

    @property
    def seen(self) -> list[tuple[int, tuple[int, ...], int | None]]:
        """Of each image that could be read its class, those it was given, and the one that the model gave it."""
        examples, given = self.folder.examples, self.reply.classes[: len(self.folder.examples)]
        models: Sequence[int | None] = self.reference.classes if self.reference else [None] * len(examples)
        rows = zip(examples, given, models, strict=False)
        return [
            (example.label, classes, model)
            for number, (example, classes, model) in enumerate(rows)
            if number not in self.feed.unreadable
        ]

    def evaluation(self, seconds: float) -> Evaluation:
        """Count. Raises UsageError where no image could be read."""
        if not self.seen:
            raise UsageError("no image of the data set can be read", where=str(self.folder.examples[0].path))
        artifact, folder = self.artifact, self.folder
        classes = class_count(artifact)
        top1, agreement = self.rate(1), self.agreement()
        top5 = self.rate(_TOP5) if classes > _TOP5 else None
        digest = examples_sha256(folder.examples, self.feed.digests)
        rows = [self.accuracy("top1_percent", top1, digest)]
        rows += [self.accuracy("top5_percent", top5, digest)] if top5 else []
        rows += [self.of_model(agreement.top1, digest)] if agreement else []
        return Evaluation(
            artifact=artifact.folder,
            model=artifact.model,
            target=artifact.target,
            precision=artifact.precision,
            dataset=folder.dataset,
            dataset_sha256=digest,
            images=folder.describe(),
            top1=top1,
            top5=top5,
            agreement=agreement,
            engine=" ".join(filter(None, (self.reply.engine, self.reply.engine_version, self.reply.provider))),
            unreadable=tuple(f"{folder.examples[n].name}: {why}" for n, why in self.feed.unreadable.items()),
            seconds=seconds,
            notes=self.notes(),
            accuracies=tuple(rows),
        )

    def rate(self, top: int) -> Proportion:
        """How many images have their class among the first `top`."""
        return Proportion(sum(label in classes[:top] for label, classes, _ in self.seen), len(self.seen))

    def agreement(self) -> Agreement | None:
        """The model on the same pixels, where it was asked for."""
        if self.reference is None:
            return None
        pairs = [(label, classes[0] if classes else None, model) for label, classes, model in self.seen]
        return Agreement(
            top1=Proportion(sum(model == label for label, _, model in pairs), len(pairs)),
            changed=sum(given != model for _, given, model in pairs),
            lost=sum(model == label != given for label, given, model in pairs),
            gained=sum(given == label != model for label, given, model in pairs),
        )

    def notes(self) -> tuple[str, ...]:
        """What a reader of the number should know, in the order of weight."""
        artifact, invalid = self.artifact, sum(not classes for _, classes, _ in self.seen)
        proven = artifact.parity.status if artifact.parity else "unverified"
        told = {
            "computed by the reference evaluator, not by the target's engine": self.by_reference,
            f"parity {proven}: the artifact is not proven to compute the model": proven not in PROVEN,
            f"{invalid} images gave NaN and count as wrong": invalid,
            f"{len(self.feed.unreadable)} files could not be read and were left out": self.feed.unreadable,
            f"{len(self.folder.passed_over)} files passed over: no images by their names": self.folder.passed_over,
            f"{self.folder.empty} of the model's classes have no image here": self.folder.empty,
            f"{self.feed.turned} images have an EXIF orientation, which is not applied": self.feed.turned,
            "weights as the user's function made them": artifact.source.weights == "function",
        }
        return tuple(text for text, holds in told.items() if holds)

    def accuracy(self, metric: str, rate: Proportion, digest: str) -> Accuracy:
        """The row of the artifact."""
        artifact, reply = self.artifact, self.reply
        return identify_accuracy(
            Accuracy(
                accuracy_id="",
                provenance="measured",
                model=artifact.model,
                family=artifact.family,
                dataset=self.folder.dataset,
                metric=metric,
                value=rate.percent,
                error=rate.error_percent,
                examples=rate.total,
                source=self.folder.describe(),
                target=artifact.target,
                precision=artifact.precision,
                artifact_sha256=artifact.sha256,
                graph_digest=artifact.graph_digest,
                weights_sha256=artifact.source.state_sha256,
                engine=reply.engine,
                engine_version=reply.engine_version,
                input_size=image_size(artifact.inputs, artifact.preprocessing),
                dataset_sha256=digest,
                started=self.started,
                note="; ".join(self.notes()),
            )
        )

    def of_model(self, rate: Proportion, digest: str) -> Accuracy:
        """The row of the model that it was made from."""
        artifact = self.artifact
        return identify_accuracy(
            Accuracy(
                accuracy_id="",
                provenance="measured",
                model=artifact.model,
                family=artifact.family,
                dataset=self.folder.dataset,
                metric="top1_percent",
                value=rate.percent,
                error=rate.error_percent,
                examples=rate.total,
                source=self.folder.describe(),
                weights_sha256=artifact.source.state_sha256,
                engine="torch",
                engine_version=self.reference.version if self.reference else "",
                input_size=image_size(artifact.inputs, artifact.preprocessing),
                dataset_sha256=digest,
                started=self.started,
            )
        )
