"""Verification: an artifact, run by its own engine in its own process, against the modules it came from."""

from edgevit.verify.compare import FOLD_GATE, GATES, Gate
from edgevit.verify.inputs import Samples, make_samples
from edgevit.verify.verify import References, Seen, judge, verify_fold, verify_half, verify_payload, verify_stages

__all__ = [
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
