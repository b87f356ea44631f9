# SPDX-License-Identifier: BSD-3-Clause
"""Check, run as the hub's account, that the account can do its work on this machine.

    verify_account.py '{"researcher": ..., "commands": [...], "service": ..., "local": [...]}'

- sudo grants each command for one researcher, with the files in /etc/sudoers.d in force (a
  command that is installed later cannot be tried yet);
- PAM tells this process whether that researcher's account may be used: the service can be
  loaded and its modules know the account. A password is not tried: a wrong one would count
  towards the lock of the account (pam_faillock), a right one is not known;
- the password hashes of accounts on this machine can be read, which is what pam_unix needs of a
  process that is not root.

Not shown: that a directory (sssd, LDAP) accepts a right password. Prints one sentence for each
problem; status 1 if any.
"""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

SUDO = "/usr/bin/sudo"
PAM_FOLDERS = (Path("/etc/pam.d"), Path("/usr/lib/pam.d"))
# The answers that are about the person, not about this machine (Linux-PAM, _pam_types.h):
# permission denied, new password required, account expired.
PAM_DECISIONS = {6, 12, 13}
TIMEOUT_S = 30


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def sudo_problems(researcher: str, commands: Sequence[Sequence[str]]) -> Iterator[str]:
    """Say which commands sudo would not run as the researcher; none of them is run."""
    for command in commands:
        if not Path(command[0]).exists():
            continue
        answer = _run([SUDO, "-n", "-l", "-u", researcher, *command])
        if answer.returncode != 0:
            yield (
                f"{getpass.getuser()} may not run {' '.join(command)} as {researcher}. Does "
                '/etc/sudoers read the folder, with a line "@includedir /etc/sudoers.d", and does '
                f"no later line take the rule back? sudo says: {answer.stderr.strip() or '-'}."
            )


def pam_problems(researcher: str, service: str) -> Iterator[str]:
    """Say why PAM has no answer for the researcher's account."""
    if not any((folder / service).exists() for folder in PAM_FOLDERS):
        yield f"There is no PAM service {service}: /etc/pam.d/{service} is missing."
        return
    import pamela  # noqa: PLC0415  the other checks do without it

    try:
        pamela.check_account(researcher, service=service)
    except pamela.PAMError as error:
        if error.errno not in PAM_DECISIONS:
            yield f"The PAM service {service} has no answer for {researcher}: {error}."


def shadow_problems(local: Sequence[str]) -> Iterator[str]:
    """Say which accounts of this machine nobody could check a password of."""
    if local and _run(["getent", "shadow", "root"]).returncode != 0:
        yield (
            f"{getpass.getuser()} cannot read /etc/shadow, so PAM cannot check the password of "
            f"{', '.join(local)}, whose accounts are on this machine itself. Set "
            "sudoers_rhea_shadow_group in group_vars/all/login.yml to the group of /etc/shadow "
            "(Debian, Ubuntu: shadow); where it has no such group (EL), use accounts from a "
            "directory (sssd), or another login than PAM."
        )


def main(argument: str) -> int:
    asked = json.loads(argument)
    problems = list(shadow_problems(asked["local"]))
    if asked["researcher"]:
        problems += sudo_problems(asked["researcher"], asked["commands"])
        if asked["service"]:
            problems += pam_problems(asked["researcher"], asked["service"])
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
