"""`edgevit fold`: what folding does to a model, with proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from edgevit.cli.common import millions, print_json, print_table, say, say_weights
from edgevit.cli.options import ModelArgument, OutputOptions, RangeOptions, SourceOptions, grouped

if TYPE_CHECKING:
    from edgevit.folding.proof import Proof


@grouped
def run(model: ModelArgument, source: SourceOptions, inputs: RangeOptions, output: OutputOptions) -> None:
    """Fold a model and prove that it computes the same."""
    from edgevit.recipes import require_torch

    require_torch()
    from edgevit.folding.evidence import examine
    from edgevit.models.source import load_subject, require_taken

    subject = load_subject(model, weights=source.weights_request, input_size=source.size, input_shapes=source.shapes)
    require_taken(subject, batch=2)
    evidence = examine(subject.module, subject.example(batch=2), source.seed, inputs.value_range)
    if output.as_json:
        verdict = {"status": evidence.proof.status, "passed": evidence.proof.passed}
        print_json({"model": subject.name, "source": subject.source, **vars(evidence), **verdict})
    else:
        _print(subject.name, subject.source.weights, evidence)
        say_weights([subject.source])
    if not evidence.proof.passed:
        raise typer.Exit(4)


def _print(name: str, weights: str, evidence: object) -> None:
    from edgevit.folding.evidence import Evidence

    assert isinstance(evidence, Evidence)
    before, after, proof = evidence.before, evidence.after, evidence.proof
    rows = [
        ("params M", millions(before.params), millions(after.params), _share(after.params, before.params)),
        ("GMACs", f"{before.macs / 1e9:.3f}", f"{after.macs / 1e9:.3f}", _share(after.macs, before.macs)),
        ("layers", before.layers, after.layers, _share(after.layers, before.layers)),
    ]
    print_table((f"{name}, {weights} weights", ">training form", ">folded form", ">left"), rows)
    print_table(("rewrite", ">applied"), evidence.report.rewrites.items())
    for unfolded in evidence.report.unfolded:
        say(f"not folded: {unfolded.module}: {unfolded.reason}")
    print_table(
        ("proof", ">max relative error", ">tolerance"),
        [
            ("float64", _error(proof.float64_max_rel), f"{proof.float64_tolerance:.0e}"),
            ("float32", _error(proof.float32_max_rel), f"{proof.float32_tolerance:.0e}"),
        ],
    )
    say(_verdict(proof))


def _verdict(proof: Proof) -> str:
    """Return what a proof shows, in one sentence or two."""
    match proof.status:
        case "proven":
            return "the folded form is the trained model"
        case "failed":
            return "PROOF FAILED: the folded form is another function"
    every = {
        "float64": (proof.float64_max_rel, proof.float64_tolerance, proof.float64_rounding),
        "float32": (proof.float32_max_rel, proof.float32_tolerance, proof.float32_rounding),
    }
    for dtype, (error, limit, rounding) in every.items():
        if error is not None and error > limit:
            return (
                f"not proven: in {dtype} the two differ by {error:.1e}, and rounding alone may move the model's own "
                f"answer by {min(rounding, 1):.1e}. A proof allows {limit:.0e}: load trained weights, --weights FILE"
            )
    return "not proven: the model runs neither in float64 nor in float32"


def _share(after: int, before: int) -> str:
    return f"{after / before:.1%}" if before else "-"


def _error(max_rel: float | None) -> str:
    return "does not run in it" if max_rel is None else f"{max_rel:.1e}"
