# SPDX-License-Identifier: BSD-3-Clause
"""T5, A8, A9: what a job inherits, whose job it is, and what its owner does to its log."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from tests.pitfalls.bed import Bed, prepared, reached, stays


@pytest.mark.row("T5")
def test_the_notebook_finds_its_own_programs(bed: Bed) -> None:
    """Torque's login shell sets PATH anew; the environment of the notebook comes first again."""
    ana = bed.researcher()
    ana.run()
    environment = json.loads((ana.home() / "environment.json").read_text())
    first = environment["PATH"].split(":")[0]
    assert first == os.path.realpath(bed.root / "env" / "bin")


@pytest.mark.row("T5")
def test_what_a_job_writes_is_its_owner_s_alone(bed: Bed) -> None:
    """Whatever umask the queue gives it; this one gives that of the hub's start, 022."""
    ana = bed.researcher()
    before = set(ana.home().rglob("*"))
    ana.run()
    fresh = [path for path in ana.home().rglob("*") if path not in before and path.is_file()]
    assert fresh
    for path in fresh:
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.row("A8")
def test_a_forged_tag_makes_no_job_somebody_else_s(own_bed: Bed) -> None:
    """Everybody can read the tags of others in the queue, and submit a job that bears one.

    The hub is killed before it has read the id of ana's job; eva's job bears the same tag.
    """
    own_bed.queue.knob("schedule", "hold")
    own_bed.queue.knob("qsub", "late 30")
    own_bed.start()
    ana, eva = own_bed.researcher(), own_bed.researcher()
    own_bed.queue.home(eva.name)
    ana.start()
    prepared("the queue has ana's job", ana.jobs)
    own_bed.kill()
    own_bed.queue.reset()
    number = ana.jobs()[0]
    forged = own_bed.queue.script(number).replace("exec ", "sleep 60; exec ")
    submit = [f"{own_bed.queue.bin}/sudo", "-n", "-u", eva.name, f"{own_bed.queue.bin}/qsub"]
    subprocess.run(submit, input=forged, text=True, check=True, timeout=20, capture_output=True)
    hers = max(eva.jobs())
    # The queue forgets ana's: only the forgery is left to be found.
    own_bed.queue.change(number, state="C", exit_status=271)
    own_bed.start()
    stays(
        "ana is not given eva's job",
        lambda: f"{hers}.encina" not in json.dumps(ana.model()),
        6,
    )


FIFO = 'rm -f "$log"; mkfifo "$log"'
ENDLESS = 'rm -f "$log"; ln -s /dev/zero "$log"'
GONE = 'rm -rf "${log%/*}"'


@pytest.mark.row("A9")
@pytest.mark.parametrize("trick", [FIFO, ENDLESS, GONE], ids=["pipe", "endless", "gone"])
def test_a_log_that_is_none_delays_nothing(bed: Bed, trick: str) -> None:
    """The log is in the hands of its owner: she may put anything in its place."""
    ana = bed.researcher()
    find = 'log=$(ls -t "$HOME"/.ganymede/logs/*.log | head -n 1)'
    (ana.home() / "die").write_text(f"sleep 1.5; {find}; {trick}; exit 3")
    ana.start()
    text = ana.failure(seconds=20)
    assert re.search(r"\d+\.encina", text)
    assert len(text) < 32_000
    eva = bed.researcher()
    eva.start()
    reached("others are served meanwhile", eva.ready, 20)
