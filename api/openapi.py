"""The OpenAPI 3.1 document: what FastAPI finds out by itself, and the parts that it cannot see."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.problems import KINDS, MEDIA_TYPE, Problem
from api.schemas import JobRequest, ReplayRequest

_REF: Final = "#/components/schemas/{model}"

Responses = dict[int | str, dict[str, Any]]


def answers(
    status: int,
    description: str,
    example: object = None,
    *,
    media_type: str = "application/json",
    model: type[BaseModel] | None = None,
) -> Responses:
    """How one good answer is documented. `model` is for a status that is not the route's usual one."""
    answer: dict[str, Any] = {"description": description}
    if example is not None:
        answer["content"] = {media_type: {"example": example}}
    if model is not None:
        answer["model"] = model
    return {status: answer}


def problems(*codes: str) -> Responses:
    """How the errors with these codes are documented, each with an example. Every keyed route has some in common."""
    found: Responses = {}
    for code in codes:
        kind = KINDS[code]
        problem = Problem(
            type=f"/problems/{code}",
            title=kind.title,
            status=kind.status,
            detail=kind.remedy,
            instance="/v1/…",
            code=code,
        )
        entry = found.setdefault(
            kind.status,
            {
                "description": kind.title,
                "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}, "examples": {}}},
            },
        )
        entry["content"][MEDIA_TYPE]["examples"][code] = {"value": problem.model_dump(exclude_none=True)}
    return found


def keyed(*codes: str) -> Responses:
    """The errors of a route that needs a key: those named, and those that every such route has."""
    return problems("unauthorized", "unavailable", "invalid_request", *codes)


def request_body(model: type[BaseModel], example: object, *, required: bool = True) -> dict[str, Any]:
    """How a body read by `json_body` is documented."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {
        "requestBody": {"required": required, "content": {"application/json": {"schema": schema, "example": example}}}
    }


def install(app: FastAPI) -> None:
    """Make the application's document the one below."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # FastAPI's documented way to extend it


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
        separate_input_output_schemas=False,
    )
    _, schemas = models_json_schema(
        [(JobRequest, "validation"), (ReplayRequest, "validation"), (Problem, "serialization")], ref_template=_REF
    )
    document.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
    return document
