# SPDX-License-Identifier: BSD-3-Clause
"""playbooks/validate.yml, run as an administrator runs it: one sentence for each mistake."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

QUEUES = """\
Queue: tintel
    queue_type = Execution
    total_jobs = 0
    resources_max.mem = 8gb
    resources_max.ncpus = 4
    resources_max.walltime = 24:00:00
    enabled = True
    started = True

Queue: himem
    queue_type = Execution
    resources_max.mem = 64gb
    resources_max.walltime = 48:00:00
    enabled = True
    started = True

"""

NODES = (
    "<Data><Node><name>node01</name><state>free</state><np>2</np></Node>"
    "<Node><name>big</name><state>down</state><np>48</np></Node></Data>"
)
SERVER = "create queue tintel\nset server managers = root@encina\n"
OPEN = "set server query_other_jobs = True\n"

# An administrator's table with every kind of mistake, as she would write it.
BAD_TABLES = """\
jupyterhub_profiles:
  - {key: good, display_name: G, queue: tintel, cores: 1, memory: 800mb, walltime: "24:00:00"}
  - {key: extra, display_name: E, queue: tintel, cores: 1, memory: 1gb, walltime: 3600, ncpus: 2}
  - {key: good, display_name: T, queue: tintel, cores: 1, memory: 1gb, walltime: "01:00:00"}
  - {key: unit, display_name: U, queue: tintel, cores: 1, memory: 8 apples, walltime: "01:00:00"}
  - {key: time, display_name: T, queue: tintel, cores: 1, memory: 1gb, walltime: tomorrow}
  - {key: minutes, display_name: M, queue: tintel, cores: 1, memory: 1gb, walltime: "01:75:00"}
  - {key: nowhere, display_name: N, queue: tintle, cores: 1, memory: 1gb, walltime: "01:00:00"}
  - {key: toolong, display_name: T, queue: tintel, cores: 1, memory: 1gb, walltime: "24:00:01"}
  - {key: toobig, display_name: T, queue: tintel, cores: 1, memory: 9gb, walltime: "01:00:00"}
  - {key: toowide, display_name: T, queue: tintel, cores: 8, memory: 1gb, walltime: "01:00:00"}
  - {key: missing, display_name: M, cores: 1, memory: 1gb, walltime: "01:00:00"}
  - {key: wide, display_name: W, queue: himem, cores: 64, memory: 1gb, walltime: "01:00:00"}
  - {key: quoted, display_name: Q, queue: tintel, cores: "4", memory: 1gb, walltime: "01:00:00"}
kernels_table:
  - {name: k1, display_name: One, environment: environments/one.yml, python: "3.11"}
  - {name: k2, display_name: Two}
  - {name: k3, display_name: Three, environment: environments/none.yml, profiles: [good]}
  - {name: k4, display_name: Four, environment: environments/none.yml, profiles: [gone]}
  - {name: notebook, display_name: Five, prefix: /opt/R}
jupyterhub_admin_users: meteo1
ganymede_base_url: ganymede
ganymede_home: /home/username
proxy_tls_certificate: /etc/ssl/hub.pem
ganymede_environments:
  - {name: notebook, root: /software, conda: [python], python_lock: requirements/hib.txt}
jupyterhub_idle_timout: 60
jupyterhub_start_timeout: -5
jupyterhub_query_interval: .nan
jupyterhub_hub_port: 70000
jupyterhub_named_server_limit: five
jupyterhub_default_language: fr
proxy_port: eighty
ganymede_hub_hots: ganymede
"""
# (row, key) of the profile table, field, and the advice that the sentence must end with.
EXPECTED = [
    ("row 2 (extra)", "ncpus", "is not known; write one of"),
    ("row 3 (good)", "key", "is already the key of row 1"),
    ("row 4 (unit)", "memory", "800mb or 32gb"),
    ("row 5 (time)", "walltime", '"24:00:00"'),
    ("row 6 (minutes)", "walltime", '"24:00:00"'),
    ("row 7 (nowhere)", "queue", "write one of himem, tintel"),
    ("row 8 (toolong)", "walltime", "write at most 24:00:00"),
    ("row 9 (toobig)", "memory", "write at most 8gb"),
    ("row 10 (toowide)", "cores", "write at most 4"),
    ("row 11 (missing)", "queue", "is missing; write"),
    ("row 12 (wide)", "cores", "no node has 64; write at most 48"),
    ("row 13 (quoted)", "cores", "whole number"),
    ("row 1 (k1)", "python", "is not known; write one of"),
    ("row 2 (k2)", "environment", "is missing; write"),
    ("row 3 (k3)", "environment", "write the path of a file that is."),
    ("row 4 (k4)", "profiles", "write one of good,"),
    ("row 5 (notebook)", "name", "an environment of the service has this name"),
]


def _torque(folder: Path, **scripts: str) -> dict[str, object]:
    """A folder with commands of our own, as the variable that names it."""
    folder.mkdir()
    for name, script in scripts.items():
        command = folder / name
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
    return {"ganymede_torque_bin": str(folder)}


def _prints(arguments: str, text: str) -> str:
    return f"""[ "$*" = "{arguments}" ] || exit 9\ncat <<"END"\n{text}\nEND"""


def _answering(folder: Path, server: str = SERVER + OPEN) -> dict[str, object]:
    return _torque(
        folder,
        qstat=_prints("-Qf", QUEUES),
        pbsnodes=_prints("-x", NODES),
        qmgr=_prints("-c print server", server),
    )


@pytest.fixture(scope="module")
def refusal(
    ansible: Any, write_inventory: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The inventory, and what validate.yml prints about the table with every mistake."""
    torque = _answering(tmp_path_factory.mktemp("torque") / "bin")
    inventory = write_inventory(BAD_TABLES + yaml.safe_dump(torque))
    done = ansible("ansible-playbook", "-i", str(inventory), "playbooks/validate.yml")
    assert done.returncode == 2, done.stdout
    return inventory, done.stdout


@pytest.mark.parametrize(("row", "field", "advice"), EXPECTED)
def test_each_mistake_is_told_with_file_row_field_and_advice(
    refusal: tuple[Path, str], row: str, field: str, advice: str
) -> None:
    inventory, text = refusal
    file = inventory / "group_vars/hub.yml"
    sentences = [line for line in text.splitlines() if f'{row}, field "{field}"' in line]
    assert sentences, text
    assert str(file) in sentences[0]
    assert advice in sentences[0]
    assert sentences[0].endswith(".")


def test_a_good_row_is_not_blamed(refusal: tuple[Path, str]) -> None:
    assert "row 1 (good)" not in refusal[1]


def test_a_misspelt_setting_is_told_with_the_right_name(refusal: tuple[Path, str]) -> None:
    inventory, text = refusal
    assert (
        f"{inventory / 'group_vars/hub.yml'}: there is no setting "
        "jupyterhub_idle_timout; write jupyterhub_idle_timeout." in text
    )


@pytest.mark.parametrize(
    "sentence",
    [
        "jupyterhub_named_server_limit: 'five' is not accepted; write a whole number.",
        "jupyterhub_default_language: 'fr' is not accepted; write one of en, es.",
        "proxy_port: 'eighty' is not accepted; write a whole number.",
        "jupyterhub_hub_port: 70000 is not accepted; write a whole number from 1 to 65535.",
        "jupyterhub_query_interval: nan is not accepted",
        "jupyterhub_start_timeout: -5 is not accepted; write a whole number from 1 to 31536000.",
        "there is no setting ganymede_hub_hots; write ganymede_hub_host.",
        "jupyterhub_admin_users: 'meteo1' is not accepted; write a list",
        "ganymede_base_url: 'ganymede' is not accepted; write a path that begins with /",
        "ganymede_home: '/home/username' is not accepted; write an absolute path with {username}",
        "proxy_tls_certificate and proxy_tls_key belong together; write both, or neither.",
        "ganymede_environments, notebook: python_lock 'requirements/hib.txt' is not in the",
    ],
)
def test_a_wrong_setting_is_told_with_file_and_advice(
    refusal: tuple[Path, str], sentence: str
) -> None:
    inventory, text = refusal
    assert f"{inventory / 'group_vars/hub.yml'}: {sentence}" in text


CONNECT = "{connection_file}"
KERNELS: list[dict[str, Any]] = [
    {"name": "k", "display_name": "K", "prefix": "/"},
    {"name": "m", "display_name": "M", "command": ["sh", CONNECT], "language": "sh"},
    {"name": "n", "display_name": "N", "command": ["no-such-R", CONNECT], "language": "R"},
    {"name": "o", "display_name": "O", "prefix": "/no/such place", "language": "R"},
]


def test_what_the_host_has_not_is_told(ansible: Any, write_inventory: Any, tmp_path: Path) -> None:
    empty = tmp_path / "env's"
    (empty / "bin").mkdir(parents=True)
    (empty / "bin" / "python").symlink_to(shutil.which("true") or "")
    broken = tmp_path / "broken"
    (broken / "bin").mkdir(parents=True)
    (broken / "bin" / "python").write_text(
        "#!/bin/sh\necho No module named ipykernel >&2; exit 1\n"
    )
    (broken / "bin" / "python").chmod(0o755)
    rows = [{**KERNELS[0], "prefix": str(empty)}, *KERNELS[1:]]
    rows.append({"name": "p", "display_name": "P", "prefix": str(broken)})
    tables = {"kernels_table": rows, "ganymede_check_queues": False}
    inventory = write_inventory(tables)
    for more in ([], ["--check"]):
        done = ansible("ansible-playbook", "-i", str(inventory), "playbooks/validate.yml", *more)
        assert done.returncode == 2, done.stdout
        said = " ".join(done.stdout.replace("\\n", " ").split())
        file = inventory / "group_vars/hub.yml"
        assert (
            f'{file}: row 3 (n), field "command": start-kernel: there is no program no-such-R'
            in said
        )
        assert "write the full path of the program, or the modules that bring it." in said
        assert (
            'row 4 (o), field "prefix": start-kernel: the environment /no/such place does not'
            in said
        )
        assert (
            'row 5 (p), field "prefix": No module named ipykernel; install what is missing' in said
        )
        assert "row 1 (k)" not in said.split("Nothing was changed on any host.")[1]
        assert "row 2 (m)" not in said.split("Nothing was changed on any host.")[1]
    inventory = write_inventory({**tables, "ganymede_check_kernels": False})
    done = ansible("ansible-playbook", "-i", str(inventory), "playbooks/validate.yml")
    assert done.returncode == 0, done.stdout


def test_a_misspelt_table_is_told(ansible: Any, write_inventory: Any) -> None:
    site = {"ganymede_check_queues": False, "jupyterhub_profile": [], "jupyterhub_profiles": []}
    done = ansible("ansible-playbook", "-i", str(write_inventory(site)), "playbooks/validate.yml")
    assert done.returncode == 2
    assert "jupyterhub_profiles has no rows; write at least one." in done.stdout
    assert "validate.yml: jupyterhub_profiles" not in done.stdout
    assert "no setting jupyterhub_profile; write jupyterhub_profiles." in done.stdout


def test_a_field_that_is_written_twice_is_refused(ansible: Any, write_inventory: Any) -> None:
    row = "{key: a, display_name: A, queue: q, cores: 1, cores: 2, memory: 1gb, walltime: 60}"
    inventory = write_inventory(f"jupyterhub_profiles: [{row}]\n")
    done = ansible("ansible-playbook", "-i", str(inventory), "playbooks/validate.yml")
    assert done.returncode != 0
    assert "duplicate" in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize("walltime", ['"24:00:00"', "24:00:00", "1:00:00", "86400", '"0:30:00"'])
def test_walltimes_with_and_without_quotes_are_accepted(
    ansible: Any, write_inventory: Any, tmp_path: Path, walltime: str
) -> None:
    row = f"{{key: a, display_name: A, queue: tintel, cores: 1, memory: 1gb, walltime: {walltime}}}"
    inventory = write_inventory(
        f"jupyterhub_profiles: [{row}]\n" + yaml.safe_dump(_answering(tmp_path / "bin"))
    )
    done = ansible("ansible-playbook", "-i", str(inventory), "playbooks/validate.yml")
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout


def test_an_unquoted_walltime_above_the_limit_is_refused(
    ansible: Any, write_inventory: Any, tmp_path: Path
) -> None:
    """YAML 1.1 makes 90000 of 25:00:00."""
    row = "{key: a, display_name: A, queue: tintel, cores: 1, memory: 1gb, walltime: 25:00:00}"
    inventory = write_inventory(
        f"jupyterhub_profiles: [{row}]\n" + yaml.safe_dump(_answering(tmp_path / "bin"))
    )
    done = ansible("ansible-playbook", "-i", str(inventory), "playbooks/validate.yml")
    assert done.returncode == 2
    assert "25:00:00 is above the limit of queue tintel; write at most 24:00:00." in done.stdout


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "Error executing command. Set"),
        ("echo 'qstat: cannot connect to server encina (errno=111)' >&2; exit 111", "errno=111"),
    ],
)
def test_a_queue_server_without_an_answer_is_told(
    ansible: Any, write_inventory: Any, tmp_path: Path, script: str | None, reason: str
) -> None:
    where = (
        _torque(tmp_path / "bin", qstat=script)
        if script
        else {"ganymede_torque_bin": "/nonexistent"}
    )
    done = ansible("ansible-playbook", "-i", str(write_inventory(where)), "playbooks/validate.yml")
    assert done.returncode == 2
    text = " ".join(done.stdout.split())
    assert f"{where['ganymede_torque_bin']}/qstat -Qf does not answer on ganymede" in text
    assert reason in text
    assert "Set ganymede_torque_bin in group_vars/all/site.yml" in text


def test_queues_are_left_alone_when_that_is_asked_for(ansible: Any, write_inventory: Any) -> None:
    inventory = write_inventory(
        {"ganymede_check_queues": False, "ganymede_torque_bin": "/nonexistent"}
    )
    done = ansible("ansible-playbook", "-i", str(inventory), "playbooks/validate.yml")
    assert done.returncode == 0, done.stdout


ROW = {
    "key": "a",
    "display_name": "A",
    "queue": "himem",
    "cores": 1,
    "memory": "1gb",
    "walltime": "1:00:00",
}
COST = "one qstat through sudo for each researcher"


@pytest.mark.parametrize(
    ("server", "warned"),
    [
        (SERVER + OPEN, False),
        (SERVER, True),
        (SERVER + "set server query_other_jobs = False\n", True),
        (SERVER + "set server operators = ana@encina,rhea@ganymede\n", False),
        (SERVER + "set server managers += rhea@ganymede\n", False),
    ],
)
def test_a_queue_server_that_hides_jobs_is_a_warning(
    ansible: Any, write_inventory: Any, tmp_path: Path, server: str, warned: bool
) -> None:
    tables = {"jupyterhub_profiles": [ROW], **_answering(tmp_path / "bin", server)}
    inventory = write_inventory(tables)
    done = ansible("ansible-playbook", "-i", str(inventory), "playbooks/validate.yml")
    assert done.returncode == 0, done.stdout
    assert (COST in " ".join((done.stdout + done.stderr).split())) is warned


def test_what_could_not_be_asked_is_a_warning(
    ansible: Any, write_inventory: Any, tmp_path: Path
) -> None:
    commands = _torque(
        tmp_path / "bin", qstat=_prints("-Qf", QUEUES), pbsnodes="exit 1", qmgr="exit 3"
    )
    inventory = write_inventory({"jupyterhub_profiles": [{**ROW, "cores": 999}], **commands})
    done = ansible("ansible-playbook", "-i", str(inventory), "playbooks/validate.yml")
    assert done.returncode == 0, done.stdout
    text = " ".join((done.stdout + done.stderr).split())
    assert "the cores of the profiles were not held to the nodes" in text
    assert "it is not known whether the queue server shows other people's jobs" in text


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ('proxy_port: 8000\nproxy_ip: "127.0.0.1\n', 3, "unexpected end of stream"),
        ("jupyterhub_profiles:\n\t- key: a\n", 2, "Tabs are usually invalid"),
        ("a: 1\nb: 2\na: 3\n", 3, "Found duplicate mapping key 'a'"),
        ("a: b: c\n", 1, "Colons in unquoted values"),
    ],
)
def test_a_table_that_is_not_yaml_is_told_with_file_and_line(
    ansible: Any, write_inventory: Any, text: str, line: int, reason: str
) -> None:
    inventory = write_inventory(text)
    done = ansible("ansible-playbook", "-i", str(inventory), "playbooks/validate.yml")
    assert done.returncode not in (0, 2)
    said = " ".join((done.stdout + done.stderr).split())
    assert f"{inventory}/group_vars/hub.yml, line {line}: this cannot be read as YAML: " in said
    assert reason in said


def test_a_file_of_the_repository_is_named_from_there(
    ansible: Any, write_inventory: Any, repository: Path, tmp_path: Path
) -> None:
    """Whoever works in a copy of the repository reads the path that the documents use."""
    copy = tmp_path / "copy"
    for folder in ("plugins", "playbooks", "roles", "group_vars"):
        shutil.copytree(repository / folder, copy / folder)
    shutil.copy(repository / "ansible.cfg", copy)
    (copy / "group_vars/all/proxy.yml").write_text("proxy_port: [\n")
    inventory = write_inventory({})
    (inventory / "group_vars/all").unlink()
    (inventory / "group_vars/all").symlink_to(copy / "group_vars/all")
    done = ansible("ansible-playbook", "-i", str(inventory), "playbooks/validate.yml", cwd=copy)
    assert "group_vars/all/proxy.yml, line 2: this cannot" in done.stdout + done.stderr


def test_reading_the_tables_leaves_their_templates_alone(
    ansible: Any, write_inventory: Any
) -> None:
    """Whoever reads a file into Ansible's cache without trust turns its templates into text."""
    site = {"ganymede_check_queues": False, "one": "1", "two": "{{ one }}2"}
    inventory = write_inventory(site)
    done = ansible("ansible", "-i", str(inventory), "hub", "-m", "debug", "-a", "msg={{ two }}")
    assert done.returncode == 0, done.stdout
    assert '"msg": "12"' in done.stdout or "msg: '12'" in done.stdout
