"""Digests of a model that is exported: of what it computes, and of its graph alone."""

from __future__ import annotations

from torch import nn

from edgevit.errors import ModelError
from edgevit.folding import graph_digest, network_digest
from edgevit.models.source import Subject


def network_sha256(subject: Subject, batch: int) -> str:
    """Return the digest of what a model computes, before its fold; empty for one that cannot be captured."""
    try:
        return network_digest(subject.module, tuple(subject.example(batch).values()))
    except ModelError:
        return ""


def graph_sha256(model: nn.Module, subject: Subject, batch: int) -> str:
    """Return the digest; empty for a module that some converters take and torch.export does not."""
    try:
        return graph_digest(model, tuple(subject.example(batch).values()))
    except ModelError:
        return ""
