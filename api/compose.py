"""What the API is made of, built once from the settings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from redis.asyncio import Redis

from api.metrics import HttpMetrics
from darkroom.adapters.addresses import AddressPolicy
from darkroom.adapters.fal_callback import CallbackTokens, CallbackVerifier
from darkroom.adapters.redis.account_rate import RedisAccountRate
from darkroom.adapters.redis.accounts import RedisAccounts
from darkroom.adapters.redis.batches import RedisBatches
from darkroom.adapters.redis.connection import connect
from darkroom.adapters.redis.deliveries import RedisDeliveries
from darkroom.adapters.redis.jobs import RedisJobs
from darkroom.adapters.redis.schedule import RedisSchedule
from darkroom.adapters.redis.secret import shared_secret
from darkroom.adapters.redis.server import RedisServer
from darkroom.adapters.redis.transitions import RedisTransitions
from darkroom.adapters.s3 import S3Bucket
from darkroom.adapters.webhooks import new_webhook_secret, validate_webhook_url
from darkroom.domain.errors import UnavailableError
from darkroom.service.accept_batch import BatchAcceptance
from darkroom.service.accept_job import JobAcceptance
from darkroom.service.delete_job import JobRemoval
from darkroom.service.read_batch import BatchReader
from darkroom.service.read_jobs import JobWatch
from darkroom.service.take_callback import CallbackIntake
from darkroom.settings import ApiSettings, is_loopback, rate_interval_ms

logger = logging.getLogger(__name__)

DEFAULT_ACCOUNT: Final = "acct_" + "0" * 26
"""The account of DARKROOM_BOOTSTRAP_API_KEY: always the same, so that another key finds the same jobs."""

_WAITERS: Final = 256
"""Callers that may wait for jobs at a time, each with a connection of its own that listens."""

_FULL: Final = 0.8
"""From this share of maxmemory on no job is accepted: what is accepted needs room to end."""

_LOOK_SECONDS: Final = 1.0


class Beginning:
    """What has to be so before the first request: the shared secret and the bootstrap key. Redis may come later."""

    def __init__(
        self, redis: Redis, accounts: RedisAccounts, *, secret: SecretStr | None, key: SecretStr | None
    ) -> None:
        self._redis = redis
        self._accounts = accounts
        self._configured = secret
        self._key = key
        self._secret: bytes | None = None
        self._lock = asyncio.Lock()

    async def done(self) -> None:
        """Return when it is so. Raises UnavailableError."""
        if self._secret is None:
            async with self._lock:
                if self._secret is None:
                    self._secret = await self._begin()

    async def secret(self) -> bytes:
        """What signs tokens and cursors. Raises UnavailableError."""
        await self.done()
        assert self._secret is not None
        return self._secret

    async def _begin(self) -> bytes:
        if self._key is not None:
            await self._accounts.create(DEFAULT_ACCOUNT, "default", new_webhook_secret())
            await self._accounts.create_key(DEFAULT_ACCOUNT, self._key.get_secret_value())
        return await shared_secret(self._redis, self._configured.get_secret_value() if self._configured else None)


class StorePressure:
    """Whether the store is too full for new jobs, as seen within the last second or so."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._full = False

    def is_full(self) -> bool:
        """The last answer."""
        return self._full

    async def watch(self, beginning: Beginning) -> None:
        """Look again and again, until cancelled. A store that is away keeps its last answer."""
        while True:
            try:
                await beginning.done()
                full = await self._server.fullness() >= _FULL
            except UnavailableError as fault:
                logger.warning("the store of records is away: %s", fault.message)
            else:
                if full is not self._full:
                    logger.warning("the store of records is %s", "full: no job is accepted" if full else "not full now")
                self._full = full
            await asyncio.sleep(_LOOK_SECONDS)


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that endpoints use."""

    redis: Redis
    server: RedisServer
    beginning: Beginning
    pressure: StorePressure
    accounts: RedisAccounts
    jobs: RedisJobs
    deliveries: RedisDeliveries
    schedule: RedisSchedule
    bucket: S3Bucket
    bucket_name: str
    prefix: str
    verifier: CallbackVerifier
    acceptance: JobAcceptance
    removal: JobRemoval
    batches: RedisBatches
    batch_acceptance: BatchAcceptance
    batch_reader: BatchReader
    watch: JobWatch
    intake: CallbackIntake
    rate: RedisAccountRate | None
    registry: CollectorRegistry
    metrics: HttpMetrics
    max_body_bytes: int

    async def callback_tokens(self) -> CallbackTokens:
        """Reads callback tokens. Raises UnavailableError."""
        return CallbackTokens(await self.beginning.secret())


@asynccontextmanager
async def compose(settings: ApiSettings) -> AsyncIterator[Services]:
    """Build everything inside the running loop; leaving closes it. Nothing here needs Redis or S3 to be there yet.

    Raises ValueError where Redis is there and is a cluster.
    """
    url = settings.redis_url.get_secret_value()
    redis = connect(url)
    listening = connect(url, connections=_WAITERS)
    bucket = _bucket(settings)
    verifier = CallbackVerifier(settings.fal_jwks_url, allow_http_hosts=_http_hosts(settings))
    services = _services(settings, redis, listening, bucket, verifier)
    try:
        await _look_at(services.server)
        watching = asyncio.create_task(services.pressure.watch(services.beginning), name="store-pressure")
        try:
            yield services
        finally:
            await _end(watching)
    finally:
        await verifier.close()
        await bucket.close()
        await listening.aclose()
        await redis.aclose()


async def _look_at(server: RedisServer) -> None:
    """Say what is wrong with the store. One that is not there yet is waited for while serving."""
    try:
        facts = await server.facts()
    except UnavailableError:
        logger.warning("Redis is not reachable yet: requests are answered 503 until it is")
        return
    if facts.cluster:
        raise ValueError("DARKROOM_REDIS_URL: this is a Redis Cluster; Darkroom's scripts need one server")
    for shortcoming in (*facts.dangers(), *facts.unknowns()):
        logger.warning("Redis: %s", shortcoming)


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel until it has ended: on Python 3.11 redis-py loses a cancellation that arrives as it sends a command."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)


def _services(
    settings: ApiSettings, redis: Redis, listening: Redis, bucket: S3Bucket, verifier: CallbackVerifier
) -> Services:
    server = RedisServer(redis)
    accounts, jobs, schedule = RedisAccounts(redis), RedisJobs(redis), RedisSchedule(redis)
    pressure = StorePressure(server)
    registry = CollectorRegistry()
    # The API records acceptances only; the numbers are for what workers do.
    transitions = RedisTransitions(redis, lease_seconds=0, unknown_seconds=0, max_attempts=0)
    batches = RedisBatches(redis)
    price = Decimal(settings.price_per_megapixel_usd)
    check_webhook_url = partial(
        validate_webhook_url, allow_http=settings.webhook_allow_http, policy=AddressPolicy(settings.networks)
    )
    return Services(
        redis=redis,
        server=server,
        beginning=Beginning(redis, accounts, secret=settings.secret, key=settings.bootstrap_api_key),
        pressure=pressure,
        accounts=accounts,
        jobs=jobs,
        deliveries=RedisDeliveries(redis),
        schedule=schedule,
        bucket=bucket,
        bucket_name=settings.s3_bucket,
        prefix=settings.s3_prefix,
        verifier=verifier,
        acceptance=JobAcceptance(
            jobs,
            price_per_megapixel=price,
            deadline_seconds=settings.job_deadline_seconds,
            max_waiting=settings.account_max_waiting,
            check_webhook_url=check_webhook_url,
            store_is_full=pressure.is_full,
        ),
        batches=batches,
        batch_acceptance=BatchAcceptance(
            batches,
            bucket,
            prefix=settings.s3_prefix,
            price_per_megapixel=price,
            max_waiting=settings.account_max_waiting,
            check_webhook_url=check_webhook_url,
            store_is_full=pressure.is_full,
        ),
        batch_reader=BatchReader(batches, bucket, prefix=settings.s3_prefix),
        removal=JobRemoval(jobs, bucket, prefix=settings.s3_prefix),
        watch=JobWatch(jobs, RedisJobs(listening), room=_WAITERS),
        intake=CallbackIntake(transitions=transitions, queue_url=settings.fal_queue_url),
        rate=_rate(settings, redis),
        registry=registry,
        metrics=HttpMetrics(registry),
        max_body_bytes=settings.max_body_bytes,
    )


def _bucket(settings: ApiSettings) -> S3Bucket:
    return S3Bucket(
        bucket=settings.s3_bucket,
        endpoint_url=settings.s3_endpoint_url,
        region=settings.s3_region,
        public_endpoint_url=settings.s3_public_endpoint_url,
        url_expires_seconds=settings.s3_url_expires_seconds,
        max_threads=4,
    )


def _rate(settings: ApiSettings, redis: Redis) -> RedisAccountRate | None:
    """A rate such as `90/m` allows all 90 at once, once the account was quiet for a minute."""
    if settings.account_rate is None:
        return None
    burst = int(settings.account_rate.partition("/")[0])
    return RedisAccountRate(redis, interval_ms=rate_interval_ms(settings.account_rate), burst=burst)


def _http_hosts(settings: ApiSettings) -> frozenset[str]:
    url = settings.fal_jwks_url
    return frozenset({urlsplit(url).netloc}) if settings.fal_allow_http and not is_loopback(url) else frozenset()
