# SPDX-License-Identifier: BSD-3-Clause
"""What researchers read: messages, menu; and the record that the hub keeps."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from custom_pbs_spawner.form import menu_html
from custom_pbs_spawner.messages import _TEXTS, choose_language, count, duration
from custom_pbs_spawner.profiles import Profile
from custom_pbs_spawner.record import JobRecord, token_digest
from custom_pbs_spawner.scheduler import new_tag

PROFILE = Profile(
    key="himem4",
    display_name='<b>"himem4" & more</b>',
    queue="himem",
    cores=4,
    memory="32gb",  # type: ignore[arg-type]
    walltime=172800,
    description="<script>alert(1)</script>",
)


@pytest.mark.parametrize("key", sorted(_TEXTS))
def test_both_languages_have_the_same_holes(key: str) -> None:
    english, spanish = (set(re.findall(r"{(\w+)}", text)) for text in _TEXTS[key])
    assert english == spanish


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("es", "es"),
        ("es-ES,es;q=0.9,en;q=0.8", "es"),
        ("en-GB,es;q=0.9", "en"),
        ("fr,de;q=0.9,es;q=0.2", "es"),
        ("fr", "en"),
        ("en;q=0.1, ES-mx;q=0.9", "es"),
        ("es;q=0", "en"),
        ("es;q=x,;;,=,en", "en"),
        ("*", "en"),
        ("," * 100_000, "en"),
    ],
)
def test_language_of_the_browser(header: str, language: str) -> None:
    assert choose_language(header, "en") == language


def test_default_language() -> None:
    assert choose_language("fr", "es") == "es"


@pytest.mark.parametrize(
    ("seconds", "english", "spanish"),
    [
        (0, "0 seconds", "0 segundos"),
        (1, "1 second", "1 segundo"),
        (90, "1 minute and 30 seconds", "1 minuto y 30 segundos"),
        (3600, "1 hour", "1 hora"),
        (86400, "24 hours", "24 horas"),
        (5400, "1 hour and 30 minutes", "1 hora y 30 minutos"),
        (3661, "1 hour and 1 minute", "1 hora y 1 minuto"),
    ],
)
def test_durations(seconds: int, english: str, spanish: str) -> None:
    assert (duration("en", seconds), duration("es", seconds)) == (english, spanish)


def test_counts() -> None:
    assert (count("en", "core", 1), count("es", "core", 4)) == ("1 core", "4 núcleos")


class Inputs(HTMLParser):
    """The inputs and the text of a form."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.inputs: list[dict[str, str | None]] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "input":
            self.inputs.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_menu_escapes_everything_and_marks_the_choice() -> None:
    html = menu_html([PROFILE], local_name="<i>Here</i>", language="en", selected="himem4")
    form = Inputs(html)
    assert [(field["value"], "checked" in field) for field in form.inputs] == [
        ("himem4", True),
        ("local", False),
    ]
    assert all(field["name"] == "profile" and "required" in field for field in form.inputs)
    assert form.tags == {"style", "fieldset", "legend", "label", "input", "span"}
    for text in (PROFILE.display_name, PROFILE.description, "<i>Here</i>"):
        assert text in form.text
    for fact in ("4 cores", "32 GB of memory", "up to 48 hours", "queue himem"):
        assert fact in form.text


def test_menu_in_spanish() -> None:
    form = Inputs(menu_html([PROFILE], local_name=None, language="es", selected="himem4"))
    assert "4 núcleos" in form.text
    assert "hasta 48 horas" in form.text
    assert len(form.inputs) == 1


TAG = new_tag("0123abcd")
RECORD = JobRecord(
    "1.encina", "tintel", 12.5, token_digest("secret"), TAG, "node01", 50000, 20.0, 30.0, 50000
)


def test_record_survives_the_database() -> None:
    assert JobRecord.from_state(RECORD.to_state()) == RECORD
    assert "secret" not in str(RECORD.to_state())
    intent = JobRecord("", "tintel", 12.5, token_digest("secret"), TAG)
    assert JobRecord.from_state(intent.to_state()) == intent


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        "x",
        {},
        {"job_id": ""},
        {"job_id": 5},
        {"job_id": "tintel"},
        {"pid": 1},
        {"job_id": "", "tag": "x"},
    ],
)
def test_state_without_a_job(state: object) -> None:
    assert JobRecord.from_state(state) is None


def test_odd_values_of_a_record_are_dropped() -> None:
    state = {
        "job_id": "1.encina",
        "profile": ["x"],
        "submitted": "yesterday",
        "digest": None,
        "host": 5,
        "port": "8888",
        "job_status": "<Data>raw</Data>",
    }
    assert JobRecord.from_state(state) == JobRecord("1.encina", "", 0.0, "")
    assert JobRecord.from_state({**state, "port": 22}) == JobRecord("1.encina", "", 0.0, "")
