# SPDX-License-Identifier: BSD-3-Clause
"""pbsnodes."""

from __future__ import annotations

import getopt
import sys

from mock_torque import formatting
from mock_torque.client import CannotConnectError, Client, RequestError, put, say
from mock_torque.formatting import Item

USAGE = """\
usage:\tpbsnodes [-{c|d|o|r}][-s server] [-n] [-N "note"] [-A "append note"] [-v] node node ...
\tpbsnodes -l [-s server] [-n] [state]
\tpbsnodes [-{a|x}] [-s server] [node]
"""
USAGE_ERROR = 2
UNUSABLE = {"down", "offline"}


def parse(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options and node names; SystemExit after a usage error."""
    try:
        pairs, operands = getopt.gnu_getopt(words, "acdlnoqrvxN:s:")
    except getopt.GetoptError as error:
        say(f"pbsnodes: invalid option -- '{error.opt}'\n{USAGE}")
        raise SystemExit(USAGE_ERROR) from None
    return {option.removeprefix("-"): value for option, value in pairs}, operands


def change(client: Client, options: dict[str, str], names: list[str]) -> int:
    """-o, -c, -r, -N; a refusal is printed and, as in TORQUE, the exit status is 0."""
    request: dict[str, object] = {}
    if "o" in options:
        request["offline"] = True
    if "c" in options or "r" in options:
        request["offline"] = False
    if "N" in options:
        request["note"] = "" if options["N"] == "n" else options["N"]
    for name in names:
        try:
            client.ask("set_node", name=name, **request)
        except RequestError as error:
            say(f"Error setting note attribute for {name} - {error}\n")
    return 0


def short_list(nodes: list[Item], state: str | None, *, notes: bool) -> None:
    """-l: unusable nodes, those in ``state``, or with ``all`` every node."""
    for node in nodes:
        row = formatting.values(node["attributes"])
        own = set(row["state"].split(","))
        if state != "all" and not own & ({state} if state else UNUSABLE):
            continue
        if notes:
            put(f"{node['name']:<20} {row['state']:<26} {row.get('note', '')}\n")
        else:
            put(f"{node['name']:<20} {row['state']}\n")


def show(client: Client, options: dict[str, str], operands: list[str]) -> int:
    """-a, -x, -l, or the named nodes."""
    names = [] if "l" in options else operands
    try:
        nodes: list[Item] = client.ask("nodes", names=names)["nodes"]
    except RequestError as error:
        say(f"pbsnodes: {error}\n")
        return 1
    if "l" in options:
        short_list(nodes, operands[0] if operands else None, notes="n" in options)
    elif "x" in options:
        put(formatting.nodes_xml(nodes))
    else:
        put("".join(formatting.node_text(node) for node in nodes))
    return 0


def main() -> int:
    """Entry point of bin/pbsnodes."""
    options, operands = parse(sys.argv[1:])
    client = Client("pbsnodes", server=options.get("s"))
    try:
        if options.keys() & set("ocrN") and operands:
            return change(client, options, operands)
        return show(client, options, operands)
    except CannotConnectError as error:
        text = f"cannot connect to server {error.server}, error={error.code} ({error})"
        say(f"pbsnodes: {text}\n")
        return 1
