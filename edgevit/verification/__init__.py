"""Verification: compares an artifact, run by its own engine in its own process, with the modules it came from."""

from edgevit.verification.compare import FOLD_GATE, GATES, Gate
from edgevit.verification.inputs import Samples, make_samples
from edgevit.verification.parity import (
    ARTIFACT_STAGE,
    References,
    VerificationRun,
    judge,
    verify_answers,
    verify_fold,
    verify_half,
    verify_payload,
    verify_simulation,
    verify_stages,
)

__all__ = [
    "ARTIFACT_STAGE",
    "FOLD_GATE",
    "GATES",
    "Gate",
    "References",
    "Samples",
    "VerificationRun",
    "judge",
    "make_samples",
    "verify_answers",
    "verify_fold",
    "verify_half",
    "verify_payload",
    "verify_simulation",
    "verify_stages",
]
