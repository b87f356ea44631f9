# SPDX-License-Identifier: BSD-3-Clause
"""What a researcher does with the pages: the hub's and JupyterLab's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Response, expect

from .cluster import Account

START = 180_000
"""Milliseconds for a job to start and its JupyterLab to appear."""


class Album:
    """Numbered pictures of what was seen, in one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("[0-9][0-9]-*.png"):
            old.unlink()
        self._folder = folder
        self._numbers: Iterator[int] = count(1)

    def path(self, name: str) -> Path:
        """Where the next picture goes."""
        return self._folder / f"{next(self._numbers):02}-{name}.png"


class Researcher:
    """One person with a browser of her own."""

    def __init__(
        self, browser: Browser, url: str, account: Account, album: Album, language: str = "en-GB"
    ) -> None:
        self._context = browser.new_context(
            viewport={"width": 1280, "height": 860}, locale=language
        )
        self._context.set_default_timeout(30_000)
        self.page = self._context.new_page()
        self.url = url
        self.account = account
        self._album = album

    def close(self) -> None:
        """Close the browser window."""
        self._context.close()

    def picture(self, name: str) -> None:
        """Keep what is on the screen."""
        self.page.screenshot(path=self._album.path(name), animations="disabled")

    # --- the hub's pages ---------------------------------------------------------------------

    def open(self, path: str = "") -> Response:
        """Go to a page below the hub's address."""
        response = self.page.goto(f"{self.url}{path}")
        assert response is not None
        return response

    def log_in(self, password: str | None = None) -> None:
        """Fill in the login form that is on the screen."""
        self.page.get_by_label("Username").fill(self.account.name)
        self.page.get_by_label("Password:").fill(password or self.account.password)
        with self.page.expect_navigation():
            self.page.locator("#login_submit").click()

    def enter(self) -> None:
        """Log in, or fail with what the page says."""
        self.open("/hub/login")
        self.log_in()
        refusal = self.page.locator(".login_error")
        assert refusal.count() == 0, f"{self.account.name} at {self.url}: {refusal.inner_text()}"

    def choose(self, profile: str) -> None:
        """Select a profile of the menu and press Start."""
        self.page.locator(f'input[name="profile"][value="{profile}"]').check()
        self.page.locator("#spawn_form button[type=submit]").click()

    def await_message(self, words: str, picture: str) -> None:
        """Wait until the page of a starting server says something, and keep a picture of it."""
        expect(self.page.locator("#progress-message")).to_contain_text(words, timeout=START)
        self.picture(picture)

    def await_lab(self, server: str = "") -> None:
        """Wait until the browser is in JupyterLab of a server ('' is the default one)."""
        self.page.wait_for_url(f"{self.server_url(server)}/lab**", timeout=START)
        tabs = self.page.locator("#jp-main-dock-panel .lm-TabBar-tab")
        expect(tabs.first).to_be_visible(timeout=START)
        expect(self.page.locator("#jupyterlab-splash")).to_have_count(0)

    def open_home(self) -> None:
        """Go to the home page, and wait until its buttons do something."""
        self.open("/hub/home")
        self.page.wait_for_function("window._jupyterhub_page_loaded")

    def add_server(self, name: str) -> None:
        """Enter a name below "Named Servers" of the home page and press the button beside it."""
        self.open_home()
        self.page.get_by_label("server name").fill(name)
        self.page.get_by_role("button", name="Add New Server").click()

    def open_menu_of(self, name: str) -> None:
        """Press "start" in a named server's row of the home page."""
        row = self.page.locator("tr.home-server-row", has_text=name)
        row.get_by_role("button", name="start").click()

    def stop_server(self) -> None:
        """Press "Stop My Server" on the home page and wait until it offers to start again."""
        self.open_home()
        self.page.locator("#stop").click()
        expect(self.page.locator("#stop")).to_be_hidden(timeout=60_000)

    def server_url(self, server: str = "") -> str:
        """Address of a server of hers."""
        return f"{self.url}/user/{self.account.name}" + (f"/{server}" if server else "")

    # --- the interfaces behind the pages -------------------------------------------------------

    def hub_api(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Ask the hub's REST interface as this page would; status and answer."""
        if not self.page.url.startswith(f"{self.url}/hub/"):
            self.open_home()
        status, answer = self.page.evaluate(
            """async ([url, method, body]) => {
                const response = await fetch(url, {
                    method,
                    headers: {
                        "Content-Type": "application/json",
                        "X-XSRFToken": window.jhdata.xsrf_token,
                    },
                    body: body === null ? undefined : JSON.stringify(body),
                });
                const text = await response.text();
                return [response.status, text ? JSON.parse(text) : null];
            }""",
            [f"{self.url}/hub/api{path}", method, body],
        )
        return int(status), answer

    def hub_is_up(self) -> bool:
        """Whether the hub itself answers behind the proxy."""
        return self._context.request.get(f"{self.url}/hub/health").ok

    def start_by_api(self, server: str, profile: str) -> tuple[int, Any]:
        """Ask for a named server without a page."""
        path = f"/users/{self.account.name}/servers/{server}"
        return self.hub_api("POST", path, {"profile": profile})

    def servers(self) -> dict[str, Any]:
        """Her servers that run or are on their way, by name."""
        _, user = self.hub_api("GET", f"/users/{self.account.name}")
        servers: dict[str, Any] = user["servers"]
        return servers

    def remove_server(self, name: str) -> None:
        """Stop a named server, if it runs, and forget it."""
        path = f"/users/{self.account.name}/servers/{name}"
        self.hub_api("DELETE", path, {"remove": True})

    def remove_servers(self) -> None:
        """Stop all her servers and forget the named ones."""
        _, user = self.hub_api("GET", f"/users/{self.account.name}?include_stopped_servers=1")
        for name in user["servers"]:
            if name:
                self.remove_server(name)
            else:
                self.hub_api("DELETE", f"/users/{self.account.name}/server")

    def notebook(self, name: str, server: str = "") -> dict[str, Any]:
        """The cells of a saved notebook by their id."""
        response = self._context.request.get(f"{self.server_url(server)}/api/contents/{name}")
        assert response.ok, f"{response.status} {response.text()}"
        return {cell["id"]: cell for cell in response.json()["content"]["cells"]}

    # --- JupyterLab ----------------------------------------------------------------------------

    def open_notebook(self, name: str) -> None:
        """Open a notebook from the file browser; its kernel starts by itself."""
        entry = self.page.locator(".jp-DirListing-item", has_text=name)
        entry.dblclick()
        expect(self.page.locator(".jp-NotebookPanel:visible .jp-Cell").first).to_be_visible()
        expect(self.page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=60_000)
        expect(self.page.locator(".jp-Dialog")).to_have_count(0)

    def run_all(self) -> None:
        """Menu Run, Run All Cells; returns when the kernel works."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text="Run").click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        expect(self._indicator()).to_have_attribute("data-status", "busy")

    def await_idle(self, seconds: float) -> None:
        """Wait until the notebook on the screen has no cell left to run."""
        expect(self._indicator()).to_have_attribute("data-status", "idle", timeout=seconds * 1000)

    def save(self) -> None:
        """Save the notebook on the screen, and wait until it is saved."""
        self.page.keyboard.press("Control+s")
        expect(self.page.locator(".jp-NotebookPanel:visible.jp-mod-dirty")).to_have_count(0)
        tab = self.page.locator("#jp-main-dock-panel .lm-TabBar-tab.lm-mod-current.jp-mod-dirty")
        expect(tab).to_have_count(0)

    def show(self, number: int, what: str) -> Locator:
        """Scroll one of the notebook's pictures or tables (0 is the first) into view."""
        seen = self.page.locator(f".jp-NotebookPanel:visible .jp-OutputArea-output {what}")
        seen.nth(number).scroll_into_view_if_needed()
        expect(seen.nth(number)).to_be_visible()
        return seen.nth(number)

    def show_dask(self, panel: str) -> None:
        """Open a panel of the dask cluster that the notebook on the screen has started."""
        self.page.get_by_role("tab", name="Dask", exact=True).click()
        self.page.locator("[title='Auto-detect dashboard URL']").click()
        name = f'.dask-DashboardListing-list button[value="{panel}"]'
        self.page.locator(name).click()
        frame = self.page.frame_locator(f"iframe[src*=individual-{panel.lower()}]")
        expect(frame.locator(".bk-DataTable").first).to_be_visible()

    def _indicator(self) -> Locator:
        return self.page.locator(".jp-NotebookPanel:visible .jp-Notebook-ExecutionIndicator")
