# SPDX-License-Identifier: BSD-3-Clause
"""The model of one row of the kernel table: the only definition of what a kernel is."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from custom_pbs_spawner.profiles import OneLine, Profile, parse_amount

SOURCES = ("environment", "lock", "prefix", "command")
"""Where a kernel comes from: each row has one of these fields."""

CONNECTION_FILE = "{connection_file}"
"""What Jupyter replaces in a kernel's command by the file that says how to reach it."""


def _file(suffix: str) -> str:
    return rf"\Aenvironments/(?:[A-Za-z0-9][\w.-]*/)*[A-Za-z0-9][\w.-]*\.{suffix}\z"


def _absolute(path: str) -> str:
    if not path.startswith("/") or any(part in {".", ".."} for part in path.split("/")):
        raise ValueError(f"{path!r} is not an absolute path")
    return path


def _argv(words: list[str]) -> list[str]:
    if not any(CONNECTION_FILE in word for word in words[1:]):
        raise ValueError(f"no word after the first has {CONNECTION_FILE}")
    return words


def _all_different(words: list[str]) -> list[str]:
    if len(set(words)) != len(words):
        raise ValueError("one is named twice")
    return words


Word = Annotated[OneLine, Field(min_length=1, max_length=4096)]
ProfileKey = Annotated[str, Field(pattern=r"\A[a-z0-9][a-z0-9_-]{0,30}\z")]
Module = Annotated[str, Field(pattern=r"\A[A-Za-z0-9][\w.+/-]{0,99}\z")]


class Kernel(BaseModel):
    """A kernel that every notebook offers. Amounts are bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z")]
    display_name: Annotated[OneLine, Field(min_length=1, max_length=100)]
    environment: Annotated[str, Field(pattern=_file("yml"))] | None = None
    lock: Annotated[str, Field(pattern=_file("lock"))] | None = None
    prefix: Annotated[OneLine, Field(max_length=1000), AfterValidator(_absolute)] | None = None
    command: (
        Annotated[list[Word], Field(min_length=2, max_length=50), AfterValidator(_argv)] | None
    ) = None
    modules: Annotated[
        list[Module], Field(min_length=1, max_length=20), AfterValidator(_all_different)
    ] = []
    language: Annotated[str, Field(pattern=r"\A[A-Za-z][A-Za-z0-9+#. _-]{0,31}\z")] | None = None
    profiles: (
        Annotated[list[ProfileKey], Field(min_length=1), AfterValidator(_all_different)] | None
    ) = None
    memory: Annotated[int, BeforeValidator(parse_amount)] | None = None

    @property
    def sources(self) -> list[str]:
        """The fields that say where it comes from; a good row has one."""
        return [name for name in SOURCES if getattr(self, name) is not None]

    def too_small(self, profile: Profile) -> bool:
        """True when the profile has less memory than the kernel needs."""
        return self.memory is not None and profile.memory < self.memory

    def meant_for(self, key: str) -> bool:
        """True when the table does not keep the kernel to other profiles."""
        return self.profiles is None or key in self.profiles
