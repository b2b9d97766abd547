"""Looks at everything the store keeps in Redis at once, and says whether it hangs together.

The one place that knows the store's keys besides the store: tests read here, they do not poke.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

from redis.asyncio import Redis

from darkroom.domain.lifecycle import (
    JOB,
    OPEN_SUBMISSION,
    SUBMISSION,
    TERMINAL,
    TERMINAL_BATCH,
    BatchStatus,
    JobStatus,
    SubmissionStatus,
)

_UNSAID: Final = (
    dict.fromkeys(("started", "finished", "deadline", "next", "cancel", "lease"), "")
    | dict.fromkeys(("batch", "custom", "sub", "idem", "webhook"), "")
    | {"attempts": "0", "errored": "0", "life": "0"}
)
"""What a record that does not say it means."""

LIVE_TIMERS: Final = ("republish", "retry", "reconcile")
GONE: Final = "none"

# Everything in one script: what it answers is one moment. Numbers travel as text, for cjson would round them.
_DUMP: Final = """
local out = {}
for _, key in ipairs(redis.call('KEYS', 'dr:*')) do
  local kind = redis.call('TYPE', key).ok
  local value
  if kind == 'hash' then value = redis.call('HGETALL', key)
  elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'set' then value = redis.call('SMEMBERS', key); table.sort(value)
  elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'stream' then
    value = {}
    for i, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do
      value[i] = { entry[1], entry[2] }
    end
  else value = { redis.call('GET', key) } end
  out[#out + 1] = { key, kind, redis.call('PTTL', key) >= 0, value }
end
local time = redis.call('TIME')
return cjson.encode({ string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000)), out })
"""

# Moves the past: every time kept anywhere becomes `ARGV[1]` ms earlier, as if that time had gone by.
_TRAVEL: Final = """
local ms = tonumber(ARGV[1])
local function earlier(key)
  for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZINCRBY', key, -ms, member) end
end
for _, key in ipairs({ 'dr:timers', 'dr:leases', 'dr:deadlines', 'dr:permits', 'dr:ended' }) do earlier(key) end
local function earlier_fields(key, names)
  for _, name in ipairs(names) do
    local at = tonumber(redis.call('HGET', key, name) or '')
    if at and at > 0 then redis.call('HSET', key, name, string.format('%d', at - ms)) end
  end
end
for _, key in ipairs(redis.call('KEYS', 'dr:job:*')) do
  if redis.call('TYPE', key).ok == 'hash' and not string.find(key, ':artifacts') then
    earlier_fields(key, { 'deadline', 'grace', 'next' })
  end
end
for _, key in ipairs(redis.call('KEYS', 'dr:batch:*')) do
  if redis.call('TYPE', key).ok == 'hash' and not string.find(key, ':causes') then
    earlier_fields(key, { 'not_before', 'finish_by' })
  end
end
for _, key in ipairs(redis.call('KEYS', 'dr:delivery:*')) do
  if redis.call('TYPE', key).ok == 'hash' then earlier_fields(key, { 'next', 'busy' }) end
end
earlier_fields('dr:gate:fal', { 'probe_at' })
for _, key in ipairs({ 'dr:cooldown', 'dr:rate' }) do
  local at = redis.call('GET', key)
  if at then redis.call('SET', key, string.format('%d', tonumber(at) - ms), 'KEEPTTL') end
end
for _, key in ipairs(redis.call('KEYS', 'dr:*')) do
  local left = redis.call('PTTL', key)
  if left >= 0 then redis.call('PEXPIRE', key, math.max(0, left - ms)) end
end
return 1
"""


async def travel(redis: Redis, seconds: float) -> None:
    """Let time pass for the store without waiting for it: all that it keeps becomes that much older."""
    await redis.eval(_TRAVEL, 0, int(seconds * 1000))


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


@dataclass(frozen=True)
class View:
    """All of the store's keys at one moment. `now` is the server's clock in ms."""

    now: int
    keys: dict[str, Any]
    expiring: frozenset[str]

    @classmethod
    async def take(cls, redis: Redis) -> View:
        now, rows = json.loads(await redis.eval(_DUMP, 0))
        keys: dict[str, Any] = {}
        for key, kind, _, value in rows:
            flat = value or []  # cjson writes an empty table as {}
            keys[key] = _pairs(flat) if kind in {"hash", "zset"} else flat[0] if kind == "string" else list(flat)
        return cls(int(now), keys, frozenset(row[0] for row in rows if row[2]))

    def changes_since(self, before: View) -> dict[str, tuple[Any, Any]]:
        """Every key that is not as it was, with what it was and what it is."""
        return {
            key: (before.keys.get(key), self.keys.get(key))
            for key in sorted(before.keys.keys() | self.keys.keys())
            if before.keys.get(key) != self.keys.get(key)
        }

    def table(self, key: str) -> dict[str, str]:
        """A hash, or a sorted set as member → score; empty when the key is not there."""
        found: dict[str, str] = self.keys.get(key, {})
        return found

    def items(self, key: str) -> list[str]:
        """A list or a set."""
        found: list[str] = self.keys.get(key, [])
        return found

    @cached_property
    def jobs(self) -> dict[str, dict[str, str]]:
        return {key[7:]: _UNSAID | value for key, value in self.keys.items() if re.fullmatch(r"dr:job:[^:]+", key)}

    @property
    def batches(self) -> dict[str, dict[str, str]]:
        return {key[9:]: value for key, value in self.keys.items() if re.fullmatch(r"dr:batch:[^:]+", key)}

    @cached_property
    def submissions(self) -> dict[str, dict[str, str]]:
        return {key[7:]: value for key, value in self.keys.items() if re.fullmatch(r"dr:sub:[^:]+", key)}

    def submissions_of(self, job_id: str) -> list[tuple[str, dict[str, str]]]:
        return [(name, self.table(f"dr:sub:{name}")) for name in self.items(f"dr:job:{job_id}:subs")]

    def timers(self, kind: str) -> dict[str, int]:
        """Timers of one kind: whose, and when it is due (ms)."""
        found = (name.partition(":") for name in self.table("dr:timers"))
        return {who: int(float(self.table("dr:timers")[f"{k}:{who}"])) for k, _, who in found if k == kind}

    def ready(self) -> Iterator[tuple[str, str]]:
        """(flow's key, job id) of everything that wants a permit."""
        for key in self.keys:
            if re.fullmatch(r"dr:ready:[^:]+:[^:]+:[^:]+", key):
                for job_id in self.table(key):
                    yield key, job_id

    def places(self) -> list[tuple[str, str]]:
        """Every (place, job id) that Redis holds, however often."""
        found = [("ready", job_id) for _, job_id in self.ready()]
        found += [("resume", job_id) for job_id in self.table("dr:ready:resume")]
        found += [("lease", job_id) for job_id in self.table("dr:leases")]
        found += [("held", job_id) for job_id in self.table("dr:held")]
        for kind in LIVE_TIMERS:
            found += [(kind, job_id) for job_id in self.timers(kind)]
        return found

    def events(self) -> Iterator[tuple[str, int, dict[str, str]]]:
        """(account, seq, fields) of every event."""
        for key, value in self.keys.items():
            found = re.fullmatch(r"dr:events:([^:]+)", key)
            for entry in value if found else ():
                yield (found.group(1) if found else ""), int(entry[0].partition("-")[0]), _pairs(entry[1])


def paid(sub: dict[str, str] | None) -> bool:
    """Fal took it and has, or may still have, its pictures."""
    return bool(sub) and (sub["status"] == "accepted" or (sub["status"] == "done" and sub["outcome"] == "ok"))  # type: ignore[index]


# what must hold at every moment -----------------------------------------------------------------------------------


def assert_sound(view: View, *, permits: int, copying: int) -> None:
    """Everything that must hold between any two script calls."""
    _assert_places(view)
    _assert_stages(view)
    _assert_flows(view)
    _assert_indexes(view)
    _assert_submissions(view)
    _assert_permits(view, permits)
    _assert_copying(view, copying + permits)
    _assert_deadlines(view)
    _assert_ends(view)
    _assert_idempotency(view)
    assert_batches(view)
    assert_no_stray_keys(view)


def assert_batches(view: View) -> None:
    """A batch's counters are what its jobs are; its money is what its submissions are."""
    counted = {status: int(number) for status, number in view.table("dr:batch_counts").items() if int(number)}
    assert counted == Counter(batch["status"] for batch in view.batches.values())
    for batch_id, batch in view.batches.items():
        jobs = {name: job for name, job in view.jobs.items() if job["batch"] == batch_id}
        tally = Counter("held" if job["place"] == "held" else job["status"] for job in jobs.values())
        names = ("queued", "running", "retrying", "held", "succeeded", "failed", "cancelled")
        # A job that its owner deleted stays counted; its submissions are gone with it.
        deleted = int(batch["n_total"]) - len(jobs)
        gone = {name: int(batch[f"n_{name}"]) - tally[name] for name in names}
        assert {
            name: n for name, n in gone.items() if n and JobStatus.__members__.get(name.upper()) not in TERMINAL
        } == {}
        assert min(gone.values()) >= 0, (batch, gone)
        assert sum(gone.values()) == deleted
        assert int(batch["left"]) == sum(JobStatus(job["status"]) not in TERMINAL for job in jobs.values())
        subs = [sub for sub in view.submissions.values() if sub["job"] in jobs]
        reserved = sum(int(sub.get("bound") or 0) for sub in subs)
        spent = sum(int(sub.get("cost") or 0) for sub in subs)
        assert (int(batch["reserved"]), int(batch["spent"])) == (reserved, spent) or deleted, "money is a submission's"
        if batch["budget"]:
            assert int(batch["spent"]) + int(batch["reserved"]) <= int(batch["budget"]), "a budget is never exceeded"
        ended = BatchStatus(batch["status"]) in TERMINAL_BATCH
        assert (batch_id in view.table("dr:ended_batches")) == ended
        waits_for_worker = any(batch_id in view.timers(kind) for kind in ("intake", "drain", "replay", "outcome"))
        if not ended and batch["left"] == "0":
            assert waits_for_worker, f"{batch_id} would never end"
        if batch["status"] in {"validating", "cancelling"} and not int(batch["left"]):
            assert waits_for_worker


def _assert_places(view: View) -> None:
    expected = sorted((job["place"], job_id) for job_id, job in view.jobs.items() if job["place"] != GONE)
    assert sorted(view.places()) == expected, "each waiting or worked job is in the one place its record names"
    for job_id, job in view.jobs.items():
        ended = JobStatus(job["status"]) in TERMINAL
        assert ended == (job["place"] == GONE), (job_id, job)
        assert (job["status"] == "running") == (job["place"] == "lease"), (job_id, job)
        assert (job["status"] == "retrying") == (job["place"] == "retry"), (job_id, job)
        assert (job["lease"] != "") == (job["place"] == "lease"), (job_id, job)
        assert (job["next"] != "") == (job["place"] == "retry"), (job_id, job)


_STAGES: Final = {
    "ready": {"waiting_for_slot"},
    "retry": {"scheduled"},
    "reconcile": {"reconciling"},
    "held": {"held"},
    "resume": {"generating", "copying"},
    "republish": {"waiting_for_slot", "generating", "copying"},
    "lease": {"submitting", "generating", "copying"},
    "none": {""},
}


def _assert_stages(view: View) -> None:
    for job_id, job in view.jobs.items():
        assert job["stage"] in _STAGES[job["place"]], (job_id, job)
        if job["place"] in {"reconcile", "held"}:
            assert view.table(f"dr:sub:{job['sub']}")["status"] == "uncertain", "reconciling looks for something"
        if job["place"] == "ready":
            assert job["cancel"] == "", "who was told that a cancellation is taken does not wait for a permit"
            assert not paid(view.table(f"dr:sub:{job['sub']}")), "what is paid needs no permit"


def _assert_flows(view: View) -> None:
    rows = {(key, member) for key in view.keys if key.startswith("dr:ready:") for member in view.table(key)}
    for key, job_id in view.ready():
        job = view.jobs[job_id]
        lane, account, batch = key.split(":")[2:]
        assert (lane, account, batch) == (job["lane"], job["account"], (job["batch"] or "-") + job.get("canary", ""))
        turns = (f"dr:ready:{lane}:{account}", batch) in rows
        if turns:
            assert (f"dr:ready:{lane}", account) in rows
        feeds = view.batches[job["batch"]]["feeds"] if job["batch"] else "all"
        assert turns == (feeds == "all" or (feeds == "canary" and "canary" in job)), (key, feeds)
    for key, member in rows:
        if key != "dr:ready:resume" and key.count(":") < 4:
            assert f"{key}:{member}" in view.keys, f"{key} leads to {member}, which has nothing"


def _assert_indexes(view: View) -> None:
    for key in view.keys:
        found = re.fullmatch(r"dr:jobs:([^:]+)(?::([^:]+))?", key)
        if found:
            account, status = found.groups()
            fitting = {
                job_id: job["created"]
                for job_id, job in view.jobs.items()
                if job["account"] == account and status in {None, job["status"]}
            }
            assert view.table(key) == fitting, key
    indexed = {job_id for key in view.keys if re.fullmatch(r"dr:jobs:[^:]+:[^:]+", key) for job_id in view.table(key)}
    assert indexed == set(view.jobs)
    tally = Counter(job["status"] for job in view.jobs.values())
    counts = {name: int(n) for name, n in view.table("dr:counts").items() if not name.startswith("delivery_")}
    assert {name: n for name, n in counts.items() if n} == dict(tally)


def _assert_submissions(view: View) -> None:
    requests = Counter(sub["request_id"] for sub in view.submissions.values() if "request_id" in sub)
    assert all(n == 1 for n in requests.values()), "a request belongs to one submission"
    listed = {name for job_id in view.jobs for name, _ in view.submissions_of(job_id)}
    assert listed == set(view.submissions), "every submission belongs to a job, and the other way round"
    for name, sub in view.submissions.items():
        if "request_id" in sub:
            assert view.keys[f"dr:request:{sub['request_id']}"] == name
        if "late_request_id" in sub:
            assert f"{name}:{sub['late_request_id']}" in view.table("dr:double_charges")
    waiting = {
        name: s["fingerprint"] for name, s in view.submissions.items() if s["status"] in {"intended", "uncertain"}
    }
    kept = {name: key[8:] for key in view.keys if key.startswith("dr:open:") for name in view.items(key)}
    assert kept == waiting, "dr:open holds what waits for a reply, and nothing else"
    for name, sub in view.submissions.items():
        places = {"intended": {"lease"}, "uncertain": {"reconcile", "held"}}.get(sub["status"])
        assert places is None or view.jobs[sub["job"]]["place"] in places, f"nobody would ever settle {name}"
    for job_id, job in view.jobs.items():
        chain = view.submissions_of(job_id)
        assert job["sub"] == (chain[-1][0] if chain else "")
        for _, earlier in chain[:-1]:
            assert SubmissionStatus(earlier["status"]) not in OPEN_SUBMISSION, f"{job_id} has two open submissions"
            assert not paid(earlier), f"{job_id} was submitted again although it was paid"
        for (_, earlier), (_, later) in pairwise(chain):
            if earlier["status"] == "done" and earlier["outcome"] == "lost":
                assert earlier["life"] != later["life"], f"{job_id}: a lost result is never resubmitted by itself"


def _assert_permits(view: View, limit: int) -> None:
    holders = view.table("dr:permits")
    assert len(holders) <= limit, "never more permits than the limit"
    for holder in holders:
        kind, _, name = holder.partition(":")
        if kind == "job":
            assert view.jobs[name]["place"] in {"republish", "lease"}, (holder, view.jobs[name])
        else:
            assert name in view.timers("permit"), f"{holder} would be held for ever"
            sub = view.submissions.get(name)
            assert sub is None or SubmissionStatus(sub["status"]) in OPEN_SUBMISSION, (holder, sub)
    assert {f"sub:{name}" for name in view.timers("permit")} <= set(holders), "a permit's timer outlives it"


def _assert_copying(view: View, limit: int) -> None:
    members = view.items("dr:copying")
    assert len(members) <= limit
    for job_id in members:
        assert view.jobs[job_id]["place"] in {"republish", "lease"}, (job_id, view.jobs[job_id])


def _assert_deadlines(view: View) -> None:
    kept = {job_id: float(at) for job_id, at in view.table("dr:deadlines").items()}
    for job_id in kept:
        assert view.jobs[job_id]["place"] != GONE
    for job_id, job in view.jobs.items():
        if job["place"] == GONE:
            continue
        sub = view.table(f"dr:sub:{job['sub']}")
        if paid(sub):
            assert job_id in kept, f"{job_id}: nothing would end its grace"
        elif job["deadline"]:
            at = max(int(job["deadline"]), view.now + 5000)
            assert kept[job_id] <= at, f"{job_id}: its deadline would be noticed {kept[job_id] - at} ms late"


def _assert_ends(view: View) -> None:
    told = Counter((fields["job"], int(fields["life"])) for _, _, fields in view.events() if "job" in fields)
    assert all(n == 1 for n in told.values()), "a life ends once"
    by_account: dict[str, list[int]] = {}
    for account, seq, _ in view.events():
        by_account.setdefault(account, []).append(seq)
    for account, numbers in by_account.items():
        assert numbers == list(range(1, len(numbers) + 1)), "the log has no gaps"
        assert view.keys[f"dr:events:{account}:seq"] == str(len(numbers))
    for job_id, job in view.jobs.items():
        ended = JobStatus(job["status"]) in TERMINAL
        lives = set(range(int(job["life"]) + ended))
        assert {life for who, life in told if who == job_id} == lives, (job_id, job)
        owed = [f"dlv_{job_id[4:]}_{life}" for life in sorted(lives)] if job["webhook"] == "1" else []
        assert view.items(f"dr:job:{job_id}:deliveries") == owed
        for name in owed:
            if view.table(f"dr:delivery:{name}")["status"] == "pending":
                assert name in view.timers("deliver"), f"{name} is forgotten"
    ended_alone = {j for j, job in view.jobs.items() if JobStatus(job["status"]) in TERMINAL and not job["batch"]}
    assert set(view.table("dr:ended")) == ended_alone, "a batch's jobs are swept with their batch"


def _assert_idempotency(view: View) -> None:
    for job_id, job in view.jobs.items():
        key = f"dr:idem:{job['account']}:{job['idem']}"
        if job["idem"] and JobStatus(job["status"]) not in TERMINAL and view.table(key).get("job") == job_id:
            assert key not in view.expiring, f"{job_id}: its idempotency key could end before it"


# keys -------------------------------------------------------------------------------------------------------------

_STATE: Final = (
    r"dr:(limits|counts|turn|outbox|timers|leases|held|permits|copying|deadlines|ended|double_charges|gate:fal)",
    r"dr:(pace|batch_counts|ended_batches|batches:[^:]+)",
    r"dr:ready:[^:]+(:[^:]+){0,2}",
    r"dr:jobs:[^:]+(:[^:]+)?",
    r"dr:events:[^:]+(:seq)?",
    r"dr:deliveries:[^:]+",
    r"dr:usage:[^:]+:\d+",
    r"dr:(accounts|account:[^:]+(:keys)?|key:[^:]+)",
)
_EXPIRING: Final = (r"dr:(cooldown|rate|gate:s3|trouble:[^:]+)",)


def assert_no_stray_keys(view: View) -> None:
    """Every key is declared: the store's state, something that expires, or part of a record that is there."""
    for key in view.keys:
        assert _is_declared(view, key), f"{key} is nobody's"


def _is_declared(view: View, key: str) -> bool:
    if any(re.fullmatch(pattern, key) for pattern in _STATE):
        return True
    kind, _, rest = key.removeprefix("dr:").partition(":")
    record = rest.partition(":")[0]
    part_of = {
        "job": lambda: record in view.jobs,
        "sub": lambda: record in view.submissions,
        "open": lambda: all(name in view.submissions for name in view.items(key)),
        "request": lambda: view.keys[key] in view.submissions or key in view.expiring,
        "batch": lambda: record in view.batches,
        "batch_idem": lambda: view.table(key).get("batch", "") in view.batches or key in view.expiring,
        "delivery": lambda: _owner(view.table(f"dr:delivery:{record}")) in {*view.jobs, *view.batches},
        "idem": lambda: view.table(key)["job"] in view.jobs or key in view.expiring,
    }
    if kind in part_of:
        return part_of[kind]()
    return key in view.expiring and any(re.fullmatch(pattern, key) for pattern in _EXPIRING)


def _owner(delivery: dict[str, str]) -> str:
    return delivery.get("job") or delivery.get("batch", "")


# what may change from one moment to the next ----------------------------------------------------------------------


def _reachable(table: Any, start: Any, *, steps: int, without: frozenset[str]) -> set[Any]:  # noqa: ANN401 - both tables
    found = {start}
    for _ in range(steps):
        found |= {to for state in found for event, to in table[state].items() if event not in without}
    return found


def assert_moved_lawfully(before: View, after: View, *, replayed: str | None) -> None:
    """Statuses changed along the domain's tables only; an ended job only began anew if it is the one `replayed`.

    One call may apply several events to a job (a rescue and the cancellation that waited), so a path is allowed too.
    """
    for job_id, job in after.jobs.items():
        was = before.jobs.get(job_id)
        if was is not None and was["status"] != job["status"]:
            without = frozenset() if job_id == replayed else frozenset({"replayed"})
            lawful = _reachable(JOB, JobStatus(was["status"]), steps=3, without=without)
            assert JobStatus(job["status"]) in lawful, (job_id, was["status"], job["status"])
            assert int(job["rev"]) > int(was["rev"]), "who saw the old version can tell"
    for name, sub in after.submissions.items():
        earlier = before.submissions.get(name)
        if earlier is not None:
            lawful = _reachable(SUBMISSION, SubmissionStatus(earlier["status"]), steps=2, without=frozenset())
            assert SubmissionStatus(sub["status"]) in lawful, (name, earlier["status"], sub["status"])
            for fact in ("request_id", "outcome", "cost", "units"):
                assert earlier.get(fact) in {None, sub.get(fact)}, f"{name}: {fact} is set once"
