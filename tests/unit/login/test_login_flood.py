# SPDX-License-Identifier: BSD-3-Clause
"""A flood of wrong passwords, held by a slow PAM: a good login does not wait for it.

The hub is asked as its proxy would ask it, with the client's address in X-Forwarded-For.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import pytest
import requests

from tests.unit.spawner.hub_process import Hub, wait_for
from tests.unit.spawner.small_torque import SmallTorque

# A wrong password holds its thread as long as the file `hold` is there. Each check leaves a file.
_SLOW_PAM = """
import os, time, uuid
from pathlib import Path
import pamela

ROOT = Path({root!r})

def _authenticate(username, password, **_):
    (ROOT / "checks" / uuid.uuid4().hex).write_text(username)
    if password == "right":
        return
    while (ROOT / "hold").exists():
        time.sleep(0.02)
    raise pamela.PAMError("Authentication failure", 7)

pamela.authenticate = _authenticate
pamela.check_account = lambda *_, **__: None
c.JupyterHub.authenticator_class = {authenticator!r}
c.Authenticator.allow_all = True
"""
OURS = "custom_pbs_spawner.SystemAuthenticator"
STOCK = "jupyterhub.auth.PAMAuthenticator"
RIGHT = "right"
# Accounts that every system has.
ANA, EVA = "daemon", "games"
ATTACKER, HOME, ELSEWHERE = "203.0.113.66", "192.0.2.1", "192.0.2.2"


class Door:
    """The hub's login page, and the PAM behind it."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.checks = hub.root / "checks"
        self.hold = hub.root / "hold"
        self._pages: dict[tuple[str, str], requests.Session] = {}

    def reset(self) -> None:
        """Begin with a new hub, which has forgotten everything."""
        self.hub.kill()
        self.hold.unlink(missing_ok=True)
        for check in self.checks.iterdir():
            check.unlink()
        self.hub.start()

    def count(self) -> int:
        """How many passwords PAM was asked about."""
        return len(list(self.checks.iterdir()))

    def log_in(
        self,
        name: str,
        password: str = RIGHT,
        address: str = HOME,
        *,
        timeout: float = 60,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> requests.Response:
        """Send the form."""
        session = requests.Session()
        session.headers.update({"X-Forwarded-For": address, **headers})
        session.get(f"{self.hub.url}/login", timeout=60)
        form = {"username": name, "password": password, "_xsrf": session.cookies["_xsrf"]}
        answer = session.post(
            f"{self.hub.url}/login", data=form, timeout=timeout, allow_redirects=False
        )
        answer.encoding = "utf-8"
        return answer


def _door(root: Path, authenticator: str) -> Door:
    (root / "checks").mkdir()
    hub = Hub(root, SmallTorque(root / "torque"))
    hub.extra = _SLOW_PAM.format(root=str(root), authenticator=authenticator)
    return Door(hub)


@pytest.fixture(scope="module")
def our_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    door = _door(tmp_path_factory.mktemp("ours"), OURS)
    yield door
    door.hub.kill()


@pytest.fixture
def door(our_door: Door) -> Door:
    our_door.reset()
    return our_door


@pytest.mark.parametrize("attempts", [8, 100])
@pytest.mark.parametrize("victim", [ANA, EVA], ids=["the-same-name", "another-name"])
def test_a_good_login_does_not_wait_for_a_flood(door: Door, attempts: int, victim: str) -> None:
    door.hold.touch()
    with ThreadPoolExecutor(attempts) as pool:
        flood = [pool.submit(door.log_in, ANA, "wrong", ATTACKER) for _ in range(attempts)]
        try:
            wait_for(lambda: door.count() >= 2)
            # All that the flood gets of PAM, while none of its checks has ended.
            _settled(lambda: sum(future.done() for future in flood))
            assert door.count() == 2
            assert door.log_in(victim, address=HOME).status_code == 302
            assert door.log_in(victim, address=ELSEWHERE).status_code == 302
        finally:
            door.hold.unlink()
        answers = [future.result() for future in flood]
    statuses = Counter(answer.status_code for answer in answers)
    # Five failures fill the bucket; a second check may have been on its way.
    assert statuses[403] in (5, 6)
    assert statuses[403] + statuses[429] == attempts
    assert door.count() == statuses[403] + 2


def _settled(value: Callable[[], int]) -> None:
    """Wait until a number stays what it is."""
    last, since = value(), time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.05)
        if value() != last:
            last, since = value(), time.monotonic()


def test_the_stock_authenticator_lets_a_good_login_wait(tmp_path: Path) -> None:
    door = _door(tmp_path, STOCK)
    door.hub.start()
    door.hold.touch()
    try:
        with ThreadPoolExecutor(8) as pool:
            flood = [pool.submit(door.log_in, ANA, "wrong", ATTACKER) for _ in range(8)]
            try:
                wait_for(lambda: door.count() >= 4)
                with pytest.raises(requests.ReadTimeout):
                    door.log_in(EVA, timeout=3)
            finally:
                door.hold.unlink()
            assert {future.result().status_code for future in flood} == {403}
    finally:
        door.hub.kill()


def test_a_known_address_does_not_wait_for_a_flood_from_everywhere(door: Door) -> None:
    assert door.log_in(ANA, address=HOME).status_code == 302
    door.hold.touch()
    with ThreadPoolExecutor(24) as pool:
        for number in range(24):
            pool.submit(door.log_in, ANA, "wrong", f"203.0.113.{number}")
        try:
            wait_for(lambda: door.count() >= 5)
            assert door.log_in(ANA, address=HOME).status_code == 302
        finally:
            door.hold.unlink()


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("en", "There were too many attempts to log in. Try again in"),
        ("es", "Ha habido demasiados intentos de acceso. Vuelva a intentarlo dentro de"),
    ],
)
def test_a_refused_attempt_says_how_long_to_wait(door: Door, language: str, sentence: str) -> None:
    for _ in range(5):
        assert door.log_in(ANA, "wrong").status_code == 403
    answer = door.log_in(ANA, headers={"Accept-Language": language})
    assert answer.status_code == 429
    assert sentence in answer.text
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert 'name="password"' in answer.text
    # Nobody asked PAM, and only this name at this address is concerned.
    assert door.count() == 5
    assert door.log_in(ANA, address=ELSEWHERE).status_code == 302
    assert door.log_in(EVA).status_code == 302


def test_a_header_of_the_client_does_not_choose_the_address(door: Door) -> None:
    statuses = []
    for number in range(6):
        forged = f"198.51.100.{number}"
        answer = door.log_in(
            ANA,
            "wrong",
            f"{forged}, {ATTACKER}",
            headers={"X-Real-IP": forged, "Forwarded": f"for={forged}"},
        )
        statuses.append(answer.status_code)
    assert statuses == [403] * 5 + [429]


def test_a_form_without_its_fields_is_refused(door: Door) -> None:
    session = requests.Session()
    session.get(f"{door.hub.url}/login", timeout=10)
    form = {"_xsrf": session.cookies["_xsrf"]}
    answer = session.post(f"{door.hub.url}/login", data=form, timeout=10)
    assert answer.status_code == 403
    assert door.count() == 0
