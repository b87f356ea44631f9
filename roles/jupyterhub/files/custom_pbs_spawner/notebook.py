# SPDX-License-Identifier: BSD-3-Clause
"""Asking a notebook server to shut itself down, before its job is deleted."""

from __future__ import annotations

import logging

from tornado.httpclient import HTTPRequest
from tornado.httputil import HTTPHeaders
from tornado.simple_httpclient import SimpleAsyncHTTPClient

log = logging.getLogger(__name__)

MAX_ANSWER = 64 * 1024


async def shut_down(url: str, token: str, timeout: float) -> bool:  # noqa: ASYNC109
    """Ask the server at `url` (with its prefix and a slash) to end; whether it agreed.

    It then stops its kernels, which save what they have, and ends. What answers there is the
    researcher's own program, so the answer is bounded in size and in time (seconds), is followed
    nowhere and believed only in its status.
    """
    request = HTTPRequest(
        f"{url}api/shutdown",
        method="POST",
        body=b"",
        headers=HTTPHeaders({"Authorization": f"token {token}"}),
        connect_timeout=timeout,
        request_timeout=timeout,
        follow_redirects=False,
        decompress_response=False,
    )
    # Not the class that AsyncHTTPClient is configured to: only this one bounds an answer.
    client = SimpleAsyncHTTPClient(
        force_instance=True, max_body_size=MAX_ANSWER, max_header_size=MAX_ANSWER
    )
    try:
        answer = await client.fetch(request, raise_error=False)
    except Exception as error:  # noqa: BLE001  whatever it sends, the stop goes on
        log.info("No notebook server at %s: %s: %s", url, type(error).__name__, error)
        return False
    finally:
        client.close()
    if not 200 <= answer.code < 300:  # noqa: PLR2004
        log.info("The notebook server at %s answers %s %.60r.", url, answer.code, answer.reason)
        return False
    return True
