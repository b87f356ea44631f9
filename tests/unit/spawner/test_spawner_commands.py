# SPDX-License-Identifier: BSD-3-Clause
"""Commands end in time, take their children with them, and see nothing of the hub."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from custom_pbs_spawner import commands


@pytest.mark.asyncio
async def test_environment_and_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFIGPROXY_AUTH_TOKEN", "secret")
    result = await commands.run(["/usr/bin/env"], timeout=5)
    assert set(result.stdout.splitlines()) == {"PATH=/usr/bin:/bin", "LANG=C", "LC_ALL=C"}
    assert (await commands.run(["/bin/pwd"], timeout=5)).stdout == "/\n"


@pytest.mark.asyncio
async def test_words_are_not_for_a_shell() -> None:
    result = await commands.run(["/bin/echo", "$HOME; id", "*"], timeout=5)
    assert result.stdout == "$HOME; id *\n"


@pytest.mark.asyncio
async def test_input_status_and_bytes_that_are_no_text() -> None:
    script = r"cat; printf '\377' >&2; exit 7"
    result = await commands.run(["/bin/sh", "-c", script], stdin="áb", timeout=5)
    assert result == commands.Result(7, "áb", "\ufffd")


@pytest.mark.asyncio
async def test_timeout_kills_the_command_and_its_children(tmp_path: Path) -> None:
    sign = tmp_path / "alive"
    script = f"(sleep 5; touch {sign}) & sleep 60"
    begun = time.monotonic()
    with pytest.raises(commands.CommandTimeoutError, match=r"did not answer within 0\.5 s"):
        await commands.run(["/bin/sh", "-c", script], timeout=0.5)
    assert time.monotonic() - begun < 4.5
    await asyncio.sleep(5)
    assert not sign.exists()


@pytest.mark.asyncio
async def test_cancelled_command_is_killed(tmp_path: Path) -> None:
    sign = tmp_path / "alive"
    task = asyncio.ensure_future(
        commands.run(["/bin/sh", "-c", f"sleep 1; touch {sign}"], timeout=60)
    )
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(1.2)
    assert not sign.exists()


@pytest.mark.asyncio
async def test_command_that_does_not_exist() -> None:
    with pytest.raises(FileNotFoundError):
        await commands.run(["/nonexistent/qstat"], timeout=5)


@pytest.mark.asyncio
async def test_command_that_is_deaf_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "DEATH", 0.3)
    sign = tmp_path / "alive"
    script = f"trap '' TERM; sleep 2; touch {sign}"
    with pytest.raises(commands.CommandTimeoutError):
        await commands.run(["/bin/sh", "-c", script], timeout=0.2)
    await asyncio.sleep(2)
    assert not sign.exists()
