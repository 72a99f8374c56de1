"""The network that an artifact was made from: its digests, and the statements that give it again.

A name such as `mine.py:net` says little: a function has as many networks as it has checkpoints and edits. Rows and
accuracies have this record, so that no number of one network passes for that of another.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from edgevit.records.tuning import DEFAULT
from edgevit_runtime.codec import LATER
from edgevit_runtime.record import TensorSpec

_DIGITS = 8


@dataclass(frozen=True)
class Network:
    """The network of an artifact by its digests, with its weights, and the form of the artifact.

    weights, seed, file, file_sha256, key: of artifact.Source and its choice; file is a name without its folder.
    weights_sha256: Source.state_sha256. network_sha256: of operators, weights and constants; empty: they cannot be
    captured. torch: the version that captured them, which decides the digest. inputs: of the model itself, the batch
    open. labels_sha256: of the names of its classes, in their order; empty: it has none. The other fields are those of
    the export's request.
    """

    weights: Literal["random", "file", "function", "module"]
    weights_sha256: str = ""
    network_sha256: str = ""
    torch: str = ""
    seed: int | None = None
    file: str = ""
    file_sha256: str = ""
    key: str = ""
    unfolded: bool = False
    dynamic_batch: bool = False
    embed_preprocess: bool = False
    batch: int = 1
    inputs: tuple[TensorSpec, ...] = ()
    labels_sha256: str = ""
    options: tuple[tuple[str, str], ...] = ()
    # `--form`, with what was written: "portable", "tuned:depthwise_rows:3f0c2a91", "default:..."; empty: nothing was.
    forms: str = field(default="", metadata=LATER)

    @property
    def own_form(self) -> str:
        """The exactly equal form that was asked for; empty: the recipe's own."""
        return "" if self.forms.partition(":")[0] == DEFAULT else self.forms

    @property
    def form(self) -> str:
        """What differs from the usual form of an artifact: `unfolded dynamic-batch opset=18`; empty: nothing."""
        switches = {
            "unfolded": self.unfolded,
            "dynamic-batch": self.dynamic_batch,
            "embed-preprocess": self.embed_preprocess,
            f"batch={self.batch}": self.batch != 1,
        }
        words = [word for word, is_on in switches.items() if is_on]
        words += [f"form={self.own_form}"] if self.own_form else []
        return " ".join([*words, *(f"{name}={value}" for name, value in self.options)])

    @property
    def label(self) -> str:
        """The weights in a few words, `best.pt ema`, and the form where it is not the usual one."""
        key = self.key if self.key != "." else ""
        own = "its own weights"
        weights = {"random": f"random weights, seed {self.seed or 0}", "function": own, "module": own}
        parts = [weights.get(self.weights) or f"{self.file} {key}".strip(), self.form]
        return ", ".join(filter(None, parts))

    def is_same(self, other: Network) -> bool:
        """Return whether two records name one network, as far as digests can tell.

        Two versions of torch capture one network differently. Between those only the weights are compared.
        """
        comparable = self.torch == other.torch and self.network_sha256 and other.network_sha256
        same = not comparable or self.network_sha256 == other.network_sha256
        return self.weights_sha256 == other.weights_sha256 and same and self.form == other.form


def labels_sha256(labels: Sequence[str]) -> str:
    """Return the digest of the names of classes in their order; empty for none."""
    return hashlib.sha256("\n".join(labels).encode()).hexdigest() if labels else ""


def network_id(model: str, network: Network | None, artifact_sha256: str) -> str:
    """Return what tells apart the networks of one model: equal ids are of one candidate.

    Random weights of a model of the zoo stand for its official ones, so that only their form tells them apart. A row
    of a model of the zoo that keeps no network counts as such. Of other models the digest of the network decides, and
    that of the artifact for a network that cannot be captured.
    """
    is_own = ":" in model
    if network is None:
        return artifact_sha256 if is_own else ""
    if network.weights == "random" and not is_own:
        return network.form
    return f"{network.network_sha256 or artifact_sha256} {network.form}".strip()


class NamedNetwork(Protocol):
    """A candidate, as far as it names its network."""

    @property
    def model(self) -> str:
        """Name of the model."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first input: a function at two input sizes is two networks."""

    @property
    def network(self) -> Network | None:
        """The network, where it was recorded."""

    @property
    def network_id(self) -> str:
        """Its id, as `network_id` gives it."""


def network_labels(named: Iterable[NamedNetwork]) -> dict[tuple[str, str], str]:
    """Return, by model and network id, the words that tell apart networks of one model and one input size.

    Where a model has several at one size, those of its other sizes have words too. Where two have equal words, because
    their code or the contents of a file differ, the digest is added.
    """
    of_model: dict[tuple[str, tuple[int, ...]], dict[str, str]] = {}
    for one in named:
        of_model.setdefault((one.model, one.input_shape), {})[one.network_id] = describe_network(one)
    labels: dict[tuple[str, str], str] = {}
    several = {model for (model, _), words in of_model.items() if len(words) > 1}
    for (model, _), words in of_model.items():
        counts = Counter(words.values())
        for identity, text in words.items() if model in several else ():
            digest = f" ({identity[:_DIGITS]})" if identity and counts[text] > 1 else ""
            labels[model, identity] = f"{text}{digest}"
    return labels


def full_name(named: NamedNetwork) -> str:
    """Return the model, with its weights where they are known and are not random ones of the zoo."""
    has_weights = named.network is not None and named.network_id
    return f"{named.model} with {describe_network(named)}" if has_weights else named.model


def describe_network(named: NamedNetwork) -> str:
    """Return the weights and the form of a network in a few words; of one that was not recorded, its digest."""
    if named.network is None:
        return f"weights of artifact {named.network_id[:_DIGITS]}" if named.network_id else "unrecorded weights"
    return (
        named.network.label
        if named.network_id != named.network.form
        else f"random weights {named.network.form}".strip()
    )
