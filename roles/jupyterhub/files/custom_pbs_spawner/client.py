# SPDX-License-Identifier: BSD-3-Clause
"""Where a request comes from, as far as it can be believed."""

from __future__ import annotations

import os
import sys
from collections.abc import Container
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

Address = IPv4Address | IPv6Address
End = tuple[str, int]
"""Address and port of one end of a connection."""

_LOCAL_PORT, _REMOTE_PORT, _OWNER = 1, 2, 7
"""Columns of /proc/net/tcp (proc_net_tcp in the kernel's documentation)."""


def client_address(
    peer: str, forwarded_for: str, *, peer_is_proxy: bool, proxies: Container[str] = ()
) -> str:
    """The address that stands for a client.

    A proxy appends the address that it sees to X-Forwarded-For. What is further to the left the
    client may have written herself, and it is believed only behind a proxy of `proxies`. X-Real-IP
    is not looked at. One client has a whole network of IPv6 (64 bits), and every address of the
    loopback network: each counts as one.
    """
    address = _parse(peer)
    if peer_is_proxy:
        for hop in reversed(forwarded_for.split(",")):
            seen = _parse(hop.strip())
            if seen is None:
                break
            address = seen
            if str(seen) not in proxies:
                break
    if address is None:
        return peer
    if address.is_loopback:
        return "127.0.0.1"
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return str(address)


def _parse(text: str) -> Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_our_own(peer: End, own: End, proc: Path = Path("/proc/net")) -> bool:
    """Whether the other end of a connection is a socket of this account on this machine.

    The proxy's is. A researcher with a shell on this machine has one too, of an account of her
    own, and may write any header. Reads a file of the kernel: not for the event loop. Raises
    OSError.
    """
    local, remote = _parse(peer[0]), _parse(own[0])
    if local is None or remote is None or not (local.is_loopback or local == remote):
        return False
    table = "tcp" if local.version == 4 else "tcp6"  # noqa: PLR2004 - IPv4
    wanted = [_column(local, peer[1]), _column(remote, own[1])]
    for line in (proc / table).read_text(encoding="ascii").splitlines()[1:]:
        columns = line.split()
        if columns[_LOCAL_PORT : _REMOTE_PORT + 1] == wanted:
            return int(columns[_OWNER]) == os.geteuid()
    return False


def _column(address: Address, port: int) -> str:
    """An end as the kernel prints it: words of 32 bits in the machine's byte order."""
    packed = address.packed
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words) + f":{port:04X}"
