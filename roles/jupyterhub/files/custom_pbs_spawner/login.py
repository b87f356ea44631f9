# SPDX-License-Identifier: BSD-3-Clause
"""Login with the account of the cluster, refused with a sentence that says why."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from jupyterhub.auth import PAMAuthenticator
from jupyterhub.handlers import BaseHandler
from tornado import web
from traitlets import Enum

from custom_pbs_spawner import messages


class LoginRefused(web.HTTPError):
    """A 403 whose text the login page shows above its form."""

    def __init__(self, text: str) -> None:
        super().__init__(403)
        # Not log_message: that one is put through %-formatting.
        self.jupyterhub_message = text


class SystemAuthenticator(PAMAuthenticator):
    """PAM, with a refusal of its own for each reason.

    Stock JupyterHub says "Invalid username or password" also to somebody whose password is right
    and who has no access. Only who knows the password reads the second sentence.
    """

    default_language = Enum(
        messages.LANGUAGES,
        default_value="en",
        help="Language where the browser names none of ours.",
    ).tag(config=True)

    async def authenticate(self, handler: BaseHandler, data: Mapping[str, str]) -> Any:
        """The name of the account. Raises LoginRefused."""
        account = await super().authenticate(handler, data)
        if account is None:
            raise self._refusal(handler, "wrong_login")
        name = self.normalize_username(account)
        # Looking a group up may ask a directory server.
        if not self.allow_all and not await asyncio.to_thread(self.check_allowed, name, None):
            self.log.warning("The account %r may not use this hub.", name)
            raise self._refusal(handler, "no_access", account=name)
        return account

    def _refusal(self, handler: BaseHandler, key: str, **values: str) -> LoginRefused:
        accepted = handler.request.headers.get("Accept-Language", "")
        language = messages.choose_language(accepted, self.default_language)
        return LoginRefused(messages.text(language, key, **values))
