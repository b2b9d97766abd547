"""The address guard: no number, spelling or name service reaches an address that is not public."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from darkroom.adapters.addresses import (
    ANYWHERE,
    LOOPBACK_TOO,
    PUBLIC_ONLY,
    AddressPolicy,
    AddressRefusedError,
    GuardedResolver,
    ThreadResolver,
    guarded_connector,
    literal_address,
)


@pytest.mark.parametrize("text", ["1.1.1.1", "8.8.8.8", "172.15.0.1", "100.63.0.1", "2606:4700::1111", "2a00:1450::1"])
def test_public_addresses_are_permitted(text: str) -> None:
    assert PUBLIC_ONLY.permits(ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",  # noqa: S104 - an address to be refused, nothing binds to it
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.168.1.1",
        "198.18.0.1",
        "203.0.113.9",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",  # IPv4-compatible 127.0.0.1
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe",  # NAT64 of 169.254.169.254
        "64:ff9b:1::a00:1",
        "100::1",
        "2001:0:1234::1",  # Teredo
        "2001:db8::1",
        "2002:7f00:1::1",  # 6to4 of 127.0.0.1
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_public_are_refused(text: str) -> None:
    assert not PUBLIC_ONLY.permits(ip_address(text))


@pytest.mark.parametrize("text", ["::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_an_embedded_public_address_is_judged_as_what_it_reaches(text: str) -> None:
    assert PUBLIC_ONLY.permits(ip_address(text))


def test_allowed_ranges_are_permitted_and_nothing_beside_them() -> None:
    policy = AddressPolicy((ip_network("10.1.0.0/16"), ip_network("fd00::/64")))
    assert policy.permits(ip_address("10.1.9.9"))
    assert policy.permits(ip_address("::ffff:10.1.9.9"))
    assert policy.permits(ip_address("fd00::5"))
    assert not policy.permits(ip_address("10.2.0.1"))
    assert not policy.permits(ip_address("::1"))
    assert LOOPBACK_TOO.permits(ip_address("127.0.0.1"))
    assert not LOOPBACK_TOO.permits(ip_address("10.0.0.1"))
    assert ANYWHERE.permits(ip_address("169.254.169.254"))


@pytest.mark.parametrize(
    "spelling", ["127.0.0.1", "127.1", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "2130706433", "017700000001"]
)
def test_every_spelling_of_loopback_is_read_as_loopback(spelling: str) -> None:
    assert literal_address(spelling) == ip_address("127.0.0.1")


@pytest.mark.parametrize("name", ["example.com", "localhost", "1.2.3.4.example.com", "", "127.0.0.1 x", "1.2.3.4.5"])
def test_names_are_not_literals(name: str) -> None:
    assert literal_address(name) is None


class StubResolver(AbstractResolver):
    """A name server of ours: answers what it is told to, one answer after another."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.closed = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        del family
        self.asked.append(host)
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(hostname=host, host=text, port=port, family=family_of(text), proto=6, flags=0)
            for text in addresses
        ]

    async def close(self) -> None:
        self.closed = True


def family_of(text: str) -> int:
    return socket.AF_INET6 if ":" in text else socket.AF_INET


async def test_the_resolver_keeps_the_permitted_addresses_only() -> None:
    resolver = GuardedResolver(PUBLIC_ONLY, StubResolver(["10.0.0.1", "1.1.1.1", "::1", "2606:4700::1111"]))
    assert [answer["host"] for answer in await resolver.resolve("both.example")] == ["1.1.1.1", "2606:4700::1111"]


async def test_the_resolver_refuses_a_name_with_private_addresses_only() -> None:
    inner = StubResolver(["10.0.0.1", "::ffff:127.0.0.1"])
    resolver = GuardedResolver(PUBLIC_ONLY, inner)
    with pytest.raises(AddressRefusedError, match=r"inside\.example"):
        await resolver.resolve("inside.example")
    await resolver.close()
    assert inner.closed


@pytest.fixture
async def system_resolver() -> AsyncIterator[ThreadResolver]:
    resolver = ThreadResolver(threads=1)
    yield resolver
    await resolver.close()


async def test_the_system_resolver_answers_with_port_and_family(system_resolver: ThreadResolver) -> None:
    answers = await system_resolver.resolve("127.0.0.1", 81)
    assert [(answer["host"], answer["port"], answer["family"]) for answer in answers] == [
        ("127.0.0.1", 81, socket.AF_INET)
    ]


@pytest.mark.parametrize("name", ["a" * 70 + ".example", "nothing.invalid", "two..dots"])
async def test_what_has_no_address_is_an_os_error(system_resolver: ThreadResolver, name: str) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - any of them: the connector reads them all as a failed look-up
        await system_resolver.resolve(name)


class CountingServer:
    """Answers every connection with a short 200, and counts them."""

    def __init__(self) -> None:
        self.connections = 0
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[CountingServer]:
    counting = CountingServer()
    listening = await asyncio.start_server(counting.answer, "127.0.0.1", 0)
    counting.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield counting


async def get(url: str, policy: AddressPolicy, resolver: AbstractResolver) -> int:
    connector = guarded_connector(policy, resolver, fresh=True)
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
        return response.status


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]"]
)
async def test_an_address_spelled_in_the_url_is_refused_before_connecting(
    server: CountingServer, system_resolver: ThreadResolver, host: str
) -> None:
    # Newer aiohttp refuses some of the spellings itself, before the guard sees them.
    with pytest.raises((AddressRefusedError, aiohttp.InvalidURL)):
        await get(f"http://{host}:{server.port}/", PUBLIC_ONLY, system_resolver)
    assert server.connections == 0


async def test_a_name_that_turns_private_after_it_was_looked_at_is_refused(server: CountingServer) -> None:
    rebinding = StubResolver(["1.1.1.1"], ["127.0.0.1"])
    assert await GuardedResolver(PUBLIC_ONLY, rebinding).resolve("rebind.example")
    with pytest.raises(AddressRefusedError):
        await get(f"http://rebind.example:{server.port}/", PUBLIC_ONLY, rebinding)
    assert server.connections == 0


async def test_an_allowed_address_is_connected_to(server: CountingServer) -> None:
    """The other side of the tests above: what they see refused would otherwise have been reached."""
    resolver = StubResolver(["10.0.0.1", "127.0.0.1"])
    assert await get(f"http://here.example:{server.port}/", LOOPBACK_TOO, resolver) == 200
    assert await get(f"http://127.0.0.1:{server.port}/", LOOPBACK_TOO, resolver) == 200
    assert server.connections == 2
