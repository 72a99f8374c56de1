"""Whose code may run: that of an artifact built here, of a model that a person names, or of a maker whom they trust.

Two parts of an artifact may be code: a payload that its engine executes, and the model that the manifest names. Every
program can write a manifest. So a digest says that the bytes are those that were sealed, not who sealed them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container

from edgevit.errors import ArtifactError, UsageError
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact
from edgevit.records.model_reference import ModelReference
from edgevit_runtime.record import Recipe


def code_digests(artifact: Artifact) -> frozenset[str]:
    """Return the digests under which the code of an artifact is recorded as built here; none where it has no code."""
    payload = [artifact.sha256] if load_recipe(artifact.target).RECIPE.executes_code else []
    model = artifact.source.model
    return frozenset([*payload, *([model_digest(artifact.sha256, model)] if _runs_code(model) else [])])


def model_digest(sha256: str, model: str) -> str:
    """Return the digest of the code that a model's name means here, as the model of an artifact.

    It covers the payload, the name and the absolute place of its file. The digest of a payload alone does not tell,
    because another manifest may name other code for it. Nor does the name, which means another file in another folder.
    """
    text = json.dumps(["model", sha256, model, ModelReference.parse(model).place])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def require_built_here(artifact: Artifact, recipe: Recipe, built_here: Container[str]) -> None:
    """Raise ArtifactError for a payload that may run code and has none of these digests."""
    if recipe.executes_code and artifact.sha256 not in built_here:
        raise ArtifactError(
            "the artifact was not built here",
            where=str(artifact.folder),
            why=f"a {artifact.target} payload is native code, and this database has no record of building it",
            fix="export it on this machine, or insist that its maker is trusted: --trust",
        )


def require_known_model(artifact: Artifact, built_here: Container[str], named: str = "") -> None:
    """Raise an error where loading an artifact's model would run code that is not trusted here.

    named: the model as a person names it again. Raises UsageError where that is another one than the manifest's,
    ArtifactError where none is named and the manifest's runs code without having one of these digests.
    """
    model = artifact.source.model
    if named:
        if not ModelReference.parse(named).is_also(ModelReference.parse(model)):
            fix = f"name {model}, in whichever folder it is, or leave the name out"
            why = f"its manifest says {model}"
            raise UsageError(f"the artifact was not made from {named}", where=str(artifact.folder), why=why, fix=fix)
    elif _runs_code(model) and model_digest(artifact.sha256, model) not in built_here:
        raise ArtifactError(
            "the artifact names code of its own as its model",
            where=str(artifact.folder),
            why=f"{model} would run, and this database has no record of building the artifact from it in this folder",
            fix="read that code, then name it again: --model MODEL; or insist that its maker is trusted: --trust",
        )


def _runs_code(model: str) -> bool:
    return ModelReference.parse(model).runs_code
