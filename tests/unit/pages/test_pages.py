# SPDX-License-Identifier: BSD-3-Clause
"""What the hub's pages say of a server, in a real browser."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from playwright.sync_api import Page, expect

from tests.unit.spawner.hub_process import PACKAGE, SERVICE_TOKEN, Hub, wait_for
from tests.unit.spawner.small_torque import SmallTorque

# What is said of a server can be written into files; without one its spawner speaks.
_CONFIG = f"""
from custom_pbs_spawner import ProfileMenuSpawner

def said(what):
    def read(spawner):
        path = Path("{{root}}", "-".join((what, spawner.user.name, spawner.name)))
        return path.read_text() if path.exists() else getattr(super(Told, spawner), what)
    return property(read)

class Told(ProfileMenuSpawner):
    notice = said("notice")
    ending_html = said("ending_html")

c.JupyterHub.spawner_class = Told
c.JupyterHub.template_paths = ["{PACKAGE}/custom_pbs_spawner/templates"]
"""
LOG = '<pre class="job-log">=&gt;&gt; PBS: job killed: &lt;b&gt;walltime\n</pre>'
_numbers = count(1)


@pytest.fixture(scope="module")
def pages_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("pages")
    hub = Hub(root, SmallTorque(root / "torque"))
    hub.extra = _CONFIG.format(root=root)
    hub.start()
    yield hub
    hub.kill(signal.SIGTERM)
    hub.queue.end_all()


class Visitor:
    """A researcher with a browser; each has an account of her own."""

    def __init__(self, hub: Hub, page: Page) -> None:
        self.hub = hub
        self.page = page
        self.name = f"visitor{next(_numbers)}"
        hub.queue.home(self.name)
        self.open("login")
        page.get_by_label("Username").fill(self.name)
        page.get_by_label("Password").fill("x")
        page.locator("#login_submit").click()
        page.wait_for_url("**/hub/spawn")

    def open(self, path: str) -> int:
        """Go to a page of the hub; its status."""
        answer = self.page.goto(f"{self.hub.url}/{path}")
        assert answer is not None
        return answer.status

    def start(self, server: str = "") -> None:
        """Start a server and wait until it runs; no proxy leads a browser to it here."""
        self.hub.start_server(self.name, SERVICE_TOKEN, name=server).raise_for_status()
        self.hub.wait_ready(self.name, server)

    def ask_for(self, server: str = "") -> None:
        """Choose a profile by the address of the page, and wait no longer than that."""
        path = f"spawn/{self.name}/{server}" if server else f"spawn/{self.name}"
        self.open(f"{path}?profile=tintel")

    def say(self, what: str, words: str, server: str = "") -> None:
        """Let the spawner of a server have a `notice` or an `ending_html`."""
        (self.hub.root / f"{what}-{self.name}-{server}").write_text(words)

    def words(self, server: str = "") -> str:
        """What the page says of a server."""
        return self.page.locator(f'.job-words[data-server="{server}"]').inner_text()


@pytest.fixture
def visitor(pages_hub: Hub, open_page: Callable[[], Page]) -> Visitor:
    pages_hub.queue.reset()
    return Visitor(pages_hub, open_page())


def test_the_page_of_a_server_that_ended_says_why(visitor: Visitor) -> None:
    visitor.start()
    visitor.say("ending_html", f"Job 7.encina used up its time.{LOG}")
    visitor.hub.queue.kill(visitor.hub.job_number(visitor.name))
    wait_for(lambda: not visitor.hub.server(visitor.name))
    assert visitor.open(f"user/{visitor.name}/lab") == 424
    expect(visitor.page.locator(".job-words")).to_contain_text("Job 7.encina used up its time.")
    assert visitor.page.locator("pre.job-log").inner_text() == "=>> PBS: job killed: <b>walltime\n"
    expect(visitor.page.locator("#start")).to_have_text("Launch Server")
    visitor.open("home")
    assert "used up its time" in visitor.words()


def test_the_reason_and_the_log_of_a_job_are_its_own(visitor: Visitor) -> None:
    visitor.start()
    number = visitor.hub.job_number(visitor.name)
    visitor.hub.queue.kill(number)
    wait_for(lambda: not visitor.hub.server(visitor.name))
    visitor.open(f"user/{visitor.name}/lab")
    expect(visitor.page.locator(".job-words")).to_contain_text(
        f"Job {number}.encina was deleted from the queue"
    )
    expect(visitor.page.locator("pre.job-log")).to_contain_text("stub server at")


def test_a_queue_that_is_silent_is_told_beside_the_server(visitor: Visitor) -> None:
    visitor.start()
    visitor.hub.queue.knob("qstat", "fail 111 Cannot connect to server encina (errno=111)")
    words = visitor.page.locator(".job-words")
    for _ in range(30):
        visitor.open("home")
        if words.count():
            break
        visitor.page.wait_for_timeout(500)
    expect(words).to_have_text(
        "The queue does not answer at the moment. Your notebook is not lost."
    )
    visitor.hub.queue.reset()


def test_a_server_that_never_ran_has_no_reason(visitor: Visitor) -> None:
    assert visitor.open(f"user/{visitor.name}/lab") == 424
    expect(visitor.page.locator(".job-words")).to_have_count(0)


def test_what_is_said_of_each_server_stands_beside_it(visitor: Visitor) -> None:
    visitor.start()
    visitor.start("second")
    visitor.say("notice", "The queue does not answer <at> the moment.")
    visitor.say("notice", "The node does not answer.", "second")
    visitor.say("ending_html", "not this", "second")
    visitor.open("home")
    assert visitor.words() == "The queue does not answer <at> the moment."
    row = visitor.page.locator('tr[data-server-name="second"]')
    expect(row.locator(".job-words")).to_have_text("The node does not answer.")
    expect(visitor.page.locator(".job-words")).to_have_count(2)


def test_the_home_page_of_quiet_servers_says_nothing(visitor: Visitor) -> None:
    visitor.start("second")
    visitor.open("home")
    expect(visitor.page.locator("#stop-second")).to_be_visible()
    expect(visitor.page.locator(".job-words")).to_have_count(0)


def test_a_start_that_fails_while_it_is_watched_says_why(visitor: Visitor) -> None:
    (visitor.hub.queue.home(visitor.name) / "die").touch()
    visitor.hub.queue.knob("schedule", "hold")
    visitor.ask_for()
    expect(visitor.page.locator("#progress-message")).to_contain_text("in queue tintel")
    visitor.hub.queue.start(visitor.hub.job_number(visitor.name))
    expect(visitor.page.locator("#start")).to_have_text("Relaunch Server")
    expect(visitor.page.locator(".job-words")).to_contain_text("ended with exit status 3")


def test_a_start_that_fails_at_once_says_why_above_the_menu(visitor: Visitor) -> None:
    visitor.hub.queue.knob("qsub", "fail 190 qsub: submit error (<no> such queue)")
    visitor.ask_for()
    expect(visitor.page.locator(".job-words")).to_contain_text("(<no> such queue)")
    expect(visitor.page.locator(".profile")).to_have_count(2)


def test_a_refused_choice_says_why_above_the_menu(visitor: Visitor) -> None:
    assert visitor.open(f"spawn/{visitor.name}?profile=<b>nothing") == 400
    words = visitor.page.locator(".job-words")
    expect(words).to_have_count(1)
    expect(words).to_contain_text("There is no profile '<b>nothing'.")
    expect(visitor.page.locator(".profile")).to_have_count(2)


def test_a_stop_that_takes_long_is_shown_as_such(visitor: Visitor) -> None:
    visitor.start()
    visitor.hub.queue.knob("qdel", "fail 111 Cannot connect to server encina (errno=111)")
    visitor.open("home")
    visitor.page.locator("#stop").click()
    # The hub answers "202" after five seconds, and the page looks again.
    words = visitor.page.locator(".job-words")
    expect(words).to_contain_text("could not be removed yet")
    expect(visitor.page.locator("#stop")).to_be_visible()
    visitor.open(f"spawn-pending/{visitor.name}")
    expect(words).to_contain_text("could not be removed yet")
    visitor.hub.queue.reset()
    wait_for(lambda: not visitor.hub.server(visitor.name))


@pytest.mark.parametrize("server", ["", "second"])
def test_a_stop_on_the_waiting_page_leads_home(visitor: Visitor, server: str) -> None:
    other = "" if server else "second"
    visitor.start(other)
    visitor.hub.queue.knob("schedule", "hold")
    visitor.ask_for(server)
    expect(visitor.page.locator("#progress-message")).to_contain_text("in queue tintel")
    visitor.page.locator("#stop-server-btn").click()
    visitor.page.wait_for_url("**/hub/home")
    wait_for(
        lambda: set(visitor.hub.api("GET", f"/users/{visitor.name}").json()["servers"]) == {other}
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_log_can_be_read_in_both_themes(visitor: Visitor, theme: str) -> None:
    visitor.say("ending_html", f"It ended.{LOG}")
    visitor.open(f"user/{visitor.name}/lab")
    page = visitor.page
    page.evaluate("(theme) => document.documentElement.setAttribute('data-bs-theme', theme)", theme)
    colours = page.locator(".job-log").evaluate(
        "(log) => [getComputedStyle(log).color, getComputedStyle(log).backgroundColor]"
    )
    assert contrast(*colours) > 7


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2.2 (1.4.6 asks for 7) between two colours of `rgb(r, g, b)`."""
    light, dark = sorted(map(_luminance, (first, second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_page_of_ours_stands_on_one_of_jupyterhub() -> None:
    templates = PACKAGE / "custom_pbs_spawner" / "templates"
    ours = sorted(path.name for path in templates.glob("*.html"))
    assert len(ours) == 6
    for name in ours:
        assert f'{{% extends "templates/{name}" %}}' in (templates / name).read_text()
