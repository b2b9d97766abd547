"""The only reader of the environment. A wrong value stops the process with one readable line per mistake."""

from __future__ import annotations

import re
import sys
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Network = IPv4Network | IPv6Network


def _words(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _origin(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("must be a plain http(s) URL such as https://queue.fal.run")
    return value.rstrip("/")


Origin = Annotated[str, AfterValidator(_origin)]
Words = Annotated[tuple[str, ...], NoDecode]


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine by name or number."""
    host = (urlsplit(url).hostname or "").lower()
    return host in {"localhost", "::1"} or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


class CommonSettings(BaseSettings):
    """What API and workers both need."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_", env_ignore_empty=True, extra="ignore")

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    s3_bucket: str = "darkroom"
    s3_endpoint_url: Origin | None = None
    s3_region: str = "us-east-1"
    s3_prefix: str = "renders/"
    s3_public_endpoint_url: Origin | None = None
    s3_create_bucket: bool = False
    s3_url_expires_seconds: Annotated[int, Field(ge=1, le=604800)] = 86400
    fal_queue_url: Origin = "https://queue.fal.run"
    fal_allow_http: bool = False
    public_url: Origin | None = None
    secret: SecretStr | None = None
    price_per_megapixel_usd: Annotated[str, Field(pattern=r"^\d+(\.\d+)?$")] = "0.008"
    webhook_allow_cidrs: Words = ()
    webhook_allow_http: bool = False
    log_format: Literal["json", "console"] | None = None
    retention_days: Annotated[int, Field(ge=1)] = 30

    _split = field_validator("webhook_allow_cidrs", mode="before")(_words)

    @property
    def networks(self) -> tuple[Network, ...]:
        """Private ranges that webhooks may reach anyway."""
        return tuple(ip_network(cidr) for cidr in self.webhook_allow_cidrs)

    @field_validator("webhook_allow_cidrs")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for cidr in value:
            ip_network(cidr)
        return value

    @field_validator("s3_prefix")
    @classmethod
    def _is_prefix(cls, value: str) -> str:
        if value.startswith("/") or (value and not value.endswith("/")):
            raise ValueError("must be empty, or end with a slash and not begin with one")
        return value

    @field_validator("secret")
    @classmethod
    def _is_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 16:
            raise ValueError("must have at least 16 characters")
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: SecretStr) -> SecretStr:
        if urlsplit(value.get_secret_value()).scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("must be a redis://, rediss:// or unix:// URL")
        return value

    def _refuse_plain_http(self, **urls: str) -> None:
        for name, url in urls.items():
            if url.startswith("http://") and not (is_loopback(url) or self.fal_allow_http):
                raise ValueError(
                    f"DARKROOM_{name.upper()}: plain http is for loopback only (or set DARKROOM_FAL_ALLOW_HTTP=1)"
                )


class ApiSettings(CommonSettings):
    """The API's environment. It needs no FAL_KEY."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    bootstrap_api_key: SecretStr | None = None
    max_body_bytes: Annotated[int, Field(ge=1024)] = 262144
    account_rate: str | None = None
    account_max_waiting: Annotated[int, Field(ge=1)] | None = None
    job_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    fal_jwks_url: Origin = "https://rest.fal.ai/.well-known/jwks.json"

    @field_validator("bootstrap_api_key")
    @classmethod
    def _is_long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 16:
            raise ValueError("must have at least 16 characters")
        return value

    @field_validator("account_rate")
    @classmethod
    def _is_rate(cls, value: str | None) -> str | None:
        if value is not None:
            rate_interval_ms(value)
        return value

    @model_validator(mode="after")
    def _plain_http(self) -> Self:
        self._refuse_plain_http(fal_jwks_url=self.fal_jwks_url)
        return self


class WorkerSettings(CommonSettings):
    """The worker's environment."""

    fal_key: Annotated[SecretStr | None, Field(validation_alias="FAL_KEY")] = None
    fal_key_id: Annotated[SecretStr | None, Field(validation_alias="FAL_KEY_ID")] = None
    fal_key_secret: Annotated[SecretStr | None, Field(validation_alias="FAL_KEY_SECRET")] = None
    fal_api_url: Origin = "https://api.fal.ai"
    fal_media_hosts: Words = ("*.fal.media", "*.fal.run")
    fal_concurrency: Annotated[int, Field(ge=1)] = 2
    fal_queue_ahead: Annotated[int, Field(ge=0)] = 0
    fal_rate: str | None = None
    fal_interactive_reserve: Annotated[int, Field(ge=0)] | None = None
    fal_start_timeout_seconds: Annotated[int, Field(ge=2)] = 600
    fal_max_run_seconds: Annotated[int, Field(ge=1)] = 120
    worker_concurrency: Annotated[int, Field(ge=1)] = 64
    worker_queues: Words = ("interactive", "bulk", "deliveries")
    worker_metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    lease_seconds: Annotated[int, Field(ge=3)] = 30
    max_attempts: Annotated[int, Field(ge=1)] = 5
    on_uncertain: Literal["hold", "resubmit", "fail"] = "hold"
    uncertain_window_seconds: Annotated[int, Field(ge=1)] = 900
    webhook_timeout_seconds: Annotated[float, Field(gt=0, le=120)] = 15
    webhook_retry_schedule: Annotated[tuple[float, ...], NoDecode] = (
        *(5, 300, 1800, 7200, 18000),
        *(36000, 50400, 72000, 86400),
    )

    _split_words = field_validator("fal_media_hosts", "worker_queues", "webhook_retry_schedule", mode="before")(_words)

    @property
    def key(self) -> SecretStr:
        """The credential for fal: FAL_KEY, or FAL_KEY_ID and FAL_KEY_SECRET together."""
        if self.fal_key is not None:
            return self.fal_key
        if self.fal_key_id is None or self.fal_key_secret is None:
            raise ValueError("no credential")
        return SecretStr(f"{self.fal_key_id.get_secret_value()}:{self.fal_key_secret.get_secret_value()}")

    @property
    def permits(self) -> int:
        """Requests of ours that may be at fal at once."""
        return self.fal_concurrency + self.fal_queue_ahead

    @property
    def reserve(self) -> int:
        """Permits that bulk jobs may not take."""
        if self.fal_interactive_reserve is not None:
            return self.fal_interactive_reserve
        return 0 if self.permits < 4 else 1

    @field_validator("fal_rate")
    @classmethod
    def _is_rate(cls, value: str | None) -> str | None:
        if value is not None:
            rate_interval_ms(value)
        return value

    @field_validator("worker_queues")
    @classmethod
    def _are_queues(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = {"interactive", "bulk", "deliveries"}
        if not value or not set(value) <= known:
            raise ValueError(f"must be some of {', '.join(sorted(known))}, separated by commas")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.fal_key is None and (self.fal_key_id is None or self.fal_key_secret is None):
            raise ValueError("FAL_KEY: is missing (or FAL_KEY_ID together with FAL_KEY_SECRET)")
        needed = self.fal_start_timeout_seconds + self.fal_max_run_seconds
        if self.uncertain_window_seconds < needed:
            raise ValueError(
                f"DARKROOM_UNCERTAIN_WINDOW_SECONDS: must be at least start timeout + longest run ({needed}): "
                "before that a lost request may still be running"
            )
        if self.reserve >= self.permits:
            raise ValueError("DARKROOM_FAL_INTERACTIVE_RESERVE: leaves no permit for bulk jobs")
        self._refuse_plain_http(fal_queue_url=self.fal_queue_url, fal_api_url=self.fal_api_url)
        return self


def rate_interval_ms(rate: str) -> float:
    """Milliseconds between two events of a rate such as `10/s`, `90/m`, `1000/h`. Raises ValueError."""
    match = re.fullmatch(r"(\d+)/([smh])", rate.strip())
    if match is None or int(match[1]) == 0:
        raise ValueError("must look like 10/s, 90/m or 1000/h")
    return {"s": 1000, "m": 60_000, "h": 3_600_000}[match[2]] / int(match[1])


S = TypeVar("S", bound=BaseSettings)


def load(kind: type[S]) -> S:
    """Read the environment, or end the process with status 2 and one line per mistake. No value is ever printed."""
    try:
        return kind()
    except ValidationError as exc:
        for mistake in exc.errors(include_input=False, include_url=False):
            name = str(mistake["loc"][0]) if mistake["loc"] else ""
            variable = name if name.startswith("FAL_") or not name else f"DARKROOM_{name.upper()}"
            message = mistake["msg"].removeprefix("Value error, ")
            sys.stderr.write(f"{variable}: {message}\n" if variable else f"{message}\n")
        raise SystemExit(2) from None
