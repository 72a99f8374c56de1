"""What a user's code prints while a child process exports it: told apart from what converters print, line by line."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TextIO, cast

from edgevit.models.user_code import UserCode


class UserPrints:
    """Lines that a user's code prints, sent to `send` without their end. While `is_loading`, all lines are the user's.

    Afterwards a line is the user's if a frame of the user's own files printed it, itself or through the standard
    library.
    """

    def __init__(self, model: str, send: Callable[[str], None]) -> None:
        self.is_loading = True
        self._code, self._send = UserCode(model), send

    @contextlib.contextmanager
    def relayed(self) -> Iterator[None]:
        """Send such lines meanwhile. All that is printed goes where it went before, too."""
        if not self._code.folders:
            yield
            return
        streams = [_Relay(stream, self) for stream in (sys.stdout, sys.stderr)]
        with (
            contextlib.redirect_stdout(cast(TextIO, streams[0])),
            contextlib.redirect_stderr(cast(TextIO, streams[1])),
        ):
            try:
                yield
            finally:
                for stream in streams:
                    stream.end()

    def is_users(self, frame: FrameType | None) -> bool:
        """Return whether the user's code printed, given the frame that did."""
        if self.is_loading:
            return True
        while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in sys.stdlib_module_names:
            frame = frame.f_back
        return frame is not None and self._code.is_own(frame.f_code.co_filename)

    def send(self, line: str) -> None:
        """Send a line, as a terminal would show it at its end."""
        self._send(line.rsplit("\r", 1)[-1])


class _Relay:
    """A stream that writes to another one, and sends the user's lines."""

    def __init__(self, stream: TextIO, prints: UserPrints) -> None:
        self._stream, self._prints, self._begun = stream, prints, ""

    def write(self, text: str) -> int:
        """Write text, and send the lines that it completes where it is the user's."""
        # The frame that called, or print() for it.
        if self._prints.is_users(sys._getframe(1)):
            *lines, self._begun = (self._begun + text).split("\n")
            for line in lines:
                self._prints.send(line)
        return self._stream.write(text)

    def writelines(self, lines: list[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def end(self) -> None:
        """Send the line that has no end."""
        if self._begun:
            self._prints.send(self._begun)
        self._begun = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
