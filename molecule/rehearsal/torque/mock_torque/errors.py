# SPDX-License-Identifier: BSD-3-Clause
"""PBS error numbers and texts, as TORQUE 6.1.3 prints them.

A command that fails exits with its error number modulo 256.
"""

from __future__ import annotations

UNKNOWN_JOB = 15001
UNDEFINED_ATTRIBUTE = 15002
UNAUTHORIZED = 15007
BAD_HOST = 15010
BAD_VALUE = 15016
BAD_STATE = 15018
UNKNOWN_QUEUE = 15020
QUEUE_DISABLED = 15023
OBJECT_BUSY = 15029
BAD_UID = 15025
UNKNOWN_RESOURCE = 15037
EXCEEDS_LIMITS = 15038
QUEUE_FULL = 15048
BAD_DEPENDENCY = 15056
QUEUE_EXISTS = 15033
UNKNOWN_NODE = 15060
SHUTTING_DOWN = 15062
NO_MOM = 15072
USER_QUEUE_FULL = 15076
BAD_SYNTAX = 15131
NO_TRQAUTHD = 15137

# The blank at the end of some of them is TORQUE's own.
TEXTS = {
    UNKNOWN_JOB: "Unknown Job Id Error",
    UNDEFINED_ATTRIBUTE: "Undefined attribute ",
    UNAUTHORIZED: "Unauthorized Request ",
    BAD_HOST: "Access from host not allowed, or unknown host",
    BAD_VALUE: "Illegal attribute or resource value for",
    BAD_STATE: "Request invalid for state of job",
    UNKNOWN_QUEUE: "Unknown queue",
    QUEUE_DISABLED: "Queue is not enabled",
    OBJECT_BUSY: "Object is busy",
    BAD_UID: "Bad UID for job execution",
    UNKNOWN_RESOURCE: "Unknown resource type ",
    EXCEEDS_LIMITS: "Job exceeds queue resource limits",
    QUEUE_FULL: "Maximum number of jobs already in queue",
    BAD_DEPENDENCY: "Invalid Job Dependency",
    QUEUE_EXISTS: "Queue already exists",
    UNKNOWN_NODE: "Unknown node ",
    SHUTTING_DOWN: "Request not allowed: Server shutting down",
    NO_MOM: "Server could not connect to MOM",
    USER_QUEUE_FULL: "Maximum number of jobs already in queue for user",
    BAD_SYNTAX: "Command syntax invalid",
    NO_TRQAUTHD: "could not connect to trqauthd",
}


class PbsError(Exception):
    """A request that the batch system refuses.

    ``code`` is the PBS error number, ``str()`` the sentence of the real server: the text of
    the number, followed by ``MSG=...`` or by the name of what was wrong.
    """

    def __init__(self, code: int, *, msg: str = "", what: str = "") -> None:
        self.code = code
        text = TEXTS[code]
        if msg:
            text += f" MSG={msg}"
        if what:
            text += f" {what}"
        super().__init__(text)

    @property
    def exit_status(self) -> int:
        """Exit status of the command that reports this error."""
        return exit_status(self.code)


def exit_status(code: int) -> int:
    """Exit status for a PBS error number or an errno."""
    return code % 256
