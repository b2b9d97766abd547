"""Prometheus of one worker process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, PlatformCollector, ProcessCollector

from worker.engine import Engine


def registry_of(engine: Engine) -> CollectorRegistry:
    """A registry whose figures are read when it is scraped."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    Gauge("darkroom_worker_jobs", "Jobs that this worker holds.", registry=registry).set_function(
        lambda: engine.running
    )
    return registry
