"""Output that the verbs share: tables, progress bars, errors, JSON and units.

All text for people goes through here, and its invisible characters become visible (visible_text). JSON stays exact.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from edgevit.errors import EdgevitError, UsageError
from edgevit.records.artifact import SCHEMA_VERSION
from edgevit.visible_text import visible, visible_traceback

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from edgevit.records.artifact import Source


# Where JSON goes while only_json_on_stdout() is active; empty: to standard output.
_json_streams: list[TextIO] = []


def report_error(error: EdgevitError, *, as_json: bool, verbose: bool) -> None:
    """Print an error on standard error, as JSON where that was requested; with its traceback if verbose."""
    if verbose:
        sys.stderr.write(visible_traceback("".join(traceback.format_exception(error))))
    if as_json:
        print(json.dumps({"schema_version": SCHEMA_VERSION, "error": error_fields(error)}), file=sys.stderr)
        return
    warn_error("error", error)


def warn_error(label: str, error: EdgevitError) -> None:
    """Print an error behind a label on standard error, each of its parts on a line of its own."""
    first, *details = error.lines()
    for line in (f"{label}: {first}", *(f"  {line}" for line in details)):
        warn(line)


def error_fields(error: EdgevitError) -> dict[str, str]:
    """Return an error as JSON shows it."""
    parts = {"what": error.what, "where": error.where, "why": error.why, "fix": error.fix}
    return {"type": type(error).__name__, **parts}


def print_json(data: dict[str, Any]) -> None:
    """Print one JSON object with the schema's version; keys carry their units."""
    from edgevit_runtime.codec import to_data

    text = json.dumps({"schema_version": SCHEMA_VERSION, **to_data(data)}, indent=1, allow_nan=False)
    stream = _json_streams[-1] if _json_streams else sys.stdout
    stream.write(text + "\n")
    stream.flush()


@contextmanager
def only_json_on_stdout() -> Iterator[None]:
    """Send to standard error all that is printed meanwhile, by a user's network too, except for the JSON object."""
    with contextlib.ExitStack() as stack:
        stdout: TextIO = sys.stdout
        answers = stdout
        if _is_first_descriptor(stdout):
            # Programs that the network's code starts, and libraries in C, write to the descriptor.
            stdout.flush()
            answers = stack.enter_context(os.fdopen(os.dup(1), "w", encoding=stdout.encoding))
            os.dup2(2, 1)
            stack.callback(lambda: os.dup2(answers.fileno(), 1))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        _json_streams.append(answers)
        stack.callback(_json_streams.pop)
        yield


def _is_first_descriptor(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 1
    except OSError:  # a stream in memory has none
        return False


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str = "",
    tight: bool = False,
    below: Sequence[str] | None = None,
) -> None:
    """Print a table on standard output; a column whose name starts with `>` is right-aligned.

    tight: two blanks between columns and not three. below: a text for each row, in lines of its own.
    """
    from rich import box
    from rich.table import Table

    padding = (0, 1, 0, 0) if tight else (0, 1)
    table = Table(
        title=visible(title) or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=padding
    )
    for name in columns:
        table.add_column(
            visible(name.removeprefix(">")), justify="right" if name.startswith(">") else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(("" if cell is None else visible(str(cell))) for cell in row))
    console = _console() if below is None else _wide()
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    sys.stdout.write("\n".join(lines if below is None else _interleaved(lines, below)) + "\n")


def _interleaved(lines: Sequence[str], below: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a table in which each row has one, with the texts below them, wrapped."""
    head = len(lines) - len(below) - 1  # the last line is blank
    yield from lines[:head]
    for line, text in zip(lines[head:-1], below, strict=True):
        yield line
        yield from textwrap.wrap(visible(text), _console().width, initial_indent="    ", subsequent_indent="    ")
    yield lines[-1]


def say(text: str) -> None:
    """Print a line on standard output."""
    sys.stdout.write(visible(text) + "\n")


def describe_size(shape: Sequence[int]) -> str:
    """Return the input of a network for a column: `224` or `256x192` of an image, else its shape without the batch."""
    from edgevit.selection.accuracy import image_size

    sides = image_size(tuple(shape)) or tuple(shape[1:])
    return "x".join(map(str, sides[:1] if len(set(sides)) == 1 and len(shape) > len(sides) + 1 else sides))


def say_weights(sources: Iterable[Source]) -> None:
    """Print once which weights were taken where a file holds several sets, or where they were drawn at random."""
    for text in dict.fromkeys(filter(None, (source.describe_weights() for source in sources))):
        say(text)


def warn(text: str) -> None:
    """Print a line on standard error."""
    print(visible(text), file=sys.stderr, flush=True)


def say_wrapped(text: str) -> None:
    """Print words on standard output in as many lines as they take, all but the first indented."""
    lines = textwrap.wrap(visible(text), _console().width, subsequent_indent="    ", break_long_words=False)
    for line in lines or [""]:
        say(line)


def _console() -> Console:
    """Return the console of standard output. A pipe has no width, so that a table gets all that it needs there."""
    console = _wide(None)
    return console if console.is_terminal else _wide()


def _wide(width: int | None = 200) -> Console:
    """Return a console that shows text as it is; without a width it has that of its terminal."""
    from rich.console import Console

    return Console(width=width, markup=False, highlight=False, emoji=False)


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """Draw progress with remaining time on standard error, if that is a terminal; remove it at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
    from rich.text import Text

    class Description(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(visible(task.description))

    console = Console(stderr=True)
    columns = (Description(), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bars:
        yield bars


def advance(bars: Progress, task: TaskID, text: str) -> None:
    """Name what is being done and count one step."""
    bars.update(task, description=text)
    bars.advance(task)


def split(text: str | None, noun: str) -> list[str]:
    """Return the parts of a comma-separated list without blanks or repeats. Raise UsageError for an empty one."""
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    if not parts:
        raise UsageError(f"no {noun} named", fix=f"name one or more {noun}s, with commas between")
    return list(dict.fromkeys(parts))


def ms(ns: float | None) -> str:
    """Return nanoseconds as milliseconds with three digits that count."""
    return "" if ns is None else f"{ns / 1e6:.3g}" if ns < 1e8 else f"{ns / 1e6:.0f}"


def millions(number: int | None) -> str:
    """Return a count in millions."""
    return "" if number is None else f"{number / 1e6:.3f}"


def size(bytes_: int | None) -> str:
    """Return a size in MB (10^6 bytes)."""
    return "" if bytes_ is None else f"{bytes_ / 1e6:.1f}"


def parse_input_size(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of `224` or `256x192`. Raise UsageError for other text."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    sizes = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if min(sizes) < 1:
        raise UsageError(f"{text!r} is not an input size", fix="--input-size 224, or 256x192 for height x width")
    return sizes


def parse_range(text: str | None) -> tuple[float, float] | None:
    """Return (lowest, highest) of `0,255`. Raise UsageError for other text."""
    if text is None:
        return None
    try:
        lowest, highest = map(float, text.split(","))
    except ValueError:
        lowest = highest = math.nan
    if not -math.inf < lowest < highest < math.inf:
        raise UsageError(f"{text!r} is not a range", fix="--input-range 0,1 or --input-range=-1,1")
    return lowest, highest


def parse_duration(text: str) -> float:
    """Return the seconds of `90s`, `30m` or `1.5h`. Raise UsageError for other text."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)", text.strip())
    seconds = float(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600}[match[2]] if match else 0.0
    if not seconds:
        raise UsageError(f"{text!r} is not a duration", fix="write for example 90s, 30m or 1.5h")
    return seconds
