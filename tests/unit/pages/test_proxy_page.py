# SPDX-License-Identifier: BSD-3-Clause
"""The proxy's own page, shown while the hub or a notebook does not answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

PAGE = Path(__file__).parents[3] / "roles/proxy/files/errors/error.html"


class Door(BaseHTTPRequestHandler):
    """Answers as the proxy does while what is behind it does not, then as what is behind it."""

    server: Proxy

    def do_GET(self) -> None:
        self._answer(PAGE.read_bytes() if self.server.down else b"<h1>Here I am</h1>")

    def do_HEAD(self) -> None:
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.send_response(503 if self.server.down else 200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Be silent."""


class Proxy(ThreadingHTTPServer):
    """A server that does not answer, until it does."""

    down = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    server = Proxy(("127.0.0.1", 0), Door)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(locale="en-GB")
    yield context.new_page()
    context.close()


@pytest.mark.parametrize(
    ("path", "heading"),
    [
        ("/ganymede/hub/home", "The hub does not answer"),
        ("/ganymede/", "The hub does not answer"),
        ("/ganymede/hub/user/ana/lab", "The hub does not answer"),
        ("/ganymede/user/ana/lab", "Your server does not answer"),
        ("/user/ana/second/lab?x=/user/", "Your server does not answer"),
    ],
)
def test_it_says_what_does_not_answer(proxy: Proxy, page: Page, path: str, heading: str) -> None:
    page.goto(proxy.url + path)
    assert page.locator("h1:visible").all_inner_texts() == [heading]


@pytest.mark.parametrize(
    ("language", "headings"),
    [
        ("es-MX", ["Su servidor no responde"]),
        ("de-DE", ["Your server does not answer", "Su servidor no responde"]),
    ],
)
def test_it_speaks_the_language_of_the_browser(
    proxy: Proxy, chromium: Browser, language: str, headings: list[str]
) -> None:
    context = chromium.new_context(locale=language)
    page = context.new_page()
    page.goto(f"{proxy.url}/ganymede/user/ana/lab")
    assert page.locator("h1:visible").all_inner_texts() == headings
    context.close()


@pytest.mark.parametrize(
    ("path", "home"),
    [
        ("/ganymede/user/ana/lab", "/ganymede/hub/home"),
        ("/user/ana/lab", "/hub/home"),
        ("//elsewhere.example/user/ana", "//elsewhere.example/hub/home"),
    ],
)
def test_its_link_stays_on_this_site(proxy: Proxy, page: Page, path: str, home: str) -> None:
    page.goto(proxy.url + path)
    assert page.locator("a:visible").get_attribute("href") == proxy.url + home


def test_it_goes_on_when_there_is_an_answer(proxy: Proxy, page: Page) -> None:
    page.goto(f"{proxy.url}/ganymede/hub/home")
    proxy.down = False
    expect(page.get_by_text("Here I am")).to_be_visible(timeout=20_000)


def test_it_needs_nothing_from_elsewhere(proxy: Proxy, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{proxy.url}/ganymede/hub/home")
    assert set(asked) <= {f"{proxy.url}/ganymede/hub/home", f"{proxy.url}/favicon.ico"}
