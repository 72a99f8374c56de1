"""report: a latency database as one page that people look at, and a choice as a picture.

`collect` reads a database into a record, `render` puts that into one HTML file that needs no network, and `plot` draws
a choice.
"""

from __future__ import annotations

from edgevit.report.collect import collect
from edgevit.report.page import render, write
from edgevit.report.picture import plot
from edgevit.report.records import Report

__all__ = ["Report", "collect", "plot", "render", "write"]
