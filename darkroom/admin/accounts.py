"""`darkroom-admin accounts` and `keys`."""

from __future__ import annotations

import secrets
from typing import Annotated

import typer
from redis.asyncio import Redis

from darkroom.adapters.redis.accounts import RedisAccounts
from darkroom.adapters.webhooks import new_webhook_secret
from darkroom.admin.tools import moment, run, table
from darkroom.domain.errors import NotFoundError
from darkroom.domain.ids import is_id, new_id
from darkroom.settings import CommonSettings

accounts = typer.Typer(help="Who may ask: owners of jobs, keys and a webhook secret.", no_args_is_help=True)
keys = typer.Typer(help="API keys. Only their hashes are kept.", no_args_is_help=True)

AccountId = Annotated[str, typer.Argument(help="acct_…, as `accounts ls` shows it")]


@accounts.command("create")
def create_account(name: Annotated[str, typer.Argument(help="for people; need not be unique")]) -> None:
    """Make an account and print its id."""

    async def create(redis: Redis, _: CommonSettings) -> None:
        account_id = new_id("acct")
        await RedisAccounts(redis).create(account_id, name, new_webhook_secret())
        typer.echo(account_id)

    run(create)


@accounts.command("ls")
def list_accounts() -> None:
    """Print every account, oldest first."""

    async def show(redis: Redis, _: CommonSettings) -> None:
        rows = [(account.id, account.name, moment(account.created_at)) for account in await RedisAccounts(redis).all()]
        table(("ACCOUNT", "NAME", "CREATED"), rows)

    run(show)


@keys.command("create")
def create_key(account_id: AccountId) -> None:
    """Make a key for an account and print it: once, for it is not kept."""

    async def create(redis: Redis, _: CommonSettings) -> None:
        if not is_id(account_id, "acct"):
            raise NotFoundError("no such account")
        key = "dk_" + secrets.token_urlsafe(32)
        made = await RedisAccounts(redis).create_key(account_id, key)
        typer.echo(f"{made.id} of {account_id}; the key is shown this once:", err=True)
        typer.echo(key)

    run(create)


@keys.command("ls")
def list_keys(account_id: AccountId) -> None:
    """Print an account's keys, revoked ones included."""

    async def show(redis: Redis, _: CommonSettings) -> None:
        store = RedisAccounts(redis)
        if not is_id(account_id, "acct") or await store.account(account_id) is None:
            raise NotFoundError("no such account")
        found = await store.keys(account_id)
        rows = [(key.id, key.hint, moment(key.created_at), moment(key.revoked_at)) for key in found]
        table(("KEY", "BEGINS", "CREATED", "REVOKED"), rows)

    run(show)


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(help="key_…, as `keys ls` shows it")]) -> None:
    """Let a key open nothing from now on."""

    async def revoke(redis: Redis, _: CommonSettings) -> None:
        await RedisAccounts(redis).revoke_key(key_id)
        typer.echo(f"{key_id} opens nothing any more")

    run(revoke)
