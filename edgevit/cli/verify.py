"""`edgevit verify`: an artifact against the model it was made from, again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgevit.cli.common import DbOption, JsonOption, TrustOption, WeightsOption, print_json, print_table, say


def run(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="folder that `edgevit export` wrote")],
    weights: WeightsOption = None,
    db: DbOption = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check every byte of an artifact, then run it against the model it was made from (exit code 4 if they differ)."""
    from edgevit.recipes import require_torch

    require_torch()
    from edgevit.artifact import open_artifact
    from edgevit.pipeline import verify_artifact
    from edgevit.sweep import built_here

    opened = open_artifact(artifact)
    parity = verify_artifact(opened, weights, built_here=built_here([opened], db, trust=trust))
    if as_json:
        print_json({"artifact": str(artifact), "parity": parity})
    else:
        rows = [
            (c.stage, c.against, f"{c.max_rel:.1e}", "equal" if c.snr_db is None else f"{c.snr_db:.0f}", c.tolerance)
            for c in parity.checks
        ]
        print_table(("stage", "against", ">max_rel", ">SNR dB", "tolerance"), rows)
        say(f"{parity.status}: {parity.how}; {parity.inputs}; bytes as sealed")
    if parity.status == "failed":
        raise typer.Exit(4)
