"""`edgevit devices`: where artifacts can be measured, a person's own devices, and how well a device repeats itself."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli import devices_calibrate
from edgevit.cli.common import error_fields, print_json, print_table, progress, say, warn, warn_error
from edgevit.cli.options import DbOption, DeviceOption, OutputOptions, ThreadsOption, grouped

if TYPE_CHECKING:
    from edgevit.devices.enroll import DetectedDevice

app = typer.Typer(
    help="List devices (none is contacted); add, show and remove your own; measure noise; calibrate for predictions.",
    invoke_without_command=True,
)
app.command("calibrate")(devices_calibrate.run)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the device")]


@dataclass(frozen=True)
class ConnectionOptions:
    """How a device is reached: the settings of its transport."""

    host: Annotated[str | None, typer.Option(help="ssh: USER@ADDRESS, or a name from your ~/.ssh/config")] = None
    transport: Annotated[str, typer.Option(help="Transport: ssh, or adb for a phone")] = "ssh"
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="ssh: port of its sshd; default: ssh's own")] = None
    identity: Annotated[str | None, typer.Option(help="ssh: file of the private key; default: ssh's own")] = None
    known_hosts: Annotated[str | None, typer.Option(help="ssh: file with its host key; default: ssh's own")] = None
    python: Annotated[str | None, typer.Option(help="ssh: its Python, 3.10 or later; default: python3")] = None
    cache: Annotated[str | None, typer.Option(help="Folder there for artifacts; default: ~/.cache/edgevit")] = None
    serial: Annotated[str | None, typer.Option(help="adb: serial as in `adb devices`; default: the only phone")] = None
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="adb: program=/path/to/it, or folder=/path on the phone; repeatable"),
    ] = None

    def settings(self) -> dict[str, str]:
        """Return what was given, as the transport's options. Raise UsageError for an --option that is no NAME=VALUE."""
        named = {name: value for name, value in vars(self).items() if name not in ("transport", "option")}
        return {name: str(value) for name, value in (named | _pairs(self.option or [])).items() if value}


@app.callback()
@grouped
def run(context: typer.Context, output: OutputOptions) -> None:
    """List devices (none is contacted); add, show and remove your own; measure noise; calibrate for predictions."""
    if context.invoked_subcommand:
        return
    from edgevit.devices.registry import read_devices

    enrolled, errors = read_devices()
    if output.as_json:
        print_json({"devices": enrolled, "unreadable": [error_fields(error) for error in errors]})
    else:
        rows = [(d.name, d.device_class, d.transport, ", ".join(d.compute_units), d.description) for d in enrolled]
        print_table(("device", "class", "transport", "compute units", "description"), rows)
        for error in errors:
            warn_error("error", error)
    if errors:
        raise typer.Exit(1)


@app.command()
@grouped
def add(name: NameArgument, connection: ConnectionOptions, output: OutputOptions) -> None:
    """Connect to a device, look at it, show what it is, and keep it under a name."""
    from edgevit.devices import enroll

    enrolled = enroll.add(name, connection.transport, connection.settings())
    _print(enrolled, output.as_json)
    if enrolled.also_named:
        _warn_of_same_unit(enrolled)
    if not output.as_json:
        command = f"--targets {_targets(enrolled)} --device {shlex.quote(name)}"
        say("added; next, with your own network as FILE.py:FUNCTION, or with models of `edgevit models`:")
        say(f"  edgevit sweep --models FILE.py:FUNCTION {command}")
        say(f"  edgevit sweep --models 'mobilevig_*' {command}")


def _warn_of_same_unit(enrolled: DetectedDevice) -> None:
    """Warn of other names for a unit: rows of both are those of one device."""
    name, others = enrolled.device.name, " and ".join(enrolled.also_named)
    warn(f"warning: {name} is the unit that is here as {others}: with one device_id their rows count together")
    if enrolled.clonable_unit:
        warn("  or it is a copy of that unit's disk, which nothing tells apart: give it a machine-id of its own")
    warn(f"  edgevit devices remove {shlex.quote(name)} takes the second name away")


def _pairs(texts: list[str]) -> dict[str, str]:
    """Return NAME=VALUE texts as a dictionary. Raise UsageError for other text."""
    from edgevit.errors import UsageError

    if bad := [text for text in texts if not text.partition("=")[2]]:
        raise UsageError(f"{bad[0]!r} is no option", why="an option is NAME=VALUE")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def _targets(enrolled: DetectedDevice) -> str:
    """Return targets to begin with: those of its native programs, else the one that runs nearly everywhere."""
    from edgevit.recipes import list_recipes

    return ",".join(recipe.target for recipe in list_recipes() if recipe.native in enrolled.detected.engines) or "onnx"


@app.command()
@grouped
def show(name: NameArgument, output: OutputOptions) -> None:
    """Connect to a device and show what it is now."""
    from edgevit.devices import enroll

    _print(enroll.show(name), output.as_json)


@app.command()
@grouped
def remove(name: NameArgument, output: OutputOptions) -> None:
    """Forget a device of your own. What was measured on it stays in the database."""
    from edgevit.devices import enroll

    removed = str(enroll.remove(name))
    if output.as_json:
        print_json({"removed": removed})
    else:
        say(f"removed {removed}")


@app.command()
@grouped
def noise(
    device: DeviceOption = "local", threads: ThreadsOption = 1, *, db: DbOption = None, output: OutputOptions
) -> None:
    """Measure how far repeats of one fixed workload differ: smaller differences are none."""
    from edgevit.devices.device_lock import locked_device
    from edgevit.devices.registry import load_device
    from edgevit.measurement.noise_floor import NOISE_REPEATS, measure_noise
    from edgevit.store import LatencyDB

    unit = load_device(device)
    with LatencyDB.open(db) as database:
        database.require_writable()
    with locked_device(unit, warn), progress(output.hides_progress) as bars:
        task = bars.add_task("measuring", total=NOISE_REPEATS)
        floor = measure_noise(unit, threads=threads, on_progress=lambda repeats: bars.update(task, completed=repeats))
    with LatencyDB.open(db) as database:
        database.add_noise(floor)
    if output.as_json:
        print_json({"noise": floor})
        return
    headlines = ", ".join(f"{value / 1e6:.3f}" for value in floor.p50s_ns)
    say(f"{unit.name}: differences below {floor.share:.1%} are noise")
    say(f"p50 of {len(floor.p50s_ns)} repeats of the workload {floor.workload!r}: {headlines} ms")


def _print(enrolled: DetectedDevice, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "device": enrolled.device,
                "host": enrolled.host,
                "detected": enrolled.detected,
                "emulated": enrolled.emulated,
                "also_named": enrolled.also_named,
            }
        )
        return
    print_table(("", enrolled.device.name), enrolled.facts())
    if enrolled.emulated:
        say("emulated: artifacts can be verified there, but its times speak for no real device and are never chosen by")
