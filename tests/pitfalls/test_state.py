# SPDX-License-Identifier: BSD-3-Clause
"""S7, R2, R3: what is stored names a job, and a restart finds every job again."""

from __future__ import annotations

import json

import pytest

from tests.pitfalls.bed import Bed, Researcher, prepared, reached, stays
from tests.unit.spawner.hub_process import PROFILES

UNREACHABLE = "fail 111 qstat: cannot connect to server encina (errno=111) Connection refused"

CLASS_LEVEL = """
from traitlets import List
from wrapspawner import ProfilesSpawner
profiles = c.ProfilesSpawner.profiles
del c.ProfilesSpawner.profiles
class Menu(ProfilesSpawner):
    # A table of the class, as a site's own subclass has it.
    profiles = List(profiles, config=False)
c.JupyterHub.spawner_class = Menu
"""


def state_of(bed: Bed, ana: Researcher) -> str:
    """What the hub's database keeps of her servers."""
    rows = bed.database(
        "select s.state from spawners s join users u on u.id = s.user_id where u.name = ?", ana.name
    )
    return " ".join(row[0] or "" for row in rows)


# --- S7: the job, not the configuration ------------------------------------------------------


@pytest.mark.row("S7")
def test_the_state_names_the_job_and_no_configuration(bed: Bed) -> None:
    ana = bed.researcher()
    number = ana.run({"profile": "himem4"})
    state = state_of(bed, ana)
    assert f"{number}.encina" in state
    for value in ("32gb", 'himem"', "172800", "child_conf"):
        assert value not in state


@pytest.mark.row("S7")
def test_an_old_server_does_not_change_the_profile_of_a_new_one(own_bed: Bed) -> None:
    if own_bed.stock:
        own_bed.extra = CLASS_LEVEL
    own_bed.start()
    ana = own_bed.researcher()
    ana.run()
    own_bed.kill()
    own_bed.write_profiles([{**PROFILES[0], "memory": "1600mb"}, *PROFILES[1:]])
    own_bed.start()
    reached("her server is found again", ana.ready, 20)
    eva = own_bed.researcher()
    assert "mem=1600mb" in own_bed.queue.script(eva.run())


@pytest.mark.row("S7")
def test_a_server_outlives_its_profile(own_bed: Bed) -> None:
    own_bed.start()
    ana = own_bed.researcher()
    number = ana.run()
    own_bed.kill()
    own_bed.write_profiles([{**PROFILES[0], "key": "renamed"}, *PROFILES[1:]])
    own_bed.start()
    reached("her server is found again", ana.ready, 20)
    stays("and stays", ana.ready, 3)
    assert ana.jobs() == [number]
    assert ana.stop().status_code in (202, 204)
    reached("it can be stopped", lambda: not ana.jobs())


# --- R2: a restart while the queue is silent -------------------------------------------------


@pytest.mark.row("R2")
def test_a_restart_while_the_queue_is_silent_loses_nobody(own_bed: Bed) -> None:
    own_bed.start()
    ana, eva = own_bed.researcher(), own_bed.researcher()
    ana.run()
    eva.run()
    jobs = own_bed.queue.jobs()
    own_bed.kill()
    own_bed.queue.knob("qstat", UNREACHABLE)
    own_bed.start()
    for person in (ana, eva):
        reached("her server is found again", person.ready, 20)
    stays("as long as the queue is silent", lambda: ana.ready() and eva.ready(), 3)
    own_bed.queue.reset()
    stays("and when it speaks again", lambda: ana.ready() and eva.ready(), 3)
    assert own_bed.queue.jobs() == jobs


# --- R3: a hub that is killed in the middle of a start ---------------------------------------


@pytest.mark.row("R3")
def test_a_queued_job_has_an_owner_after_kill_9(own_bed: Bed) -> None:
    own_bed.start()
    ana = own_bed.researcher()
    number = ana.queue_one()
    own_bed.kill()
    own_bed.queue.reset()
    own_bed.start()
    own_bed.queue.start(number)
    reached("her server becomes ready", ana.ready, 30)
    assert ana.jobs() == [number], "with that very job"


@pytest.mark.row("R3")
@pytest.mark.parametrize("again", [False, True], ids=["waits", "clicks again"])
def test_a_job_whose_id_was_never_read_has_an_owner_or_is_deleted(
    own_bed: Bed, again: bool
) -> None:
    """Killed between the submission and its answer: the queue has the job, the hub no id."""
    own_bed.queue.knob("schedule", "hold")
    own_bed.queue.knob("qsub", "late 30")
    own_bed.start()
    ana = own_bed.researcher()
    ana.start()
    prepared("the queue has the job", ana.jobs)
    own_bed.kill()
    own_bed.queue.reset()
    own_bed.start()
    if again:
        ana.start()
    reached(
        "one job and one server that is hers, or none of both",
        lambda: len(ana.jobs()) == bool(ana.model()),
        30,
    )
    stays("and so it remains", lambda: len(ana.jobs()) <= 1, 3)


@pytest.mark.row("R3")
def test_a_job_that_nobody_wants_any_more_is_deleted(own_bed: Bed) -> None:
    """The hub is killed with a server running; its database is lost."""
    own_bed.start()
    ana = own_bed.researcher()
    number = ana.run()
    own_bed.kill()
    for path in own_bed.root.glob("hub.sqlite*"):
        path.unlink()
    own_bed.start()
    reached("no job without an owner", lambda: number not in ana.jobs(), 40)


@pytest.mark.row("R3")
def test_the_job_is_stored_before_anything_else(bed: Bed) -> None:
    ana = bed.researcher()
    number = ana.queue_one()
    reached("the database names it", lambda: f"{number}.encina" in state_of(bed, ana), 2)
    assert json.loads(state_of(bed, ana))
