"""Commands that an answer suggests: each runs as it is printed, on this machine and in this folder."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from edgevit.checkpoint_files import checkpoint_sha256
from edgevit.errors import UnknownNameError
from edgevit.records.choice import Candidate
from edgevit.records.model_reference import ModelReference
from edgevit.selection.accuracy import image_size
from edgevit.selection.wording import NOT_AT_CARD_SIZE

# The folder where `edgevit export` and `edgevit sweep` put artifacts by default.
_OUT = Path("artifacts")


class Commands(NamedTuple):
    """The facts that decide which commands run here.

    device: the name by which this machine reaches the device; empty: it does not. zoo: names of models with a card.
    """

    device: str = ""
    zoo: Collection[str] = frozenset()

    def can_build(self, candidate: Candidate) -> bool:
        """Return whether edgevit makes such an artifact of such a model at all, here or elsewhere."""
        from edgevit.recipes import load_recipe

        # The source of another model has a colon in its name, or an artifact of it was made.
        if not (candidate.model in self.zoo or ":" in candidate.model or candidate.artifact_sha256):
            return False
        try:
            return candidate.precision in load_recipe(candidate.target).RECIPE.precisions
        except UnknownNameError:
            return False

    def measure(self, candidate: Candidate) -> str:
        """Return the command that measures a candidate.

        It is empty where no command here is known to measure just this one: its device, its file or its weights are
        not here.
        """
        if not self.device or not (candidate.model in self.zoo or _is_here(candidate.model)):
            return ""
        words = ["--models", candidate.model, "--targets", candidate.target, "--precision", candidate.precision]
        size = image_size(candidate.input_shape)
        if size and (candidate.model not in self.zoo or NOT_AT_CARD_SIZE in candidate.flags):
            words += ["--input-size", "x".join(map(str, size))]
        words += ["--threads", str(candidate.threads)] if candidate.threads else []
        weights = _weights_words(candidate)
        if weights is None:
            return ""
        words += weights
        return shlex.join(("edgevit", "sweep", *words, "--device", self.device))

    @staticmethod
    def artifact(candidate: Candidate) -> str:
        """Return the folder of the candidate's very artifact, if it is where artifacts are put by default."""
        from edgevit.artifacts.folder import find_artifact

        folder = find_artifact(_OUT, candidate.artifact_sha256)
        return "" if folder is None else str(folder)


def _weights_words(candidate: Candidate) -> list[str] | None:
    """Return the options that give a candidate's weights; None where no options here are known to.

    A checkpoint is known again by its digest, so that a file of the same name is not taken for it.
    """
    network = candidate.network
    if network is None:
        # Weights that were not recorded; of a model that was never built, they are those of today.
        return None if candidate.network_id else []
    if network.form or network.weights == "module":
        return None
    if network.weights == "random":
        return ["--seed", str(network.seed)] if network.seed and ":" in candidate.model else []
    reference = ModelReference.parse(candidate.model)
    if network.weights == "function" or (reference.kind in ("timm", "hf") and not Path(network.file).is_file()):
        return []
    file = Path(network.file)
    if not file.is_file() or checkpoint_sha256(file) != network.file_sha256:
        return None
    return ["--weights", str(file), *(["--weights-key", network.key] if network.key else [])]


def _is_here(model: str) -> bool:
    """Return whether the file or folder of a model that is not of the zoo is where it was, or its library is here."""
    reference = ModelReference.parse(model)
    path = Path(reference.name)
    if reference.kind == "module":
        path = Path(*reference.name.split("."))
        return path.with_suffix(".py").is_file() or path.is_dir()
    if reference.kind == "timm":
        return importlib.util.find_spec("timm") is not None and ("/" not in reference.name or path.is_dir())
    return path.is_dir() if reference.kind == "hf" else reference.kind == "file" and path.is_file()


NO_COMMANDS = Commands()
