# SPDX-License-Identifier: BSD-3-Clause
"""Which address counts: never one that the client chose."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from custom_pbs_spawner.client import client_address, is_our_own


@pytest.mark.parametrize(
    ("peer", "header", "proxies", "address"),
    [
        # The proxy appends; what is to the left of it the client wrote.
        ("127.0.0.1", "192.0.2.7", (), "192.0.2.7"),
        ("127.0.0.1", "6.6.6.6,192.0.2.7", (), "192.0.2.7"),
        ("127.0.0.1", "6.6.6.6, ,192.0.2.7", (), "192.0.2.7"),
        ("127.0.0.1", "192.0.2.7, nonsense", (), "127.0.0.1"),
        ("127.0.0.1", "", (), "127.0.0.1"),
        # One more proxy, which the site trusts.
        ("127.0.0.1", "192.0.2.7, 10.0.0.9", ("10.0.0.9",), "192.0.2.7"),
        ("127.0.0.1", "6.6.6.6, 192.0.2.7, 10.0.0.9", ("10.0.0.9",), "192.0.2.7"),
        ("127.0.0.1", "10.0.0.9", ("10.0.0.9",), "10.0.0.9"),
        # As many addresses as a client likes, at no cost: they count as one.
        ("127.0.0.1", "127.8.8.8", (), "127.0.0.1"),
        ("127.0.0.1", "::1", (), "127.0.0.1"),
        ("127.0.0.1", "2001:db8:1:2:3:4:5:6", (), "2001:db8:1:2::/64"),
        ("127.0.0.1", "2001:db8:1:2::ffff", (), "2001:db8:1:2::/64"),
        ("127.0.0.1", "::ffff:192.0.2.7", (), "192.0.2.7"),
    ],
)
def test_the_proxys_word_counts(
    peer: str, header: str, proxies: tuple[str, ...], address: str
) -> None:
    assert client_address(peer, header, peer_is_proxy=True, proxies=proxies) == address


def test_whoever_is_no_proxy_is_taken_by_her_own_address() -> None:
    assert client_address("192.0.2.7", "6.6.6.6", peer_is_proxy=False) == "192.0.2.7"


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_connection_of_this_account_is_recognised(
    family: socket.AddressFamily, host: str, tmp_path: Path
) -> None:
    if family is socket.AF_INET6 and not Path("/proc/net/if_inet6").read_text():
        pytest.skip("this machine has no IPv6")
    with socket.create_server((host, 0), family=family) as server:
        with socket.create_connection(server.getsockname()[:2]) as client:
            peer, own = client.getsockname()[:2], server.getsockname()[:2]
            assert is_our_own(peer, own)
            # The same connection, of somebody else.
            for table in ("tcp", "tcp6"):
                text = Path("/proc/net", table).read_text()
                (tmp_path / table).write_text(_owned_by(text, os.geteuid() + 1))
            assert not is_our_own(peer, own, tmp_path)
        assert not is_our_own((host, 1), own)


def _owned_by(table: str, uid: int) -> str:
    head, *lines = table.splitlines()
    rows = [line.split() for line in lines]
    return "\n".join([head, *(" ".join([*row[:7], str(uid), *row[8:]]) for row in rows)])


@pytest.mark.parametrize("peer", ["192.0.2.7", "", "fe80::1%eth0", "10.0.0.1"])
def test_another_machine_is_never_the_proxy(peer: str, tmp_path: Path) -> None:
    # There is no table to look into: it is not looked for.
    assert not is_our_own((peer, 4000), ("10.0.0.2", 8081), tmp_path / "nowhere")
