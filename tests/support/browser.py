"""A headless Chromium for tests, Debian's own, driven by Playwright, which would otherwise fetch one of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.speed import seconds
from support.system import describe_missing

# Screenshots, in a folder that git ignores.
SCREENS = Path(__file__).parents[2] / "test-artefacts" / "report"
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 375, "height": 812}
# Present once the chart is drawn.
DRAWN = "html[data-drawn]"
_TIMEOUT_MS = 60_000


def missing() -> str:
    """Return why there is no browser, with its remedy; empty where there is one."""
    if reason := describe_missing("chromium"):
        return reason
    return "" if importlib.util.find_spec("playwright") else "no Playwright: pip install 'edgevit[test]'"


class Browser:
    """Chromium. It lists the requests of all its pages, and their messages: console lines, errors and dialogs."""

    def __init__(self, chromium: Any) -> None:
        self._chromium = chromium
        self._finished: list[Any] = []
        self.requests: list[str] = []
        self.messages: list[str] = []

    def open(self, file: Path, *, viewport: dict[str, int] = DESKTOP, dark: bool = False, touch: bool = False) -> Any:
        """Open a page with this file and return it when its chart is drawn.

        A page that a test has finished with is taken again, because it has compiled Plotly, which takes a second.
        """
        if self._finished and not touch:
            page = self._finished.pop()
            page.set_viewport_size(viewport)
            page.emulate_media(color_scheme="dark" if dark else "light")
        else:
            page = self._new_page(viewport, dark, touch)
        page.goto(file.as_uri())
        page.wait_for_selector(DRAWN, state="attached")
        return page

    def finish(self, page: Any) -> None:
        """Keep a page, which was not opened for touch, for the next file."""
        self._finished.append(page)

    def _new_page(self, viewport: dict[str, int], dark: bool, touch: bool) -> Any:
        page = self._chromium.new_page(viewport=viewport, color_scheme="dark" if dark else "light", has_touch=touch)
        page.set_default_timeout(seconds(_TIMEOUT_MS))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.messages.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.messages.append(f"error: {error}"))
        page.on("dialog", self._dismiss)
        return page

    def _dismiss(self, dialog: Any) -> None:
        self.messages.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Launch a browser, which lives until the end of the block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        try:
            yield Browser(chromium)
        finally:
            chromium.close()


def main(file: Path, image: Path) -> None:
    """Save the first screen of a page for documents: python tests/support/browser.py report.html docs/report.png"""
    with launched() as browser:
        page = browser.open(file, viewport={"width": 1440, "height": 960})
        page.fill("input[name=budget]", "25")
        page.evaluate("document.activeElement.blur()")
        page.screenshot(path=image)


def picture(page: Any, name: str) -> Path:
    """Save a screenshot of the whole page and return its path."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    path = SCREENS / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    return path


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
