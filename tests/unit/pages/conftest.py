# SPDX-License-Identifier: BSD-3-Clause
"""A Chromium that looks at the pages: $GANYMEDE_CHROMIUM, or /usr/bin/chromium."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
OpenPage = Callable[[], Page]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    program = os.environ.get("GANYMEDE_CHROMIUM", "/usr/bin/chromium")
    if not Path(program).exists():
        pytest.fail(f"{program} is missing: install the package chromium, or set GANYMEDE_CHROMIUM")
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Make a page of a browser without cookies; an error of its scripts fails the test."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def open_() -> Page:
        context = chromium.new_context(viewport={"width": 1100, "height": 760}, locale="en-GB")
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        return page

    yield open_
    for context in contexts:
        context.close()
    assert errors == []
