"""What lost replies cost: fal-client alone, a plain Celery task around it, and Darkroom, under the same faults.

`.venv/bin/python -m bench.lost_replies [--pictures 100] [--rate 0.1] [--outage 3] [--seed 1]`

Each contestant wants the same pictures from a simulator of its own, started with the same seed. A share `rate` of
submissions is taken by fal and the connection then closed without a reply; and once a third of the pictures has been
submitted, every reply is lost for `outage` seconds, as in an incident of the ingress. Counted is fal's ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import fal_client
import fal_client.client

from infra.local.ports import free_port
from infra.local.program import Program
from infra.local.services import Simulator
from infra.local.valkey import Valkey
from tests.chaos.load import Callers, Wish, make_wishes
from tests.chaos.receiver import Moods, Receiver
from tests.chaos.stack import ChaosStack
from tests.chaos.times import SHORT

MODEL = "fal-ai/krea-2/turbo"
CONCURRENCY = 8
QUIET_SECONDS = 5.0
PATIENCE_SECONDS = 240.0
KEY = "bench:made-up"


@dataclass(frozen=True, slots=True)
class Terms:
    """What all contestants meet."""

    wishes: list[Wish]
    rate: float
    outage: float
    seed: int


@dataclass(frozen=True, slots=True)
class Bill:
    """fal's ledger when all was quiet. `twice`: pictures that were billed more than once; `most`: the dearest one."""

    name: str
    wanted: int
    rendered: int
    posts: int
    billed: int
    twice: int
    most: int
    seconds: float


Contestant = Callable[[Terms, Path], Awaitable[Bill]]


async def fal_client_alone(terms: Terms, folder: Path) -> Bill:
    """AsyncClient.submit as it is, its own repeats included; whatever it raises is given up."""
    with _simulator(terms, folder) as simulator:
        fal_client.client.QUEUE_URL_FORMAT = f"{simulator.url}/"
        client = fal_client.AsyncClient(key=KEY)
        room = asyncio.Semaphore(CONCURRENCY)

        async def want(wish: Wish) -> None:
            async with room:
                try:
                    await (await client.submit(MODEL, _arguments(wish))).get()
                except Exception:  # noqa: BLE001 - whatever it is, this caller has no picture
                    return

        async with _incident(terms, simulator.url):
            began = time.monotonic()
            await asyncio.gather(*(want(wish) for wish in terms.wishes))
        return await _bill("fal-client 1.0.3, submit", terms, simulator.url, began)


class CeleryWorker(Program):
    """`celery worker` on bench/plain_celery.py."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment = dict(environment)
        super().__init__("celery", log)

    def command(self) -> Sequence[str]:
        """Eight processes, everything else as it comes."""
        celery = str(Path(sysconfig.get_path("scripts")) / "celery")
        return [celery, "-A", "bench.plain_celery", "worker", "-c", str(CONCURRENCY), "-l", "WARNING"]

    def environment(self) -> Mapping[str, str]:
        """The caller's, with the three variables that the module reads."""
        return self._environment

    def probe(self) -> str | None:
        """Whatever it takes: messages wait for it."""
        return None


async def plain_celery(terms: Terms, folder: Path) -> Bill:
    """The task is retried on any exception, with backoff, up to ten times."""
    with _simulator(terms, folder) as simulator, Valkey(folder / "broker") as broker:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")])),
            "BROKER_URL": broker.url,
            "QUEUE_URL": simulator.url,
            "FAL_KEY": KEY,
        }
        os.environ.update({name: environment[name] for name in ("BROKER_URL", "QUEUE_URL")})
        from bench import plain_celery as usual  # noqa: PLC0415 - it reads its environment when it is imported

        with CeleryWorker(environment, folder / "celery.log"):
            began = time.monotonic()
            async with _incident(terms, simulator.url):
                for wish in terms.wishes:
                    await asyncio.to_thread(usual.render.delay, _arguments(wish))
                await _until_rendered(terms, simulator.url)
            bill = await _bill("Celery task, autoretry_for", terms, simulator.url, began)
        await asyncio.to_thread(usual.app.close)
        return bill


async def darkroom(terms: Terms, folder: Path) -> Bill:
    """The real processes with short times (tests/chaos/times.py): two workers, no callbacks."""
    stack = ChaosStack(
        folder, times=SHORT, permits=CONCURRENCY, workers=2, callbacks=False, seed=terms.seed, say=lambda _line: None
    )
    await asyncio.to_thread(stack.__enter__)
    try:
        key = {"Authorization": f"Bearer {stack.api_key}"}
        async with aiohttp.ClientSession(stack.api.url, headers=key) as api:
            async with api.get("/v1/webhook-secret") as answer:
                secret = (await answer.json())["secret"]
            await _arm(stack.simulator.url, terms.rate)
            async with Receiver(secret, moods=Moods(), dice=random.Random(terms.seed)) as receiver:  # noqa: S311
                began = time.monotonic()
                async with _incident(terms, stack.simulator.url):
                    await Callers(api, receiver.url).ask_for(terms.wishes)
                    await _until_rendered(terms, stack.simulator.url)
                return await _bill("Darkroom", terms, stack.simulator.url, began)
    finally:
        await asyncio.to_thread(stack.__exit__, None, None, None)


def _simulator(terms: Terms, folder: Path) -> Simulator:
    port = free_port()
    arguments = ["--port", str(port), "--concurrency", str(CONCURRENCY), "--latency", str(SHORT.mean_run), "--pool"]
    arguments += ["--seed", str(terms.seed), "--fault", f"submit_lost_after={terms.rate}"]
    return Simulator(
        "simulator", ["darkroom-simulator", *arguments], dict(os.environ), port=port, log=folder / "simulator.log"
    )


def _arguments(wish: Wish) -> dict[str, Any]:
    """The same input for all contestants."""
    return {"prompt": wish.prompt, "seed": wish.seed, "image_size": "square", "output_format": wish.format}


@asynccontextmanager
async def _incident(terms: Terms, url: str) -> AsyncIterator[None]:
    """Inside: once a third of the pictures was submitted, every reply is lost for `outage` seconds."""

    async def happen() -> None:
        await _until(url, lambda ledger: len(_submitted(ledger)) >= len(terms.wishes) / 3)
        await _arm(url, 1.0)
        await asyncio.sleep(terms.outage)
        await _arm(url, terms.rate)

    incident = asyncio.create_task(happen())
    try:
        yield
        await incident
    finally:
        incident.cancel()


async def _arm(url: str, rate: float) -> None:
    fault = {"name": "submit_lost_after", "rate": rate}
    async with aiohttp.ClientSession(url) as session, session.post("/_sim/faults", json=fault) as answer:
        answer.raise_for_status()


async def _ledger(url: str) -> dict[str, Any]:
    async with aiohttp.ClientSession(url) as session, session.get("/_sim/ledger") as answer:
        document: dict[str, Any] = await answer.json()
        return document


def _submitted(ledger: Mapping[str, Any]) -> set[str]:
    return {entry["input"]["prompt"] for entry in ledger["requests"]}


def _billed(ledger: Mapping[str, Any]) -> Counter[str]:
    return Counter(entry["input"]["prompt"] for entry in ledger["requests"] if entry["billed"])


async def _until_rendered(terms: Terms, url: str) -> None:
    """Return when fal has rendered every picture once, or after a time in which it should have."""
    await _until(url, lambda ledger: len(_billed(ledger)) >= len(terms.wishes))


async def _until(url: str, true_of: Callable[[Mapping[str, Any]], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not true_of(await _ledger(url)):
        if time.monotonic() > give_up_at:
            return
        await asyncio.sleep(0.1)


async def _bill(name: str, terms: Terms, url: str, began: float) -> Bill:
    """The ledger, once nothing was submitted for a while: whoever still wants to repeat has had the time."""
    seconds = time.monotonic() - began
    posts, quiet_since = -1, time.monotonic()
    while time.monotonic() - quiet_since < QUIET_SECONDS + SHORT.window:
        ledger = await _ledger(url)
        if ledger["counters"]["posts"] != posts:
            posts, quiet_since = ledger["counters"]["posts"], time.monotonic()
        await asyncio.sleep(0.2)
    ledger = await _ledger(url)
    billed = _billed(ledger)
    return Bill(
        name,
        wanted=len(terms.wishes),
        rendered=len(billed),
        posts=ledger["counters"]["posts"],
        billed=sum(billed.values()),
        twice=sum(times > 1 for times in billed.values()),
        most=max(billed.values(), default=0),
        seconds=seconds,
    )


def main() -> int:
    """Run the three, one after the other, and print the table. Darkroom alone has promised anything."""
    parser = argparse.ArgumentParser(prog="bench.lost_replies", description=__doc__)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--outage", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    dice = random.Random(options.seed)  # noqa: S311 - repeatable, not secret
    wishes = [
        Wish(wish.prompt, wish.seed, 1, wish.format, wish.lane) for wish in make_wishes("bench", options.pictures, dice)
    ]
    terms = Terms(wishes, options.rate, options.outage, options.seed)
    print(f"{options.pictures} pictures, {options.rate:.0%} of replies lost, and all of them for {options.outage:g} s")
    print(
        f"\n{'':<28}{'wanted':>7}{'POSTs':>7}{'billed':>8}{'per picture':>13}"
        f"{'billed twice+':>15}{'dearest':>9}{'s':>7}"
    )
    contestants: tuple[Contestant, ...] = (fal_client_alone, plain_celery, darkroom)
    broken = False
    for contestant in contestants:
        with tempfile.TemporaryDirectory() as folder:
            bill = asyncio.run(_run(contestant, terms, Path(folder)))
        ratio = bill.billed / max(1, bill.rendered)
        print(
            f"{bill.name:<28}{bill.wanted:>7}{bill.posts:>7}{bill.billed:>8}{ratio:>13.3f}"
            f"{bill.twice:>15}{bill.most:>8}x{bill.seconds:>7.0f}"
        )
        broken |= contestant is darkroom and (bill.twice > 0 or bill.rendered < bill.wanted)
    return 1 if broken else 0


async def _run(contestant: Contestant, terms: Terms, folder: Path) -> Bill:
    return await contestant(terms, folder)


if __name__ == "__main__":
    sys.exit(main())
