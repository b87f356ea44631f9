# SPDX-License-Identifier: BSD-3-Clause
"""Each test is a claim about a row of docs/pitfalls.md, of our classes or (--stock) the released.

    pytest tests/pitfalls                          ours; nothing may fail
    pytest tests/pitfalls --stock                  the released classes; what fails is listed
    pytest tests/pitfalls/cluster --cluster FILE   ours, or with --stock the released, in a cluster;
                                                   FILE is what `scripts/demo status --json` prints

With --stock the exit status is 0 only when every row fails that docs/pitfalls.md says to fail, and
no test broke down before it came to its claim.
"""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.pitfalls.bed import Bed
from tests.pitfalls.rows import documented, verdicts

LIMIT = 180
"""Seconds for a test that does not say otherwise with `limit`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which classes, and where the cluster is."""
    parser.addoption("--stock", action="store_true", help="test the released classes instead")
    parser.addoption("--cluster", type=Path, help="JSON of scripts/demo status --json")


def pytest_configure(config: pytest.Config) -> None:
    """Describe the markers; many failures are expected of stock, one line for each is enough."""
    config.addinivalue_line("markers", "row(name): the row of docs/pitfalls.md")
    config.addinivalue_line("markers", "limit(seconds): the longest that a test may take")
    if config.getoption("--stock") and config.option.tbstyle == "auto":
        config.option.tbstyle = "line"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The tests of the cluster need one."""
    in_cluster = collection_path.parent.name == "cluster" or collection_path.name == "cluster"
    return True if in_cluster and not config.getoption("--cluster") else None


class TooSlowError(AssertionError):
    """The claim was not reached in time."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """End a test that hangs: what hangs has failed."""
    marker = item.get_closest_marker("limit")
    seconds = marker.args[0] if marker else LIMIT

    def end(_number: int, _frame: FrameType | None) -> None:
        raise TooSlowError(f"not within {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note the row, and whether the claim itself failed or something before it."""
    report = yield
    marker = item.get_closest_marker("row")
    if marker is not None and (report.failed or report.when == "call"):
        claim = call.excinfo is None or isinstance(call.excinfo.value, AssertionError)
        verdict = "passes" if report.passed else "fails" if claim else "broken"
        report.user_properties.append(("row", (marker.args[0], verdict)))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """On stock, failing is what is expected of a row that is documented to fail."""
    if session.config.getoption("--stock") and not hasattr(session.config, "workerinput"):
        found = verdicts(session.config)
        expected = documented()
        wrong = [row for row, verdict in found.items() if verdict != expected.get(row)]
        session.exitstatus = 1 if wrong or not found else 0
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The list of rows."""
    config = terminalreporter.config
    if not config.getoption("--stock"):
        return
    found = verdicts(config)
    expected = documented()

    def named(verdict: str) -> str:
        return ", ".join(row for row in found if found[row] == verdict) or "none"

    terminalreporter.section("stock")
    terminalreporter.write_line(
        f"stock: {len(found)} rows, failing: {named('fails')}; passing: {named('passes')};"
        f" without a verdict: {named('broken')}"
    )
    for row, verdict in found.items():
        if verdict != expected.get(row):
            told = expected.get(row, "nothing")
            terminalreporter.write_line(f"  {row} {verdict}, docs/pitfalls.md says: {told}")


@pytest.fixture(scope="session")
def stock(request: pytest.FixtureRequest) -> bool:
    """Whether the released classes are under test."""
    return bool(request.config.getoption("--stock"))


@pytest.fixture(scope="module")
def _shared_bed(tmp_path_factory: pytest.TempPathFactory, stock: bool) -> Iterator[Bed]:
    with Bed(tmp_path_factory.mktemp("bed"), stock=stock) as bed:
        bed.start()
        yield bed


@pytest.fixture
def bed(_shared_bed: Bed) -> Iterator[Bed]:
    """A running hub that the tests of a module use, each with users of its own."""
    _shared_bed.tidy()
    yield _shared_bed
    _shared_bed.tidy()


@pytest.fixture
def own_bed(tmp_path: Path, stock: bool) -> Iterator[Bed]:
    """A hub of this test alone, which configures and starts it."""
    with Bed(tmp_path / "bed", stock=stock) as bed:
        yield bed
