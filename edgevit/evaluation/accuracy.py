"""Accuracy of an artifact on a data set, with its error, as rows for the database."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from edgevit.artifacts.export_command import export_command
from edgevit.artifacts.folder import require_sealed
from edgevit.artifacts.trust import require_built_here, require_known_model
from edgevit.errors import ArtifactError, UsageError
from edgevit.evaluation.class_order import BetterOrder, better_order, require_plausible
from edgevit.evaluation.confusion import ClassAccuracy, Counts, count_answers, per_class
from edgevit.evaluation.engine import classify
from edgevit.evaluation.image_folder import ImageFolder, examples_sha256, read_folder
from edgevit.evaluation.prefetch import Batch, ImageFeed
from edgevit.evaluation.reference_model import ReferenceModel
from edgevit.images.pictures import image_size
from edgevit.recipes import load_recipe
from edgevit.records.artifact import NO_CHECKPOINT, PROVEN, Artifact, WeightsRequest
from edgevit.records.identity import identify_accuracy, identify_confusion
from edgevit.records.measurement import CLASS_ORDER, NO_CLASS, NOT_OF_MANIFEST, Accuracy, Confusion
from edgevit.records.model import Preprocessing
from edgevit.records.network import Network
from edgevit.records.preprocessing import NOTHING_STATED, StatedPreprocessing, complete, describe_assumed
from edgevit.records.proportion import Proportion
from edgevit_runtime.record import Reply

_TOP5 = 5
_INSIDE = ("mean", "std", "range", "colour")  # of a Preprocessing: what --embed-preprocess puts inside
_DIMENSIONS = 2  # of a classifier's output: (N, classes)


@dataclass(frozen=True)
class EvaluationRequest:
    """The data set and the options of an evaluation. workers: threads that decode images; None: one per core."""

    data: Path
    limit: int | None = None
    threads: int = 1
    batch: int | None = None  # None: the artifact's own, 1 where that is open
    names: Path | None = None  # file with the names of the class folders, in the order of the outputs
    dataset: str = ""  # its name; default: the folder's name
    skip_unreadable: bool = False
    against_model: bool = False
    weights: WeightsRequest = NO_CHECKPOINT  # of the artifact's model; for against_model
    model: str = ""  # the name of that model, where a person gives it again
    workers: int | None = None
    preprocessing: StatedPreprocessing = NOTHING_STATED  # what differs from the artifact's


@dataclass(frozen=True)
class Agreement:
    """The agreement of an artifact with its original model on the same pixels.

    changed: images that the artifact classifies differently. lost: those of them that only the model has right. gained:
    those that only the artifact has right.
    """

    top1: Proportion
    changed: int
    lost: int
    gained: int


@dataclass(frozen=True)
class Evaluation:
    """The result of one artifact. top5 is `None` for five classes or fewer, agreement where it was not requested.

    class_order: the order of the classes in words, with what says so. assumed: what top1 rests on and was not stated,
    as Accuracy has it. classes: each class with images. confusion: the matrix, as the database keeps it. input_shape,
    network: of the artifact.
    """

    artifact: Path
    model: str
    target: str
    precision: str
    dataset: str
    dataset_sha256: str
    images: str  # "360 images of 10 classes"
    top1: Proportion
    top5: Proportion | None
    agreement: Agreement | None
    engine: str  # with version and provider
    unreadable: tuple[str, ...]  # skipped files, with the reason
    seconds: float
    notes: tuple[str, ...]
    accuracies: tuple[Accuracy, ...] = field(repr=False)
    class_order: str
    assumed: tuple[str, ...]
    preprocessing: Preprocessing
    classes: tuple[ClassAccuracy, ...] = field(repr=False)
    confusion: Confusion = field(repr=False)
    input_shape: tuple[int, ...]
    network: Network

    @property
    def network_id(self) -> str:
        """What tells apart the networks of one model (records.network)."""
        return self.accuracies[0].network_id


def evaluate(
    artifact: Artifact,
    request: EvaluationRequest,
    *,
    built_here: Container[str] = (),
    on_progress: Callable[[int, int], None] = lambda finished, total: None,
) -> Evaluation:
    """Classify the images of a folder with an artifact, and count the right answers. Nothing is stored.

    `built_here` are the digests of code that may run (artifacts/trust.py). `on_progress` receives the number of images
    passed to the engine and their total, from another thread. Raises UsageError for random weights, for a data set that
    does not fit the model, for an unreadable image, and where the order of the classes has to be stated. Raises
    ArtifactError for an artifact that is damaged, of unknown origin, no classifier, or fails, and
    TargetUnavailableError where no engine here runs it.
    """
    require_sealed(artifact)
    require_built_here(artifact, load_recipe(artifact.target).RECIPE, built_here)
    if request.against_model:
        require_known_model(artifact, built_here, request.model)
    _require_trained(artifact)
    classes = class_count(artifact)
    batch = batch_size(artifact, request.batch)
    # This refuses a model without images before the folder is read.
    image_size(artifact.inputs, artifact.preprocessing)
    preprocessing = stated_for(artifact, request.preprocessing)
    folder = read_folder(
        request.data,
        classes,
        labels=artifact.labels,
        names=request.names,
        dataset=request.dataset,
        limit=request.limit,
    )
    reference = None
    if request.against_model:
        reference = ReferenceModel.of(artifact, request.weights, request.threads, request.model)
    workers = request.workers or os.cpu_count() or 1
    feed = ImageFeed(folder.examples, preprocessing, artifact.inputs[0], workers, request.skip_unreadable)
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    total = len(folder.examples)
    batches = _counted(feed.batches(batch), batch, total, on_progress)
    if reference is not None:
        batches = reference.classify(batches)
    # Closing the batches ends the decoding threads, also where the engine did not take all batches.
    with closing(batches):
        reply, by_reference = classify(
            artifact,
            batches,
            math.ceil(total / batch),
            batch=batch,
            threads=request.threads,
            keep=min(_TOP5, classes),
        )
    outcome = _Outcome(artifact, folder, feed, reply, by_reference, reference, started)
    return outcome.evaluation(time.perf_counter() - clock)


def stated_for(artifact: Artifact, stated: StatedPreprocessing) -> Preprocessing:
    """Return the artifact's preprocessing with what was stated. Raises UsageError for what is fixed inside of it."""
    inside, preprocessing = artifact.preprocessing_inside, artifact.preprocessing
    completed = complete(preprocessing, stated, artifact.inputs, raw=inside)
    if inside and any(getattr(completed, name) != getattr(preprocessing, name) for name in _INSIDE):
        problem = "mean, deviation, range and color are inside the artifact"
        fix = f"{export_command(artifact)}, with these options in place of its own"
        raise UsageError(problem, where=str(artifact.folder), fix=fix)
    return completed


def _require_trained(artifact: Artifact) -> None:
    if artifact.source.weights == "random":
        fix = export_command(artifact, weights=Path("CHECKPOINT"))
        raise UsageError(
            "the weights are random: they have no accuracy that would mean anything",
            where=str(artifact.folder),
            fix=fix,
        )


def class_count(artifact: Artifact) -> int:
    """Return the number of a classifier's classes. Raises ArtifactError for an artifact with another output."""
    if len(artifact.outputs) == 1 and len(artifact.outputs[0].shape) == _DIMENSIONS:
        return artifact.outputs[0].shape[1]
    outputs = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in artifact.outputs)
    raise ArtifactError("the artifact is no classifier", where=str(artifact.folder), why=f"it puts out {outputs}")


def batch_size(artifact: Artifact, requested: int | None) -> int:
    """Return the batch to run at. Raises UsageError for a request that differs from a fixed batch."""
    fixed = artifact.inputs[0].shape[0]
    if fixed == -1:
        return requested or 1
    if requested not in (None, fixed):
        fix = f"--batch-size {fixed}, or export it with --dynamic-batch"
        raise UsageError(f"the artifact has a fixed batch of {fixed}", where=str(artifact.folder), fix=fix)
    return fixed


def _counted(
    batches: Iterator[Batch], batch: int, total: int, on_progress: Callable[[int, int], None]
) -> Generator[Batch]:
    for number, samples in enumerate(batches, start=1):
        yield samples
        on_progress(min(number * batch, total), total)


@dataclass(frozen=True)
class _Outcome:
    """The classes of all images, and the circumstances of their computation."""

    artifact: Artifact
    folder: ImageFolder
    feed: ImageFeed
    reply: Reply
    by_reference: bool
    reference: ReferenceModel | None
    started: str

    @property
    def classified(self) -> list[tuple[int, tuple[int, ...], int | None]]:
        """For each readable image: its label, the artifact's classes, and the original model's class."""
        examples, predictions = self.folder.examples, self.reply.classes[: len(self.folder.examples)]
        models: Sequence[int | None] = self.reference.classes if self.reference else [None] * len(examples)
        rows = zip(examples, predictions, models, strict=False)
        return [
            (example.label, classes, model)
            for number, (example, classes, model) in enumerate(rows)
            if number not in self.feed.unreadable
        ]

    def evaluation(self, seconds: float) -> Evaluation:
        """Count the right answers. Raises UsageError where no image could be read."""
        if not self.classified:
            raise UsageError("no image of the data set can be read", where=str(self.folder.examples[0].path))
        artifact, folder = self.artifact, self.folder
        class_number = class_count(artifact)
        top1, agreement = self.proportion(1), self.agreement()
        top5 = self.proportion(_TOP5) if class_number > _TOP5 else None
        digest = examples_sha256(folder.examples, self.feed.digests)
        rows = [self.accuracy("top1_percent", top1, digest)]
        rows += [self.accuracy("top5_percent", top5, digest)] if top5 else []
        rows += [self.model_accuracy(agreement.top1, digest)] if agreement else []
        counts = self.counts
        assumed = describe_assumed(self.feed.preprocessing)
        require_plausible(folder, counts, top1, f"; preprocessing was assumed, too: {assumed}" if assumed else "")
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
            class_order=folder.describe_order(),
            assumed=self.assumed,
            preprocessing=self.feed.preprocessing,
            classes=per_class(counts, folder.labels),
            confusion=identify_confusion(rows[0].accuracy_id, folder.labels, counts),
            input_shape=artifact.inputs[0].shape,
            network=artifact.network,
        )

    @property
    def assumed(self) -> tuple[str, ...]:
        """What the accuracy rests on and was not stated: preprocessing, and the order of the classes."""
        order = [CLASS_ORDER] * self.folder.order_is_assumed
        contradicted = self.has_other_preprocessing or self.folder.contradicts(self.artifact.labels)
        return (*self.feed.preprocessing.assumed, *order, *[NOT_OF_MANIFEST] * contradicted)

    @property
    def has_other_preprocessing(self) -> bool:
        """Whether options made the preprocessing another one than the manifest's."""
        used, written = (replace(one, assumed=()) for one in (self.feed.preprocessing, self.artifact.preprocessing))
        return used != written

    @cached_property
    def counts(self) -> Counts:
        """The number of images by their class and the class that the artifact gave."""
        return count_answers((label, classes[0] if classes else NO_CLASS) for label, classes, _ in self.classified)

    @cached_property
    def better_order(self) -> BetterOrder | None:
        """The order of the classes that the answers speak for, where it is another."""
        return better_order(self.counts, self.folder.labels, self.proportion(1))

    def proportion(self, top: int) -> Proportion:
        """Count the images with their label among the first `top` classes."""
        return Proportion(sum(label in classes[:top] for label, classes, _ in self.classified), len(self.classified))

    def agreement(self) -> Agreement | None:
        """Compare with the original model on the same pixels, where that was requested."""
        if self.reference is None:
            return None
        pairs = [(label, classes[0] if classes else None, model) for label, classes, model in self.classified]
        return Agreement(
            top1=Proportion(sum(model == label for label, _, model in pairs), len(pairs)),
            changed=sum(artifact != model for _, artifact, model in pairs),
            lost=sum(model == label != artifact for label, artifact, model in pairs),
            gained=sum(artifact == label != model for label, artifact, model in pairs),
        )

    def notes(self) -> tuple[str, ...]:
        """Return the caveats of the accuracy, most important first."""
        assumed = describe_assumed(self.feed.preprocessing)
        artifact, invalid = self.artifact, sum(not classes for _, classes, _ in self.classified)
        proven = artifact.parity.status if artifact.parity else "unverified"
        better = self.better_order
        caveats = {
            f"another order of the classes gives {better.percent if better else 0:.2f}%: check the stated one": better,
            f"preprocessing assumed, not stated: {assumed}": assumed,
            "the artifact's manifest says another preprocessing: export it again with these options": (
                self.has_other_preprocessing
            ),
            "the artifact's manifest says another order of the classes: export it again with these --labels": (
                self.folder.contradicts(artifact.labels)
            ),
            "computed by the reference evaluator, not by the target's engine": self.by_reference,
            f"parity {proven}: the artifact is not proven to compute the model": proven not in PROVEN,
            f"{invalid} images gave NaN and count as wrong": invalid,
            f"{len(self.feed.unreadable)} files could not be read and were left out": self.feed.unreadable,
            f"{len(self.folder.passed_over)} files passed over: no images by their names": self.folder.passed_over,
            f"{self.folder.empty} of the model's classes have no image here": self.folder.empty,
            f"{self.feed.turned} images have an EXIF orientation, which is not applied": self.feed.turned,
            f"{self.feed.dropped['transparency']} images are partly transparent, and their transparency was dropped": (
                self.feed.dropped["transparency"]
            ),
            f"{self.feed.dropped['bits']} images have 16 bits a pixel, of which the upper 8 count": (
                self.feed.dropped["bits"]
            ),
            artifact.source.describe_weights(): artifact.source.describe_weights(),
            "weights as the user's function made them": artifact.source.weights == "function",
            "weights of a module in a Python process": artifact.source.weights == "module",
        }
        return tuple(text for text, holds in caveats.items() if holds)

    def accuracy(self, metric: str, rate: Proportion, digest: str) -> Accuracy:
        """Return the row of the artifact."""
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
                assumed=self.assumed,
                preprocessing=self.feed.preprocessing,
                network=artifact.network,
            )
        )

    def model_accuracy(self, rate: Proportion, digest: str) -> Accuracy:
        """Return the row of the original model."""
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
                assumed=self.assumed,
                preprocessing=self.feed.preprocessing,
                network=artifact.network,
            )
        )
