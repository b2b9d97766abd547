"""`darkroom-api`: reads the settings, composes, serves until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Iterator
from typing import Final

import uvicorn

from api.app import create_app
from api.compose import Services, compose
from darkroom import logs
from darkroom.domain.errors import UnavailableError
from darkroom.settings import ApiSettings, load

logger = logging.getLogger(__name__)

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
        await _look_at_store(services)
        config = uvicorn.Config(
            create_app(services),
            host=settings.host,
            port=settings.port,
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
        with config.bind_socket() as listener:
            host, port = listener.getsockname()[:2]
            name = f"[{host}]" if ":" in host else host
            sys.stdout.write(f"Darkroom's API listens on http://{name}:{port}\n")
            sys.stdout.flush()
            await server.serve(sockets=[listener])


async def _look_at_store(services: Services) -> None:
    """Say what is wrong with it. Redis that is not there yet is waited for while serving; a cluster is refused."""
    try:
        facts = await services.server.facts()
    except UnavailableError:
        logger.warning("Redis is not reachable yet: requests are answered 503 until it is")
        return
    if facts.cluster:
        raise ValueError("DARKROOM_REDIS_URL: this is a Redis Cluster; Darkroom's scripts need one server")
    for shortcoming in facts.shortcomings():
        logger.warning("Redis: %s", shortcoming)


if __name__ == "__main__":
    main()
