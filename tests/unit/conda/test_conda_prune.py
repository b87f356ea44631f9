# SPDX-License-Identifier: BSD-3-Clause
"""Which versions a pruning removes, and which it may not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.unit.conda.environments import ROLE, Demo, load_file, load_versions

SPECS = (["tool=1.0"], ["tool=2.0"], ["tool=1.0", "large"], ["tool=2.0", "large"])
DAY = 86400


@pytest.fixture
def chain(demo: Demo) -> tuple[Demo, list[str]]:
    """Four versions that were in service one after another, a day each; the last one is."""
    names: list[str] = []
    for specs in SPECS:
        if names:
            demo.backdate(DAY)
        names.append(demo.serve(*specs))
    return demo, names


def ago(days: float) -> int:
    return int(time.time() - days * DAY)


def test_the_last_two_are_kept(chain: tuple[Demo, list[str]]) -> None:
    demo, names = chain
    preview = demo.prune(_ansible_check_mode=True)
    assert preview["changed"]
    assert demo.versions() == set(names)
    answer = demo.prune()
    assert [line.replace("would be", "is") for line in preview["report"]] == answer["report"]
    assert [line.split()[0] for line in answer["report"]] == names[:2]
    assert preview["diff"]["before"].split() == names[:2]
    assert demo.versions() == set(names[2:])
    assert not demo.prune()["changed"]
    demo.switch()
    assert demo.serving() == names[2], "there is still a way back"


def test_keep_counts_the_one_in_service(chain: tuple[Demo, list[str]]) -> None:
    demo, names = chain
    demo.prune(keep=3)
    assert demo.versions() == set(names[1:])
    demo.prune(keep=0)
    assert demo.versions() == {names[3]}, "never the one in service"


def test_after_a_rollback_the_way_back_is_kept(chain: tuple[Demo, list[str]]) -> None:
    demo, names = chain
    demo.switch()
    demo.prune()
    assert demo.versions() == {names[2], names[1]}


def test_a_version_stays_while_a_job_runs_that_began_before_it_left(
    chain: tuple[Demo, list[str]],
) -> None:
    """The first two left service two days ago and one day ago."""
    demo, names = chain
    used = demo.prune(("7.encina", ago(2.5)))
    assert not used["changed"]
    sentence = "stays: may be in use by 7.encina (ada)"
    assert used["report"] == [f"{name} {sentence}" for name in names[:2]]
    later = demo.prune(("8.encina", ago(1.5)))
    assert demo.versions() == set(names[1:])
    assert later["changed"]
    demo.prune(("9.encina", ago(0.5)))
    assert demo.versions() == set(names[2:])


def test_the_clocks_of_the_hosts_may_differ_by_minutes(chain: tuple[Demo, list[str]]) -> None:
    demo, names = chain
    left = demo.history()[1]["time"]
    demo.prune(("7.encina", left + 200))
    assert names[0] in demo.versions()
    demo.prune(("7.encina", left + 400))
    assert names[0] not in demo.versions()


def test_a_job_whose_beginning_is_not_known_may_use_everything(
    chain: tuple[Demo, list[str]],
) -> None:
    demo, names = chain
    demo.prune(("7.encina", 0))
    assert demo.versions() == set(names)


def test_what_is_older_than_the_history_may_have_been_in_service(
    chain: tuple[Demo, list[str]],
) -> None:
    """The history was moved away, and began anew with the last switch."""
    demo, names = chain
    (demo.folder / "history.json").write_text(json.dumps(demo.history()[-1:]))
    demo.prune(("7.encina", ago(0.5)))
    assert demo.versions() == set(names)
    demo.prune()
    assert demo.versions() == set(names[2:])


def test_many_jobs_are_counted_and_some_named(chain: tuple[Demo, list[str]]) -> None:
    demo, _ = chain
    answer = demo.prune(*((f"{number}.encina", ago(9)) for number in range(8)))
    assert answer["report"][0].endswith("4.encina (ada) and 3 more")


def test_a_process_of_this_host_keeps_its_version(chain: tuple[Demo, list[str]]) -> None:
    """As a hub does that was not restarted."""
    demo, names = chain
    program = demo.folder / names[0] / "bin" / "sleep"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as process:
        answer = demo.prune()
        assert demo.versions() == {names[0], *names[2:]}
        assert any(
            line == f"{names[0]} stays: may be in use by process {process.pid} (of this host)"
            for line in answer["report"]
        )
        process.kill()
    demo.prune()
    assert demo.versions() == set(names[2:])


@pytest.mark.parametrize(("moved", "stays"), [(0, True), (-60, False)])
def test_a_process_that_cannot_be_looked_into_counts_since_it_began(
    chain: tuple[Demo, list[str]], monkeypatch: pytest.MonkeyPatch, moved: int, stays: bool
) -> None:
    """As root in a container, who may not see the programs of others."""
    demo, names = chain
    module = load_file(ROLE / "library" / "conda_prune.py")
    environment = load_versions().Environment(demo.row["root"], "demo")

    readlink = os.readlink

    def refused(path: Path) -> str:
        if path.name == "exe":
            raise PermissionError(path)
        return readlink(path)

    program = demo.folder / "current" / "bin" / "sleep"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as process:
        # The version that leaves service now was in it when the process began; or it had left.
        environment.switch(names[2], "forward")
        demo.backdate(-moved)
        monkeypatch.setattr(os, "readlink", refused)
        found = module.users(environment, names[3], module.processes(demo.folder)[1], 1)
        process.kill()
    assert found == ([f"process {process.pid} (of this host)"] if stays else [])


def test_a_version_that_waits_to_be_switched_is_kept(chain: tuple[Demo, list[str]]) -> None:
    """Another site.yml has built it a moment ago."""
    demo, names = chain
    demo.backdate(60)
    waiting = demo.build("tool")["environments"][0]["version"]
    demo.prune()
    assert demo.versions() == {waiting, *names[2:]}


def test_an_interrupted_pruning_is_finished_by_the_next_build(
    chain: tuple[Demo, list[str]],
) -> None:
    """What has lost its mark is no version any more; the journal says that somebody was at work."""
    demo, names = chain
    for mark in (demo.folder / names[0]).glob("specification-*.json"):
        mark.unlink()
    (journal,) = (demo.work / "builds").iterdir()
    journal.write_text("1 killed\n")
    assert demo.build(*SPECS[3])["changed"]
    assert demo.versions() == set(names[1:])


def test_an_environment_that_was_never_built_has_nothing_to_remove(demo: Demo) -> None:
    answer = demo.prune()
    assert not answer["changed"]
    assert not Path(demo.folder).exists()
