"""`edgevit devices`: where artifacts can be measured."""

from __future__ import annotations

from edgevit.cli.common import JsonOption, print_json, print_table


def run(as_json: JsonOption = False) -> None:
    """List the devices that can be measured on."""
    from edgevit.devices import list_devices

    found = list_devices()
    if as_json:
        print_json({"devices": found})
        return
    rows = [(d.name, d.device_class, d.transport, ", ".join(d.compute_units), d.description) for d in found]
    print_table(("device", "class", "transport", "compute units", "description"), rows)
