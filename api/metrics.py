"""What Prometheus reads of the API: its requests, counted here, and the store's sizes, counted when asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from darkroom.adapters.redis.gauges import Gauges

_BUCKETS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class HttpMetrics:
    """Requests and their latency, by route template: never by path, which callers choose."""

    def __init__(self, registry: CollectorRegistry) -> None:
        names = ("method", "route", "status")
        self._requests = Counter("darkroom_http_requests", "Answered requests.", names, registry=registry)
        self._seconds = Histogram(
            "darkroom_http_request_seconds",
            "From the request's first byte to the end of its answer; waiting callers included.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=registry,
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


class StoreMetrics(Collector):
    """The store's sizes as they were read for this scrape; without them only that the store is away."""

    def __init__(self, gauges: Gauges | None) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """See prometheus_client."""
        yield GaugeMetricFamily("darkroom_store_up", "Whether Redis answers.", value=float(self._gauges is not None))
        if (gauges := self._gauges) is None:
            return
        yield _by("darkroom_jobs", "Jobs on record, by status.", "status", gauges.jobs)
        yield _by("darkroom_batches", "Batches on record, by status.", "status", gauges.batches)
        yield _by("darkroom_jobs_ready", "Jobs that want a permit, by lane.", "lane", gauges.ready)
        yield _by("darkroom_jobs_placed", "Jobs elsewhere: resume, held, lease.", "place", gauges.places)
        yield GaugeMetricFamily("darkroom_permits_taken", "Permits in use.", value=gauges.permits)
        yield GaugeMetricFamily("darkroom_timers", "What is to be woken later.", value=gauges.timers)
        yield GaugeMetricFamily("darkroom_outbox", "Messages not yet published.", value=gauges.outbox)
        yield GaugeMetricFamily(
            "darkroom_double_charges", "Second or late charges on record.", value=gauges.double_charges
        )
        yield _by("darkroom_submissions_closed", "1 while this stops submissions.", "by", gauges.closed)
        yield GaugeMetricFamily("darkroom_store_memory_bytes", "Memory Redis uses.", value=gauges.memory_used)
        yield GaugeMetricFamily(
            "darkroom_store_memory_max_bytes", "Redis' maxmemory, 0: none.", value=gauges.memory_max
        )


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), float(value))
    return family
