"""The command line, one file per verb. A verb imports its room when it runs: --help and choose never import torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from edgevit import __version__
from edgevit.cli import (
    choose,
    db,
    db_compare,
    db_exchange,
    devices,
    doctor,
    evaluate,
    export,
    fold,
    models,
    profile,
    quantize,
    report,
    sweep,
    targets,
    tune,
    verify,
)
from edgevit.cli.common import report_error
from edgevit.cli.logs import is_verbose
from edgevit.cli.options import RootVerboseOption
from edgevit.cli.signals import unwinding
from edgevit.errors import EdgevitError

app = typer.Typer(
    name="edgevit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (models, targets, doctor, fold, quantize, tune, export, verify, profile, evaluate, sweep, choose, report):
    app.command(verb.__name__.rpartition(".")[2])(verb.run)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"edgevit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit.")
    ] = False,
    verbose: RootVerboseOption = 0,
) -> None:
    """Fold, export, prove, measure and choose vision models for the devices you have."""


app.add_typer(devices.app, name="devices")
db.app.add_typer(db_compare.app)
db.app.add_typer(db_exchange.app)
app.add_typer(db.app, name="db")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line. An error raised on purpose becomes its message and exit code, any other a traceback."""
    with unwinding():
        try:
            app(args=None if arguments is None else list(arguments))
        except EdgevitError as error:
            words = sys.argv[1:] if arguments is None else arguments
            report_error(error, as_json="--json" in words, verbose=is_verbose())
            sys.exit(error.exit_code)
