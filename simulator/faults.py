"""Faults: what can go wrong at fal, by chance (a seeded rate) or on command (the next N matching requests)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simulator.config import FaultRule

Args = Mapping[str, Any]

# Every fault with the particulars it can be given and their defaults. `enqueued` says whether fal took the request all
# the same; `request_id` adds X-Fal-Request-Id to the answer of a request that was taken.
CATALOGUE: dict[str, dict[str, Any]] = {
    # the submit
    "submit_lost_before": {"enqueued": False},  # the connection is closed without a reply
    "submit_lost_after": {"enqueued": True},  # taken, then the connection is closed without a reply
    "submit_reset": {"enqueued": False},  # a TCP reset
    "submit_429": {"enqueued": False, "retry_after": None},
    "submit_5xx": {"enqueued": False, "status": 502, "request_id": False},  # the ingress: HTML, without fal's words
    "submit_fal_5xx": {"enqueued": False, "status": 503, "error_type": "runner_scheduling_failure"},  # fal's own words
    "submit_slow": {"enqueued": True, "seconds": 5.0},  # taken at once, answered late
    "submit_malformed": {"enqueued": True, "body": '{"status": "IN_QUEUE", "request_', "request_id": False},
    "submit_401": {"enqueued": False},
    "submit_403": {"enqueued": False},  # locked for an exhausted balance
    "submit_408": {"enqueued": False},
    "submit_redirect": {"enqueued": False, "status": 307, "location": None},  # without location: to the same endpoint
    # the status
    "status_5xx": {"status": 503},
    "status_429": {"retry_after": None},
    "status_401": {},
    "status_403": {},
    "status_404": {},
    "status_reset": {},
    # the run and its result
    "result_failed": {"status": 503, "error_type": "runner_disconnected"},  # COMPLETED with an error, unbilled
    "result_422": {"billed": False},  # refused at run time
    "unsafe": {},  # a black picture, has_nsfw_concepts
    "result_5xx": {"status": 502},  # the ingress
    "result_expired": {},
    "result_pending": {"status": 400},  # "still in progress" although COMPLETED; fal is also reported to say 202
    # the media host
    "media_truncated": {"variant": "short"},  # short: less than Content-Length; silent: a matching length, cut anyway
    "media_not_image": {},
    "media_404": {},
    "media_5xx": {"status": 503},
    "media_slow": {"seconds": 5.0},  # stalls in the middle
    # callbacks
    "callback_late": {"seconds": 5.0},
    "callback_twice": {},
    "callback_never": {},
    "callback_stale": {"seconds": 600},  # signed, with an old timestamp
    "callback_forged": {},  # signed with a key that is not fal's
    "callback_no_payload": {},  # OK with payload null and payload_error
    # the account's interfaces
    "listing_403": {},
    "listing_5xx": {"status": 503},
    "cancel_404": {},
    "cancel_ignored": {},  # 202, and a running request completes and is billed all the same
}


class UnknownFaultError(ValueError):
    """No fault has this name, or the fault does not know this argument."""


@dataclass(slots=True)
class _Armed:
    rate: float = 0.0
    times: int = 0
    args: Args = field(default_factory=dict)


class Faults:
    """Decides which request is struck. Each fault has its own dice: no rate moves another's pattern."""

    def __init__(self, seed: int, rules: Mapping[str, FaultRule]) -> None:
        self._seed, self._rules = seed, rules
        self.fired: Counter[str] = Counter()
        self._armed: dict[str, _Armed] = {}
        self._dice: dict[str, random.Random] = {}
        self.reset()

    def arm(self, name: str, *, rate: float | None = None, times: int | None = None, args: Args | None = None) -> None:
        """Let a fault strike: `times` the next N matching requests, `rate` a share of the others. Replaces the old.

        Raises:
            UnknownFaultError: for a name or an argument that is not in the catalogue.
            ValueError: for a rate outside 0 to 1 or a negative number of times.
        """
        if name not in CATALOGUE:
            raise UnknownFaultError(f"unknown fault {name!r}; known: {', '.join(CATALOGUE)}")
        for key in args or {}:
            if key not in CATALOGUE[name]:
                raise UnknownFaultError(
                    f"{name} has no argument {key!r}; it has: {', '.join(CATALOGUE[name]) or 'none'}"
                )
        if not 0 <= (rate or 0) <= 1 or (times or 0) < 0:
            raise ValueError("rate is a share from 0 to 1, times a number from 0")
        if rate is None and times is None:
            times = 1
        self._armed[name] = _Armed(rate or 0.0, times or 0, args or {})

    def take(self, name: str) -> dict[str, Any] | None:
        """The fault's particulars when it strikes the request at hand, else None. Uses up one of its times."""
        armed = self._armed.get(name)
        if armed is None:
            return None
        if armed.times > 0:
            armed.times -= 1
        elif not (armed.rate and self._dice[name].random() < armed.rate):
            return None
        self.fired[name] += 1
        return {**CATALOGUE[name], **armed.args}

    def first(self, *names: str) -> tuple[str, dict[str, Any]] | None:
        """The first of several faults that strikes."""
        for name in names:
            args = self.take(name)
            if args is not None:
                return name, args
        return None

    def disarm(self) -> None:
        """Let nothing strike any more."""
        self._armed.clear()

    def reset(self) -> None:
        """Back to the beginning: the rules of the start, fresh dice, nothing fired."""
        self.fired.clear()
        self._armed.clear()
        # S311: the dice shall be repeatable, not secret.
        self._dice = {name: random.Random(f"{self._seed}|{name}") for name in CATALOGUE}  # noqa: S311
        for name, rule in self._rules.items():
            self.arm(name, rate=rule.rate, args=rule.args)

    def document(self) -> dict[str, Any]:
        """What is armed, what fired, and the catalogue with its defaults."""
        armed = {name: {"rate": a.rate, "times": a.times, "args": dict(a.args)} for name, a in self._armed.items()}
        return {"armed": armed, "fired": dict(self.fired), "catalogue": CATALOGUE}
