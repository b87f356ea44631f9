# SPDX-License-Identifier: BSD-3-Clause
"""Login refusals, each with its own sentence, in the language of the browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from tests.unit.spawner.hub_process import Hub
from tests.unit.spawner.small_torque import SmallTorque

# PAM is replaced at its door; accounts and groups are this machine's own.
_PAM = """
import pamela

def _authenticate(username, password, **_):
    if password != "right":
        raise pamela.PAMError("Authentication failure", 7)

pamela.authenticate = _authenticate
pamela.check_account = lambda *_, **__: None
c.JupyterHub.authenticator_class = "custom_pbs_spawner.SystemAuthenticator"
c.Authenticator.allow_all = False
c.LocalAuthenticator.allowed_groups = {"daemon"}
"""


@pytest.fixture(scope="module")
def login_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("login")
    hub = Hub(root, SmallTorque(root / "torque"))
    hub.extra = _PAM
    hub.start()
    yield hub
    hub.kill()


def log_in(hub: Hub, name: str, password: str, language: str = "en") -> requests.Response:
    session = requests.Session()
    session.headers["Accept-Language"] = language
    session.get(f"{hub.url}/login", timeout=10)
    form = {"username": name, "password": password, "_xsrf": session.cookies["_xsrf"]}
    answer = session.post(f"{hub.url}/login", data=form, timeout=10, allow_redirects=False)
    answer.encoding = "utf-8"  # as the page itself says
    return answer


def test_a_member_of_the_group_gets_in(login_hub: Hub) -> None:
    assert log_in(login_hub, "daemon", "right").status_code == 302


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("en", "The name or the password is wrong."),
        ("es-ES,es;q=0.9", "El nombre o la contraseña no son correctos."),
    ],
)
def test_a_wrong_password_is_refused(login_hub: Hub, language: str, sentence: str) -> None:
    answer = log_in(login_hub, "daemon", "wrong", language)
    assert answer.status_code == 403
    assert sentence in answer.text
    assert 'name="password"' in answer.text


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("en", "The account games may not use this hub."),
        ("es", "La cuenta games no puede usar este servicio."),
    ],
)
def test_an_account_without_access_is_told_so(login_hub: Hub, language: str, sentence: str) -> None:
    answer = log_in(login_hub, "games", "right", language)
    assert answer.status_code == 403
    assert sentence in answer.text


def test_a_wrong_password_does_not_tell_who_has_access(login_hub: Hub) -> None:
    answer = log_in(login_hub, "games", "wrong")
    assert "may not use this hub" not in answer.text


def test_an_account_that_does_not_exist_reads_as_a_wrong_password(login_hub: Hub) -> None:
    answer = log_in(login_hub, "nobody-of-this-name", "wrong")
    assert answer.status_code == 403
    assert "password is wrong" in answer.text
