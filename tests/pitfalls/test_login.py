# SPDX-License-Identifier: BSD-3-Clause
"""S12: a flood of wrong passwords does not keep others out."""

from __future__ import annotations

import threading
import time

import pytest
import requests

from tests.pitfalls.bed import Bed
from tests.unit.spawner.hub_process import xsrf

# PAM takes two seconds over a wrong password, and a moment over a right one (pam_faildelay).
SLOW_PAM = """
import time as _time
import pamela
def authenticate(username, password=None, *args, **kwargs):
    if password != "right":
        _time.sleep(2)
        raise pamela.PAMError(7)
pamela.authenticate = authenticate
pamela.check_account = lambda *args, **kwargs: None
pamela.open_session = pamela.close_session = lambda *args, **kwargs: None
c.Authenticator.allow_all = True
"""
OURS = 'c.JupyterHub.authenticator_class = "custom_pbs_spawner.SystemAuthenticator"\n'
STOCK = 'c.JupyterHub.authenticator_class = "pam"\n'


def log_in(bed: Bed, name: str, password: str, address: str) -> requests.Response:
    """Send the form from an address of its own, as the proxy tells it."""
    session = requests.Session()
    session.headers["X-Forwarded-For"] = address
    page = session.get(f"{bed.url}/login", timeout=30)
    return session.post(
        f"{bed.url}/login",
        data={"username": name, "password": password, "_xsrf": xsrf(page.text)},
        timeout=30,
        allow_redirects=False,
    )


@pytest.mark.row("S12")
@pytest.mark.parametrize("names", ["one name", "many names"])
def test_a_flood_does_not_lock_others_out(own_bed: Bed, names: str) -> None:
    own_bed.extra = SLOW_PAM + (STOCK if own_bed.stock else OURS)
    own_bed.start()
    own_bed.queue.home("ana")
    over = threading.Event()

    def flood(number: int) -> None:
        name = "eva" if names == "one name" else f"guess{number}"
        while not over.is_set():
            try:
                log_in(own_bed, name, "wrong", "10.0.0.66")
            except requests.RequestException:
                return

    threads = [threading.Thread(target=flood, args=(n,), daemon=True) for n in range(12)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(3)
        begun = time.monotonic()
        answer = log_in(own_bed, "ana", "right", "10.0.0.1")
        took = time.monotonic() - begun
    finally:
        over.set()
    assert answer.status_code == 302, "the right password is let in"
    assert took < 2, "and at once: nothing waits behind the flood"
    for thread in threads:
        thread.join(15)
