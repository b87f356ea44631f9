# SPDX-License-Identifier: BSD-3-Clause
"""qmgr -c DIRECTIVE, or directives on standard input."""

from __future__ import annotations

import getopt
import sys

from mock_torque.client import CannotConnectError, Client, RequestError, put, say

USAGE = "usage: qmgr [-c command] [server...]\n"
NO_SERVER = 3
REFUSED = 2


def obey(client: Client, line: str) -> int:
    """Send one directive; the exit status."""
    try:
        put(client.ask("manage", line=line).get("text", ""))
    except RequestError as error:
        words = line.split()
        # the object's name is empty for the server
        name = words[2] if words[2:] and not words[1].startswith("s") else ""
        say(f"qmgr obj={name} svr=default: {error}\n")
        return REFUSED
    return 0


def main() -> int:
    """Entry point of bin/qmgr."""
    try:
        pairs, operands = getopt.gnu_getopt(sys.argv[1:], "ac:enz")
    except getopt.GetoptError:
        say(USAGE)
        return REFUSED
    lines = [value for option, value in pairs if option == "-c"] or sys.stdin.read().splitlines()
    client = Client("qmgr", server=operands[0] if operands else None)
    status = 0
    try:
        for line in lines:
            if line.strip() and not line.lstrip().startswith("#"):
                status = obey(client, line) or status
    except CannotConnectError as error:
        say(f"qmgr: cannot connect to server  (errno={error.code}) {error}\n")
        return NO_SERVER
    return status
