"""Renders a report as one HTML file with data, style, scripts and Plotly in it, which asks no host for anything.

The page's policy (Content-Security-Policy) runs the two scripts whose digests it lists and loads nothing at all. A name
with markup in it, which any row may bring, therefore stays a name. Plotly needs inline styles, so they are allowed.

Plotly's library of 4.8 MB comes from the `plotly` distribution. The page holds it compressed, and the browser unpacks
it (DecompressionStream, in all browsers since 2023) after the tables are drawn. A report has 2 MB.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import hashlib
import html
import string
from importlib import resources
from pathlib import Path

from edgevit.errors import TargetUnavailableError
from edgevit.reporting.page_records import Entry, Latency, Report
from edgevit.store.jsonl import atomic_write
from edgevit.visible_text import visible_data
from edgevit_runtime.codec import to_data, to_json

# They become one script in this order; each declares what the next ones use.
SCRIPTS = ("data.js", "dom.js", "shapes.js", "state.js", "answers.js", "filters.js", "axes.js", "traces.js", "chart.js",
           "legend.js", "table.js", "detail.js", "sections.js", "main.js")  # fmt: skip
# The level of gzip costs half a second once, for a file that is sent and kept.
_LEVEL = 9


def write(report: Report, path: Path) -> int:
    """Write the page and return its size in bytes. The file appears only when it is complete.

    Raises TargetUnavailableError without Plotly, StoreError where the file cannot be written.
    """
    page = render(report).encode("utf-8")
    with atomic_write(path, "the report") as part:
        part.write_bytes(page)
    return len(page)


def render(report: Report) -> str:
    """Return the page's HTML. Raises TargetUnavailableError without Plotly."""
    library = _plotly()
    script = "(() => {\n'use strict';\n" + "\n".join(map(_asset, SCRIPTS)) + "\n})();"
    return string.Template(_asset("page.html")).substitute(
        policy=html.escape(_policy(script, library)),
        style=_asset("page.css"),
        data=as_block(report),
        library=_compressed(library),
        script=script,
    )


def as_block(report: Report) -> str:
    """Return the report's JSON for a script element: no character in it can end the element or open another.

    Entries are most of it, so that the names of their fields are written once: [names, [values of each]].
    """
    names = [field.name for field in dataclasses.fields(Entry)]
    rows = [[_packed(getattr(entry, name)) for name in names] for entry in report.entries]
    # The names of devices, files and models are others' text: none reorders a line of the page.
    text = to_json(visible_data(to_data({**vars(report), "entries": [names, rows]})))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _packed(value: object) -> object:
    return dataclasses.astuple(value) if isinstance(value, Latency) else value


def _policy(*scripts: str) -> str:
    digests = (base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii") for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return (resources.files("edgevit.reporting") / "page" / name).read_text(encoding="utf-8")


@functools.lru_cache(maxsize=1)
def _compressed(library: str) -> str:
    """Return a text compressed, in base64. Several reports of one process share the work."""
    return base64.b64encode(gzip.compress(library.encode("utf-8"), _LEVEL, mtime=0)).decode("ascii")


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        fix = "pip install 'edgevit[report]'"
        raise TargetUnavailableError("this needs plotly, which is not installed", why=str(error), fix=fix) from error
    return str(get_plotlyjs())
