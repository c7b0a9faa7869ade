"""Which addresses a host has, and which of them the service may connect to: those of the public Internet alone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address, ip_network

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) to addresses as text. OSError when there are none."""
Rule = Callable[[Address], bool]

# Of their own, because a cancelled look-up goes on in its thread: it must not hold up what `to_thread` does.
_THREADS = ThreadPoolExecutor(4, thread_name_prefix="resolve")
_GLOBAL_UNICAST = ip_network("2000::/3")  # all that IANA has given out; the rest of IPv6 is special or unused
_NAT64 = ip_network("64:ff9b::/96")
# Beyond what `is_global` knows, which differs between versions of Python.
_SPECIAL = [
    ip_network(network)
    for network in (
        "100.64.0.0/10",  # carriers' own; clouds have metadata services in it
        "168.63.129.16/32",  # Azure's platform service, at what looks like a public address
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata service
        "192.88.99.0/24",  # relays of 6to4
        "198.18.0.0/15",  # benchmarks
        "2001::/23",  # protocol assignments; Teredo, which holds an IPv4 address
        "2001:db8::/32",  # documentation, as 3fff::/20
        "2002::/16",  # 6to4, which holds an IPv4 address
        "3fff::/20",
    )
]


async def resolve(host: str, port: int) -> list[str]:
    """One look-up, without the search domains of `resolv.conf`: the final dot says that the name is complete.

    In Kubernetes `metrics.example.org` would otherwise be looked up as `metrics.example.org.svc.cluster.local` first.
    """
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(_THREADS, _look_up, f"{host}.", port)
    return list(dict.fromkeys(found))


def _look_up(host: str, port: int) -> list[str]:
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(address[0]) for *_, address in infos]


def is_public(address: Address) -> bool:
    """Whether everybody on the Internet reaches the same machine there: nothing private, special or translated."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        if address in _NAT64:  # how a network without IPv4 reaches it: what counts is the address inside
            return is_public(IPv4Address(address.packed[-4:]))
        if address not in _GLOBAL_UNICAST:
            return False
    special = address.is_multicast or address.is_reserved or any(address in network for network in _SPECIAL)
    return address.is_global and not special
