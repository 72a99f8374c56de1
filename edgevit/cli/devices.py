"""`edgevit devices`: where artifacts can be measured, and how well a device repeats itself."""

from __future__ import annotations

import typer

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

app = typer.Typer(help="List the devices that can be measured on, or measure one's noise.", invoke_without_command=True)


@app.callback()
def run(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the devices that can be measured on, or do something with one of them."""
    if context.invoked_subcommand:
        return
    from edgevit.devices import list_devices

    found = list_devices()
    if as_json:
        print_json({"devices": found})
        return
    rows = [(d.name, d.device_class, d.transport, ", ".join(d.compute_units), d.description) for d in found]
    print_table(("device", "class", "transport", "compute units", "description"), rows)


@app.command()
def noise(
    device: DeviceOption = "local",
    threads: ThreadsOption = 1,
    db: DbOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure how far repeats of one fixed workload differ: smaller differences are none."""
    from edgevit.devices import load_device
    from edgevit.reference import NOISE_REPEATS, measure_noise
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
