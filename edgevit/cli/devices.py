"""`edgevit devices`: where artifacts can be measured, a person's own devices, and how well a device repeats itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli import devices_calibrate
from edgevit.cli.common import (
    DbOption,
    DeviceOption,
    JsonOption,
    QuietOption,
    ThreadsOption,
    print_json,
    print_table,
    progress,
    say,
)

if TYPE_CHECKING:
    from edgevit.devices.enroll import Found

app = typer.Typer(
    help="List devices (none is contacted); add, show and remove your own; measure noise; calibrate for predictions.",
    invoke_without_command=True,
)
app.command("calibrate")(devices_calibrate.run)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="of the device")]


@app.callback()
def run(context: typer.Context, as_json: JsonOption = False) -> None:
    """List devices (none is contacted); add, show and remove your own; measure noise; calibrate for predictions."""
    if context.invoked_subcommand:
        return
    from edgevit.devices.registry import list_devices

    found = list_devices()
    if as_json:
        print_json({"devices": found})
        return
    rows = [(d.name, d.device_class, d.transport, ", ".join(d.compute_units), d.description) for d in found]
    print_table(("device", "class", "transport", "compute units", "description"), rows)


@app.command()
def add(
    name: NameArgument,
    host: Annotated[str | None, typer.Option(help="ssh: USER@ADDRESS, or a name of your ~/.ssh/config")] = None,
    transport: Annotated[str, typer.Option(help="how it is reached: ssh, or adb for a phone")] = "ssh",
    port: Annotated[int | None, typer.Option(help="of its sshd; default: ssh's own")] = None,
    identity: Annotated[str | None, typer.Option(help="file of the private key; default: ssh's own")] = None,
    known_hosts: Annotated[str | None, typer.Option(help="file with its host key; default: ssh's own")] = None,
    python: Annotated[str | None, typer.Option(help="its Python, 3.10 or later; default: python3")] = None,
    cache: Annotated[str | None, typer.Option(help="folder there for artifacts; default: ~/.cache/edgevit")] = None,
    serial: Annotated[str | None, typer.Option(help="adb: as `adb devices` lists it; default: the only phone")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="adb: program=/path/to/it, or folder=/path on the phone"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Connect to a device, look at it, show what it is, and keep it under a name."""
    from edgevit.devices import enroll

    given = {"host": host, "port": port and str(port), "identity": identity, "known_hosts": known_hosts}
    given |= {"python": python, "cache": cache, "serial": serial, **_pairs(option or [])}
    found = enroll.add(name, transport, {key: value for key, value in given.items() if value})
    _print(found, as_json)
    if not as_json:
        say(f"added: edgevit sweep --models 'mobilevig_*' --targets {_targets(found)} --device {name}")


def _pairs(texts: list[str]) -> dict[str, str]:
    """NAME=VALUE texts. Raises UsageError for what is no such."""
    from edgevit.errors import UsageError

    if bad := [text for text in texts if not text.partition("=")[2]]:
        raise UsageError(f"{bad[0]!r} is no option", why="an option is NAME=VALUE")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def _targets(found: Found) -> str:
    """Targets to begin with: those of the native programs that were given, else the one that runs nearly everywhere."""
    from edgevit.recipes import list_recipes

    return ",".join(item.target for item in list_recipes() if item.native in found.detected.engines) or "onnx"


@app.command()
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Connect to a device and show what it is now."""
    from edgevit.devices import enroll

    _print(enroll.show(name), as_json)


@app.command()
def remove(name: NameArgument) -> None:
    """Forget a device of your own. What was measured on it stays in the database."""
    from edgevit.devices import enroll

    say(f"removed {enroll.remove(name)}")


@app.command()
def noise(
    device: DeviceOption = "local",
    threads: ThreadsOption = 1,
    db: DbOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure how far repeats of one fixed workload differ: smaller differences are none."""
    from edgevit.devices.registry import load_device
    from edgevit.measurement.noise_floor import NOISE_REPEATS, measure_noise
    from edgevit.store import LatencyDB

    place = load_device(device)
    with progress(quiet or as_json) as bars:
        task = bars.add_task("measuring", total=NOISE_REPEATS)
        floor = measure_noise(place, threads=threads, on_progress=lambda done: bars.update(task, completed=done))
    with LatencyDB.open(db) as database:
        database.add_noise(floor)
    if as_json:
        print_json({"noise": floor})
        return
    headlines = ", ".join(f"{value / 1e6:.3f}" for value in floor.p50s_ns)
    say(f"{place.name}: differences below {floor.share:.1%} are noise")
    say(f"p50 of {len(floor.p50s_ns)} repeats of the workload {floor.workload!r}: {headlines} ms")


def _print(found: Found, as_json: bool) -> None:
    if as_json:
        print_json({"device": found.device, "host": found.host, "detected": found.detected, "emulated": found.emulated})
        return
    print_table(("", found.device.name), found.facts())
    if found.emulated:
        say("emulated: artifacts can be verified there, but its times speak for no real device and are never chosen by")
