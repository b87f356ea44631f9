# SPDX-License-Identifier: BSD-3-Clause
"""Ask a PAM service whether an account may be used, without a password.

    ask_pam.py SERVICE ACCOUNT

Proves that this process can load the service and that its modules know the account, which is
the second half of every login to the hub. A password is not tried: a wrong one would count
towards the lock of the account (pam_faillock), a right one is not known.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pamela

FOLDERS = (Path("/etc/pam.d"), Path("/usr/lib/pam.d"))
# The answers that are about the person, not about this machine (Linux-PAM, _pam_types.h):
# permission denied, new password required, account expired.
DECISIONS = {6, 12, 13}


def main(service: str, account: str) -> int:
    if not any((folder / service).exists() for folder in FOLDERS):
        print(f"there is no PAM service {service}: /etc/pam.d/{service} is missing.")
        return 1
    try:
        pamela.check_account(account, service=service)
    except pamela.PAMError as error:
        if error.errno not in DECISIONS:
            print(f"the PAM service {service} has no answer for {account}: {error}.")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
