"""What one simulator is told at its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

MODEL = "fal-ai/krea-2/turbo"


@dataclass(frozen=True, slots=True)
class FaultRule:
    """A fault that strikes at random: `rate` is the share of matching requests (0 to 1), `args` its particulars."""

    rate: float
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a simulator can be told; times in seconds.

    `latency` is the mean of a log-normal run time with shape `latency_sigma` (0: always the mean). `public_origin` is
    what returned URLs start with; without it, the Host of the request that asks. `require_key` is the only key taken;
    without it, any. `validate_at` says where a bad input is refused: at the submit (as the protocol notes have it), or
    by the runner, as a 422 result of an accepted request.
    """

    host: str = "127.0.0.1"
    port: int = 0
    concurrency: int = 2
    latency: float = 1.0
    latency_sigma: float = 0.25
    pool: bool = False
    seed: int = 0
    faults: Mapping[str, FaultRule] = field(default_factory=dict)
    require_key: str | None = None
    public_origin: str | None = None
    ledger_path: Path | None = None
    result_ttl: float = 3600.0
    validate_at: Literal["submit", "run"] = "submit"
    callback_retries: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    callback_timeout: float = 15.0
