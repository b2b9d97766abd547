"""`darkroom-api`: reads the settings, composes, serves until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Final

import uvicorn

from api.app import create_app
from api.compose import compose
from darkroom import logs
from darkroom.settings import ApiSettings, load

_GRACE_SECONDS: Final = 10


class Server(uvicorn.Server):
    """Leaves signals to `serve`: uvicorn would raise them again at its end, before anything else is closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def main() -> None:
    """Run the API. The exit status is 0 after SIGTERM or Ctrl-C, 2 for wrong settings, 1 for anything else."""
    settings = load(ApiSettings)
    logs.configure(settings.log_format)
    try:
        asyncio.run(serve(settings))
    except (ValueError, OSError) as fault:
        sys.exit(f"darkroom-api: {fault}")


async def serve(settings: ApiSettings) -> None:
    """Serve until a signal: open requests are finished, waiting callers answered at once, then everything closed."""
    async with compose(settings) as services:
        config = uvicorn.Config(
            create_app(services),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        server = Server(config)

        def stop() -> None:
            services.watch.close()
            server.should_exit = True

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        with _listening(settings.host, settings.port) as listener:
            host, port = listener.getsockname()[:2]
            name = f"[{host}]" if ":" in host else host
            sys.stdout.write(f"Darkroom's API listens on http://{name}:{port}\n")
            sys.stdout.flush()
            await server.serve(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens before its address is told to anyone. Raises OSError naming the address."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as fault:
        raise OSError(f"cannot listen on {host}:{port}: {fault.strerror}") from None


if __name__ == "__main__":
    main()
