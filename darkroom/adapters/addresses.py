"""Which addresses this program may connect to when somebody else chose the URL, checked on the address itself.

A look at the URL is no guard: a name may answer with a public address when asked and with 127.0.0.1 when connected to.
So the last word is spoken where the socket is made, on the very address that it will connect to; the resolver before it
only drops what would be refused there, so that a name with one good address among bad ones still works.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from darkroom.domain.errors import PermanentError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# IANA's special-purpose registry (RFC 6890 and successors), written out: `ipaddress.is_global` changed its mind between
# patch releases of Python.
_REFUSED_V4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network; Linux connects 0.0.0.0 to loopback
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata service, Tailscale
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host agent: a public number, never a public host
        "169.254.0.0/16",  # link-local; the clouds' metadata services
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata service
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
# Of IPv6 only the globally routed 2000::/3 is open at all (so ::1, fe80::/10, fc00::/7, ff00::/8 and ::/96 are not).
_ROUTED_V6 = IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments: Teredo (an IPv4 address inside), ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside; switched off in the internet since RFC 7526
        "3fff::/20",  # documentation
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: how an IPv6-only network reaches IPv4


class AddressRefusedError(PermanentError):
    """The host's address is one this program does not connect to: private, loopback, link-local, metadata, reserved."""

    code = "address_refused"


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Public addresses, and whatever lies in `allow_cidrs`.

    An IPv4 address inside an IPv6 one (mapped, NAT64) is judged as the IPv4 address that it reaches.
    """

    allow_cidrs: tuple[Network, ...] = ()

    def permits(self, ip: Address) -> bool:
        """Whether a connection to `ip` may be made."""
        reached = _reached_address(ip)
        if any(_within(reached, network) or _within(ip, network) for network in self.allow_cidrs):
            return True
        if isinstance(reached, IPv4Address):
            return not any(reached in block for block in _REFUSED_V4)
        return reached in _ROUTED_V6 and not any(reached in block for block in _REFUSED_V6)

    def check(self, ip: Address) -> None:
        """Raise AddressRefusedError unless `ip` is permitted."""
        if not self.permits(ip):
            raise AddressRefusedError(f"{ip} is not a public address")


PUBLIC_ONLY = AddressPolicy()
LOOPBACK_TOO = AddressPolicy((ip_network("127.0.0.0/8"), ip_network("::1/128")))
ANYWHERE = AddressPolicy((ip_network("0.0.0.0/0"), ip_network("::/0")))


def literal_address(host: str) -> Address | None:
    """Return the address that `host` spells, None where it is a name to be resolved.

    Also reads what the C library would: `127.1`, `0177.0.0.1`, `0x7f000001`, `2130706433`.
    """
    try:
        return ip_address(host)
    except ValueError:
        pass
    if any(character.isspace() for character in host):  # inet_aton ignores what follows a space
        return None
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


class ThreadResolver(AbstractResolver):
    """The system's resolver in a few threads of its own.

    asyncio's default executor is shared by the whole process: a webhook whose name servers never answer would keep
    everybody else from resolving fal's name.
    """

    def __init__(self, *, threads: int = 4) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return every address of `host`. Raises OSError (socket.gaierror) when there is none."""
        look_up = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._executor, look_up)
        except UnicodeError as error:  # an empty label, or one of more than 63 characters
            raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
        return [
            ResolveResult(
                hostname=host,
                host=str(sockaddr[0]),
                port=port,
                family=answer_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for answer_family, _, protocol, _, sockaddr in answers
        ]

    async def close(self) -> None:
        """Start no more look-ups; does not wait for those under way."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class GuardedResolver(AbstractResolver):
    """Resolves with `inner` and keeps the permitted addresses only."""

    def __init__(self, policy: AddressPolicy, inner: AbstractResolver) -> None:
        self._policy = policy
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the permitted addresses of `host`.

        Raises AddressRefusedError when it has others only, OSError when it has none.
        """
        answers = await self._inner.resolve(host, port, family)
        permitted = [answer for answer in answers if self._policy.permits(ip_address(answer["host"]))]
        if answers and not permitted:
            raise AddressRefusedError(f"{host} has no public address")
        return permitted

    async def close(self) -> None:
        """Close the resolver behind this one."""
        await self._inner.close()


def guarded_connector(
    policy: AddressPolicy,
    resolver: AbstractResolver,
    *,
    ssl_context: ssl.SSLContext | None = None,
    fresh: bool = False,
    limit: int = 0,
) -> aiohttp.TCPConnector:
    """Make a connector that connects to permitted addresses only; whoever else is asked for raises AddressRefusedError.

    `fresh` resolves and connects anew for every request; `limit` bounds open connections, 0 does not. The resolver
    stays the caller's to close. A session on top must not trust the environment's proxies (aiohttp's default).
    """

    def checked_socket(target: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, sockaddr = target
        policy.check(ip_address(sockaddr[0]))
        return socket.socket(family, kind, protocol)

    return aiohttp.TCPConnector(
        resolver=GuardedResolver(policy, resolver),
        socket_factory=checked_socket,
        ssl=ssl_context or True,
        use_dns_cache=not fresh,
        force_close=fresh,
        limit=limit,
    )


def _reached_address(ip: Address) -> Address:
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return ip.ipv4_mapped
        if ip in _NAT64:
            return IPv4Address(ip.packed[-4:])
    return ip


def _within(ip: Address, network: Network) -> bool:
    return ip.version == network.version and ip in network
