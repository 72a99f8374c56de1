"""Signals that end a command: each unwinds it as Ctrl-C does, so that nothing is left behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NUMBERS = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)
_SHELL = 128  # what a shell adds to the number of a signal that ended a program


@contextmanager
def unwinding() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into the exception of Ctrl-C meanwhile; the exit code is 128 and the signal's number.

    A signal that is ignored stays ignored, as SIGHUP is under nohup. A second one that terminates does not disturb the
    end of the command; a second Ctrl-C does.
    """
    received: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT or not received:
            received.append(number)
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    for number, handler in before.items():
        if handler in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        # Click has its own exit code for an interruption, and a closed terminal fails to take its last words.
        if received:
            raise SystemExit(_SHELL + received[0])
