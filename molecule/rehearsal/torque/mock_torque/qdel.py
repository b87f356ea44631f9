# SPDX-License-Identifier: BSD-3-Clause
"""qdel."""

from __future__ import annotations

import getopt
import sys

from mock_torque import errors, identifiers
from mock_torque.client import CannotConnectError, Client, RequestError, no_server, say
from mock_torque.state import OLD_VERSION

USAGE = """\
usage: qdel [{ -a | -c | -p | -t | -W delay | -m message}] [-b retry_seconds] [<JOBID>[<JOBID>]|'all'|'ALL']...
       -a -c, -m, -p, -t, and -W are mutually exclusive
"""  # noqa: E501 - verbatim
USAGE_ERROR = 2
ILLEGAL = 1


def parse(words: list[str]) -> tuple[dict[str, object], list[str]]:
    """What goes into each request, and the ids; SystemExit after a usage error."""
    try:
        pairs, operands = getopt.gnu_getopt(words, "ab:cm:pt:W:")
    except getopt.GetoptError as error:
        for letter in error.opt if len(error.opt) == 1 else f"-{error.opt}":
            say(f"qdel: invalid option -- '{letter}'\n")
        say(USAGE)
        raise SystemExit(USAGE_ERROR) from None
    options = dict(pairs)
    delay = options.get("-W", "0")
    if not operands or not delay.isdigit() or "-t" in options:
        say(USAGE)
        raise SystemExit(USAGE_ERROR)
    request: dict[str, object] = {"purge": "-p" in options or "-c" in options}
    if "-W" in options:
        request["delay"] = int(delay)
    return request, operands


def delete(client: Client, operand: str, request: dict[str, object]) -> tuple[int, str]:
    """Delete one job; the exit status, and the version of the server that gave it."""
    try:
        name = operand
        if operand.lower() != "all":
            name = identifiers.job_id(operand, client.home.server()[0])
        reply = client.ask("delete", id=name, **request)
    except identifiers.IllegalError:
        say(f"qdel: illegally formed job identifier: {operand}\n")
        return ILLEGAL, ""
    except RequestError as error:
        if error.code != errors.UNKNOWN_JOB:
            say(f"qdel: {error}\n")
        elif error.version != OLD_VERSION:
            say(f"qdel: nonexistent job id: {operand}\n")
        return error.exit_status, error.version
    return errors.exit_status(reply.get("silent", 0)), reply["version"]


def main() -> int:
    """Entry point of bin/qdel."""
    request, operands = parse(sys.argv[1:])
    client = Client("qdel")
    status = 0
    try:
        for operand in operands:
            client.server = operand.partition("@")[2] or client.server
            latest, version = delete(client, operand, request)
            # 4.2.10 remembers only the last one
            status = latest if version == OLD_VERSION else latest or status
    except CannotConnectError as error:
        return no_server("qdel", error)
    return status
