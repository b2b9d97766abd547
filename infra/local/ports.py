"""Free TCP ports on this machine, and clear words about busy ones."""

from __future__ import annotations

import random
import socket
from contextlib import closing

LOOPBACK = "127.0.0.1"

# Below the ephemeral ranges of Linux (32768 up) and macOS (49152 up). A port inside them can be taken by an outgoing
# connection while its server is down; a client that keeps trying to reconnect to it can even connect to itself, and
# then the server cannot come back.
_FIRST, _LAST = 18_000, 32_000


class PortBusyError(Exception):
    """Another program listens on the port. The message names the port and how to choose another one."""


def reachable(host: str) -> str:
    """The host by which a server bound to `host` is reached from this machine."""
    return {"": LOOPBACK, "0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104 -- recognised, not bound to


def base_url(host: str, port: int) -> str:
    """The http URL of a server bound to `host` and `port`, as reached from this machine."""
    name = reachable(host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on the port now. Connections of a former server that linger do not count."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with closing(socket.socket(family, socket.SOCK_STREAM)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(1)
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Different ports that were free a moment ago, chosen at random so that neighbours rarely choose the same."""
    chosen = random.SystemRandom().sample(range(_FIRST, _LAST), k=count * 20)
    ports = [port for _, port in zip(range(count), filter(is_free, chosen), strict=False)]
    if len(ports) < count:
        raise PortBusyError(f"found fewer than {count} free ports between {_FIRST} and {_LAST} on this machine")
    return ports


def free_port() -> int:
    """One port that was free a moment ago."""
    return free_ports(1)[0]


def require_free(port: int, host: str, variable: str) -> None:
    """Return when a server could listen there.

    Raises:
        PortBusyError: something listens there already; `variable` is the environment variable that chooses another.
    """
    if not is_free(port, host):
        raise PortBusyError(
            f"port {port} on {host} is in use by another program; stop that one, or choose another port: "
            f"{variable}={port + 1} make up"
        )
