"""What half precision leaves of the signal, per variant: the measurement behind the fp16 gate of edgevit.verify.

python benchmarks/fp16_snr.py [PATTERN...]   random weights; the signal-to-noise ratio of the fp16 artifact in dB
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

from common import report

from edgevit.models import list_models
from edgevit.pipeline import Order, export_subject
from edgevit.subject import load_subject


def main(patterns: list[str]) -> None:
    logging.disable(logging.WARNING)
    found = {}
    for name in (name for pattern in patterns for name in list_models(pattern)):
        with tempfile.TemporaryDirectory() as out:
            parity = export_subject(load_subject(name), Order("onnx", Path(out), "fp16")).parity
        assert parity is not None
        found[name] = {"snr_db": parity.snr_db, "max_rel": parity.max_rel, "top1_agreement": parity.top1_agreement}
        print(name, found[name], file=sys.stderr)
    worst = min(item["snr_db"] or float("inf") for item in found.values())
    report("fp16_snr", {"worst_snr_db": worst, "models": found})


if __name__ == "__main__":
    main(sys.argv[1:] or ["mobilevig_*", "vanillanet_[56789]"])
