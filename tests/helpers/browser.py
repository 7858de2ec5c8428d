"""A real browser for the tests: Debian's or any other Chromium on the path, without a network."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium. Skips the test where there is none, but in CI."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip("playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        assert not os.environ.get("CI"), "no chromium on the path"
        pytest.skip("no chromium on the path; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        chromium.close()


@contextmanager
def opened(
    chromium: Any, address: str, *, offline: bool = True, dark: bool = False, width: int = 1200, expected: str | None = None
) -> Iterator[Any]:
    """A page that is ready. At the end, nothing but what is expected may have been said on its console, and no error thrown."""
    context = chromium.new_context(
        offline=offline, color_scheme="dark" if dark else "light", viewport={"width": width, "height": 900}, accept_downloads=True
    )
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"thrown: {error}"))
    try:
        page.goto(address)
        page.wait_for_selector("html[data-ready]", timeout=60_000)
        yield page
        assert [line for line in said if expected is None or expected not in line] == [], said
        assert page.locator("#failed").is_hidden()
    finally:
        context.close()


def scroll_through(page: Any) -> None:
    """As a reader does, so that every plot is drawn."""
    for box in page.locator(".plot").all():
        if box.is_visible():
            box.scroll_into_view_if_needed()
            page.wait_for_function("box => box.dataset.drawn === 'yes'", arg=box.element_handle())


def click_at(page: Any, plot: str, x: float, y: float) -> None:
    """Clicks on a plot at a place in the units of its first axes."""
    page.locator(plot).scroll_into_view_if_needed()
    page.wait_for_function("plot => document.querySelector(plot).dataset.drawn === 'yes'", arg=plot)
    place = page.evaluate(
        """([plot, x, y]) => {
            const box = document.querySelector(plot), { xaxis, yaxis } = box._fullLayout, at = box.getBoundingClientRect();
            return [at.left + xaxis._offset + xaxis.l2p(x), at.top + yaxis._offset + yaxis.l2p(y)];
        }""",
        [plot, x, y],
    )
    page.mouse.move(*place)
    page.wait_for_timeout(100)
    page.mouse.click(*place)
