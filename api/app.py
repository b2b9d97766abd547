"""The application: routes, errors, and what lies around every request."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI

from api import openapi, problems
from api.compose import Services
from api.limits import BodyLimit
from api.observing import Observing
from api.routes import batch_outcome, batches, callback, deliveries, events, health, jobs, usage
from darkroom.domain.batch import BYTES_MAX

_DESCRIPTION = (
    "The durable render queue: generation jobs for fal's Krea 2 Turbo in, pictures in your bucket, webhooks out. "
    "An accepted job is never lost, and a picture is never paid for twice. "
    "Every error is `application/problem+json`; its `type` leads to an explanation."
)


def create_app(services: Services) -> FastAPI:
    """Build the application on what was composed; closing that stays the caller's."""
    app = FastAPI(
        title="Darkroom", version=version("darkroom"), description=_DESCRIPTION, redoc_url=None, redirect_slashes=False
    )
    app.state.services = services
    routers = [room.router for room in (jobs, batches, batch_outcome, events, deliveries, usage, callback, health)]
    for router in routers:
        app.include_router(router)
    problems.install(app, [route for router in routers for route in router.routes])
    openapi.install(app)

    def limit(path: str) -> int:
        if path == batches.router.prefix:
            return BYTES_MAX
        return callback.BODY_BYTES if path.startswith(callback.PATH) else services.max_body_bytes

    app.add_middleware(BodyLimit, limit=limit)
    app.add_middleware(Observing, metrics=services.metrics)
    return app
