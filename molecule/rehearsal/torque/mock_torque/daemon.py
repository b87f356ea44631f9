# SPDX-License-Identifier: BSD-3-Clause
"""What the three daemons share: options, log on stderr, readiness for systemd, signals."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys

from mock_torque.home import DEFAULT_HOME


def parser(program: str) -> argparse.ArgumentParser:
    """Options of every daemon; the letters are TORQUE's."""
    options = argparse.ArgumentParser(prog=program)
    options.add_argument("-d", dest="home", default=DEFAULT_HOME, help="spool folder")
    options.add_argument("-H", dest="hostname", default=socket.gethostname(), help="own name")
    return options


def start_logging() -> None:
    """Log to stderr: the journal adds time and program."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")


def ready() -> None:
    """Tell systemd (``Type=notify``) that the daemon answers."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", address)


async def until_terminated() -> None:
    """Return at SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
