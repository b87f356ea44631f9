# SPDX-License-Identifier: BSD-3-Clause
"""qstat: jobs and queues, as table, full listing or XML."""

from __future__ import annotations

import getopt
import sys

from mock_torque import formatting, identifiers
from mock_torque.client import CannotConnectError, Client, Reply, no_server, put, say
from mock_torque.errors import exit_status
from mock_torque.formatting import Item
from mock_torque.state import OLD_VERSION

USAGE = """\
usage: 
                          qstat [-f [-1]] [-W site_specific] [-x] [ job_identifier... | destination... ]
                          qstat [-a|-i|-r|-e] [-u user] [-n [-1]] [-s] [-t] [-G|-M] [-R] [job_id... | destination...]
                          qstat -Q [-f [-1]] [-W site_specific] [ destination... ]
                          qstat -q [-G|-M] [ destination... ]
                          qstat -B [-f [-1]] [-W site_specific] [ server_name... ]
                          qstat -t
"""  # noqa: E501, W291 - verbatim
USAGE_ERROR = 2
ATTEMPTS = 3  # the real one connects three times before it gives up
ILLEGAL = 1


def parse(words: list[str]) -> tuple[set[str], str | None, list[str]]:
    """Letters, the user of -u and the operands; SystemExit after a usage error."""
    try:
        pairs, operands = getopt.gnu_getopt(words, "1aefinqQrstu:W:x")
    except getopt.GetoptError as error:
        if len(error.opt) == 1:
            say(f"qstat: invalid option -- '{error.opt}'\n")
        say(USAGE)
        raise SystemExit(USAGE_ERROR) from None
    letters = {option.removeprefix("-") for option, _ in pairs}
    if "1" in letters and not letters & set("fn"):
        say(f"qstat: conflicting options.\n{USAGE}")
        raise SystemExit(USAGE_ERROR)
    user = dict(pairs).get("-u")
    return letters, user, operands


class Listing:
    """Prints what was asked for and remembers the exit status of the last failure."""

    def __init__(self, letters: set[str], user: str | None) -> None:
        self.letters = letters
        self.user = user
        self.exit_status = 0
        self.head_printed = False

    def failed(self, code: int, message: str) -> None:
        """One operand could not be shown."""
        say(f"qstat: {message}\n")
        self.exit_status = exit_status(code)

    def jobs(self, jobs: list[Item], *, old: bool, server: str) -> None:
        """The jobs of one operand."""
        if self.user is not None:
            jobs = [job for job in jobs if self._owner(job) in self.user.split(",")]
        if "x" in self.letters:
            put(formatting.jobs_xml(jobs, old=old))
        elif "f" in self.letters:
            one_line = "1" in self.letters
            for job in jobs:
                title = f"Job Id: {job['id']}"
                put(formatting.full(title, job["attributes"], one_line=one_line))
        elif jobs:
            self._table(jobs, server)

    @staticmethod
    def _owner(job: Item) -> str:
        return formatting.values(job["attributes"])["Job_Owner"].partition("@")[0]

    def _table(self, jobs: list[Item], server: str) -> None:
        alternate = bool(self.letters & set("aeinrs")) or self.user is not None
        if not self.head_printed:
            head = f"\n{server}: \n{formatting.ALTERNATE_HEAD}"
            put(head if alternate else formatting.JOB_HEAD)
            self.head_printed = True
        for job in jobs:
            if alternate:
                put(formatting.alternate_row(job, hosts="n" in self.letters))
            else:
                put(formatting.job_row(job))


def _ask(client: Client, listing: Listing, operands: list[str]) -> None:
    """Jobs of ids, queues, ``@server`` or, without operands, of everybody."""
    targets = []
    for operand in operands or [""]:
        if operand[:1].isdigit() or operand.startswith("-"):
            try:
                targets.append(identifiers.job_id(operand, client.home.server()[0]))
            except identifiers.IllegalError:
                say(f"qstat: illegally formed job identifier: {operand}\n")
                say("qstat: Error (1 - Operation not permitted) \n")
                listing.exit_status = ILLEGAL
        else:
            targets.append(operand)
    if not targets:
        return
    reply = client.ask("jobs", targets=targets)
    for result in reply["results"]:
        if "error" in result:
            listing.failed(result["error"], result["message"])
        else:
            old = reply["version"] == OLD_VERSION
            listing.jobs(result["jobs"], old=old, server=reply["server"])


def _queues(client: Client, listing: Listing, names: list[str]) -> None:
    reply: Reply = client.ask("queues", names=names)
    found = []
    for result in reply["results"]:
        if "error" in result:
            listing.failed(result["error"], result["message"])
        else:
            found.append(result)
    if "q" in listing.letters:
        put(formatting.limits_table(reply["server"], found))
    elif "f" in listing.letters:
        for queue in found:
            put(formatting.full(f"Queue: {queue['name']}", queue["attributes"]))
    elif found:
        put(formatting.QUEUE_HEAD + "".join(formatting.queue_row(queue) for queue in found))


def main() -> int:
    """Entry point of bin/qstat."""
    letters, user, operands = parse(sys.argv[1:])
    servers = {word.partition("@")[2] for word in operands if "@" in word}
    client = Client("qstat", attempts=ATTEMPTS, server=servers.pop() if servers else None)
    listing = Listing(letters, user)
    try:
        if letters & set("qQ"):
            _queues(client, listing, operands)
        else:
            _ask(client, listing, [word.partition("@")[0] for word in operands])
    except CannotConnectError as error:
        status = no_server("qstat", error)
        say(f"qstat: Error ({error.code} - {error}) \n")
        return status
    return listing.exit_status
