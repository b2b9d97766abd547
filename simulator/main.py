"""`darkroom-simulator`: the simulator as a process."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulator.config import Config, FaultRule
from simulator.faults import CATALOGUE, Faults
from simulator.memory import UnreadableLedgerError
from simulator.server import Simulator


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Prints `simulator listening on http://...` once connections are taken."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(levelname)s %(message)s")
    try:
        config = _config(options)
        Faults(config.seed, config.faults)
    except ValueError as error:
        sys.exit(f"darkroom-simulator: {error}")
    try:
        asyncio.run(_serve(config))
    except (OSError, UnreadableLedgerError) as error:
        sys.exit(f"darkroom-simulator: {error}")


async def _serve(config: Config) -> None:
    simulator = Simulator(config)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    origin = await simulator.start()
    sys.stdout.write(f"simulator listening on {origin}\n")
    sys.stdout.flush()
    await stopped.wait()
    await simulator.stop()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="darkroom-simulator",
        description="A stand-in for fal that speaks its queue protocol for fal-ai/krea-2/turbo.",
        epilog="Faults: " + ", ".join(CATALOGUE),
    )
    defaults = Config()
    add = parser.add_argument
    add("--host", default=defaults.host)
    add("--port", type=int, default=defaults.port, help="0: a free one")
    add("--concurrency", type=int, default=defaults.concurrency, help="requests that run at a time (default 2)")
    add("--latency", type=float, default=defaults.latency, help="mean run time in seconds (default 1)")
    add("--latency-sigma", type=float, default=defaults.latency_sigma, help="shape of the log-normal (default 0.25)")
    add("--pool", action="store_true", help="serve a few ready pictures per size: for load")
    add("--seed", type=int, default=defaults.seed, help="of the faults' and latencies' dice")
    add("--fault", action="append", default=[], metavar="NAME=RATE[,ARG=VALUE...]", help="strike a share of requests")
    add("--require-key", help="the only API key taken (default: any)")
    add("--public-origin", help="what returned URLs start with (default: the caller's Host)")
    add("--ledger", type=Path, metavar="PATH", help="remember requests there, over restarts and kills")
    add("--result-ttl", type=float, default=defaults.result_ttl, help="seconds a result is kept (default 3600)")
    add("--validate-at", choices=("submit", "run"), default=defaults.validate_at, help="where a bad input is refused")
    add("--verbose", action="store_true")
    return parser


def _config(options: argparse.Namespace) -> Config:
    if options.concurrency < 1:
        raise ValueError("--concurrency is at least 1")
    return Config(
        host=options.host,
        port=options.port,
        concurrency=options.concurrency,
        latency=options.latency,
        latency_sigma=options.latency_sigma,
        pool=options.pool,
        seed=options.seed,
        faults=dict(_fault(text) for text in options.fault),
        require_key=options.require_key,
        public_origin=options.public_origin,
        ledger_path=options.ledger,
        result_ttl=options.result_ttl,
        validate_at=options.validate_at,
    )


def _fault(text: str) -> tuple[str, FaultRule]:
    """`submit_5xx=0.1,status=503,enqueued=true`: values are JSON where they can be, else words."""
    rule, *particulars = text.split(",")
    name, _, rate = rule.partition("=")
    try:
        share = float(rate)
    except ValueError:
        raise ValueError(f"--fault {text}: a rate is needed, as in {name}=0.1") from None
    return name, FaultRule(share, dict(_argument(particular) for particular in particulars))


def _argument(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


if __name__ == "__main__":
    main()
