"""Classes of devices in rows from before the silicon was recorded.

A class was made of the processor's model name. That names one product, like a board or `Core i9-10940X`, or nothing
more than a line of products: a virtual machine's `AMD EPYC` is any of several generations.
"""

from __future__ import annotations

import dataclasses
import re

from edgevit.records.measurement import EMULATED, UNKNOWN_SILICON, Measurement

# Boards whose name tells their silicon: the beginning of the name in a class, and the silicon's own name.
_BOARDS = (
    ("raspberry-pi-5", "cortex-a76-dotprod"),
    ("raspberry-pi-4", "cortex-a72-neon"),
    ("raspberry-pi-3", "cortex-a53-neon"),
    ("raspberry-pi-zero-2", "cortex-a53-neon"),
    ("nvidia-jetson-nano", "cortex-a57-neon"),
)
_OLD_CLASS = re.compile(r"([a-z0-9_]+)-linux-(.+)-(\d+c)")


def with_known_silicon(row: Measurement) -> Measurement:
    """Return an older row with the class that its host supports; rows with silicon and published rows stay."""
    if row.host is None or row.host.silicon is not None or EMULATED in row.flags:
        return row
    name = supported_class(row.device_class, row.host.cpu_model)
    return row if name == row.device_class else dataclasses.replace(row, device_class=name)


def supported_class(device_class: str, cpu_model: str) -> str:
    """Return the class of an older row, by its old one and the model name of its processor.

    A board of the table gets the class that it has today. Another product keeps its class. A line of products gets
    the end `unknown-silicon`.
    """
    parts = _OLD_CLASS.fullmatch(device_class)
    if parts:
        machine, model, cores = parts.groups()
        for board, silicon in _BOARDS:
            if model.startswith(board):
                return f"{machine}-{model}-{silicon}-{cores}"
    if re.search(r"\d", cpu_model) or device_class.endswith(UNKNOWN_SILICON):
        return device_class
    return f"{device_class}-{UNKNOWN_SILICON}"
