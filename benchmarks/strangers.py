"""Networks of other people, folded, proven and exported: what is left of their norms, and what that costs.

python benchmarks/strangers.py --packages FOLDER [--targets onnx] [--markdown] [NAME...]

FOLDER holds timm and transformers (`pip install --no-deps --target FOLDER timm transformers huggingface_hub tokenizers
regex`). They are no dependency. torchvision_stub stands in for torchvision. Weights are random, norms too. Each network
has a process of its own, which ends after ten minutes.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import report

STUB = Path(__file__).parent / "torchvision_stub"
LIMIT_S = 600
SIZE = 224
# timm's names, each with the size of its input.
TIMM = {name: int(size) for name, size in map(str.split, (Path(__file__).with_suffix(".txt")).read_text().splitlines())}


def hugging_face() -> dict[str, tuple[Callable[[], Any], int]]:
    """Return networks of transformers by name, each with the size of its input."""
    import transformers as hf

    small = {"num_labels": 10}
    return {
        "hf_segformer": (lambda: hf.SegformerForSemanticSegmentation(hf.SegformerConfig(**small)), 128),
        "hf_yolos": (lambda: hf.YolosForObjectDetection(hf.YolosConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, image_size=[128, 128],
            num_detection_tokens=10, **small)), 128),
        "hf_depth_anything": (lambda: hf.DepthAnythingForDepthEstimation(hf.DepthAnythingConfig()), 70),
        "hf_cvt": (lambda: hf.CvtForImageClassification(hf.CvtConfig(**small)), SIZE),
        "hf_rt_detr": (lambda: hf.RTDetrForObjectDetection(hf.RTDetrConfig(
            encoder_layers=1, decoder_layers=1, num_queries=30, anchor_image_size=[128, 128], **small)), 128),
    }  # fmt: skip


def build(name: str) -> tuple[Any, int]:
    """Return a network in evaluation mode with random norms, and the size of its input."""
    import torch

    from edgevit.models import randomize

    torch.manual_seed(0)
    if name in TIMM:
        import timm

        model, size = timm.create_model(name, pretrained=False), TIMM[name]
    else:
        make, size = hugging_face()[name]
        model = make()
    model.eval()
    randomize(model, 0)
    return model, size


def norms_in(net: Any) -> int:
    """Return how many batch norms a graph has."""
    import torch

    kinds = (torch.ops.aten.batch_norm.default, torch.ops.aten._native_batch_norm_legit_no_training.default)
    return sum(node.target in kinds for node in net.graph.nodes)


def fused_by_timm(name: str) -> int | None:
    """Return how many batch norms timm's own fusion leaves; None where it has none or fails."""
    import torch
    from torch import nn

    if name not in TIMM:
        return None
    from timm.utils.model import reparameterize_model

    model = reparameterize_model(build(name)[0])
    for module in [module for module in model.modules() if hasattr(module, "fuse")]:
        module.fuse()
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()) if torch else None


def examine_one(name: str, targets: list[str]) -> dict[str, Any]:
    """Fold, prove and export one network."""
    import torch

    import edgevit
    from edgevit.errors import EdgevitError
    from edgevit.folding.evidence import examine

    torch.set_num_threads(1)
    model, size = build(name)
    row: dict[str, Any] = {"name": name, "size": size}
    begin = time.process_time()
    try:
        found = examine(model, {"image": torch.zeros(1, 3, size, size)})
    except EdgevitError as error:
        return row | {"refused": " | ".join(error.lines())}
    row |= {
        "fold_cpu_s": round(time.process_time() - begin, 1),
        "layers": [found.before.layers, found.after.layers],
        "params": [found.before.params, found.after.params],
        "macs": [found.before.macs, found.after.macs],
        "norms_left": sum(left.kind == "norm" for left in found.report.unfolded),
        "left": sorted({f"{left.kind} {left.module}: {left.reason}" for left in found.report.unfolded})[:4],
        "float64": found.proof.float64_max_rel,
        "float32": found.proof.float32_max_rel,
        "proven": found.proof.passed,
    }
    for target in targets:
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            try:
                artifact = edgevit.export(model, target, name=name, inputs=(torch.zeros(1, 3, size, size),), out=folder)
                parity = artifact.parity
                assert parity is not None
                row[target] = [parity.status, parity.max_rel, round(time.perf_counter() - begin, 1)]
            except EdgevitError as error:
                row[target] = [type(error).__name__, " | ".join(error.lines())[:600]]
    row["norms_left_by_timm"] = fused_by_timm(name)
    return row


def table(rows: list[dict[str, Any]], targets: list[str]) -> list[str]:
    """Return the lines of a table in Markdown, and what was refused below it."""
    heads = ["network", "layers", "params M", "GMACs", "norms left", "by timm", "float64", "fold CPU s", *targets]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    remarks = []
    for row in rows:
        name = row["name"]
        if "layers" not in row:
            remarks.append(f"- {name}: {row.get('refused') or row.get('crashed') or 'no end in time'}")
            continue
        pairs = [" -> ".join(map(str, row["layers"]))]
        pairs += [
            " -> ".join(f"{value / scale:.2f}" for value in row[key]) for key, scale in (("params", 1e6), ("macs", 1e9))
        ]
        timm = row.get("norms_left_by_timm")
        cells = [name, *pairs, str(row["norms_left"]), "-" if timm is None else str(timm), f"{row['float64']:.0e}"]
        cells.append(f"{row['fold_cpu_s']:.1f}")
        for target in targets:
            status, figure, *_ = row[target]
            is_status = not isinstance(figure, str)
            cells.append(f"{status} {figure:.0e}" if is_status else f"{status} (below)")
            remarks += [] if is_status else [f"- {name}, {target}: {figure}"]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", *remarks]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", required=True, type=Path)
    parser.add_argument("--targets", default="onnx")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--markdown", action="store_true", help="print a table in place of JSON")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    targets = [target for target in options.targets.split(",") if target]
    if options.one:
        # transformers does without torchvision, and needs more of it where it is.
        sys.path[:0] = [str(STUB)] if options.names[0] in TIMM else []
        sys.path += [str(options.packages)]
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        print(json.dumps(examine_one(options.names[0], targets)))
        return
    hf = ["hf_segformer", "hf_yolos", "hf_depth_anything", "hf_cvt", "hf_rt_detr"]
    rows = []
    for name in options.names or [*TIMM, *hf]:
        command = [sys.executable, __file__, "--packages", str(options.packages), "--targets", options.targets, "--one"]
        try:
            done = subprocess.run([*command, name], capture_output=True, text=True, timeout=LIMIT_S, check=False)
            lines = done.stdout.strip().splitlines()
            row = json.loads(lines[-1]) if lines else {"name": name, "crashed": done.stderr[-800:]}
        except subprocess.TimeoutExpired:
            row = {"name": name, "timeout_s": LIMIT_S}
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    if options.markdown:
        print("\n".join(table(rows, targets)))
    else:
        report("strangers", {"rows": rows})


if __name__ == "__main__":
    main()
