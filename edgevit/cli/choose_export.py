"""Handing over the pick of `edgevit choose`: exactly the network that its numbers are of, or nothing."""

from __future__ import annotations

import dataclasses
import errno
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgevit.cli.common import warn
from edgevit.concurrency.scratch import mark, remove
from edgevit.errors import ArtifactError, UsageError
from edgevit.records.model_reference import ModelReference
from edgevit.records.tuning import DEFAULT
from edgevit_runtime.dialect import QUANTIZED

if TYPE_CHECKING:
    from edgevit.records.artifact import Artifact, ExportRequest, WeightsRequest
    from edgevit.records.choice import Candidate, Choice, JointChoice, Suggestion
    from edgevit.records.model import Preprocessing


class Sources(NamedTuple):
    """Where artifacts of an answer may come from: given ones, those in `out`, or an export with these weights.

    random: random weights may be handed over. labels: the file that an export takes them from. named: the models that a
    person named, whose code may run.
    """

    artifacts: Sequence[Artifact]
    out: Path
    weights: WeightsRequest
    random: bool = False
    labels: Path | None = None
    named: frozenset[str] = frozenset()

    def find(self, sha256: str) -> Artifact | None:
        """Return the artifact with this digest, if it is here. Raise ArtifactError where it is damaged."""
        from edgevit.artifacts.folder import find_artifact, open_artifact

        if not sha256:
            return None
        given = next((one for one in self.artifacts if one.sha256 == sha256), None)
        folder = None if given else find_artifact(self.out, sha256)
        return given if folder is None else open_artifact(folder)

    def all(self) -> Iterator[Artifact]:
        """Yield the given artifacts, then those in `out` that can be read."""
        from edgevit.artifacts.folder import read_artifacts

        yield from self.artifacts
        if self.out.is_dir():
            yield from read_artifacts(self.out)[0]


def hand_over(choice: Choice | JointChoice, sources: Sources, out: Path, db: str | None) -> list[dict[str, str]]:
    """Put the picked artifact into a folder below `out`, and describe it; do nothing where nothing is chosen.

    A pick of unknown accuracy is handed over only for another objective, which does not rest on accuracies. It is a
    copy of the very one that was measured where that is here. Otherwise it is exported and verified, if that gives the
    network that the numbers are of. Raises UsageError where nothing here is known to give it, CheckpointError for
    other weights, and the errors of an export.
    """
    from edgevit.artifacts.folder_lock import locked_folder
    from edgevit.artifacts.origin import require_origin
    from edgevit.records.artifact import NO_CHECKPOINT
    from edgevit.records.choice import Choice

    picked = choice.picked if isinstance(choice, Choice) else next(iter(choice.picked), None)
    if picked is None or (choice.outcome != "chosen" and choice.budget.objective == "accurate"):
        return []
    with locked_folder(out, warn):
        artifact = None if sources.weights.file else _measured(picked, sources)
        if artifact is not None:
            _require_permitted(picked, artifact, sources)
            require_origin(artifact, NO_CHECKPOINT, sources.labels)
            artifact = _copy(artifact, out)
            description = f"a copy{_describe_copy(picked, artifact)}"
        else:
            artifact = _exported(picked, sources, out, db)
            description = _describe(picked, artifact)
    parity = artifact.parity.status if artifact.parity else "unknown"
    return [{"folder": str(artifact.folder), "sha256": artifact.sha256, "parity": parity, "says": description}]


def _measured(picked: Candidate, sources: Sources) -> Artifact | None:
    """Return the artifact of the numbers, if it is here. Raise UsageError where no manifest here agrees with them.

    Where the latency is that of random weights or of other labels, it is the artifact of the accuracy. It is that one,
    too, where the file that was timed is not here, or states another preprocessing than the accuracy is by. Where that
    does as well, it is another artifact of the same network that states what the accuracy is by.
    """
    from edgevit.selection.wording import TOP1_OF_ANOTHER

    timed = None if set(TOP1_OF_ANOTHER) & set(picked.flags) else sources.find(picked.artifact_sha256)
    of_numbers = [one for one in (timed, sources.find(picked.top1_artifact_sha256)) if one is not None]
    if not of_numbers:
        return None
    beside = (one for one in sources.all() if _is_of_network(one, picked))
    stated = picked.top1_preprocessing
    as_stated = (
        one for one in chain(of_numbers, beside) if stated is None or _steps(one.preprocessing) == _steps(stated)
    )
    if (artifact := next(as_stated, None)) is not None:
        return artifact
    from edgevit.records.preprocessing import describe_preprocessing

    raise UsageError(
        "the accuracy was measured with another preprocessing than the manifest's",
        where=str(of_numbers[0].folder),
        why=f"it was measured with: {describe_preprocessing(stated)}" if stated is not None else "",
        fix="export it with these options, and name its folder with --artifacts",
    )


def _is_of_network(artifact: Artifact, picked: Candidate) -> bool:
    """Return whether an artifact is proven, and is of the network, the labels and the kind of the pick.

    In int8 the network does not decide: files of other calibrations are other networks.
    """
    from edgevit.records.artifact import PROVEN

    network = picked.network
    if network is None or artifact.parity is None or artifact.parity.status not in PROVEN:
        return False
    if artifact.precision in QUANTIZED:
        return False
    same_kind = (artifact.model, artifact.target, artifact.precision) == (picked.model, picked.target, picked.precision)
    own = artifact.network
    same_inputs = (own.inputs, own.labels_sha256) == (network.inputs, network.labels_sha256)
    return same_kind and same_inputs and own.is_same(network)


def _describe_copy(picked: Candidate, artifact: Artifact) -> str:
    """Return how an artifact that was copied for the answer compares with the measured one."""
    if artifact.sha256 == picked.artifact_sha256:
        return " of the artifact that the numbers are of"
    if artifact.sha256 == picked.top1_artifact_sha256:
        return " of the artifact that the accuracy is of; the latency is another file's"
    return f", {_describe(picked, artifact)}"


def _steps(preprocessing: Preprocessing) -> Preprocessing:
    return dataclasses.replace(preprocessing, assumed=())


def _require_permitted(picked: Candidate, artifact: Artifact, sources: Sources) -> None:
    """Raise UsageError for random weights that were not asked for."""
    if artifact.source.weights == "random" and not sources.random:
        raise _random(picked, str(artifact.folder))


def _random(picked: Candidate, where: str) -> UsageError:
    return UsageError(
        "the artifact would have random weights",
        where=where,
        why=f"no checkpoint of {picked.model} is named, and its numbers are published for trained weights or latencies",
        fix="--weights FILE, --artifacts FOLDER with a trained one, or --random-weights for a trial",
    )


def _copy(artifact: Artifact, out: Path) -> Artifact:
    from edgevit.artifacts.folder import open_artifact

    target = out / artifact.folder.resolve().name
    part = target.with_name(f".{target.name}.{mark()}.partial")
    try:
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        shutil.copytree(artifact.folder, part)
        part.rename(target)
    except OSError as error:
        fix = "name another folder with --export"
        raise ArtifactError("the artifact cannot be copied", where=str(target), why=str(error), fix=fix) from error
    finally:
        remove(part)
    # Opening it checks every byte of the copy.
    return open_artifact(target)


def require_known_code(model: str, artifacts: Sequence[str], sources: Sources, db: str | None) -> None:
    """Raise UsageError where an export would run code that only rows of the database name.

    artifacts: digests of the artifacts that the rows are of. Code that made one of them here may run again.
    """
    from edgevit.artifacts.trust import model_digest
    from edgevit.sweeps.plan import recorded_as_built

    if not ModelReference.parse(model).runs_code or model in sources.named:
        return
    if not recorded_as_built(frozenset(model_digest(sha256, model) for sha256 in artifacts if sha256), db):
        raise UsageError(
            "rows of the database name code that would run",
            where=model,
            why="this database has no record of building the artifact of these rows from it in this folder",
            fix=f"read that code, then name it: --models {shlex.quote(model)}",
        )


def _exported(picked: Candidate, sources: Sources, out: Path, db: str | None) -> Artifact:
    from edgevit.exporting.child_process import export_separately
    from edgevit.recipes import require_torch
    from edgevit.records.preprocessing import stated_in
    from edgevit.selection.accuracy import image_size
    from edgevit.sweeps.plan import artifact_for, record_built
    from edgevit.sweeps.tunings import with_tuning

    _require_source(picked, sources)
    require_known_code(picked.model, (picked.artifact_sha256, picked.top1_artifact_sha256), sources, db)
    request = request_of(picked, image_size(picked.input_shape), sources.weights, out)
    request = with_tuning(dataclasses.replace(request, labels=sources.labels), db)
    if picked.top1_preprocessing is not None:
        request = dataclasses.replace(request, preprocessing=stated_in(picked.top1_preprocessing))
    if request.weights is None:
        return artifact_for(request, db)
    require_torch()
    artifact = export_separately(request)
    record_built(artifact, db)
    return artifact


def _require_source(picked: Candidate, sources: Sources) -> None:
    """Raise UsageError where nothing here is known to give the network that the numbers are of."""
    network, file = picked.network, sources.weights.file
    elsewhere = "--artifacts FOLDER with the artifact that was measured"
    where = f"{picked.model} {picked.target} {picked.precision}"
    if picked.precision in QUANTIZED:
        why = f"numbers of {picked.precision} come from samples, which no row keeps: another export would have others"
        raise UsageError("the picked artifact is not here", where=where, why=why, fix=elsewhere)
    if network is None and (":" in picked.model or picked.top1_provenance == "measured"):
        why = f"its rows keep no digest of it: they are of artifact {picked.artifact_sha256[:8] or 'unknown'}"
        raise UsageError("nothing tells which network the numbers are of", where=where, why=why, fix=elsewhere)
    if network is not None and network.weights == "module":
        why = "it was made from a module of a Python process"
        raise UsageError("the picked artifact is not here", where=where, why=why, fix=elsewhere)
    brings_weights = network is not None and ModelReference.parse(picked.model).brings(network.file)
    if network is not None and network.weights == "file" and file is None and not brings_weights:
        key = f" --weights-key {network.key}" if network.key not in ("", ".") else ""
        fix = f"--weights path/to/{network.file}{key}, or {elsewhere}"
        raise UsageError("the picked artifact is not here", where=where, why=f"it holds {network.label}", fix=fix)
    is_random = network.weights == "random" if network is not None else ":" not in picked.model
    if is_random and file is None and not sources.random:
        raise _random(picked, where)


def request_of(
    named: Candidate | Suggestion, size: tuple[int, ...], weights: WeightsRequest, out: Path
) -> ExportRequest:
    """Return the request that gives the network of a candidate or a suggestion, and refuses any other.

    size: height and width in pixels, where the network was not recorded; empty: the card's.
    """
    from edgevit.records.artifact import ExportRequest

    request = ExportRequest(
        named.target, out, named.precision, named.model, weights=weights.file, weights_key=weights.key
    )
    network = named.network
    if network is None:
        return dataclasses.replace(request, input_size=(size[0], size[1]) if size else None)
    # Random weights of the zoo stand for official ones, which any checkpoint may be.
    is_any = network.weights == "random" and ":" not in named.model
    key = network.key if weights.file is not None and not is_any else ""
    return dataclasses.replace(
        request,
        weights_key=weights.key or key,
        seed=network.seed or 0,
        input_shapes=network.inputs,
        batch=network.batch,
        dynamic_batch=network.dynamic_batch,
        unfolded=network.unfolded,
        embed_preprocess=network.embed_preprocess,
        options=dict(network.options),
        form=network.own_form or DEFAULT,
        network=None if is_any else network,
    )


def _describe(picked: Candidate, artifact: Artifact) -> str:
    """Return how an artifact that was exported for the answer compares with the measured one."""
    parity = f"parity {artifact.parity.status}" if artifact.parity else "parity unknown"
    weights = artifact.source.describe_weights()
    if not weights and artifact.source.weights == "random":
        weights = "random weights: --weights FILE takes a checkpoint"
    caveat = f", {weights}" * bool(weights)
    if artifact.source.weights != "random" and picked.top1_percent is not None and not picked.top1_preprocessing:
        caveat += "; top-1 was published for the official weights, and nothing tells whether these are those"
    if artifact.sha256 == picked.artifact_sha256:
        return f"{parity}, the artifact that the row is of{caveat}"
    if picked.network is not None and picked.network.weights != "random":
        digits = picked.network.weights_sha256[:8]
        return f"{parity}, of the network that the numbers are of, weights {digits}, not its very file{caveat}"
    return f"{parity}, not the very file that the numbers are of{caveat}"
