"""What can go wrong at the submit, seen on the wire and in the ledger."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from tests.contract.simulator.kit import MODEL, SMALL, Fal, exchange

_TAKEN, _NOT_TAKEN = 1, 0


@pytest.mark.parametrize(
    ("name", "args", "status", "accepted"),
    [
        ("submit_lost_before", {}, None, _NOT_TAKEN),
        ("submit_lost_after", {}, None, _TAKEN),
        ("submit_reset", {}, None, _NOT_TAKEN),
        ("submit_reset", {"enqueued": True}, None, _TAKEN),
        ("submit_429", {}, 429, _NOT_TAKEN),
        ("submit_5xx", {"status": 504}, 504, _NOT_TAKEN),
        ("submit_5xx", {"enqueued": True}, 502, _TAKEN),
        ("submit_fal_5xx", {}, 503, _NOT_TAKEN),
        ("submit_slow", {"seconds": 0.02}, 200, _TAKEN),
        ("submit_slow", {"seconds": 0.02, "enqueued": False}, 504, _NOT_TAKEN),
        ("submit_401", {}, 401, _NOT_TAKEN),
        ("submit_403", {}, 403, _NOT_TAKEN),
        ("submit_408", {}, 408, _NOT_TAKEN),
        ("submit_408", {"enqueued": True}, 408, _TAKEN),
        ("submit_redirect", {}, 307, _NOT_TAKEN),
    ],
)
async def test_a_submit_goes_wrong(
    fal: Fal, name: str, args: dict[str, Any], status: int | None, accepted: int
) -> None:
    await fal.arm(name, times=1, args=args)
    if status is None:
        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
            await fal.submit()
    else:
        assert (await fal.submit())[0] == status
    ledger = await fal.ledger()
    assert (ledger["counters"]["posts"], len(ledger["requests"])) == (1, accepted)
    assert ledger["faults"] == {name: 1}
    assert (await fal.submit())[0] == 200  # once was asked for, once it struck


async def test_a_closed_and_a_reset_connection_differ_on_the_wire(fal: Fal) -> None:
    submit = f"POST /{MODEL}\n{json.dumps(SMALL)}"
    for name in ("submit_lost_before", "submit_lost_after"):
        await fal.arm(name)
        assert await exchange(fal, submit) == b""
    await fal.arm("submit_reset")
    with pytest.raises(ConnectionResetError):
        await exchange(fal, submit)


async def test_a_malformed_answer_belongs_to_a_request_that_was_taken(fal: Fal) -> None:
    await fal.arm("submit_malformed")
    async with fal.http.post(f"{fal.origin}/{MODEL}", json=SMALL) as response:
        assert response.status == 200
        with pytest.raises(ValueError, match="Unterminated string"):
            await response.json()
    assert (await fal.ledger())["requests"][0]["reply"] == "submit_malformed"


async def test_fals_own_words_and_the_ingress_can_be_told_apart(fal: Fal) -> None:
    for name, args in (
        ("submit_fal_5xx", {}),
        ("submit_5xx", {}),
        ("submit_5xx", {"enqueued": True, "request_id": True}),
    ):
        await fal.arm(name, args=args)
        async with fal.http.post(f"{fal.origin}/{MODEL}", json=SMALL) as response:
            text = await response.text()
            own = "X-Fal-Error-Type" in response.headers
            assert own == ("error_type" in text) == (name == "submit_fal_5xx")
            assert ("nginx" in text) == (name == "submit_5xx")
            assert ("X-Fal-Request-Id" in response.headers) == bool(args)


async def test_429_names_a_time_only_when_asked_to(fal: Fal) -> None:
    for retry_after in (None, 3):
        await fal.arm("submit_429", args={"retry_after": retry_after})
        async with fal.http.post(f"{fal.origin}/{MODEL}", json=SMALL) as response:
            assert response.headers.get("Retry-After") == (str(retry_after) if retry_after else None)
            assert (await response.json())["error_type"] == "concurrent_requests_limit"
