# SPDX-License-Identifier: BSD-3-Clause
"""The spool folder: where each daemon of a host finds its files, and who the accounts are."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_HOME = "/var/spool/torque"
SERVER_PORT = 15001
MOM_PORT = 15002
PASSWD_FIELDS = 7


@dataclass(frozen=True)
class Account:
    """One line of passwd(5)."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


class Home:
    """Paths and host-wide settings below one spool folder (``/var/spool/torque``)."""

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder)
        self.server_priv = self.path / "server_priv"
        self.mom_priv = self.path / "mom_priv"
        self.socket = self.path / "trqauthd.sock"

    def key(self) -> bytes:
        """The secret shared by the daemons of all hosts.

        Raises SystemExit when the file is missing, empty or readable by others.
        """
        path = self.path / "auth_key"
        try:
            mode = path.stat().st_mode
            key = path.read_bytes().strip()
        except OSError as error:
            raise SystemExit(f"{path}: {error.strerror}; every host needs the secret") from error
        if stat.S_IMODE(mode) & 0o077:
            raise SystemExit(f"{path} is open to others: chmod 0600 {path}")
        if not key:
            raise SystemExit(f"{path} is empty; every host needs the secret")
        return key

    def server(self) -> tuple[str, int]:
        """Name and port of the queue server: ``server_name`` holds NAME or NAME:PORT."""
        path = self.path / "server_name"
        try:
            text = path.read_text().strip()
        except OSError as error:
            raise SystemExit(f"{path}: {error.strerror}; write the server's name there") from error
        name, _, port = text.partition(":")
        return name, int(port or SERVER_PORT)

    def account(self, name: str) -> Account | None:
        """The account called ``name`` on this host, or None."""
        for account in self._extra_accounts():
            if account.name == name:
                return account
        try:
            return _from_pwd(pwd.getpwnam(name))
        except KeyError:
            return None

    def account_of_uid(self, uid: int) -> Account | None:
        """The account with number ``uid`` on this host, or None."""
        for account in self._extra_accounts():
            if account.uid == uid:
                return account
        try:
            return _from_pwd(pwd.getpwuid(uid))
        except KeyError:
            return None

    @staticmethod
    def group_name(gid: int) -> str:
        """The name of a group, or its number where it has none."""
        try:
            return grp.getgrgid(gid).gr_name
        except KeyError:
            return str(gid)

    def _extra_accounts(self) -> list[Account]:
        """Accounts of the file ``accounts`` (as passwd(5)): tests need no useradd."""
        path = self.path / "accounts"
        if not path.exists():
            return []
        rows = (line.split(":") for line in path.read_text().splitlines())
        return [
            Account(row[0], int(row[2]), int(row[3]), row[5], row[6])
            for row in rows
            if len(row) == PASSWD_FIELDS
        ]


def _from_pwd(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell)


def write_json(path: Path, content: Any) -> None:
    """Replace ``path`` by ``content`` in one step, readable by its owner only."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file)
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """The content of a file written by write_json."""
    return json.loads(path.read_text(encoding="utf-8"))
