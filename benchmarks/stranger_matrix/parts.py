"""Parts of the matrix, each in a process of its own, so that a converter which dies takes nothing with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LIMIT_S = 600
_SCRIPT = Path(__file__).parents[1] / "strangers.py"
_TAIL = 900  # characters of what a dead process printed


def run_part(name: str, part: str, packages: Path | None, *options: str, limit_s: float = LIMIT_S) -> dict[str, Any]:
    """Return what `strangers.py --part` prints for a network; a status and the reason where it prints nothing."""
    command = [sys.executable, str(_SCRIPT), "--part", part, *options, name]
    command += [] if packages is None else ["--packages", str(packages)]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return {"status": "no end in time", "why": f"it was stopped after {limit_s:.0f} s"}
    lines = process.stdout.strip().splitlines()
    if process.returncode or not lines:
        return {"status": "crashed", "why": f"exit code {process.returncode}: {process.stderr[-_TAIL:]}"}
    print(name, part, lines[-1], file=sys.stderr, flush=True)
    result: dict[str, Any] = json.loads(lines[-1])
    return result
