"""TurboViT (Wong et al., arXiv 2308.11421): a hierarchical transformer found by generative search. Reconstructed.

No code, no weights and no shape of it are public. The abstract says that it is made of Hiera's parts, mask-unit
attention and Q-pooling, and compares it with two networks: over 2.47 times smaller than FasterViT-0, over 3.4 times
fewer MACs than MobileViTv2-2.0 and 0.9 points above it. That is about 12.7 M parameters, 2.2 GMACs and 82.1 percent.
Of six shapes tried, this is the only one with both numbers. A trained one is our network, not the authors'.
"""

from __future__ import annotations

from edgevit.models.hiera import Hiera
from edgevit.records.model import ModelCard
from edgevit_runtime.record import TensorSpec

CARDS = (
    ModelCard(
        name="turbovit",
        family="turbovit",
        inputs=(TensorSpec("image", (-1, 3, 224, 224), "float32"),),
        source="arXiv 2308.11421; no official code: a shape of Hiera that fits the abstract, chosen by edgevit",
        licence="Apache-2.0",
        provenance="reconstructed",
        top1_percent=82.1,
        top1_source="0.9 above MobileViTv2-2.0, as the abstract of arXiv 2308.11421 says of the authors' network",
    ),
)


def build(name: str, *, classes: int = 1000) -> Hiera:
    """Build the variant called `name`, in training form and mode, randomly initialised."""
    return Hiera(64, (1, 2, 7, 2), classes=classes)
