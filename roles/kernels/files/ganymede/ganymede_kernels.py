# SPDX-License-Identifier: BSD-3-Clause
"""What Ganymede adds to a notebook server: its kernels, their first word and their end.

Loaded by jupyter_server_config.py in the notebook server's own Python.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from typing import Any, ClassVar
from weakref import WeakSet

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core.paths import jupyter_data_dir
from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
)
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.kernelmanager import ServerKernelManager
from traitlets import Unicode, default

TOO_SMALL = {
    "en": (
        "{kernel} needs {needs} of memory, and this server has {has}. It may fail or end without "
        "a word. Choose a profile with more memory: File > Hub Control Panel, stop, start.\n"
    ),
    "es": (
        "{kernel} necesita {needs} de memoria y este servidor tiene {has}. Puede fallar o "
        "terminar sin avisar. Elija un perfil con más memoria: File > Hub Control Panel, "
        "parar e iniciar.\n"
    ),
}


class TableKernels(KernelSpecManager):
    """Offers the kernels of the table, then the researcher's own, and no others.

    A node may have kernels of its own in /usr/share; whether they work nobody checked.
    """

    table_directory = Unicode(help="Where the kernels of the table are.").tag(config=True)

    @default("kernel_dirs")
    def _table_and_home(self) -> list[str]:
        return [self.table_directory, os.path.join(jupyter_data_dir(), "kernels")]  # noqa: PTH118

    def get_all_specs(self) -> dict[str, Any]:
        """The kernels in the order in which JupyterLab shows them: that of their names."""
        found: dict[str, Any] = super().get_all_specs()
        return dict(sorted(found.items(), key=lambda item: item[1]["spec"]["display_name"]))


class TidyKernelManager(ServerKernelManager):
    """Leaves nothing of a kernel behind when it ends or is started again.

    A kernel that is asked to end does so by itself, and what it had started lives on:
    jupyter_client ends the group of processes only where the kernel did not answer.
    """

    async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        """End the kernel, then what is left of its group."""
        group = self._group()
        await super().shutdown_kernel(now=now, restart=restart)
        end_group(group)

    async def restart_kernel(self, now: bool = False, newports: bool = False, **kw: Any) -> None:
        """End the kernel and start it again, then end what is left of its old group."""
        group = self._group()
        await super().restart_kernel(now=now, newports=newports, **kw)
        if group != self._group():
            end_group(group)

    def _group(self) -> int | None:
        group: int | None = getattr(self.provisioner, "pgid", None)
        return group


def end_group(group: int | None) -> None:
    """Kill the processes of a group; that of the server itself is none of them."""
    if group is None or group == os.getpgrp():
        return
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


class NotingConnection(ZMQChannelsWebsocketConnection):
    """Puts a note into the output of the first cell where the server is too small for its kernel.

    A kernel of any language gets it so: what a kernel prints when it starts, nobody sees.
    """

    _noted: ClassVar[WeakSet[Any]] = WeakSet()

    def handle_incoming_message(self, incoming_msg: str) -> None:
        """Pass a message on to the kernel, and answer the first cell with the note."""
        super().handle_incoming_message(incoming_msg)
        if self.kernel_manager in self._noted:
            return
        header, content = self._parts(incoming_msg)
        # What extensions run in silence has no output that anybody reads.
        if header.get("msg_type") != "execute_request" or not content.get("store_history", True):
            return
        self._noted.add(self.kernel_manager)
        note = self._note()
        if note:
            self.write_stderr(note, header)

    def _parts(self, message: str | bytes) -> tuple[dict[str, Any], dict[str, Any]]:
        """Header and content of a message from the browser."""
        if self.subprotocol == "v1.kernel.websocket.jupyter.org":
            _, parts = deserialize_msg_from_ws_v1(message)
            return self.session.unpack(parts[0]), self.session.unpack(parts[3])
        plain = (
            deserialize_binary_message(message)
            if isinstance(message, bytes)
            else json.loads(message)
        )
        return plain["header"], plain["content"]

    def _note(self) -> str:
        spec = self.kernel_manager.kernel_spec
        needs, has = spec.metadata.get("memory"), os.environ.get("MEM_LIMIT", "")
        if not isinstance(needs, int) or not has.isdecimal() or int(has) >= needs:
            return ""
        accepted = self.websocket_handler.request.headers.get("Accept-Language", "")
        text = TOO_SMALL[language(accepted or os.environ.get("LANG", ""))]
        return text.format(
            kernel=spec.display_name.strip(), needs=amount(needs), has=amount(int(has))
        )


def language(wanted: str) -> str:
    """The first language among ours in an Accept-Language header or a locale's name."""
    for part in wanted.replace("_", "-").split(","):
        tag = part.strip().partition("-")[0].partition(";")[0].lower()
        if tag in TOO_SMALL:
            return tag
    return "en"


def amount(size: int) -> str:
    """Bytes for people, such as `800 MB`."""
    for unit, factor in (("TB", 1024**4), ("GB", 1024**3), ("MB", 1024**2)):
        if size >= factor:
            return f"{round(size / factor, 1):g} {unit}"
    return f"{size} B"
