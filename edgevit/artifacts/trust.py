"""Whether an artifact may be opened though opening it may run code that is in it: only if it was built here."""

from __future__ import annotations

from collections.abc import Container

from edgevit.errors import ArtifactError
from edgevit.records.artifact import Artifact
from edgevit_runtime.record import Recipe


def require_built_here(artifact: Artifact, recipe: Recipe, built_here: Container[str]) -> None:
    """Let through what cannot run code, and what has one of these digests. Raises ArtifactError for the rest.

    A digest says that the bytes are those that were sealed, not who sealed them: every program can write a manifest.
    """
    if recipe.executes_code and artifact.sha256 not in built_here:
        raise ArtifactError(
            "the artifact was not built here",
            where=str(artifact.folder),
            why=f"a {artifact.target} payload is native code, and this database has no record of building it",
            fix="export it on this machine, or insist that its maker is trusted: --trust",
        )
