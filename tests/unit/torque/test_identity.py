# SPDX-License-Identifier: BSD-3-Clause
"""Nobody passes for somebody else: the kernel names the caller, the shared key proves the host."""

from __future__ import annotations

import base64
import json
import socket
import struct
from typing import Any

import pytest
from mock_torque.framing import LENGTH
from mock_torque.wire import MAC_BYTES, NONCE_BYTES, seal

from .harness import SERVER, USERS, System, wait_for

SERVICE = f"pbs_server@{SERVER}"
SUBMIT = {
    "type": "submit", "command": "qsub", "name": "forged", "variables": "PBS_O_HOME=/",
    "script": base64.b64encode(b"true").decode(), "path_folder": "/", "hold": True,
}  # fmt: skip
FORGED = {
    "identity": {"user": "velezj", "uid": USERS["velezj"], "host": SERVER},
    "request": SUBMIT,
}


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := connection.recv(size - len(data))):
        data += part
    return data


def exchange(port: int, frame_for: object) -> bytes:
    """Send what ``frame_for(nonce)`` makes; all that comes back."""
    with socket.create_connection((SERVER, port), 10) as connection:
        nonce = receive(connection, NONCE_BYTES)
        connection.sendall(frame_for(nonce))  # type: ignore[operator]
        head = receive(connection, LENGTH.size)
        (length,) = LENGTH.unpack(head) if head else (0,)
        return receive(connection, MAC_BYTES + length) if length else b""


def names(system: System) -> str:
    return system.run("root", "qstat").out


def test_the_right_key_opens_the_port(system: System) -> None:
    """The other tests would pass against a server that refuses everything."""
    key = system.key.encode()
    reply = exchange(system.port, lambda nonce: seal(key, f"request {SERVICE}", nonce, FORGED))
    assert json.loads(reply[MAC_BYTES:])["id"].endswith(SERVER)
    assert "forged" in names(system)
    system.run("root", "qdel", "-p", json.loads(reply[MAC_BYTES:])["id"])


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("wrong", f"request {SERVICE}"),
        ("", f"request {SERVICE}"),
        (None, f"reply {SERVICE}"),
        (None, "request pbs_mom@node01"),
    ],
)
def test_without_key_or_label_nothing_happens(system: System, key: str | None, label: str) -> None:
    secret = (system.key if key is None else key).encode()
    assert exchange(system.port, lambda nonce: seal(secret, label, nonce, FORGED)) == b""
    assert "forged" not in names(system)


def test_a_recorded_request_cannot_be_sent_again(system: System) -> None:
    recorded: list[bytes] = []

    def record(nonce: bytes) -> bytes:
        recorded.append(seal(system.key.encode(), f"request {SERVICE}", nonce, FORGED))
        return recorded[0]

    name = json.loads(exchange(system.port, record)[MAC_BYTES:])["id"]
    system.run("root", "qdel", "-p", name)
    assert exchange(system.port, lambda _nonce: recorded[0]) == b""
    assert "forged" not in names(system)


def test_a_mom_obeys_only_the_server(system: System) -> None:
    name = system.submit("exec sleep 1000")
    wait_for(lambda: system.job(name).get("substate") == "42", "running")
    port = system.ports["node01"]
    kill = {"type": "kill", "id": name, "delay": 0}
    label = "request pbs_mom@node01"
    assert exchange(port, lambda nonce: seal(b"wrong", label, nonce, kill)) == b""
    assert system.state(name) == "R"
    assert exchange(port, lambda nonce: seal(system.key.encode(), label, nonce, kill))
    system.wait_state(name, "C")


SPEAK = """
import json, socket, struct, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
body = sys.argv[2].encode()
connection.sendall(struct.pack("!I", len(body)) + body)
size = struct.unpack("!I", connection.recv(4))[0]
sys.stdout.write(connection.recv(size).decode())
"""


def speak(system: System, user: str, message: object) -> dict[str, Any]:
    """Write straight to trqauthd's socket as ``user``."""
    shim = system.programs / "bin/speak"
    shim.write_text(f"#!/usr/bin/python3\n{SPEAK}")
    shim.chmod(0o755)
    sock = str(system.hosts[SERVER].home / "trqauthd.sock")
    result = system.run(user, "speak", sock, json.dumps(message))
    assert result.code == 0, result
    reply: dict[str, Any] = json.loads(result.out)
    return reply


def test_what_the_client_says_about_its_user_counts_for_nothing(system: System) -> None:
    identity = FORGED["identity"]
    lies = {**SUBMIT, "identity": identity, "user": "velezj", "uid": 0, "mom": "node01"}
    name = speak(system, "rhea", lies)["id"]
    job = system.job(name)
    assert (job["euser"], job["Job_Owner"]) == ("rhea", f"rhea@{SERVER}")
    own = system.submit("true", "-h")
    refused = speak(system, "rhea", {**lies, "type": "delete", "id": own})
    assert refused["error"] == 15007
    assert system.state(own) == "H"
    environment = {"USER": "velezj", "LOGNAME": "velezj", "HOME": str(system.home_of("velezj"))}
    assert system.run("rhea", "qdel", own, env=environment).code == 159
    system.run("root", "qdel", "-p", name)


def test_malformed_requests_do_no_harm(system: System) -> None:
    for change in ({"name": ["x"]}, {"script": "%%%"}, {"umask": "9"}, {"shell": "/bin/\0"},
                   {"resources": {"mem": 1}}, {"priority": "high"}):  # fmt: skip
        assert speak(system, "velezj", {**SUBMIT, **change})["error"] == 15131
    assert "forged" not in names(system)
    sock = str(system.hosts[SERVER].home / "trqauthd.sock")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(sock)
        connection.sendall(struct.pack("!I", 2**32 - 1))
        assert connection.recv(1) == b""
    assert system.run("velezj", "qstat", "-Q").code == 0


def test_a_submit_host_with_another_key_is_refused(own_system: System) -> None:
    system = own_system
    system.start_trqauthd("jhub")
    key = system.hosts["jhub"].home / "auth_key"
    system.stop("trqauthd-jhub")
    key.write_text("another secret\n")
    system.start_trqauthd("jhub")
    result = system.run("velezj", "qsub", stdin="hostname", host="jhub")
    assert (result.code, result.err) == (
        162,
        "pbs_connect received error code 15010 ('Access from host not allowed, or unknown host') "
        f"from trqauthd\n\nUnable to communicate with {SERVER}(127.0.0.1)\n"
        f"Cannot resolve specified server host '{SERVER}'.\n"
        f"qsub: cannot connect to server {SERVER} (errno=15010) "
        "Access from host not allowed, or unknown host\n",
    )


def test_a_key_that_others_can_read_stops_the_daemon(own_system: System) -> None:
    system = own_system
    system.stop(f"trqauthd-{SERVER}")
    (system.hosts[SERVER].home / "auth_key").chmod(0o644)
    system._start("open", "trqauthd", "-d", system.hosts[SERVER].home)
    assert system.daemons.pop("open").wait(30) == 1
    assert "is open to others" in system.log("open")
