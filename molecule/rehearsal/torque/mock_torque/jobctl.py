# SPDX-License-Identifier: BSD-3-Clause
"""qsig and qrls: signal a running job, release a held one."""

from __future__ import annotations

import getopt
import sys
from typing import Any

from mock_torque import identifiers
from mock_torque.client import CannotConnectError, Client, RequestError, no_server, say

USAGE_ERROR = 2


def _for_each(command: str, kind: str, names: list[str], **request: Any) -> int:
    client = Client(command)
    status = 0
    for name in names:
        try:
            full = identifiers.job_id(name, client.home.server()[0])
            client.ask(kind, id=full, **request)
        except identifiers.IllegalError:
            say(f"{command}: illegally formed job identifier: {name}\n")
            status = 1
        except RequestError as error:
            say(f"{command}: {error}\n")
            status = error.exit_status
        except CannotConnectError as error:
            return no_server(command, error)
    return status


def qsig() -> int:
    """Entry point of bin/qsig."""
    try:
        pairs, names = getopt.gnu_getopt(sys.argv[1:], "s:")
    except getopt.GetoptError:
        names = []
        pairs = []
    if not names:
        say("usage: qsig [-s signal] job_identifier...\n")
        return USAGE_ERROR
    return _for_each("qsig", "signal", names, signal=dict(pairs).get("-s", "TERM"))


def qrls() -> int:
    """Entry point of bin/qrls."""
    names = sys.argv[1:]
    if not names:
        say("usage: qrls job_identifier...\n")
        return USAGE_ERROR
    return _for_each("qrls", "release", names)
