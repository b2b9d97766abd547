"""Believing a webhook: only when it is signed with the account's secret (Standard Webhooks), and recent."""

from __future__ import annotations

import json
from collections.abc import Mapping

from standardwebhooks import Webhook, WebhookVerificationError
from standardwebhooks.webhooks import EmptyWebhookSecretError

from darkroom_client.errors import MisuseError, WebhookInvalidError
from darkroom_client.event_models import Event


def verify_webhook(payload: bytes | str, headers: Mapping[str, str], secret: str) -> Event:
    """The event that a webhook tells of. Answer 2xx soon, and remember its `id`: it may come more than once.

    Args:
        payload: the body exactly as it arrived, not parsed and written again.
        headers: the request's; upper and lower case do not matter.
        secret: `whsec_…`, from `webhook_secret()`.

    Raises:
        WebhookInvalidError: not signed with this secret, older or newer than five minutes, or not readable.
        MisuseError: the secret is none.
    """
    try:
        webhook = Webhook(secret)
    except (EmptyWebhookSecretError, ValueError):
        raise MisuseError("the webhook secret is not of the form whsec_…") from None
    given = {name.lower(): value for name, value in headers.items()}
    try:
        webhook.verify(payload, given, json_parse=False)
    except (WebhookVerificationError, ValueError) as error:  # ValueError: a signature or a body that cannot be decoded
        raise WebhookInvalidError(f"the webhook cannot be believed: {error}") from None
    try:
        document = json.loads(payload)
        return Event.model_validate({**document, "id": given["webhook-id"]})
    except (TypeError, ValueError):  # ValidationError is one
        raise WebhookInvalidError("the webhook is signed, and not an event of Darkroom's") from None
