# SPDX-License-Identifier: BSD-3-Clause
"""The modules of the role conda_root, run as Ansible does, over one environment in a folder."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROLE = Path(__file__).resolve().parents[3] / "roles" / "conda_root"
# Ansible puts the role's module_utils into the same package.
RUN_MODULE = (
    "import ansible.module_utils, runpy, sys; file = sys.argv.pop(1); sys.argv[0] = file; "
    f"ansible.module_utils.__path__.append({str(ROLE / 'module_utils')!r}); "
    "runpy.run_path(file, run_name='__main__')"
)


def load_file(path: Path) -> ModuleType:
    """A Python file that is in no package, such as a module or a plugin of Ansible."""
    load_versions()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_versions() -> ModuleType:
    """ansible.module_utils.conda_versions, as the modules see it."""
    import ansible.module_utils  # noqa: PLC0415 - only here

    folder = str(ROLE / "module_utils")
    if folder not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(folder)
    from ansible.module_utils import conda_versions  # noqa: PLC0415 - after the line above

    module: ModuleType = conda_versions
    return module


def module_command(name: str, work: Path, arguments: dict[str, Any]) -> list[str]:
    """The command that runs a module; its arguments lie in the folder `work`."""
    file = work / f"{name}.arguments.json"
    file.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {"_ansible_diff": True, **arguments}}))
    return [sys.executable, "-c", RUN_MODULE, str(ROLE / "library" / f"{name}.py"), str(file)]


def run_module(name: str, work: Path, **arguments: Any) -> dict[str, Any]:
    """Run a module; what it answers."""
    command = module_command(name, work, arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


class Demo:
    """One environment, `demo`, below a folder."""

    def __init__(self, folder: Path, channel: Path, micromamba: Path) -> None:
        self.work = folder
        self.folder = folder / "envs" / "demo"
        self.row = {"name": "demo", "root": str(folder / "envs")}
        self.channels = [f"file://{channel}"]
        self.options: dict[str, Any] = {"micromamba": str(micromamba), "cache_root": str(folder)}

    def arguments(self, *specs: str, **options: Any) -> dict[str, Any]:
        """The module's arguments; of the options, those of the row go there."""
        row = {**self.row, "channels": self.channels, "conda": list(specs)}
        row.update({key: options.pop(key) for key in list(options) if key in ROW_OPTIONS})
        return {**self.options, "environments": [row], **options}

    def command(self, *specs: str, **options: Any) -> list[str]:
        """The command that builds."""
        return module_command("conda_environments", self.work, self.arguments(*specs, **options))

    def build(self, *specs: str, **options: Any) -> dict[str, Any]:
        """Build; the module's answer."""
        return run_module("conda_environments", self.work, **self.arguments(*specs, **options))

    def switch(self, version: str = "", **options: Any) -> dict[str, Any]:
        """Put a version into service; "" is the previous one."""
        row = {**self.row, "version": version}
        return run_module("conda_switch", self.work, environments=[row], **options)

    def serve(self, *specs: str, **options: Any) -> str:
        """Build and switch, as the role does; name of the version."""
        answer = self.build(*specs, **options)
        assert "failed" not in answer, answer["msg"]
        (environment,) = answer["environments"]
        if environment["pending"]:
            self.switch(environment["version"])
        return self.serving()

    def prune(self, *jobs: tuple[str, int], **options: Any) -> dict[str, Any]:
        """Prune while these jobs run: id, and when it began."""
        running = [{"id": name, "owner": "ada", "started": start} for name, start in jobs]
        common = {"cache_root": self.options["cache_root"], "jobs": running}
        return run_module("conda_prune", self.work, environments=[self.row], **common, **options)

    def serving(self) -> str:
        """Name of the version in service."""
        return str((self.folder / "current").readlink())

    def names(self) -> set[str]:
        """What is in the environment's folder."""
        return {path.name for path in self.folder.iterdir()}

    def versions(self) -> set[str]:
        """The versions that are there, complete or not."""
        return {
            path.name for path in self.folder.iterdir() if path.is_dir() and not path.is_symlink()
        }

    def tool(self) -> str:
        """What the command of the version in service says."""
        command = [self.folder / "current" / "bin" / "tool"]
        return subprocess.check_output(command, text=True, timeout=10).strip()

    def history(self) -> list[dict[str, Any]]:
        """The history as it is on disk."""
        entries: list[dict[str, Any]] = json.loads((self.folder / "history.json").read_text())
        return entries

    def backdate(self, seconds: int) -> None:
        """Move all that happened into the past."""
        entries = [{**entry, "time": entry["time"] - seconds} for entry in self.history()]
        (self.folder / "history.json").write_text(json.dumps(entries))
        for mark in self.folder.glob("*/specification-*.json"):
            moment = mark.stat().st_mtime - seconds
            os.utime(mark, (moment, moment))


ROW_OPTIONS = {"name", "root", "explicit", "channels", "python_lock", "check"}


def state(folder: Path) -> dict[str, float]:
    """Every path below the folder with the time of its last change."""
    return {str(path): path.lstat().st_ctime for path in folder.rglob("*")}
