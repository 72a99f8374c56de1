"""`edgevit verify`: an artifact against the model it was made from, again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgevit.cli.common import print_json, print_table, say, say_weights
from edgevit.cli.options import (
    DatabaseOptions,
    EarlierKeyOption,
    ModelAgainOption,
    OutputOptions,
    SampleOptions,
    grouped,
)


@dataclass(frozen=True)
class ComparisonOptions(SampleOptions):
    """What an artifact is compared on."""

    data: Annotated[
        Path | None,
        typer.Option(help="Samples that an int8 artifact was calibrated on; default: where its manifest says"),
    ] = None
    processor: Annotated[
        str,
        typer.Option(metavar="x86-without-vnni", help="Simulate the sums of an int8 artifact there, in place of a run"),
    ] = ""


@grouped
def run(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="Artifact folder that `edgevit export` wrote")],
    weights: Annotated[
        Path | None, typer.Option(help="Checkpoint that the artifact was made from; default: as its manifest says")
    ] = None,
    weights_key: EarlierKeyOption = "",
    model: ModelAgainOption = "",
    device: Annotated[
        str | None,
        typer.Option("--device", "-d", help="Device to run it on, whose result the manifest keeps; default: here"),
    ] = None,
    *,
    samples: ComparisonOptions,
    database: DatabaseOptions,
    output: OutputOptions,
) -> None:
    """Check every byte of an artifact, then run it against the model it was made from (exit code 4 if they differ)."""
    import edgevit
    from edgevit.artifacts.folder import open_artifact

    opened = open_artifact(artifact)
    before = opened.parity
    parity = edgevit.verify(
        artifact,
        model=model or None,
        weights=weights,
        weights_key=weights_key,
        device=device,
        trust=database.trust,
        db=database.db,
        input_range=samples.value_range,
        samples=samples.samples,
        data=samples.data,
        processor=samples.processor,
    )
    is_updated = device is not None and open_artifact(artifact).parity != before
    if output.as_json:
        print_json({"artifact": str(artifact), "parity": parity, "manifest_updated": is_updated})
    else:
        rows = [
            (check.stage, check.against, *check.figures, "; ".join(filter(None, (check.tolerance, check.problem))))
            for check in parity.checks
        ]
        print_table(("stage", "against", ">max_rel", ">SNR dB", "tolerance"), rows)
        say_weights([opened.source])
        say(f"{parity.status}: {parity.how}; {parity.inputs}; bytes as sealed")
        say(f"compared with {parity.network.label if parity.network else 'a network that is not recorded'}")
        if is_updated:
            say(f"the manifest now says so; before: {before.status if before else 'unverified'}")
    if parity.status == "failed":
        raise typer.Exit(4)
