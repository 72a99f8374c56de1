"""Networks of other people: folded, proven, exported to all targets and timed.

python benchmarks/strangers.py --packages FOLDER [NAME...] > folds.json       folds, and exports to ONNX; half an hour
python benchmarks/strangers.py --packages FOLDER --all-targets > targets.json 15 networks in all targets; an hour
python benchmarks/strangers.py --packages FOLDER --latency > latency.json     22 networks in ONNX Runtime; 12 minutes
python benchmarks/strangers.py --markdown FILE.json                           the table of what one of these printed

FOLDER holds timm and transformers (`pip install --no-deps --target FOLDER timm transformers huggingface_hub tokenizers
regex`). They are no dependency; without them only the networks of own_networks are examined. torchvision_stub stands in
for torchvision. Weights are random, norms too. Each network, and each of its exports to a target, has a process of its
own, which ends after ten minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from common import report
from stranger_matrix import tables
from stranger_matrix.latency import measure_latencies, time_files, write_files
from stranger_matrix.networks import HUGGING_FACE, OF_ALL_TARGETS, OF_LATENCY, OWN, TIMM, needs_packages, open_packages
from stranger_matrix.parts import run_part

TABLES = {"rows": tables.folds, "targets": tables.targets, "latencies": tables.latencies}


def examine_part(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what run_part() asks for: a fold, the files of a latency, their times, or an export to a target."""
    import torch

    open_packages(name, options.packages)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    from stranger_matrix.examination import export_cell, fold_row

    if options.part == "fold":
        return fold_row(name)
    if options.part == "files":
        return write_files(name, options.files)
    return time_files(options.files, options.seed) if options.part == "time" else export_cell(name, options.part)


def fold_all(names: list[str], packages: Path | None) -> list[dict[str, Any]]:
    rows = []
    for name in names:
        row = run_part(name, "fold", packages)
        row = row if "name" in row else {"name": name, "crashed": row["why"]}
        rows.append(row | ({"onnx": run_part(name, "onnx", packages)} if "layers" in row else {}))
    return rows


def export_all(names: list[str], packages: Path | None) -> list[dict[str, Any]]:
    from edgevit.recipes import list_recipes

    targets = [recipe.target for recipe in list_recipes()]
    return [{"name": name, "targets": {part: run_part(name, part, packages) for part in targets}} for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path)
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--all-targets", action="store_true")
    modes.add_argument("--latency", action="store_true")
    modes.add_argument("--markdown", type=Path, metavar="FILE")
    modes.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=float, default=12.0, help="time limit of --latency; 12")
    parser.add_argument("--files", type=Path, help="folder in which --latency keeps its ONNX files")
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    packages = options.packages
    if options.part:
        with contextlib.redirect_stdout(sys.stderr):
            result = examine_part(options.names[0], options)
        print(json.dumps(result))
        return
    if options.markdown:
        printed = json.loads(options.markdown.read_text(encoding="utf-8"))
        key = next(key for key in TABLES if key in printed)
        print("\n".join(TABLES[key](printed[key])))
        return
    chosen = OF_ALL_TARGETS if options.all_targets else OF_LATENCY if options.latency else (*TIMM, *HUGGING_FACE, *OWN)
    names = options.names or [name for name in chosen if packages or not needs_packages(name)]
    if options.all_targets:
        report("strangers", {"targets": export_all(names, packages)})
    elif options.latency:
        report("strangers", measure_latencies(names, packages, minutes=options.minutes, files=options.files))
    else:
        report("strangers", {"rows": fold_all(names, packages)})


if __name__ == "__main__":
    main()
