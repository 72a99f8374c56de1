"""`edgevit verify`: an artifact against the model it was made from, again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgevit.cli.common import DbOption, JsonOption, TrustOption, WeightsOption, print_json, print_table, say


def run(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="folder that `edgevit export` wrote")],
    weights: WeightsOption = None,
    device: Annotated[
        str | None,
        typer.Option("--device", "-d", help="run it there, and keep in the manifest what was found; default: here"),
    ] = None,
    db: DbOption = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check every byte of an artifact, then run it against the model it was made from (exit code 4 if they differ)."""
    from edgevit.recipes import require_torch

    require_torch()
    from edgevit.artifacts.folder import open_artifact
    from edgevit.devices.registry import load_device
    from edgevit.exporting.pipeline import record_parity, verify_artifact
    from edgevit.sweeps.plan import built_here

    opened = open_artifact(artifact)
    place = load_device(device) if device else None
    parity = verify_artifact(opened, weights, built_here=built_here([opened], db, trust=trust), device=place)
    resealed = record_parity(opened, parity) if place else None
    if as_json:
        print_json({"artifact": str(artifact), "parity": parity, "manifest_updated": resealed is not None})
    else:
        rows = [
            (c.stage, c.against, f"{c.max_rel:.1e}", "equal" if c.snr_db is None else f"{c.snr_db:.0f}", c.tolerance)
            for c in parity.checks
        ]
        print_table(("stage", "against", ">max_rel", ">SNR dB", "tolerance"), rows)
        say(f"{parity.status}: {parity.how}; {parity.inputs}; bytes as sealed")
        if resealed is not None:
            say(f"the manifest now says so; before: {opened.parity.status if opened.parity else 'unverified'}")
    if parity.status == "failed":
        raise typer.Exit(4)
