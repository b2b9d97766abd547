"""Builds one worker's rooms from its settings, once, inside its event loop."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from urllib.parse import urlsplit

from celery import Celery
from redis.asyncio import Redis

from darkroom.adapters.addresses import AddressPolicy
from darkroom.adapters.celery import CeleryPublisher
from darkroom.adapters.fal import FalQueue
from darkroom.adapters.fal_callback import CallbackTokens
from darkroom.adapters.media import MediaDownloader
from darkroom.adapters.redis.accounts import RedisAccounts
from darkroom.adapters.redis.batches import RedisBatches
from darkroom.adapters.redis.connection import connect
from darkroom.adapters.redis.deliveries import RedisDeliveries
from darkroom.adapters.redis.jobs import RedisJobs
from darkroom.adapters.redis.schedule import RedisSchedule
from darkroom.adapters.redis.scripts import ask
from darkroom.adapters.redis.secret import shared_secret
from darkroom.adapters.redis.transitions import RedisTransitions
from darkroom.adapters.s3 import S3Bucket
from darkroom.adapters.thumbnails import PillowThumbnails
from darkroom.adapters.webhooks import HttpWebhookSender
from darkroom.domain.representation import represent_event
from darkroom.ports import Limits
from darkroom.service.close_batch import BatchCloser
from darkroom.service.copy_artifacts import ArtifactCopier
from darkroom.service.deliver import Deliverer
from darkroom.service.intake_batch import BatchIntake
from darkroom.service.read_batch import BatchReader
from darkroom.service.reconcile import ON_UNCERTAIN, DoubtTerms, Reconciler
from darkroom.service.run_job import JobRunner, Terms
from darkroom.service.walk_batch import BatchWalk
from darkroom.settings import WorkerSettings, rate_interval_ms
from worker.batch_work import BatchWork
from worker.engine import Engine
from worker.ticker import Ticker
from worker.watchdog import Watchdog

_SUBMIT_TIMEOUT = 30.0
_READ_TIMEOUT = 20.0
_COPYING_PER_PERMIT = 4
_COPYING_AT_LEAST = 64


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a running worker consists of."""

    engine: Engine
    ticker: Ticker
    watchdog: Watchdog
    redis: Redis
    waiting: Redis
    fal: FalQueue
    media: MediaDownloader
    thumbnails: PillowThumbnails
    bucket: S3Bucket
    sender: HttpWebhookSender
    publisher: CeleryPublisher

    async def close(self) -> None:
        """Close every connection."""
        await self.fal.close()
        await self.media.close()
        self.thumbnails.close()
        await self.sender.close()
        await self.bucket.close()
        await self.publisher.close()
        await self.waiting.aclose()
        await self.redis.aclose()


def http_hosts(settings: WorkerSettings) -> frozenset[str]:
    """The hosts that are named exactly and may therefore be plain http, where that is allowed at all."""
    if not settings.fal_allow_http:
        return frozenset()
    named = {urlsplit(url).netloc for url in (settings.fal_queue_url, settings.fal_api_url)}
    return frozenset(named | {host for host in settings.fal_media_hosts if "*" not in host})


async def compose(settings: WorkerSettings, app: Celery) -> Rooms:
    """Connect and build. Raises UnavailableError while Redis is away, ValueError for Redis Cluster."""
    # Blocking reads and pub/sub keep a connection each: they have a pool of their own.
    redis = connect(settings.redis_url.get_secret_value())
    waiting = connect(settings.redis_url.get_secret_value(), connections=8)
    if (await ask(redis.info("cluster"))).get("cluster_enabled"):
        raise ValueError("Redis Cluster is not supported: use one server, with a replica if you like")
    replicas = int((await ask(redis.info("replication"))).get("connected_slaves", 0))

    price = Decimal(settings.price_per_megapixel_usd)
    unknown_seconds = settings.fal_start_timeout_seconds + settings.fal_max_run_seconds
    tokens = CallbackTokens(await shared_secret(redis, settings.secret.get_secret_value() if settings.secret else None))
    hosts = http_hosts(settings)
    schedule, jobs = RedisSchedule(redis, waiting=waiting), RedisJobs(redis)
    transitions = RedisTransitions(
        redis,
        lease_seconds=settings.lease_seconds,
        unknown_seconds=unknown_seconds,
        max_attempts=settings.max_attempts,
        replicas=replicas,
    )
    fal = FalQueue(
        key=settings.key.get_secret_value(),
        queue_url=settings.fal_queue_url,
        api_url=settings.fal_api_url,
        allow_http_hosts=hosts,
        submit_timeout=_SUBMIT_TIMEOUT,
        read_timeout=_READ_TIMEOUT,
    )
    media = MediaDownloader(allowed_hosts=settings.fal_media_hosts, allow_http_hosts=sorted(hosts))
    thumbnails = PillowThumbnails()
    bucket = S3Bucket(
        bucket=settings.s3_bucket,
        endpoint_url=settings.s3_endpoint_url,
        region=settings.s3_region,
        public_endpoint_url=settings.s3_public_endpoint_url,
        url_expires_seconds=settings.s3_url_expires_seconds,
        create_bucket=settings.s3_create_bucket,
    )
    sender = HttpWebhookSender(
        timeout=settings.webhook_timeout_seconds,
        allow_http=settings.webhook_allow_http,
        policy=AddressPolicy(settings.networks),
    )
    publisher = CeleryPublisher(app)

    def callback_url(submission_id: str) -> str | None:
        return f"{settings.public_url}/v1/fal/callback/{tokens.issue(submission_id)}" if settings.public_url else None

    terms = Terms(
        start_timeout=settings.fal_start_timeout_seconds,
        # A frozen worker must have lost its right to send before its lease can be taken from it.
        send_within=min(10.0, settings.lease_seconds / 2),
        price_per_megapixel=price,
        callback_url=callback_url,
        callbacks=settings.public_url is not None,
    )
    copier = ArtifactCopier(
        transitions=transitions,
        schedule=schedule,
        media=media,
        thumbnails=thumbnails,
        store=bucket,
        prefix=settings.s3_prefix,
        price_per_megapixel=price,
    )
    engine = Engine(
        runner=JobRunner(transitions=transitions, schedule=schedule, generator=fal, copier=copier, terms=terms),
        deliverer=Deliverer(
            deliveries=RedisDeliveries(redis),
            accounts=RedisAccounts(redis),
            sender=sender,
            represent=partial(represent_event, bucket=settings.s3_bucket, presign=bucket.presign),
            schedule=settings.webhook_retry_schedule,
            timeout=settings.webhook_timeout_seconds,
        ),
        transitions=transitions,
        schedule=schedule,
        concurrency=settings.worker_concurrency,
        lease_seconds=settings.lease_seconds,
    )
    ticker = Ticker(
        worker_id=f"{socket.gethostname()}:{os.getpid()}",
        schedule=schedule,
        transitions=transitions,
        reconciler=Reconciler(
            jobs=jobs,
            schedule=schedule,
            transitions=transitions,
            generator=fal,
            terms=DoubtTerms(
                unknown=unknown_seconds,
                window=settings.uncertain_window_seconds,
                on_uncertain=ON_UNCERTAIN[settings.on_uncertain],
            ),
        ),
        batches=batch_work(settings, RedisBatches(redis), jobs, bucket),
        ensure_storage=bucket.ensure_bucket,
        publisher=publisher,
        remove=jobs.delete,
        limits=Limits(
            permits=settings.permits,
            reserve=settings.reserve,
            copying=max(_COPYING_AT_LEAST, _COPYING_PER_PERMIT * settings.permits),
            rate_interval=rate_interval_ms(settings.fal_rate) if settings.fal_rate else 0,
        ),
        lease_seconds=settings.lease_seconds,
        retention_days=settings.retention_days,
    )
    watchdog = Watchdog(engine=engine, redis=redis, queues=settings.worker_queues)
    return Rooms(engine, ticker, watchdog, redis, waiting, fal, media, thumbnails, bucket, sender, publisher)


def batch_work(settings: WorkerSettings, batches: RedisBatches, jobs: RedisJobs, bucket: S3Bucket) -> BatchWork:
    """What this worker does for batches."""
    prefix = settings.s3_prefix
    reader = BatchReader(batches, bucket, prefix=prefix)
    return BatchWork(
        batches,
        intake=BatchIntake(
            batches, bucket, prefix=prefix, price_per_megapixel=Decimal(settings.price_per_megapixel_usd)
        ),
        walk=BatchWalk(batches, remove=jobs.delete),
        closer=BatchCloser(batches, bucket, reader, bucket=settings.s3_bucket, prefix=prefix),
    )
