"""Peak memory of the reference evaluator of ML programs: after importing it, after loading a package, after one run.

    python benchmarks/mil_memory.py artifacts/NAME.mlpackage [ROOT ...]

Each ROOT is a checkout whose evaluator is measured; without one, it is this checkout. Every figure comes from a fresh
process (ru_maxrss), with one thread and random input of the declared shapes. The outputs' digest shows whether two
checkouts compute the same.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

REPEATS = 3


def measure(package: Path) -> dict[str, object]:
    """Load and run a package in this process, and return the peaks of its resident memory in MB."""
    import hashlib

    import numpy as np

    from edgevit.verification import mil

    peaks = {"imported_mb": peak_mb()}
    session = mil.load(package, threads=1)
    peaks["loaded_mb"] = peak_mb()
    rng = np.random.default_rng(0)
    session.feed([rng.standard_normal(s.shape).astype(s.dtype).tobytes() for s in session.inputs], 1)
    start = time.perf_counter()
    session.run()
    seconds = time.perf_counter() - start
    peaks["run_mb"] = peak_mb()
    digest = hashlib.sha256(b"".join(session.fetch())).hexdigest()[:12]
    return {**peaks, "run_s": round(seconds, 3), "outputs": digest}


def peak_mb() -> float:
    """Return the peak of this process's resident memory so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def main(arguments: list[str]) -> None:
    """Measure in fresh processes, the checkouts in turn."""
    package = Path(arguments[0]).resolve()
    roots = [Path(root).resolve() for root in arguments[1:]] or [Path(__file__).resolve().parents[1]]
    for _ in range(REPEATS):
        for root in roots:
            environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'runtime'}", "OMP_NUM_THREADS": "1"}
            command = [sys.executable, __file__, "--child", str(package)]
            completed = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
            print(root, completed.stdout.strip(), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        print(json.dumps(measure(Path(sys.argv[2]))))
    else:
        main(sys.argv[1:])
