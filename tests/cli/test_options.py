"""Option groups: how dataclasses become options, and which options every command has."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from edgevit import __version__
from edgevit.cli import app
from edgevit.cli.options import OutputOptions, grouped

PREPROCESSING = {"--mean", "--std", "--range", "--resize", "--crop", "--interpolation", "--color"}
QUANTIZATION = {"--data", "--floor", "--ranges", "--no-absorb", "--no-correct"}
OUTPUT = {"--json", "-q/--quiet", "-v/--verbose"}
# Every command with its options, those of OUTPUT aside, and its arguments.
COMMANDS = {
    "": {"--version", "--install-completion", "--show-completion"},
    "models": {"pattern", "--refresh"},
    "targets": set(),
    "doctor": {"-t/--target", "--try", "--db"},
    "fold": {"model", "--weights", "--weights-key", "--seed", "--input-size", "--input-shape", "--input-range"},
    "quantize": {"model", "-t/--target", "--precision", "--option", "--why", "--weights", "--weights-key", "--seed",
                 "--input-size", "--input-shape", "--input-range", *PREPROCESSING, *QUANTIZATION},
    "tune": {"model", "-t/--target", "-d/--device", "--threads", "--precision", "--batch-size", "--budget", "--data",
             "--option", "--weights", "--weights-key", "--seed", "--input-size", "--input-shape", "--input-range",
             *PREPROCESSING, "--db"},
    "export": {"model", "-t/--target", "--precision", "-o/--out", "--weights", "--weights-key", "--seed",
               "--input-size", "--batch-size",
               "--input-shape", *PREPROCESSING, *QUANTIZATION,
               "--dynamic-batch", "--unfolded", "--form", "--embed-preprocess", "--labels", "--option",
               "--compute-capability", "--input-range", "--samples", "--db"},
    "verify": {"artifact", "--weights", "--weights-key", "--model", "-d/--device", "--input-range", "--samples",
               "--data", "--processor", "--db", "--trust"},
    "profile": {"artifacts", "-d/--device", "--threads", "--batch-size", "--quick", "--percentile", "--rate",
                "--max-memory-gb", "--roofline", "--layers", "--harness", "--weights", "--weights-key",
                "--labels", "--tag", "--db", "--trust"},
    "evaluate": {"artifacts", "--data", "--limit", "--threads", "--batch-size/--batch", "--classes", "--dataset",
                 "--skip-unreadable", "--against-model", "--weights", "--weights-key", "--model", *PREPROCESSING,
                 "--db", "--trust"},
    "sweep": {"--models", "--targets", "-d/--device", "--precision", "--threads", "--seed", "--input-size",
              "--input-shape", *PREPROCESSING, *QUANTIZATION, "--weights", "--weights-key", "--labels",
              "--input-range", "-o/--out",
              "--quick", "--percentile", "--rate", "--max-memory-gb", "--dry-run", "--max-time", "--tag", "--again",
              "--log", "--db"},
    "choose": {"--max-latency/--budget", "--objective", "--models", "--task", "-d/--device", "--percentile",
               "--min-top1", "--max-size-mb", "--max-memory-mb", "--max-energy-mj", "-t/--target", "--precision",
               "--engine", "--threads", "--licence", "--published", "--reconstructed", "--outdated",
               "--allow-unevaluated",
               "--confidence", "--measured-only", "--dataset", "--origin", "--pareto", "--why", "--measure", "--export",
               "--weights", "--weights-key", "--labels", "--random-weights", "--artifacts", "-o/--out", "--quick",
               "--plot", "--db"},
    "report": {"-o/--out", "-d/--device", "--published", "--dataset", "--confidence", "--measured-only", "--artifacts",
               "--db"},
    "devices": set(),
    "devices add": {"name", "--host", "--transport", "--port", "--identity", "--known-hosts", "--python", "--cache",
                    "--serial", "--option"},
    "devices show": {"name"},
    "devices remove": {"name"},
    "devices noise": {"-d/--device", "--threads", "--db"},
    "devices calibrate": {"name", "--budget", "--models", "-t/--target", "--precision", "--threads", "--percentile",
                          "--confidence", "--dry-run", "-o/--out", "--quick", "--db"},
    "db": set(),
    "db stats": {"--db"},
    "db show": {"row", "-d/--device", "--model", "--provenance", "--source", "--current-epoch", "--limit", "--db"},
    "db epochs": {"-d/--device", "--refresh", "--db"},
    "db sql": {"statement", "--limit", "--db"},
    "db compare": {"first", "second", "-d/--device", "--threads", "--rate", "--baseline", "--percentile", "--fail-if",
                   "--markdown", "--junit", "--origin", "--db"},
    "db tag": {"name", "rows", "-d/--device", "--threads", "--rate", "--db"},
    "db export": {"file", "-d/--device", "--grade", "--db"},
    "db import": {"files", "--from", "--source", "--published", "--db"},
    "db merge": {"source", "--db"},
    "db sources": {"--db"},
    "db trust": {"source", "--db"},
    "db distrust": {"source", "--db"},
    "db forget": {"source", "--undo", "--db"},
    "db quarantine": {"--db"},
    "db check": {"--db"},
}  # fmt: skip
# These answer nothing themselves.
GROUPS = {"", "db"}


def commands() -> Iterator[tuple[str, Any]]:
    """Yield each command with its name, `devices add` for one."""
    pending: list[tuple[str, Any]] = [("", typer.main.get_command(app))]
    while pending:
        name, command = pending.pop()
        yield name, command
        pending += [(f"{name} {child}".strip(), one) for child, one in getattr(command, "commands", {}).items()]


def options(command: Any) -> set[str]:
    """Return the options of a command as `-o/--out`, short names first, and its arguments."""
    return {"/".join(sorted(parameter.opts, key=lambda name: name.startswith("--"))) for parameter in command.params}


def test_every_command_has_its_options() -> None:
    assert {name: options(command) - OUTPUT for name, command in commands()} == COMMANDS


def test_every_command_answers_in_json_quietly_or_verbosely() -> None:
    lacking = {name for name, command in commands() if not options(command) >= OUTPUT}
    assert lacking == GROUPS


def test_the_version_is_shown() -> None:
    outcome = CliRunner().invoke(app, ["--version"])
    assert (outcome.exit_code, outcome.output) == (0, f"edgevit {__version__}\n")


@dataclass(frozen=True)
class Size:
    """Two options, one of which must be given."""

    width: Annotated[int, typer.Option(help="Width in pixels")]
    height: Annotated[int, typer.Option("--height", "-y", help="Height in pixels")] = 7


def command_line(function: Any) -> typer.Typer:
    """Return a command line with this one command."""
    single_command = typer.Typer(add_completion=False)
    single_command.command()(function)
    return single_command


def test_a_group_becomes_options_in_its_place_and_arrives_as_a_record() -> None:
    calls: list[object] = []

    @grouped
    def run(name: str, size: Size, tag: str = "none", *, output: OutputOptions) -> None:
        calls.append((name, size, tag, output))

    assert list(inspect.signature(run).parameters) == ["name", "width", "height", "tag", "as_json", "quiet", "verbose"]
    outcome = CliRunner().invoke(command_line(run), ["net", "--width", "3", "-y", "4", "--json"])
    assert outcome.exit_code == 0, outcome.output
    assert calls == [("net", Size(3, 4), "none", OutputOptions(as_json=True))]
    assert CliRunner().invoke(command_line(run), ["net"]).exit_code == 2, "--width has no default"


def test_a_group_may_extend_another_one() -> None:
    @dataclass(frozen=True)
    class Volume(Size):
        """Three options."""

        depth: Annotated[int, typer.Option(help="Depth in pixels")] = 1

    def run(volume: Volume) -> None: ...

    # A local class has no name that a string could find.
    run.__annotations__["volume"] = Volume
    assert list(inspect.signature(grouped(run)).parameters) == ["width", "height", "depth"]


def test_two_options_of_one_name_are_refused() -> None:
    def run(size: Size, height: int) -> None: ...

    with pytest.raises(TypeError, match="two options called height"):
        grouped(run)


def test_no_command_takes_more_than_eight_parameters() -> None:
    for name, command in commands():
        if command.callback is not None:
            assert len(inspect.signature(inspect.unwrap(command.callback)).parameters) <= 8, name
