"""Where a name may lead: every address of it must be public, and the one that was checked is the one connected to."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from serve.errors import Unfetchable
from serve.media.addresses import is_public, resolve
from serve.media.fetch import MAX_ADDRESSES, NO_VIDEO
from tests.serve.fetching import Connections, Names, failure, strict
from tests.serve.media_server import HOST

FORBIDDEN = {
    "loopback": "127.0.0.1",
    "loopback-elsewhere": "127.8.8.8",
    "this-network": "0.0.0.0",
    "private-10": "10.1.2.3",
    "private-172": "172.31.255.255",
    "private-192": "192.168.0.1",
    "link-local": "169.254.0.1",
    "metadata-aws": "169.254.169.254",
    "metadata-ecs": "169.254.170.2",
    "metadata-alibaba": "100.100.100.200",
    "metadata-oracle": "192.0.0.192",
    "platform-azure": "168.63.129.16",
    "carrier-nat": "100.64.0.1",
    "benchmark": "198.19.255.255",
    "documentation-1": "192.0.2.1",
    "documentation-2": "198.51.100.1",
    "documentation-3": "203.0.113.1",
    "relay-6to4": "192.88.99.1",
    "multicast": "224.0.0.1",
    "multicast-ssdp": "239.255.255.250",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "v6-loopback": "::1",
    "v6-unspecified": "::",
    "v6-mapped-loopback": "::ffff:127.0.0.1",
    "v6-mapped-public": "::ffff:8.8.8.8",
    "v6-compatible": "::127.0.0.1",
    "v6-link-local": "fe80::1",
    "v6-link-local-zone": "fe80::1%lo",
    "v6-public-zone": "2606:4700:4700::1111%lo",
    "v6-unique-local": "fd12:3456::1",
    "v6-metadata-aws": "fd00:ec2::254",
    "v6-site-local": "fec0::1",
    "v6-multicast": "ff0e::1",
    "v6-6to4-loopback": "2002:7f00:1::",
    "v6-6to4-public": "2002:808:808::",
    "v6-teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "v6-anycast": "2001:1::1",
    "v6-as112": "2001:4:112::1",
    "v6-nat64-loopback": "64:ff9b::7f00:1",
    "v6-nat64-metadata": "64:ff9b::a9fe:a9fe",
    "v6-nat64-azure": "64:ff9b::a83f:8110",
    "v6-nat64-local": "64:ff9b:1::808:808",
    "v6-documentation": "2001:db8::1",
    "v6-documentation-new": "3fff::1",
    "v6-discard": "100::1",
    "v6-segment-routing": "5f00::1",
    "v6-unassigned": "4000::1",
}
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "100.63.255.255",
    "100.128.0.1",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.1",
    "2606:4700:4700::1111",
    "2a00:1450:4001::200e",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize("address", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_never_connected_to(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where it is the only answer nor where it hides behind, or before, a public one."""
    connections = Connections(monkeypatch)
    for answer in ([address], ["8.8.8.8", address], [address, "2606:4700:4700::1111"]):
        error = asyncio.run(failure(strict(tmp_path, Names(answer)), f"https://{HOST}/", tmp_path))
        assert (type(error), error.message, error.value) == (Unfetchable, NO_VIDEO, None)
    assert connections.addresses == []


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_connected_to(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_public(ip_address(address))
    connections = Connections(monkeypatch)
    error = asyncio.run(failure(strict(tmp_path, Names([address])), f"https://{HOST}/", tmp_path))
    assert connections.addresses == [address]
    assert error.message == NO_VIDEO, "a closed port has the same text as an address that is not public"


def test_a_rebinding_name_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look-up says a public address, and every later one 127.0.0.1: there is no later one."""
    names, connections = Names(["8.8.8.8"], ["127.0.0.1"]), Connections(monkeypatch)
    asyncio.run(failure(strict(tmp_path, names), f"https://{HOST}/", tmp_path))
    assert (names.asked, connections.addresses) == ([HOST], ["8.8.8.8"])


def test_a_few_addresses_are_tried_and_not_all_that_a_name_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = Connections(monkeypatch)
    many = [f"8.8.8.{last}" for last in range(200)]
    asyncio.run(failure(strict(tmp_path, Names(many)), f"https://{HOST}/", tmp_path))
    assert connections.addresses == many[:MAX_ADDRESSES]
    connections.addresses.clear()
    asyncio.run(failure(strict(tmp_path, Names([*many, "10.0.0.1"])), f"https://{HOST}/", tmp_path))
    assert connections.addresses == [], "but all are checked"


@pytest.mark.parametrize("answer", [[], ["not-an-address"], ["8.8.8.8/24"], ["8.8.8"]])
def test_an_odd_answer_of_the_resolver_is_no_address(
    answer: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = Connections(monkeypatch)
    error = asyncio.run(failure(strict(tmp_path, Names(answer)), f"https://{HOST}/", tmp_path))
    assert (error.message, connections.addresses) == (NO_VIDEO, [])


def test_a_name_is_looked_up_as_it_is_without_search_domains(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(0, 0, 0, "", (address, port)) for address in ("8.8.8.8", "8.8.4.4", "8.8.8.8")]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert asyncio.run(resolve(HOST, 443)) == ["8.8.8.8", "8.8.4.4"]
    assert asked == [f"{HOST}."]
