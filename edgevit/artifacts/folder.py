"""Artifact folders on disk: sealed by a manifest, checked before use, published by one rename."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shlex
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgevit.artifacts.manifest import read_json_file, require_possible
from edgevit.checkpoint_files import checkpoint_sha256
from edgevit.concurrency.scratch import mark
from edgevit.errors import ArtifactError, CheckpointError, EdgevitError, UsageError
from edgevit.records.artifact import MANIFEST_VERSION, Artifact, ExportRequest, Parity, Source, is_named
from edgevit.records.model import Preprocessing
from edgevit.records.model_reference import ModelReference, place_digest
from edgevit.records.preprocessing import StatedPreprocessing, complete
from edgevit.records.tuning import form_name
from edgevit_runtime.codec import RecordError, from_data, to_data, to_json
from edgevit_runtime.containment import ContainmentError, UnreadableError, check_contained
from edgevit_runtime.digest import DigestError, digest_of, file_digests, tree_bytes
from edgevit_runtime.record import TensorSpec

_LOG = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_TAG_DIGITS = 8  # of the digest of a statement
_FIX = "export it again: edgevit export MODEL --target T"


def folder_name(model: str, target: str, precision: str, size: str = "") -> str:
    """Return the folder of an artifact below the output folder; a user's `file.py:function` becomes `file-function`.

    size: ExportRequest.size_label, of inputs that are not the card's.
    """
    return "-".join([short_name(model), *filter(None, [size]), target, precision])


def short_name(model: str) -> str:
    """Return a model's name without its folder, in letters that every file system takes."""
    short = model.split("/")[-1].replace(".py:", "-")
    safe = "".join(letter if letter.isalnum() or letter in "_." else "-" for letter in short)
    return safe.strip("-.")


def folder_of(request: ExportRequest, card_inputs: Sequence[TensorSpec] = (), name: str = "") -> Path:
    """Return the folder that the artifact of a request has, or will have. name: of the model, if not the request's.

    Its name is the plain one where that is free or has an artifact of this model and checkpoint. Otherwise the name of
    the checkpoint is in it, and where that is taken, too, the digest of the places of both files. Where what is there
    has another preprocessing than the request states, a digest of the statement is in the name.
    """
    model, size = name or request.model, request.size_label(card_inputs)
    written = form_name(request.form, request.tuning).replace(":", "-")
    form = "unfolded-" if request.unfolded else f"{written}-" if written else ""
    origin = ModelReference.parse(model).origin

    def folder(*tags: str) -> Path:
        tagged = "-".join([short_name(model), *tags])
        return request.out / (form + folder_name(tagged, request.target, request.precision, size))

    every = [(), *_tags(request, origin)]
    folders = [folder(*tags) for tags in every]
    sources = [(one, _source_in(one)) for one in folders]
    own = (one for one, source in sources if source and _is_of(source, request, origin))
    free = (one for one, source in sources if source is None or _is_replaceable(source, origin))
    chosen = next(own, None) or next(free, folders[-1])
    if not _has_other_preprocessing(chosen, request.preprocessing):
        return chosen
    return folder(*every[folders.index(chosen)], _stated_tag(request.preprocessing))


def _tags(request: ExportRequest, origin: str) -> list[tuple[str, ...]]:
    """Return what tells an artifact apart from others of the same name, the more readable first."""
    if request.weights is None:
        return [(origin,)] if origin else []
    # With its suffix, so that `64.pt` is not taken for an input size.
    checkpoint = short_name("-".join(filter(None, [request.weights.name, request.weights_key])))
    place = place_digest(f"{origin}:{request.weights.resolve()}:{request.weights_key}")
    return [(checkpoint,), (checkpoint, place)]


def _stated_tag(stated: StatedPreprocessing) -> str:
    """Return what tells an artifact apart from one that differs in its preprocessing alone."""
    return f"as-{hashlib.sha256(to_json(stated).encode('ascii')).hexdigest()[:_TAG_DIGITS]}"


def _has_other_preprocessing(folder: Path, stated: StatedPreprocessing) -> bool:
    """Return whether a folder has an artifact of which something else was stated. What it assumed may be replaced."""
    if not stated:
        return False
    try:
        data = read_json_file(folder / MANIFEST)[1]["artifact"]
        present = from_data(Preprocessing, data["preprocessing"])
        completed = complete(present, stated, from_data(tuple[TensorSpec, ...], data["model_inputs"]))
    except (OSError, ValueError, KeyError, TypeError, EdgevitError):
        return False
    # The crop is three fields, and the colour is spelled in two ways.
    geometry = ("resize", "stretch", "crop_pct")
    fields = {"mean": ["mean"], "std": ["std"], "range": ["range"], "interpolation": ["interpolation"],
              "color": ["colour"], "crop": geometry}  # fmt: skip
    kept = [name for statement, names in fields.items() if statement not in present.assumed for name in names]
    return any(getattr(completed, name) != getattr(present, name) for name in kept)


def _source_in(folder: Path) -> Source | None:
    """Return where the artifact in a folder came from; None where no readable artifact is there."""
    try:
        return from_data(Source, read_json_file(folder / MANIFEST)[1]["artifact"]["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_of(source: Source, request: ExportRequest, origin: str) -> bool:
    """Return whether an artifact is of the model and the checkpoint of a request, as it is or as it was.

    A request without a checkpoint, or without a key, may be of any: what it leaves out is for its caller to judge.
    """
    if source.origin not in ("", origin):
        return False
    if request.weights is None:
        return True
    key = source.choice.key if source.choice else "."
    same_key = not request.weights_key or is_named(request.weights_key, key)
    return source.weights == "file" and same_key and _is_same_file(source, request.weights)


def _is_same_file(source: Source, file: Path) -> bool:
    """Return whether an artifact is of a checkpoint at this place, or of a copy of what it holds now."""
    if source.weights_origin == place_digest(file.resolve()):
        return True
    with suppress(CheckpointError):
        return source.weights_sha256 == checkpoint_sha256(file)
    return False


def _is_replaceable(source: Source, origin: str) -> bool:
    """Return whether trained weights may take an artifact's place: it has drawn ones, of the same model."""
    return source.origin in ("", origin) and source.weights == "random"


def seal(artifact: Artifact) -> Artifact:
    """Return the sealed record: digest the tree, then write the manifest (temporary name, fsync, rename)."""
    folder = artifact.folder
    files = file_digests(folder)
    sealed = dataclasses.replace(artifact, sha256=digest_of(files), size_bytes=tree_bytes(folder), files=files)
    temporary = folder / f".{MANIFEST}.{mark()}"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(_manifest_text(sealed))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST)
    return sealed


def reseal(artifact: Artifact, parity: Parity) -> Artifact:
    """Put another Parity into the manifest of a sealed folder, in one rename. The digest of its files stays.

    Raises ArtifactError where the files are not those that were sealed, or the manifest cannot be written.
    """
    require_sealed(artifact)
    try:
        return seal(dataclasses.replace(artifact, parity=parity))
    except OSError as error:
        why = str(error.strerror)
        raise ArtifactError("cannot write the manifest", where=str(artifact.folder), why=why) from error


def _manifest_text(artifact: Artifact) -> str:
    data = to_data(artifact)
    del data["folder"]
    return _text_of(data)


def _text_of(data: Any) -> str:
    digest = hashlib.sha256(to_json(data).encode()).hexdigest()
    return json.dumps({"artifact": data, "manifest_sha256": digest}, indent=1, sort_keys=True, allow_nan=False) + "\n"


def open_artifact(folder: Path) -> Artifact:
    """Read an artifact and check every byte of it, the manifest's own too.

    Raises ArtifactError if it is not an artifact, not the one that was sealed, or wants weights from outside of it.
    """
    path, fix = folder / MANIFEST, _FIX
    try:
        text, document = read_json_file(path)
        data = document["artifact"]
        _require_version(data, path)
        artifact = from_data(Artifact, {**data, "folder": str(folder)})
    except OSError as error:
        why = f"{MANIFEST}: {error.strerror}" if folder.exists() else str(error.strerror)
        fix = "name a folder that `edgevit export` wrote"
        raise ArtifactError("not an artifact", where=str(folder), why=why, fix=fix) from error
    except (KeyError, TypeError):
        why = "it is no manifest: it has no object `artifact`"
        raise ArtifactError("the artifact is damaged", where=str(path), why=why, fix=fix) from None
    except RecordError as error:
        raise ArtifactError("the artifact is damaged", where=str(path), why=str(error), fix=fix) from error
    if text != _text_of(data):
        why = "its own digest is another one"
        raise ArtifactError("the manifest was changed after it was written", where=str(path), why=why, fix=fix)
    try:
        require_possible(artifact)
    except RecordError as error:
        raise ArtifactError("the manifest cannot be true", where=str(path), why=str(error), fix=fix) from error
    require_sealed(artifact)
    try:
        with suppress(UnreadableError):  # one in quarantine may be; the worker refuses to open it
            check_contained(folder / artifact.payload)
    except ContainmentError as error:
        raise ArtifactError("the artifact is not safe to open", where=str(folder), why=str(error), fix=fix) from error
    return artifact


def read_artifacts(folder: Path) -> tuple[list[Artifact], list[ArtifactError]]:
    """Read every artifact in a folder and below it, by path; return the errors of those that cannot be read beside.

    A folder that is itself an artifact is that one. Raises ArtifactError for it where it is damaged, and UsageError
    for a missing folder.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is no folder", fix="name an artifact, or the folder that `edgevit sweep --out` wrote"
        )
    if (folder / MANIFEST).is_file():
        return [open_artifact(folder)], []
    artifacts, errors = list[Artifact](), list[ArtifactError]()
    for manifest in sorted(folder.rglob(MANIFEST)):
        try:
            artifacts.append(open_artifact(manifest.parent))
        except ArtifactError as error:
            errors.append(error)
    return artifacts, errors


def find_artifact(out: Path, sha256: str) -> Path | None:
    """Return the folder below `out` whose manifest names this digest. Its files are not checked."""
    for path in sorted(out.glob(f"*/{MANIFEST}")):
        # A manifest that cannot be read is of no artifact that could be named.
        with suppress(OSError, ValueError, KeyError, TypeError):
            if read_json_file(path)[1]["artifact"]["sha256"] == sha256:
                return path.parent
    return None


def _require_version(data: Any, path: Path) -> None:
    """Raise ArtifactError for the manifest of another version of edgevit."""
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version != MANIFEST_VERSION:
        why = f"its manifest has schema version {version}, and this edgevit reads {MANIFEST_VERSION}"
        names = [data.get(name) for name in ("model", "target", "precision")]
        model, target, precision = map(str, names)
        command = shlex.join(("edgevit", "export", model, "--target", target, "--precision", precision))
        fix = f"export it again: {command}" if all(names) else _FIX
        raise ArtifactError("another version of edgevit wrote the artifact", where=str(path), why=why, fix=fix)


def require_sealed(artifact: Artifact) -> None:
    """Raise ArtifactError, naming the files, where the folder does not hold what was sealed, to the bit."""
    folder = artifact.folder
    try:
        digests = file_digests(folder)
    except (OSError, DigestError) as error:
        raise ArtifactError("the artifact is damaged", where=str(folder), why=str(error), fix=_FIX) from error
    if digests == artifact.files and digest_of(digests) == artifact.sha256:
        return
    names = sorted(name for name in digests.keys() | artifact.files if digests.get(name) != artifact.files.get(name))
    kinds = {(True, True): "was changed", (True, False): "was added", (False, True): "is missing"}
    changes = (f"{name} {kinds[name in digests, name in artifact.files]}" for name in names)
    location = folder / names[0] if len(names) == 1 else folder
    why = "; ".join(changes) or "the digest of its files is not the manifest's"
    raise ArtifactError("the artifact is damaged", where=str(location), why=why, fix=_FIX)


def publish(artifact: Artifact, final: Path) -> Artifact:
    """Give a finished folder its final name in one rename; an older artifact there is replaced whole, or stays whole.

    Raises ArtifactError where that is not possible, or where something that is no artifact has the name.
    """
    if final.exists() and not (final / MANIFEST).is_file():
        raise ArtifactError("something else has the artifact's name", where=str(final), fix="move it, or -o FOLDER")
    old = final.with_name(f".{final.name}.old.{mark()}")
    try:
        if final.exists():
            final.rename(old)
        artifact.folder.rename(final)
    except OSError as error:
        raise ArtifactError("cannot write the artifact", where=str(final), why=str(error.strerror)) from error
    finally:  # Ctrl-C too
        if old.exists() and not final.exists():
            old.rename(final)
    if old.exists():
        old.unlink() if old.is_symlink() else shutil.rmtree(old)
    _LOG.debug("published: %s", final)
    return dataclasses.replace(artifact, folder=final)
