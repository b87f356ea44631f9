# SPDX-License-Identifier: BSD-3-Clause
"""S8-S10, T6: where a token or the hub's own secrets never are."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from tests.pitfalls.bed import Bed, Researcher

SECRETS = {
    "CONFIGPROXY_AUTH_TOKEN": "hub-secret-in-the-environment",
    "JUPYTERHUB_CRYPT_KEY": "0f" * 32,
    "OAUTH_CLIENT_SECRET": "oauth-secret-in-the-environment",
}


@pytest.fixture
def secret_bed(own_bed: Bed, monkeypatch: pytest.MonkeyPatch) -> Bed:
    """A hub with secrets in its environment, as its unit gives them to it."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    own_bed.start()
    return own_bed


def started(bed: Bed) -> tuple[Researcher, int, str]:
    """A researcher, the job of her server, its token."""
    ana = bed.researcher()
    number = ana.run()
    return ana, number, bed.server_token(number)


# --- S8: at rest -----------------------------------------------------------------------------


@pytest.mark.row("S8")
def test_no_token_in_the_database(bed: Bed) -> None:
    _, _, token = started(bed)
    for path in bed.root.glob("hub.sqlite*"):
        assert token.encode() not in path.read_bytes(), path.name


@pytest.mark.row("S8")
def test_no_token_in_what_an_administrator_sees(bed: Bed) -> None:
    ana, number, token = started(bed)
    answer = bed.api("GET", f"/users/{ana.name}").text
    assert f"{number}.encina" in answer
    assert token not in answer
    assert "<Job" not in answer, "the queue's raw answer is not kept"


@pytest.mark.row("S8")
def test_no_token_in_the_log_at_its_most_talkative(bed: Bed) -> None:
    ana, _, token = started(bed)
    ana.stop()
    assert token not in bed.log()
    assert ana.name in bed.log()


# --- S9: the hub's environment ---------------------------------------------------------------


@pytest.mark.row("S9")
def test_no_secret_of_the_hub_reaches_a_command(secret_bed: Bed) -> None:
    ana, _, token = started(secret_bed)
    ana.stop()
    calls = secret_bed.queue.calls()
    assert {"sudo", "qsub", "qstat", "qdel"} <= {os.path.basename(c["argv"][0]) for c in calls}  # noqa: PTH119
    told = json.dumps(calls)
    assert not [secret for secret in (*SECRETS.values(), token) if secret in told]


@pytest.mark.row("S9")
def test_commands_get_an_environment_made_by_name(secret_bed: Bed) -> None:
    started(secret_bed)
    for call in secret_bed.queue.calls():
        # The rest is what the small queue's sudo sets, and Python itself where there is no locale.
        assert set(call["env"]) <= {"PATH", "LANG", "LC_ALL", "TZ"} | {"USER", "HOME", "LC_CTYPE"}


@pytest.mark.row("S9")
def test_no_secret_of_the_hub_reaches_the_job(secret_bed: Bed) -> None:
    ana, number, _ = started(secret_bed)
    environment = (ana.home() / "environment.json").read_text()
    for secret in SECRETS.values():
        assert secret not in environment
        assert secret not in secret_bed.queue.script(number)


# --- S10: the job's attributes ---------------------------------------------------------------


@pytest.mark.row("S10")
@pytest.mark.parametrize("who", ["operator", "owner"])
def test_the_queue_shows_no_token(bed: Bed, who: str) -> None:
    ana, number, token = started(bed)
    shown = subprocess.run(
        [f"{bed.queue.bin}/qstat", "-x"],
        env={"PATH": "/usr/bin:/bin", "USER": ana.name if who == "owner" else "operator"},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout
    assert f"{number}.encina" in shown
    assert token not in shown


@pytest.mark.row("S10")
def test_no_token_in_the_arguments_of_a_command(bed: Bed) -> None:
    ana, _, token = started(bed)
    ana.stop()
    assert not [call for call in bed.queue.calls() if token in " ".join(call["argv"])]


# --- T6: what travels arrives ----------------------------------------------------------------


@pytest.mark.row("T6")
def test_a_name_that_is_not_set_spoils_no_other(
    own_bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site hands two variables on, of which one is not set today."""
    monkeypatch.setenv("SITE_LICENCE", "port@host")
    own_bed.extra = 'c.Spawner.env_keep = ["PATH", "LANG", "SITE_UNSET", "SITE_LICENCE"]\n'
    if own_bed.stock:
        own_bed.extra += 'c.BatchSpawnerBase.req_keepvars_extra = "SITE_UNSET,SITE_LICENCE"\n'
    own_bed.start()
    ana, number, _ = started(own_bed)
    environment = json.loads((ana.home() / "environment.json").read_text())
    assert environment.get("SITE_LICENCE") == "port@host"
    assert not [name for name in environment if re.fullmatch("ITE_.*|name", name)]
    assert not re.search("^#PBS -[vV]", own_bed.queue.script(number), re.MULTILINE)
