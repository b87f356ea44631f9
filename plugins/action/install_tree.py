# SPDX-License-Identifier: BSD-3-Clause
"""Carry many small files to the host at once, for the module `install_tree`, which see.

`copy` asks the host three times for each file; here it is asked three times for all of them.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

FILE, PROGRAM = 0o644, 0o755


class ActionModule(ActionBase):
    """The action; see the module's text."""

    TRANSFERS_FILES = True
    _VALID_ARGS = frozenset({"dest", "folders", "files", "programs"})

    def run(self, tmp: None = None, task_vars: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Pack what the task names, bring it to the host and let the module install it."""
        super().run(tmp, task_vars)
        arguments = self._task.args
        folders = [str(name) for name in arguments.get("folders", [])]
        contents = {
            **{path: file for name in folders for path, file in self._folder(name)},
            **{str(path): str(text).encode() for path, text in arguments.get("files", {}).items()},
        }
        programs = {str(path) for path in arguments.get("programs", [])}
        if missing := programs - contents.keys():
            raise AnsibleActionFail(f"programs: {', '.join(sorted(missing))} is none of the files.")
        result: dict[str, Any] = self._execute_module(
            module_name="install_tree",
            module_args={
                "archive": self._carry(contents, programs),
                "dest": arguments["dest"],
                "folders": folders,
            },
            task_vars=task_vars,
        )
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _folder(self, name: str) -> Iterator[tuple[str, bytes]]:
        """The files of a folder of the role, by path; what Python has compiled is none of them."""
        top = Path(self._find_needle("files", name))
        for path in sorted(top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"{name}/{path.relative_to(top).as_posix()}", path.read_bytes()

    def _carry(self, contents: Mapping[str, bytes], programs: set[str]) -> str:
        """Bring an archive of these files to the host; its path there."""
        shell = self._connection._shell
        archive: str = shell.join_path(shell.tmpdir, "tree.tar.gz")
        with tempfile.NamedTemporaryFile() as packed:
            with tarfile.open(fileobj=packed, mode="w:gz") as tar:
                for path, content in contents.items():
                    member = tarfile.TarInfo(path)
                    member.size = len(content)
                    member.mode = PROGRAM if path in programs else FILE
                    tar.addfile(member, io.BytesIO(content))
            packed.flush()
            self._transfer_file(packed.name, archive)
        self._fixup_perms2((shell.tmpdir, archive))
        return archive
