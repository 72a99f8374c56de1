"""CPU time and peak memory of folding and exporting, here and in another checkout, in turns.

python benchmarks/fold_time.py [--against PYTHON] [--packages FOLDER] [--rounds N] [NAME...]

PYTHON is the interpreter of the other checkout's environment. FOLDER holds timm, as for strangers.py; without it the
two networks of timm are left out. Every figure is of a process of its own, and of one thread: the least of the rounds.
The memory is that of the largest process below the command.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import report

ZOO, OF_TIMM = ("mobilevig_ti", "hiera_tiny"), ("mobileone_s0", "repghostnet_050")
IMAGE = 224
STUB = Path(__file__).parent / "torchvision_stub"
# In a process: fold() once for its imports, then once for its CPU seconds.
FOLD = """
import importlib, importlib.util, sys, time, warnings
import torch
warnings.simplefilter("ignore")
torch.set_num_threads(1)
room = "edgevit.folding" if importlib.util.find_spec("edgevit.folding") else "edgevit.fold"
fold = importlib.import_module(room).fold
name, file = sys.argv[1:]
if file:
    sys.path.insert(0, file)
    model = getattr(importlib.import_module("timm_networks"), name)()
else:
    from edgevit.models import create_model, randomize
    model = create_model(name).eval()
    randomize(model, 0)
inputs = (torch.zeros(1, 3, 224, 224),)
fold(model, inputs)
begin = time.process_time()
fold(model, inputs)
print(time.process_time() - begin)
"""
TIMM = """
import sys
sys.path.insert(0, {stub!r})
sys.path.append({packages!r})
def _network(name):
    import timm, torch
    from edgevit.models import randomize
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    randomize(model, 0)
    return model
"""


@dataclass(frozen=True)
class Used:
    """CPU seconds and MB of a command, and what it printed."""

    cpu_s: float
    peak_mb: float
    output: str


def used(command: list[str], scratch: Path) -> Used:
    """Run a command to its end. Raises SystemExit if it fails."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # The two checkouts may write databases of different revisions.
    database = scratch / f"{Path(command[0]).parent.as_posix().replace('/', '-')}.db"
    variables |= {"OMP_NUM_THREADS": "1", "EDGEVIT_DB": str(database)}
    with (scratch / "output").open("w+") as output:
        process = subprocess.Popen(command, env=variables, cwd=scratch, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        output.seek(0)
        text = output.read()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}: {text[-500:]}")
    return Used(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000, text)


def measure(python: str, name: str, scratch: Path) -> dict[str, Used]:
    """Return what each way of folding and exporting a network uses in the environment of an interpreter."""
    edgevit = str(Path(python).parent / "edgevit")
    of_timm = name in OF_TIMM
    model = [f"timm_networks.py:{name}", "--input-size", str(IMAGE)] if of_timm else [name]
    folded = used([python, "-c", FOLD, name, str(scratch) if of_timm else ""], scratch)
    targets = {"export --target onnx": "onnx", **({"export --target all": "all"} if name == ZOO[0] else {})}
    with tempfile.TemporaryDirectory(dir=scratch) as out:
        exports = {
            label: used([edgevit, "export", *model, "-t", target, "-q", "-o", f"{out}/{target}"], scratch)
            for label, target in targets.items()
        }
    # Of the process only its second fold counts.
    fold = Used(float(folded.output.split()[-1]), folded.peak_mb, "")
    return {"fold()": fold, "edgevit fold": used([edgevit, "fold", *model], scratch), **exports}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="PYTHON")
    parser.add_argument("--packages", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    pythons = {"here": sys.executable} | ({"there": options.against} if options.against else {})
    names = options.names or [*ZOO, *(OF_TIMM if options.packages else ())]
    seen: dict[tuple[str, str, str], list[Used]] = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        functions = "".join(f"def {name}(): return _network({name!r})\n" for name in OF_TIMM)
        file = TIMM.format(stub=str(STUB), packages=str(options.packages)) + functions
        (scratch / "timm_networks.py").write_text(file, encoding="utf-8")
        for _ in range(options.rounds):
            for name in names:
                for label in random.sample(list(pythons), len(pythons)):
                    for way, cost in measure(pythons[label], name, scratch).items():
                        seen.setdefault((name, way, label), []).append(cost)
                        print(
                            name, way, label, f"{cost.cpu_s:.2f} s, {cost.peak_mb:.0f} MB", file=sys.stderr, flush=True
                        )
    rows: dict[str, dict[str, Any]] = {}
    for (name, way, label), costs in seen.items():
        row = rows.setdefault(name, {}).setdefault(way, {})
        row[label] = {
            "cpu_s": round(min(cost.cpu_s for cost in costs), 2),
            "peak_mb": round(max(cost.peak_mb for cost in costs)),
        }
        if "there" in row and "here" in row:
            row["times_faster"] = round(row["there"]["cpu_s"] / row["here"]["cpu_s"], 2)
    report("fold_time", {"rounds": options.rounds, "networks": rows})


if __name__ == "__main__":
    main()
