"""fal's word about a submission: the fact is recorded, and the same script wakes whoever watches the job."""

from __future__ import annotations

import logging

from darkroom.domain.adopted import adopted_reference
from darkroom.domain.krea import MODEL
from darkroom.ports import Acceptance, Source, Transitions

logger = logging.getLogger(__name__)


class CallbackIntake:
    """Takes verified callbacks. `queue_url` is where fal's queue is asked about adopted requests."""

    def __init__(self, *, transitions: Transitions, queue_url: str) -> None:
        self._transitions = transitions
        self._queue_url = queue_url

    async def take(self, submission_id: str, request_id: str) -> None:
        """Record that fal took the submission; its job is looked at now.

        When this returns the fact is stored, or there is nothing it could be a fact about. Repeatable: callbacks come
        at least once, in any order. Raises UnavailableError: fal sends it again.
        """
        try:
            reference = adopted_reference(self._queue_url, MODEL, request_id)
        except ValueError:
            logger.warning("a callback names a request id that cannot be one", extra={"submission_id": submission_id})
            return
        found = await self._transitions.accept_submission(submission_id, reference, Source.CALLBACK)
        facts = {"submission_id": submission_id, "fal_request_id": request_id, "found": found.value}
        if found is Acceptance.UNKNOWN:
            logger.info("a callback speaks of a submission that is not on record", extra=facts)
            return
        if found is not Acceptance.ACCEPTED:
            logger.error("a callback speaks of a second or late charge", extra=facts)
