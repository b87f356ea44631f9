# SPDX-License-Identifier: BSD-3-Clause
"""The HTML of the profile menu: one card a profile, without JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from custom_pbs_spawner.kernels import Kernel
from custom_pbs_spawner.messages import count, duration, text
from custom_pbs_spawner.profiles import LOCAL_PROFILE, Profile
from custom_pbs_spawner.units import format_memory

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
.profile-kernels { display: block; font-size: .9rem; margin-top: .15rem; }
.profile-kernels { color: var(--bs-warning-text-emphasis, #664d03); }
</style>
"""


@dataclass(frozen=True)
class _Card:
    """What the menu says of one profile."""

    key: str
    name: str
    description: str
    facts: Sequence[str]
    kernels: Sequence[str]
    """Sentences on the kernels that the profile is not for."""


def menu_html(
    profiles: Sequence[Profile],
    *,
    kernels: Sequence[Kernel] = (),
    local_name: str | None,
    language: str,
    selected: str,
) -> str:
    """The form's fields; `local_name` is None where the hub machine offers no server."""
    described = [
        _Card(
            profile.key,
            profile.display_name,
            profile.description,
            _facts(profile, language),
            _unfit(kernels, profile, language),
        )
        for profile in profiles
    ]
    if local_name is not None:
        unfit = [
            text(language, "kernel_not_meant", kernel=kernel.display_name)
            for kernel in kernels
            if not kernel.meant_for(LOCAL_PROFILE)
        ]
        described.append(_Card(LOCAL_PROFILE, local_name, text(language, "local"), [], unfit))
    cards = [_html(card, checked=card.key == selected) for card in described]
    return (
        f'{_STYLE}<fieldset class="profiles" lang="{language}">\n'
        f"<legend>{escape(text(language, 'menu'))}</legend>\n{''.join(cards)}</fieldset>\n"
    )


def _html(card: _Card, *, checked: bool) -> str:
    parts = [f'<span class="profile-name">{escape(card.name)}</span>']
    if card.description:
        parts.append(f'<span class="profile-description">{escape(card.description)}</span>')
    if card.facts:
        items = "".join(f"<span>{escape(fact)}</span>" for fact in card.facts)
        parts.append(f'<span class="profile-facts">{items}</span>')
    parts.extend(f'<span class="profile-kernels">{escape(words)}</span>' for words in card.kernels)
    return (
        f'<label class="profile"><input type="radio" name="profile" value="{escape(card.key)}" '
        f"required{' checked' if checked else ''}><span>{''.join(parts)}</span></label>\n"
    )


def _unfit(kernels: Sequence[Kernel], profile: Profile, language: str) -> list[str]:
    """One sentence for each kernel that the profile is too small or not meant for."""
    found = []
    for kernel in kernels:
        if kernel.memory is not None and kernel.too_small(profile):
            amount = _amount(format_memory(kernel.memory))
            key, values = "kernel_too_small", {"kernel": kernel.display_name, "amount": amount}
        elif not kernel.meant_for(profile.key):
            key, values = "kernel_not_meant", {"kernel": kernel.display_name}
        else:
            continue
        found.append(text(language, key, **values))
    return found


def _facts(profile: Profile, language: str) -> list[str]:
    return [
        count(language, "core", profile.cores),
        text(language, "memory", amount=_amount(profile.memory_text)),
        text(language, "up_to", time=duration(language, profile.walltime)),
        text(language, "queue", queue=profile.queue),
    ]


def _amount(memory: str) -> str:
    """An amount of memory as people write it, such as `800 MB`."""
    digits = memory.rstrip("bkmgt")
    return f"{digits} {memory[len(digits) :].upper()}"
