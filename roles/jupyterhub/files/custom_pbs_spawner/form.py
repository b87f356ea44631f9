# SPDX-License-Identifier: BSD-3-Clause
"""The HTML of the profile menu: one card a profile, without JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from custom_pbs_spawner.messages import count, duration, text
from custom_pbs_spawner.profiles import LOCAL_PROFILE, Profile

# Bootstrap's variables follow the light and dark theme of JupyterHub's pages.
_STYLE = """\
<style>
.profiles { border: 0; margin: 0; padding: 0; }
.profiles legend { font-size: 1.1rem; margin-bottom: .75rem; }
.profile {
  display: flex; gap: .9rem; align-items: flex-start; width: 100%; margin-bottom: .6rem;
  padding: .8rem 1rem; cursor: pointer; border: 1px solid var(--bs-border-color, #ccc);
  border-radius: .5rem; background: var(--bs-body-bg, #fff);
}
.profile:hover { border-color: #f37626; }
.profile:has(input:checked) { border-color: #f37626; box-shadow: inset 0 0 0 1px #f37626; }
.profile:has(input:focus-visible) { outline: 3px solid #4a90d9; outline-offset: 2px; }
.profile input { flex: none; margin-top: .3rem; width: 1.1rem; height: 1.1rem; }
.profile input { accent-color: #f37626; }
.profile-name { display: block; font-weight: 600; }
.profile-description { display: block; color: var(--bs-secondary-color, #555); }
.profile-facts { display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; font-size: .9rem; }
.profile-facts { color: var(--bs-secondary-color, #555); margin-top: .15rem; }
</style>
"""


def menu_html(
    profiles: Sequence[Profile], *, local_name: str | None, language: str, selected: str
) -> str:
    """The form's fields; `local_name` is None where the hub machine offers no server."""
    cards = [
        _card(
            profile.key,
            profile.display_name,
            profile.description,
            _facts(profile, language),
            checked=profile.key == selected,
        )
        for profile in profiles
    ]
    if local_name is not None:
        checked = selected == LOCAL_PROFILE
        cards.append(_card(LOCAL_PROFILE, local_name, text(language, "local"), [], checked=checked))
    return (
        f'{_STYLE}<fieldset class="profiles" lang="{language}">\n'
        f"<legend>{escape(text(language, 'menu'))}</legend>\n{''.join(cards)}</fieldset>\n"
    )


def _card(key: str, name: str, description: str, facts: Sequence[str], *, checked: bool) -> str:
    parts = [f'<span class="profile-name">{escape(name)}</span>']
    if description:
        parts.append(f'<span class="profile-description">{escape(description)}</span>')
    if facts:
        items = "".join(f"<span>{escape(fact)}</span>" for fact in facts)
        parts.append(f'<span class="profile-facts">{items}</span>')
    return (
        f'<label class="profile"><input type="radio" name="profile" value="{escape(key)}" '
        f"required{' checked' if checked else ''}><span>{''.join(parts)}</span></label>\n"
    )


def _facts(profile: Profile, language: str) -> list[str]:
    digits = profile.memory_text.rstrip("bkmgt")
    amount = f"{digits} {profile.memory_text[len(digits) :].upper()}"
    return [
        count(language, "core", profile.cores),
        text(language, "memory", amount=amount),
        text(language, "up_to", time=duration(language, profile.walltime)),
        text(language, "queue", queue=profile.queue),
    ]
