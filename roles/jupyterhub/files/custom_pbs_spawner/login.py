# SPDX-License-Identifier: BSD-3-Clause
"""Login with the account of the cluster: bounded, and refused with a sentence that says why."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from typing import Any

from jupyterhub.auth import PAMAuthenticator
from jupyterhub.handlers import BaseHandler
from tornado import web
from traitlets import Enum, Float, Integer, default

from custom_pbs_spawner import messages
from custom_pbs_spawner.client import client_address, is_our_own
from custom_pbs_spawner.login_limit import Limits, LoginLimit, TooManyAttemptsError

_DEFAULTS = Limits()


class LoginRefused(web.HTTPError):
    """A refusal whose text the login page shows above its form."""

    def __init__(self, text: str, status: int = 403) -> None:
        super().__init__(status)
        # Not log_message: that one is put through %-formatting.
        self.jupyterhub_message = text
        self.headers: dict[str, str] = {}


class SystemAuthenticator(PAMAuthenticator):
    """PAM, with a refusal of its own for each reason and a limit to wrong passwords.

    Stock JupyterHub says "Invalid username or password" also to somebody whose password is right
    and who has no access. Only who knows the password reads the second sentence.
    """

    default_language = Enum(
        messages.LANGUAGES,
        default_value="en",
        help="Language where the browser names none of ours.",
    ).tag(config=True)
    name_failures = Integer(
        _DEFAULTS.name_failures,
        min=1,
        help="Wrong passwords of one name from one address before it has to wait.",
    ).tag(config=True)
    address_failures = Integer(
        _DEFAULTS.address_failures,
        min=1,
        help="Wrong passwords of all names from one address before it has to wait.",
    ).tag(config=True)
    failure_window = Float(
        _DEFAULTS.window, min=1.0, help="Seconds after which those are all forgotten."
    ).tag(config=True)
    address_checks = Integer(
        _DEFAULTS.address_checks, min=1, help="Passwords of one address checked at a time."
    ).tag(config=True)
    checks = Integer(
        _DEFAULTS.checks,
        min=1,
        help="Passwords checked at a time, of strangers and, again as many, of those who have "
        "logged in from the same address before.",
    ).tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        limits = Limits(
            name_failures=self.name_failures,
            address_failures=self.address_failures,
            window=self.failure_window,
            address_checks=self.address_checks,
            name_checks=2 * self.address_checks,
            checks=self.checks,
        )
        self._limit = LoginLimit(limits, time.monotonic)

    @default("executor_threads")
    def _threads(self) -> int:
        # Both lanes, and as many for what else runs in this pool: looking up administrators.
        return 3 * self.checks

    async def authenticate(self, handler: BaseHandler, data: Mapping[str, str]) -> Any:
        """The name of the account. Raises LoginRefused."""
        if not {"username", "password"} <= data.keys():
            raise self._refusal(handler, "wrong_login")
        address = await self._address(handler)
        try:
            async with self._limit.turn(data["username"], address) as attempt:
                account = await super().authenticate(handler, data)
                if account is None:
                    attempt.failed()
                else:
                    attempt.succeeded()
        except TooManyAttemptsError as error:
            self.log.warning("Too many attempts to log in from %s: %s.", address, error)
            raise self._too_many(handler, error.wait) from error
        if account is None:
            raise self._refusal(handler, "wrong_login")
        name = self.normalize_username(account)
        if not self.allow_all and not await self.check_allowed(name, None):
            self.log.warning("The account %r may not use this hub.", name)
            raise self._refusal(handler, "no_access", account=name)
        return account

    async def check_allowed(self, username: str, authentication: object = None) -> bool:
        """Whether the account is of the users' groups, which may be asked of a directory server."""
        allowed: bool = await asyncio.to_thread(super().check_allowed, username, authentication)
        return allowed

    async def _address(self, handler: BaseHandler) -> str:
        """Where the attempt comes from; no header of the client's own chooses it."""
        connection = handler.request.connection
        socket = connection.stream.socket
        if socket is None:
            raise web.HTTPError(400, "The browser has closed the connection.")
        peer, own = connection.context.address[:2], socket.getsockname()[:2]
        proxies = handler.app.trusted_downstream_ips
        try:
            ours = peer[0] in proxies or await asyncio.to_thread(is_our_own, peer, own)
        except OSError:
            self.log.exception("Every login counts as one from %s.", peer[0])
            ours = False
        forwarded = handler.request.headers.get("X-Forwarded-For", "")
        return client_address(peer[0], forwarded, peer_is_proxy=ours, proxies=proxies)

    def _too_many(self, handler: BaseHandler, wait: float) -> LoginRefused:
        seconds = math.ceil(wait)
        duration = messages.duration(self._language(handler), seconds)
        refusal = self._refusal(handler, "too_many_logins", status=429, wait=duration)
        refusal.headers["Retry-After"] = str(seconds)
        return refusal

    def _language(self, handler: BaseHandler) -> str:
        accepted = handler.request.headers.get("Accept-Language", "")
        return messages.choose_language(accepted, self.default_language)

    def _refusal(
        self, handler: BaseHandler, key: str, *, status: int = 403, **values: str
    ) -> LoginRefused:
        return LoginRefused(messages.text(self._language(handler), key, **values), status)
