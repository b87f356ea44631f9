# SPDX-License-Identifier: BSD-3-Clause
"""Ask a PAM service about an account that does not exist, and expect an ordinary refusal.

Proves that this process can load the service and that the service decides; it says nothing
about right passwords. A name without an account is asked, because a wrong password for a real
one would count towards its lock (pam_faillock).
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

import pamela

ORDINARY_REFUSALS = {7: "PAM_AUTH_ERR", 10: "PAM_USER_UNKNOWN", 11: "PAM_MAXTRIES"}
FOLDERS = (Path("/etc/pam.d"), Path("/usr/lib/pam.d"))


def main() -> int:
    service = sys.argv[1]
    if not any((folder / service).exists() for folder in FOLDERS):
        print(f"there is no PAM service {service}: /etc/pam.d/{service} is missing.")
        return 1
    try:
        pamela.authenticate(f"check-{secrets.token_hex(4)}", secrets.token_hex(8), service=service)
    except pamela.PAMError as error:
        if error.errno in ORDINARY_REFUSALS:
            return 0
        print(f"the PAM service {service} answers: {error}.")
        return 1
    print(f"the PAM service {service} accepts an account that does not exist.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
