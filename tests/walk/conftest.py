# SPDX-License-Identifier: BSD-3-Clause
"""The walk needs a running cluster: pytest tests/walk --cluster FILE [--artifacts DIR].

FILE is what `scripts/demo status --json` prints. The walk stops the servers that the researchers
have, overwrites meteo1's era5-mean.ipynb, and restarts the hub. Chromium is $GANYMEDE_CHROMIUM, or
/usr/bin/chromium.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from .browser import Album, Researcher
from .cluster import Cluster

CHROMIUM_FLAGS = [
    "--no-sandbox",  # there is no user namespace in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the cluster is, and where the pictures go."""
    parser.addoption("--cluster", type=Path, help="JSON of scripts/demo status --json")
    parser.addoption("--artifacts", type=Path, default=Path("artifacts/walk"), help="for pictures")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """One step stands on the one before: stop at the first that fails. Be patient with pages."""
    if config.getoption("--cluster"):
        config.option.maxfail = 1
    expect.set_options(timeout=30_000)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep a picture of what each person of a failed step sees."""
    report = yield
    if report.when == "call" and report.failed:
        for person in item.funcargs.values():
            if isinstance(person, Researcher):
                person.picture(f"failed-{person.account.name}")
    return report


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """The cluster under test."""
    description: Path | None = request.config.getoption("--cluster")
    if description is None:
        pytest.fail("The walk needs --cluster FILE, made by: scripts/demo status --json > FILE")
    return Cluster(description)


@pytest.fixture(scope="session")
def album(request: pytest.FixtureRequest) -> Album:
    """The pictures of this walk."""
    folder: Path = request.config.getoption("--artifacts")
    return Album(folder)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all; each researcher has her own cookies in it."""
    program = os.environ.get("GANYMEDE_CHROMIUM", "/usr/bin/chromium")
    if not Path(program).exists():
        pytest.fail(f"{program} is missing: install the package chromium, or set GANYMEDE_CHROMIUM")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def meteo1(browser: Browser, cluster: Cluster, album: Album) -> Iterator[Researcher]:
    """The researcher who takes the walk."""
    yield from _researcher(browser, cluster, album, "meteo1")


@pytest.fixture(scope="session")
def meteo2(browser: Browser, cluster: Cluster, album: Album) -> Iterator[Researcher]:
    """Her colleague."""
    yield from _researcher(browser, cluster, album, "meteo2")


def _researcher(
    browser: Browser, cluster: Cluster, album: Album, name: str
) -> Iterator[Researcher]:
    researcher = Researcher(browser, cluster.url, cluster.accounts[name], album)
    yield researcher
    researcher.close()


@pytest.fixture(scope="session", autouse=True)
def clean_slate(browser: Browser, cluster: Cluster, album: Album) -> Iterator[None]:
    """No server runs before the walk, and none is left behind."""
    _tidy_up(browser, cluster, album)
    yield
    cluster.delay_jobs(0)
    _tidy_up(browser, cluster, album)


def _tidy_up(browser: Browser, cluster: Cluster, album: Album) -> None:
    for account in cluster.accounts.values():
        if account.access:
            researcher = Researcher(browser, cluster.url, account, album)
            researcher.enter()
            researcher.remove_servers()
            researcher.close()
            cluster.await_no_job(account.name)
            cluster.tidy_home(account.name)
