"""The proof of every variant of the zoo: relative maximum errors in float64 and float32, and what folding removes.

python benchmarks/fold_proof.py [PATTERN]   random weights, norms and layer scales; minutes for the 100M+ variants
"""

from __future__ import annotations

import sys

from common import report

from edgevit.fold.evidence import examine
from edgevit.models import list_models
from edgevit.subject import load_subject


def main(pattern: str) -> None:
    found = {}
    for name in list_models(pattern):
        subject = load_subject(name)
        seen = examine(subject.module, subject.example(batch=2))
        found[name] = {
            "params": [seen.before.params, seen.after.params],
            "macs": [seen.before.macs, seen.after.macs],
            "layers": [seen.before.layers, seen.after.layers],
            "norms_left": len(seen.report.left),
            "float64_max_rel": seen.proof.float64_max_rel,
            "float32_max_rel": seen.proof.float32_max_rel,
            "passed": seen.proof.passed,
        }
        print(name, found[name], file=sys.stderr)
    report("fold_proof", {"models": found})


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "*")
