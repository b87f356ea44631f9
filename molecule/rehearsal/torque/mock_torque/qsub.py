# SPDX-License-Identifier: BSD-3-Clause
"""qsub: options, directives and script become one request."""

from __future__ import annotations

import base64
import getopt
import os
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mock_torque import script, variables
from mock_torque.client import CannotConnectError, Client, RequestError, no_server, put, say
from mock_torque.state import OLD_VERSION, VERSION

LETTERS = "a:A:b:c:C:d:D:e:F:hIj:J:k:K:l:L:m:M:n:N:o:p:P:q:r:S:t:T:u:v:Vw:W:xXz"
NOT_MODELLED = "FIJKLtTX"
USAGE = """\
usage: qsub [-a date_time] [-A account_string] [-b secs]
    [-c [ none | { enabled | periodic | shutdown |
    depth=<int> | dir=<path> | interval=<minutes>}... ]
    [-C directive_prefix] [-d path] [-D path]
    [-e path] [-h] [-I] [-j oe|eo|n] [-k {oe}] [-K <kill delay seconds>] 
    [-l resource_list] [-m n|{abe}] [-M user_list] [-N jobname] [-o path] 
    [-p priority] [-P proxy_user [-J <jobid]] [-q queue] [-r y|n] 
    [-S path] [-t number_to_submit] [-T type]  [-u user_list] [-w] path
    [-W additional_attributes] [-v variable_list] [-V ] [-x] [-X] [-z] [script]

"""  # noqa: W291 - verbatim
USAGE_ERROR = 2
SYNTAX_ERROR = 3
MAXIMUM_NAME = 236
MAXIMUM_PRIORITY = 1024
DATE_DIGITS = {4, 6, 8, 10, 12}
# PBS_O_*: what the submitter's environment has of these goes along.
ORIGIN = ("HOME", "LANG", "LOGNAME", "PATH", "MAIL", "SHELL", "TZ")


class StopError(Exception):
    """qsub ends here: exit status and what goes to stderr."""

    def __init__(self, exit_status: int, text: str) -> None:
        self.exit_status = exit_status
        super().__init__(text)


def illegal(letter: str) -> StopError:
    """An option's value that qsub itself refuses."""
    return StopError(USAGE_ERROR, f"[qsub: illegal -{letter} value]\n\n{USAGE}")


def parse_options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Letters to values (the last wins; -l adds up) and the operands; raises StopError."""
    try:
        pairs, operands = getopt.gnu_getopt(words, LETTERS)
    except getopt.GetoptError as error:
        raise _option_error(error) from None
    options: dict[str, str] = {}
    for option, value in pairs:
        letter = option.removeprefix("-")
        if letter in NOT_MODELLED and letter != "I":
            raise StopError(USAGE_ERROR, f"qsub: -{letter} is not modelled by the mock\n")
        if letter == "l" and "l" in options:
            options["l"] += f",{value}" if value else ""
        else:
            options[letter] = value
    return options, operands


def _option_error(error: getopt.GetoptError) -> StopError:
    if len(error.opt) != 1:  # --something
        return StopError(USAGE_ERROR, f"[a single - is not a valid option]\n\n{USAGE}")
    if "requires argument" in error.msg:
        text = f"qsub: option requires an argument -- '{error.opt}'"
    else:
        text = f"qsub: invalid option -- '{error.opt}'"
    return StopError(USAGE_ERROR, f"{text}\n[exiting]\n\n{USAGE}")


def parse_resources(text: str) -> dict[str, str]:
    """``-l``: everything after a blank is silently lost; raises StopError."""
    found: dict[str, str] = {}
    rest = text.lstrip()
    while text:
        piece, comma, tail = rest.partition(",")
        first, *after_blank = piece.split(None, 1) or [""]
        if not first or first.startswith("="):
            raise illegal("l")
        name, equals, value = first.partition("=")
        if not equals:
            raise StopError(
                1, f"Cannot find an attr=value pair in comma separated value '{first}'\n"
            )
        found[name] = value
        if after_blank or not comma:
            break
        rest = tail.lstrip()
    return found


def merge(command_line: dict[str, str], directive: dict[str, str]) -> dict[str, str]:
    """The command line wins, option by option and resource by resource."""
    options = {**directive, **command_line}
    if "l" in command_line and "l" in directive:
        # Kept apart so that a blank in one does not hide the other; checked when parsed.
        merged = {**parse_resources(directive["l"]), **parse_resources(command_line["l"])}
        options["l"] = ",".join(f"{name}={value}" for name, value in merged.items())
    return options


def _job_name(text: str, default: str) -> str:
    if not text:
        return "none"
    if len(text) > MAXIMUM_NAME or not all(char.isprintable() and char != " " for char in text):
        raise illegal("N")
    return text or default


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except OSError:  # behind a folder that is closed to the submitter
        return False


def _path(letter: str, text: str) -> str:
    """A marked folder ends in "/": the server adds the file's name."""
    if not text:
        raise illegal(letter)
    if ":" not in text.partition("/")[0] and _is_folder(text):
        return str(Path(text).absolute()) + "/"
    return text


def _folder(letter: str, text: str) -> str:
    if not _is_folder(text):
        raise illegal(letter)
    return str(Path(text).absolute())


def _execution_time(text: str) -> int:
    """``[[[[CC]YY]MM]DD]hhmm[.SS]``: what is missing is today's; a passed hhmm is tomorrow's."""
    digits, _, seconds = text.partition(".")
    now = datetime.now().astimezone()
    full = now.strftime("%Y%m%d")[: 12 - len(digits)] + digits
    if len(digits) not in DATE_DIGITS or not digits.isdigit():
        raise illegal("a")
    try:
        moment = datetime.strptime(full, "%Y%m%d%H%M").astimezone()
        moment += timedelta(seconds=int(seconds or 0))
    except ValueError:
        raise illegal("a") from None
    if len(digits) == len("hhmm") and moment < now:
        moment += timedelta(days=1)
    return int(moment.timestamp())


def _one_of(letter: str, allowed: set[str]) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in allowed:
            raise illegal(letter)
        return text

    return check


def _priority(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise illegal("p") from None
    if abs(value) > MAXIMUM_PRIORITY:
        raise illegal("p")
    return value


def _additional(text: str) -> dict[str, str]:
    found = {}
    for item in text.split(","):
        name, equals, value = item.partition("=")
        if not equals or name not in {"umask", "depend", "x", "group_list"}:
            raise illegal("W")
        found[name] = value
    if "umask" in found and not all(digit in "01234567" for digit in found["umask"]):
        raise illegal("W")
    return found


def build(options: dict[str, str], operands: list[str]) -> dict[str, Any]:
    """The request, but for script and variables; raises StopError."""
    default = Path(operands[0]).name if operands else "STDIN"
    request: dict[str, Any] = {"name": _job_name(options.get("N", default), default)}
    checks: dict[str, tuple[str, Callable[[str], Any]]] = {
        "a": ("execution_time", _execution_time),
        "A": ("account", str),
        "d": ("work_dir", lambda text: _folder("d", text)),
        "e": ("error_path", lambda text: _path("e", text)),
        "j": ("join", _one_of("j", {"oe", "eo", "n"})),
        "k": ("keep", _one_of("k", {"o", "e", "oe", "eo", "n"})),
        "l": ("resources", parse_resources),
        "m": ("mail_points", str),
        "M": ("mail_users", str),
        "o": ("output_path", lambda text: _path("o", text)),
        "p": ("priority", _priority),
        "P": ("proxy_user", str),
        "q": ("queue", str),
        "r": ("rerunable", lambda text: _one_of("r", {"y", "n"})(text) == "y"),
        "S": ("shell", str),
        "u": ("run_as", str),
        "w": ("path_folder", lambda text: _folder("w", text)),
        "W": ("extra", _additional),
    }
    for letter, (name, check) in checks.items():
        if letter in options:
            request[name] = check(options[letter])
    request["hold"] = "h" in options
    request["umask"] = (request.get("extra") or {}).get("umask")
    return request


def _current_folder() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        raise StopError(
            SYNTAX_ERROR,
            "qsub: Cannot obtain the current directory.\nPlease submit from a valid directory.\n",
        ) from None


def variable_list(options: dict[str, str], folder: str, *, old: bool) -> str:
    """Variable_List without what the server adds at its ends; raises StopError."""
    items = [
        f"PBS_O_{name}={variables.escape(os.environ[name])}"
        for name in ORIGIN
        if name in os.environ
    ]
    if "v" in options:
        try:
            items += variables.expand(options["v"], os.environ, old=old)
        except variables.InvalidSyntaxError:
            raise StopError(SYNTAX_ERROR, "invalid -v syntax\n") from None
        except variables.OverrunError:
            say("*** stack smashing detected ***: terminated\n")
            os.abort()
    if "V" in options:
        items += [f"{name}={variables.escape(value)}" for name, value in os.environ.items()]
    return ",".join([*items, f"PBS_O_WORKDIR={folder}"])


def _read_script(operands: list[str]) -> bytes:
    path = operands[0] if operands else None
    if path is not None and Path(path).is_dir():
        raise StopError(1, "qsub: script not a file\n")
    try:
        return script.read(path)
    except OSError as error:
        text = f"qsub: script file '{path}' cannot be loaded - {error.strerror}\n"
        raise StopError(1, text) from None


def submit(client: Client, words: list[str], version: str) -> str:
    """The id of the new job, "" with -z; raises StopError, RequestError, CannotConnectError."""
    command_line, operands = parse_options(words)
    if "I" in command_line:
        text = "qsub:\tstandard input and output must be a terminal for \n"
        raise StopError(1, f"{text}\tinteractive job submission\n")
    content = _read_script(operands)
    try:
        copy = script.ScriptCopy(content)
    except OSError as error:
        text = f"qsub: could not create copy of script {error.filename} - {error.strerror}\n"
        raise StopError(1, text) from None
    # From here on a usage error leaves the copy behind, as TORQUE does.
    words = script.directives(content, command_line.get("C", "#PBS"))
    options = merge(command_line, parse_options(words)[0])
    request = build(options, operands)
    folder = _current_folder()
    request.setdefault("path_folder", request.get("work_dir", folder))
    request["variables"] = variable_list(options, folder, old=version == OLD_VERSION)
    try:
        reply = client.ask(
            "submit",
            script=base64.b64encode(content).decode(),
            submit_args=" ".join(sys.argv[1:]),
            init_work_dir=folder,
            **request,
        )
    finally:
        if content:
            copy.remove()
    return "" if "z" in options else str(reply["id"])


def _server(words: list[str]) -> str | None:
    """The server of ``-q queue@server``; raises StopError."""
    _, _, server = parse_options(words)[0].get("q", "").partition("@")
    return server or None


def _version(client: Client, words: list[str]) -> str:
    """Which qsub to be: that of the server, asked only where it makes a difference here."""
    if os.geteuid() != 0 and "-v" not in " ".join(words):
        return VERSION
    client.quiet = True
    try:
        return str(client.ask("version")["version"])
    except (CannotConnectError, RequestError):
        return VERSION
    finally:
        client.quiet = False


def main() -> int:
    """Entry point of bin/qsub."""
    words = sys.argv[1:]
    if words == ["--version"]:
        put(f"Version: {VERSION}\nCommit: \n")
        return 0
    try:
        client = Client("qsub", server=_server(words))
        if os.geteuid() == 0:
            text = "qsub can not be run as root\n"
            (put if _version(client, words) == OLD_VERSION else say)(text)
            return 1
        name = submit(client, words, _version(client, words))
    except StopError as error:
        say(str(error))
        return error.exit_status
    except RequestError as error:
        say(f"qsub: submit error ({error})\n")
        return error.exit_status
    except CannotConnectError as error:
        return no_server("qsub", error)
    if name:
        put(f"{name}\n")
    return 0
