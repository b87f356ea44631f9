# SPDX-License-Identifier: BSD-3-Clause
"""Switches: forward, back, and what a kill between two steps leaves."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from tests.unit.conda.environments import Demo, load_versions, run_module


@pytest.fixture
def chain(served: Demo) -> tuple[Demo, str, str, str]:
    """Three versions that were in service one after another."""
    first = served.serving()
    return served, first, served.serve("tool=2.0"), served.serve("tool=1.0", "large")


def test_the_first_version_gets_into_service(demo: Demo) -> None:
    version = demo.build("tool=1.0")["environments"][0]["version"]
    preview = demo.switch(version, _ansible_check_mode=True)
    assert preview["changed"]
    assert not (demo.folder / "current").exists()
    answer = demo.switch(version)
    assert (answer["switches"][0]["before"], demo.serving()) == ("", version)
    assert not demo.switch(version)["changed"]
    assert len(demo.history()) == 1


def test_the_link_is_there_at_every_moment(served: Demo) -> None:
    one = served.serving()
    two = served.build("tool=2.0")["environments"][0]["version"]
    environment = load_versions().Environment(served.row["root"], "demo")
    stop = threading.Event()
    seen: set[str] = set()

    def look() -> None:
        while not stop.is_set():
            seen.add(str((served.folder / "current").readlink()))

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(100):
        environment.switch(two, "forward")
        environment.switch(one, "forward")
    stop.set()
    reader.join(timeout=10)
    assert seen == {one, two}


def test_back_says_from_what_to_what(chain: tuple[Demo, str, str, str]) -> None:
    demo, _, second, third = chain
    preview = demo.switch(_ansible_check_mode=True)
    assert demo.serving() == third
    answer = demo.switch()
    (switch,) = answer["switches"]
    assert preview["switches"] == [switch]
    assert (switch["before"], switch["after"]) == (third, second)
    assert switch["removed"] == ["conda: large", "conda: tool=1.0"]
    assert switch["added"] == ["conda: tool=2.0"]
    (diff,) = answer["diff"]
    assert diff["before"].splitlines() == [third, "conda: large-1.0-0", "conda: tool-1.0-0"]
    assert diff["after"].splitlines() == [second, "conda: tool-2.0-0"]
    assert demo.serving() == second


def test_two_steps_back_lead_further_back(chain: tuple[Demo, str, str, str]) -> None:
    demo, first, second, third = chain
    demo.switch()
    demo.switch()
    assert demo.serving() == first
    refused = demo.switch()
    assert "demo has no previous version" in refused["msg"]
    assert "Nothing was changed." in refused["msg"]
    assert demo.serving() == first
    demo.serve("tool=1.0", "large")
    assert demo.serving() == third, "the specification was not changed: forward again"
    demo.switch()
    assert demo.serving() == first, "what was in service before, not what lies between"
    assert second in demo.versions()


def test_a_version_that_is_gone_is_passed_over(chain: tuple[Demo, str, str, str]) -> None:
    demo, first, second, _ = chain
    (mark,) = (demo.folder / second).glob("specification-*.json")
    mark.unlink()
    demo.switch()
    assert demo.serving() == first


def test_there_is_nothing_to_go_back_to(served: Demo, demo: Demo) -> None:
    before = served.history()
    assert "demo has no previous version" in served.switch()["msg"]
    assert served.history() == before


def test_a_kill_between_history_and_link_is_no_switch(chain: tuple[Demo, str, str, str]) -> None:
    """The history is written first."""
    demo, first, second, third = chain
    entries = demo.history()
    entries.append({"time": 1, "from": third, "to": first, "kind": "forward"})
    (demo.folder / "history.json").write_text(json.dumps(entries))
    (demo.folder / ".current.new").symlink_to("nowhere")
    demo.switch()
    assert demo.serving() == second
    assert [entry["to"] for entry in demo.history()] == [first, second, third, second]
    assert not (demo.folder / ".current.new").is_symlink()


def test_a_version_that_is_not_complete_gets_not_into_service(served: Demo) -> None:
    before = served.serving()
    (served.folder / "demo-0").mkdir()
    for version in ("demo-0", "demo-1"):
        refused = served.switch(version)
        assert f"{version} is not there any more" in refused["msg"]
    assert served.serving() == before


def test_a_history_that_cannot_be_read_is_named(served: Demo) -> None:
    (served.folder / "history.json").write_text("{")
    refused = served.switch()
    assert f"{served.folder}/history.json cannot be read" in refused["msg"]


def test_everybody_may_read_the_history(served: Demo) -> None:
    assert (served.folder / "history.json").stat().st_mode & 0o777 == 0o644


def test_a_failure_does_not_hide_what_was_switched(served: Demo, tmp_path: Path) -> None:
    version = served.build("tool=2.0")["environments"][0]["version"]
    rows = [{**served.row, "version": version}, {**served.row, "name": "none", "version": "x"}]
    failed = run_module("conda_switch", tmp_path, environments=rows)
    assert failed["changed"]
    assert [switch["after"] for switch in failed["switches"]] == [version]
