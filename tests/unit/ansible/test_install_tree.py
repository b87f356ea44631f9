# SPDX-License-Identifier: BSD-3-Clause
"""install_tree: what it installs and removes, and that --check --diff tells the same."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Run = Callable[..., "subprocess.CompletedProcess[str]"]


class Play:
    """A play on this machine with a role-like folder of files, and where it installs them."""

    def __init__(self, ansible: Run, root: Path) -> None:
        self.ansible = ansible
        self.root = root
        self.code = root / "files" / "code"
        self.dest = root / "opt" / "hub"
        self.task: dict[str, Any] = {"dest": str(self.dest), "folders": ["code"]}
        self.write("main.py", "import parts\n")
        self.write("parts/__init__.py", "")

    def write(self, name: str, text: str) -> None:
        """Write a file of the folder."""
        path = self.code / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, *arguments: str) -> dict[str, Any]:
        """The result of the task, or what Ansible says of its failure."""
        playbook = self.root / "play.yml"
        tasks = [
            {"install_tree": self.task, "register": "done"},
            {"copy": {"content": "{{ done | to_json }}", "dest": str(self.root / "done")},
             "check_mode": False, "diff": False},
        ]  # fmt: skip
        play = {"hosts": "localhost", "gather_facts": False, "tasks": tasks}
        playbook.write_text(yaml.safe_dump([play]))
        (self.root / "done").unlink(missing_ok=True)
        done = self.ansible("ansible-playbook", str(playbook), *arguments)
        if done.returncode:
            return {"failed": done.stdout + done.stderr}
        result: dict[str, Any] = json.loads((self.root / "done").read_text())
        return {**result, "shown": done.stdout}

    def state(self) -> dict[str, tuple[str, int]]:
        """Content ("/" for a directory) and mode of all below dest, by path."""
        return {
            path.relative_to(self.dest).as_posix(): (
                "/" if path.is_dir() else path.read_text(),
                stat.S_IMODE(path.lstat().st_mode),
            )
            for path in self.dest.rglob("*")
        }


@pytest.fixture
def play(ansible: Run, tmp_path: Path) -> Play:
    return Play(ansible, tmp_path)


def test_everything_is_installed_and_then_left_alone(play: Play) -> None:
    play.write("run", "#!/bin/sh\n")
    play.write("__pycache__/main.pyc", "compiled")
    play.task["files"] = {"specs/one/kernel.json": '{"name": "uno ñ"}\n'}
    play.task["programs"] = ["code/run"]
    assert play.run()["changed"]
    assert play.state() == {
        "code": ("/", 0o755),
        "code/main.py": ("import parts\n", 0o644),
        "code/parts": ("/", 0o755),
        "code/parts/__init__.py": ("", 0o644),
        "code/run": ("#!/bin/sh\n", 0o755),
        "specs": ("/", 0o755),
        "specs/one": ("/", 0o755),
        "specs/one/kernel.json": ('{"name": "uno ñ"}\n', 0o644),
    }
    inodes = {path: path.lstat().st_ino for path in play.dest.rglob("*")}
    again = play.run()
    assert (again["changed"], again["diff"]) == (False, [])
    assert {path: path.lstat().st_ino for path in play.dest.rglob("*")} == inodes


def test_what_is_not_of_the_folder_goes_and_all_else_stays(play: Play) -> None:
    play.run()
    (play.code / "parts" / "__init__.py").unlink()
    (play.code / "parts").rmdir()
    for name in ("code/.hidden", "code/old/deep/file", "code/__pycache__/main.pyc", "beside/file"):
        (play.dest / name).parent.mkdir(parents=True, exist_ok=True)
        (play.dest / name).write_text("x")
    (play.dest / "code" / "link").symlink_to(play.dest / "beside")
    removed = {str(play.dest / "code" / name) for name in (".hidden", "link", "old", "parts")}
    assert set(play.run()["removed"]) == removed
    assert set(play.state()) == {
        *("code", "code/main.py", "code/__pycache__", "code/__pycache__/main.pyc"),
        *("beside", "beside/file"),
    }
    assert not play.run()["changed"]


def test_wrong_content_mode_and_owner_are_corrected(play: Play) -> None:
    play.run()
    main, parts = play.dest / "code" / "main.py", play.dest / "code" / "parts"
    main.write_text("import evil\n")
    parts.chmod(0o777)
    (parts / "__init__.py").chmod(0o666)
    os.chown(parts / "__init__.py", 12345, 12345)
    done = play.run()
    assert set(done["installed"]) == {str(path) for path in (main, parts, parts / "__init__.py")}
    assert play.state()["code/main.py"] == ("import parts\n", 0o644)
    assert play.state()["code/parts"] == ("/", 0o755)
    assert play.state()["code/parts/__init__.py"] == ("", 0o644)
    assert (parts / "__init__.py").stat().st_uid == os.geteuid()


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(play: Play) -> None:
    play.run()
    victim = play.root / "victim"
    victim.write_text("import parts\n")
    victim.chmod(0o644)
    main = play.dest / "code" / "main.py"
    main.unlink()
    main.symlink_to(victim)
    play.write("main.py", "new\n")
    assert play.run()["changed"]
    assert not main.is_symlink()
    assert victim.read_text() == "import parts\n"


def test_check_and_diff_tell_what_a_run_does_and_touch_nothing(play: Play) -> None:
    told = play.run("--check", "--diff")
    assert told["changed"]
    assert not play.dest.exists()
    assert "+import parts" in told["shown"]
    assert play.run()["diff"] == told["diff"]
    play.write("main.py", "import parts, more\n")
    (play.code / "parts" / "__init__.py").unlink()
    (play.code / "parts").rmdir()
    before = play.state()
    told = play.run("--check", "--diff")
    assert play.state() == before
    assert "-import parts\n+import parts, more" in told["shown"]
    done = play.run()
    assert [done[key] for key in ("installed", "removed", "diff")] == [
        told[key] for key in ("installed", "removed", "diff")
    ]


def test_nothing_changes_without_a_word_in_the_diff(play: Play) -> None:
    play.write("empty.py", "")
    new = play.run("--diff")["shown"]
    assert f"+++ after: {play.dest}/code/empty.py" in new
    folder, link = play.dest / "code" / "theirs", play.dest / "code" / "link"
    folder.mkdir()
    (folder / "work").write_text("x")
    link.symlink_to("/etc/passwd")
    (play.dest / "code" / "nothing").touch()
    (play.dest / "code" / "main.py").write_text("import evil\n")
    (play.dest / "code" / "main.py").chmod(0o4755)
    shown = play.run("--check", "--diff")["shown"]
    for name, said in {
        "theirs": "-directory, owner 0, group 0, mode 0755",
        "link": "-link to /etc/passwd",
        "nothing": "-file, owner 0, group 0, mode 0644",
        "main.py": "-file, owner 0, group 0, mode 4755",
    }.items():
        part = shown.partition(f"--- before: {play.dest}/code/{name}\n")[2].partition("--- ")[0]
        assert said in part, shown


def test_a_directory_that_is_there_keeps_its_group_and_mode(play: Play) -> None:
    play.dest.mkdir(parents=True)
    os.chown(play.dest, -1, 12345)
    play.dest.chmod(0o2775)
    assert play.run()["changed"]
    state = play.dest.stat()
    assert (state.st_gid, stat.S_IMODE(state.st_mode)) == (12345, 0o2775)
    assert play.state()["code"] == ("/", 0o755)
    assert not play.run()["changed"]


def test_a_program_that_is_none_of_the_files_is_refused(play: Play) -> None:
    play.task["programs"] = ["code/runn"]
    assert "code/runn is none of the files" in play.run()["failed"]
    assert not play.dest.exists()


def test_a_folder_that_the_role_does_not_have_is_refused(play: Play) -> None:
    play.task["folders"] = ["cod"]
    assert "cod" in play.run()["failed"]
    assert not play.dest.exists()


def test_an_error_of_the_host_is_told(play: Play) -> None:
    play.dest.parent.mkdir()
    play.dest.write_text("a file")
    assert str(play.dest) in play.run()["failed"]
