"""Verification: an artifact, run by its own engine in its own process, against the modules it came from."""

from edgevit.verification.compare import FOLD_GATE, GATES, Gate
from edgevit.verification.inputs import Samples, make_samples
from edgevit.verification.parity import (
    ARTIFACT_STAGE,
    References,
    Seen,
    judge,
    verify_fold,
    verify_half,
    verify_payload,
    verify_stages,
)

__all__ = [
    "ARTIFACT_STAGE",
    "FOLD_GATE",
    "GATES",
    "Gate",
    "References",
    "Samples",
    "Seen",
    "judge",
    "make_samples",
    "verify_fold",
    "verify_half",
    "verify_payload",
    "verify_stages",
]
