"""Pages opened in a real browser: Chromium, driven by Playwright.

A page that a test opens may log no error, may raise none, and may ask for nothing but files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers.programs import program

NAMES = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
LOCAL = ("file:", "data:", "blob:")

OpenPage = Callable[..., Any]

CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const part = (x) => ((x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const found = rgb(getComputedStyle(element).backgroundColor);
      if (found[3] === 255) return found;
    }
    return [255, 255, 255];
  };
  const least = {};
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest("script, .skip, .unseen")) continue;
    const [a, b] = [light(rgb(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) least[element.className || element.tagName] = ratio;
  }
  return least;
}
"""
"""Texts that stand out less than 4.5 to 1 (WCAG 2.2, success criterion 1.4.3), and by how much."""

AXE = {
    "resultTypes": ["violations"],
    "rules": {"label-content-name-mismatch": {"enabled": True}},  # not among axe-core's own choice
}


@dataclass
class Watch:
    """What pages have done that they may not do."""

    found: list[str] = field(default_factory=list)
    local: tuple[str, ...] = LOCAL

    def over(self, page: Any) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.found.append(f"error: {error}"))
        page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.found.append(f"console {message.type}: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith(self.local):
            self.found.append(f"request: {request.url}")


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[..., Any]]:
    """Start Chromium with further arguments.

    One for each module: Playwright's loop is in the way of others in its thread.
    """
    from playwright import sync_api  # here: every test run reads this module

    path = program(*NAMES)
    browsers = []
    with sync_api.sync_playwright() as playwright:

        def launch(*args: str) -> Any:
            # Its sandbox does not start for root, nor in most containers; only our own pages are
            # shown.
            arguments = ["--no-sandbox", *args]
            browsers.append(playwright.chromium.launch(executable_path=path, args=arguments))
            return browsers[-1]

        yield launch
        for browser in browsers:
            browser.close()


@pytest.fixture(scope="module")
def chromium(launch: Callable[..., Any]) -> Any:
    """Chromium, one for each module."""
    return launch()


@pytest.fixture
def watch() -> Iterator[Watch]:
    """What went wrong on the pages of a test. One that provokes it empties ``found`` itself."""
    watch = Watch()
    yield watch
    assert watch.found == []


@pytest.fixture
def open_page(chromium: Any, launch: Callable[..., Any], watch: Watch) -> Iterator[OpenPage]:
    """``open_page(path, **context_options)``: the page, watched until the test ends.

    The path may be an address: the page may then ask its server. A ``script`` is run before the
    page's own. With ``keeps``, files share one site, whose storage outlives a reload; otherwise
    Chromium loses what a file has stored once in twenty times. The other options are those of
    Playwright's ``new_context``: ``viewport``, ``color_scheme``.
    """
    contexts = []

    def open_page(path: Path | str, script: str = "", keeps: bool = False, **options: Any) -> Any:
        address = path if isinstance(path, str) else path.absolute().as_uri()
        if isinstance(path, str):
            watch.local = (*watch.local, "/".join(path.split("/")[:3]))
        browser = launch("--allow-file-access-from-files") if keeps else chromium
        context = browser.new_context(accept_downloads=True, **options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        if script:
            page.add_init_script(script)
        watch.over(page)
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()


def wait_until(page: Any, expression: str, timeout_s: float = 10.0) -> None:
    """Wait for JavaScript to be true. Playwright's own way needs `eval`, which pages forbid."""
    end = time.monotonic() + timeout_s
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"waited for {expression}"
        time.sleep(0.02)


def axe_findings(page: Any) -> dict[str, list[str]]:
    """What axe-core finds serious or worse on a page: rule -> the elements."""
    from axe_playwright_python import sync_playwright  # here, as Playwright itself

    found = sync_playwright.Axe().run(page, options=AXE).response["violations"]
    return {
        each["id"]: [node["html"] for node in each["nodes"]]
        for each in found
        if each["impact"] in ("serious", "critical")
    }
