"""fal's webhook to us."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.auth import Door
from api.openapi import answers, problems

PATH = "/v1/fal/callback/"
BODY_BYTES = 4 * 1024 * 1024

router = APIRouter(tags=["fal"])


@router.post(
    PATH + "{token}",
    status_code=204,
    responses=answers(204, "Taken. What is not about a submission on record is taken and ignored.")
    | problems("callback_unverified", "body_too_large", "callback_keys_unavailable", "unavailable", "invalid_request"),
)
async def take_callback(token: str, request: Request, services: Door) -> Response:
    """Take fal's word that it has a request of ours. The token names the submission; the signature is fal's."""
    submission_id = (await services.callback_tokens()).read(token)
    callback = await services.verifier.verify(request.headers, await request.body())
    await services.intake.take(submission_id, callback.request_id)
    return Response(status_code=204)
