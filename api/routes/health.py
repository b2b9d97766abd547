"""For machines that watch: alive, ready, and in numbers. No key is needed. And the pages that errors point to."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from api.auth import Door
from api.compose import Services
from api.metrics import StoreMetrics
from api.openapi import answers, problems
from api.problems import KINDS, page
from api.schemas import Health, Readiness
from darkroom.adapters.redis.gauges import read_gauges
from darkroom.domain.errors import NotFoundError, UnavailableError

router = APIRouter(tags=["health"])

_PING_SECONDS: Final = 2.0
_WORKER_SEEN_SECONDS: Final = 60.0

_WORDS: Final = {
    "fal_key_refused": "key refused",
    "fal_out_of_balance": "out of balance",
    "fal_locked": "account locked",
    "fal_unreachable": "unreachable",
    "fal_misrouted": "not at the configured address",
    "s3_bucket_missing": "bucket missing",
    "s3_access_denied": "access denied",
    "s3_misconfigured": "misconfigured",
    "s3_unavailable": "unavailable",
}


@router.get("/healthz")
async def healthz() -> Health:
    """Whether this process runs."""
    return Health()


@router.get(
    "/readyz",
    responses=answers(200, "It works.", {"status": "degraded", "degraded": ["fal: out of balance"]})
    | problems("unavailable"),
)
async def readyz(services: Door) -> Readiness:
    """503 only when Redis is away; what else is wrong makes jobs wait, and is named in `degraded`."""
    await services.server.ping(_PING_SECONDS)
    degraded = [f"{who}: {_WORDS.get(why, why)}" for who, why in (await services.schedule.gates()).items()]
    if services.pressure.is_full():
        degraded.append("redis: full")
    workers = await services.server.workers()
    if workers and min(workers.values()) > _WORKER_SEEN_SECONDS:
        degraded.append("workers: none seen")
    return Readiness(status="degraded" if degraded else "ok", degraded=degraded)


@router.get(
    "/metrics",
    response_class=Response,
    responses=answers(200, "Prometheus' text format.", "darkroom_store_up 1.0\n", media_type="text/plain"),
)
async def metrics(services: Door) -> Response:
    """Requests as this process counted them, and the store's sizes as they are now."""
    store = CollectorRegistry(auto_describe=False)
    store.register(await _store_metrics(services))
    return Response(generate_latest(services.registry) + generate_latest(store), media_type=CONTENT_TYPE_LATEST)


async def _store_metrics(services: Services) -> StoreMetrics:
    try:
        await services.server.ping(_PING_SECONDS)
        return StoreMetrics(await read_gauges(services.redis))
    except UnavailableError:
        return StoreMetrics(None)


@router.get("/problems", include_in_schema=False)
async def all_problems() -> HTMLResponse:
    """Every error code."""
    return HTMLResponse(page(KINDS))


@router.get("/problems/{code}", include_in_schema=False)
async def one_problem(code: str) -> HTMLResponse:
    """What an error's `type` points to."""
    if code not in KINDS:
        raise NotFoundError("there is no such kind of error")
    return HTMLResponse(page({code: KINDS[code]}))
