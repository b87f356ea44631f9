#!/usr/bin/python
# SPDX-License-Identifier: BSD-3-Clause
"""Installs many small files at once.

Runs on the managed host, so it keeps to the standard library and to what Python 3.8 knows.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from pathlib import Path
from typing import Iterator, NamedTuple  # noqa: UP035 - Python 3.8

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: install_tree
short_description: Installs many small files at once
description:
  - Installs files of a role and texts below a directory, and removes from the folders what is not
    theirs any more.
  - Each file is replaced by one rename. Files and the directories below C(dest) belong to the
    account that Ansible acts as; directories have mode 0755, files 0644, programs 0755. What Python
    compiled into C(__pycache__) is left alone.
  - The answer to C(--diff) has one entry for each file and directory.
options:
  dest:
    description: The directory; made where it is missing, else left as it is.
    type: path
    required: true
  folders:
    description: Folders of the role's C(files), installed whole under their own names.
    type: list
    elements: str
    default: []
  files:
    description: Texts by their paths below C(dest).
    type: dict
    default: {}
  programs:
    description: Paths below C(dest) of the files that are run by themselves.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Install the code and what it reads
  install_tree:
    dest: /opt/hub
    folders: [bin, hub]
    files:
      hub/tables.json: "{{ tables | to_nice_json }}"
    programs: [bin/check]
"""

RETURN = r"""
installed:
  description: Paths that were installed or corrected, directories among them.
  type: list
  elements: str
  returned: success
removed:
  description: Paths that were removed.
  type: list
  elements: str
  returned: success
"""

DIRECTORY = 0o755
COMPILED = "__pycache__"
PART = ".{}.part"


class File(NamedTuple):
    """What is to be installed."""

    content: bytes
    mode: int


def unpack(archive: str) -> dict[str, File]:
    """The files of an archive, by path."""
    with tarfile.open(archive) as tar:
        members = {member: tar.extractfile(member) for member in tar}
        return {
            member.name: File(stream.read(), member.mode)
            for member, stream in members.items()
            if stream is not None
        }


def describe(path: Path) -> str:
    """What is there, for people: its kind, owner, group and mode; "" when there is nothing."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return ""
    if stat.S_ISLNK(state.st_mode):
        return f"link to {os.readlink(path)}\n"  # noqa: PTH115 - Python 3.8
    kind = "directory" if stat.S_ISDIR(state.st_mode) else "file"
    return described(kind, stat.S_IMODE(state.st_mode), state.st_uid, state.st_gid)


def described(kind: str, mode: int, owner: int, group: int) -> str:
    """The same of anything."""
    return f"{kind}, owner {owner}, group {group}, mode {mode:04o}\n"


def ours(kind: str, mode: int) -> str:
    """The same of what is to be there."""
    return described(kind, mode, os.geteuid(), os.getegid())


def read(path: Path) -> bytes | None:
    """Content of the file that is there; None when there is no file, or something else."""
    return path.read_bytes() if path.is_file() and not path.is_symlink() else None


def difference(path: Path, before: str, after: str) -> dict[str, str]:
    """One entry of Ansible's diff."""
    headers = {f"{when}_header": str(path) for when in ("before", "after")}
    return {**headers, "before": before, "after": after}


class Tree:
    """The directory on this host, and what was done to it."""

    def __init__(self, dest: Path, files: dict[str, File], folders: list[str], dry: bool) -> None:
        self.dest, self.files, self.folders, self.dry = dest, files, folders, dry
        self.installed: list[str] = []
        self.removed: list[str] = []
        self.diff: list[dict[str, str]] = []

    def install(self) -> None:
        """Make directories, then files, then remove what is not theirs.

        Raises OSError.
        """
        for directory in self._directories():
            self._make(directory)
        for name, file in sorted(self.files.items()):
            self._replace(self.dest / name, file)
        for path in self._strangers():
            self._remove(path)

    def _directories(self) -> list[Path]:
        """`dest` and all directories below it that are needed, the outer ones first."""
        needed = {self.dest}
        for name in self.files:
            inner = (self.dest / name).parents
            needed.update(path for path in inner if self.dest in path.parents)
        return sorted(needed)

    def _make(self, path: Path) -> None:
        before = describe(path.resolve()) if path.is_dir() else ""
        if before == ours("directory", DIRECTORY) or (before and path == self.dest):
            return
        self.installed.append(str(path))
        self.diff.append(difference(path, before, ours("directory", DIRECTORY)))
        if not self.dry:
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, os.geteuid(), os.getegid())
            path.chmod(DIRECTORY)

    def _replace(self, path: Path, file: File) -> None:
        before, after = (describe(path), read(path)), (ours("file", file.mode), file.content)
        if before == after:
            return
        self.installed.append(str(path))
        # Owner and mode are shown where they change.
        shown = [
            (state if before[0] != after[0] else "") + (content or b"").decode(errors="replace")
            for state, content in (before, after)
        ]
        self.diff.append(difference(path, *shown))
        if not self.dry:
            part = path.with_name(PART.format(path.name))
            part.write_bytes(file.content)
            os.chown(part, os.geteuid(), os.getegid())
            part.chmod(file.mode)
            part.replace(path)

    def _strangers(self) -> Iterator[Path]:
        """What is in the folders and not of the files; of a whole directory only itself."""
        wanted = {self.dest / name for name in self.files} | set(self._directories())
        for folder in self.folders:
            for top, directories, files in os.walk(self.dest / folder):
                inside = [name for name in directories if name != COMPILED]
                strangers = [Path(top, name) for name in [*inside, *files]]
                yield from sorted(path for path in strangers if path not in wanted)
                directories[:] = [name for name in inside if Path(top, name) in wanted]

    def _remove(self, path: Path) -> None:
        self.removed.append(str(path))
        content = (read(path) or b"").decode(errors="replace")
        self.diff.append(difference(path, describe(path) + content, ""))
        if self.dry:
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def main() -> None:
    """Run as a module."""
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "folders": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    parameters = module.params
    files = unpack(parameters["archive"])
    tree = Tree(Path(parameters["dest"]), files, parameters["folders"], module.check_mode)
    try:
        tree.install()
    except OSError as problem:
        module.fail_json(msg=str(problem), changed=bool(tree.installed or tree.removed))
    module.exit_json(
        changed=bool(tree.installed or tree.removed),
        installed=tree.installed,
        removed=tree.removed,
        diff=tree.diff,
    )


if __name__ == "__main__":
    main()
