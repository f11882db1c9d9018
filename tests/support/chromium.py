"""A real browser: Debian's Chromium, driven by Playwright, which nox does not have."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page


def expect(what: Page | Locator) -> Any:
    from playwright.sync_api import expect

    return expect(what)


@contextmanager
def running_chromium() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.fail("Chromium is missing. It is installed by: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    quiet = (
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
    )
    root = ("--no-sandbox",) if os.geteuid() == 0 else ()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=["--disable-gpu", "--disable-quic", *quiet, *root],
            # The back button shall work as it does for people, who have this cache.
            ignore_default_args=["--disable-back-forward-cache"],
        )
        yield browser
        browser.close()


@contextmanager
def browsing(chromium: Browser, url: str) -> Iterator[Page]:
    context = chromium.new_context(base_url=url, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(10_000)
    yield context.new_page()
    context.close()


def add(page: Page, *products: str) -> None:
    """Put them into the cart of the shop that the page shows."""
    for product in products:
        page.get_by_role("button", name=f"Add {product} to the cart").click()
        expect(page.locator(".flash")).to_have_text(f"{product} is in your cart.")
