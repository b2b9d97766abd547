"""Accounts and their keys. Of a key only its SHA-256 is stored: it is 256 random bits, so no slow hash is needed."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta

from redis.asyncio import Redis

from darkroom.adapters.redis.scripts import ask, run
from darkroom.domain.errors import NotFoundError
from darkroom.domain.ids import new_id
from darkroom.domain.job import Account, ApiKey

_EPOCH = date(1970, 1, 1)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _api_key(record: dict[str, str]) -> ApiKey:
    revoked = int(record["revoked"]) if record["revoked"] else None
    return ApiKey(record["id"], record["account"], record["hint"], int(record["created"]), revoked)


class RedisAccounts:
    """Implements `ports.Accounts`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def create(self, account_id: str, name: str, webhook_secret: str) -> None:
        """See `ports.Accounts`."""
        await run(self._redis, "create_account", account_id, name, webhook_secret)

    async def all(self) -> list[Account]:
        """See `ports.Accounts`."""
        ids = await ask(self._redis.zrange("dr:accounts", 0, -1))
        found = [await self.account(account_id) for account_id in ids]
        return [account for account in found if account is not None]

    async def account(self, account_id: str) -> Account | None:
        """See `ports.Accounts`."""
        record = await self._hash(f"dr:account:{account_id}")
        return Account(account_id, record["name"], int(record["created"])) if record else None

    async def webhook_secret(self, account_id: str) -> str:
        """See `ports.Accounts`."""
        record = await self._hash(f"dr:account:{account_id}")
        if not record:
            raise NotFoundError("no such account")
        return record["webhook_secret"]

    async def create_key(self, account_id: str, key: str) -> ApiKey:
        """See `ports.Accounts`."""
        digest = _digest(key)
        if not await run(self._redis, "create_key", digest, new_id("key"), account_id, key[:6] + "…"):
            raise NotFoundError("no such account")
        return _api_key(await self._hash(f"dr:key:{digest}"))

    async def keys(self, account_id: str) -> list[ApiKey]:
        """See `ports.Accounts`."""
        return [_api_key(record) for _, record in await self._keys(account_id)]

    async def revoke_key(self, key_id: str) -> None:
        """See `ports.Accounts`."""
        for account in await self.all():
            for digest, record in await self._keys(account.id):
                if record["id"] == key_id:
                    await run(self._redis, "revoke_key", digest)
                    return
        raise NotFoundError("no such key")

    async def authenticate(self, key: str) -> str | None:
        """See `ports.Accounts`."""
        record = await self._hash(f"dr:key:{_digest(key)}")
        return record["account"] if record and not record["revoked"] else None

    async def usage(self, account_id: str, *, first_day: date, last_day: date) -> dict[date, dict[str, int]]:
        """See `ports.Accounts`. Days without anything are left out."""
        days = [first_day + timedelta(days=i) for i in range((last_day - first_day).days + 1)]
        async with self._redis.pipeline(transaction=False) as pipe:
            for day in days:
                pipe.hgetall(f"dr:usage:{account_id}:{(day - _EPOCH).days}")
            rows = await ask(pipe.execute())
        return {day: {k: int(v) for k, v in row.items()} for day, row in zip(days, rows, strict=True) if row}

    async def today(self) -> date:
        """The day by the store's clock, which is the one that usage is counted by."""
        seconds, _ = await ask(self._redis.time())
        return datetime.fromtimestamp(seconds, tz=UTC).date()

    async def _keys(self, account_id: str) -> list[tuple[str, dict[str, str]]]:
        digests = await ask(self._redis.zrange(f"dr:account:{account_id}:keys", 0, -1))
        return [(digest, await self._hash(f"dr:key:{digest}")) for digest in digests]

    async def _hash(self, key: str) -> dict[str, str]:
        record: dict[str, str] = await ask(self._redis.hgetall(key))
        return record
