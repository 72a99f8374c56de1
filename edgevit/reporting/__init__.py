"""Reporting: a latency database as one HTML page, and a choice as a picture.

`collect` reads a database into a record, `render` writes that as one HTML file that needs no network, and `plot` draws
a choice. The page and the picture show the answers of `choose_among`, and pick nothing themselves.
"""

from __future__ import annotations

from edgevit.reporting.collection import collect
from edgevit.reporting.options import ReportOptions
from edgevit.reporting.page_records import Report
from edgevit.reporting.picture import plot
from edgevit.reporting.renderer import render, write

__all__ = ["Report", "ReportOptions", "collect", "plot", "render", "write"]
