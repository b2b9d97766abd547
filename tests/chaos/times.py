"""The times a run works with: short ones, so that minutes show what else takes hours, or the defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds throughout. `mean_run` is how long the simulator renders on average."""

    start_timeout: int = 5
    longest_run: int = 5
    window: int = 15
    lease: int = 6
    webhook_timeout: int = 3
    webhook_retries: tuple[int, ...] = (1, 2, 4, 8, 8, 8, 8)
    mean_run: float = 0.5

    @property
    def recovery(self) -> float:
        """A killed worker's job runs again within this."""
        return self.lease + 15.0

    def environment(self) -> dict[str, str]:
        """As API and workers read them."""
        return {
            "DARKROOM_FAL_START_TIMEOUT_SECONDS": str(self.start_timeout),
            "DARKROOM_FAL_MAX_RUN_SECONDS": str(self.longest_run),
            "DARKROOM_UNCERTAIN_WINDOW_SECONDS": str(self.window),
            "DARKROOM_LEASE_SECONDS": str(self.lease),
            "DARKROOM_WEBHOOK_TIMEOUT_SECONDS": str(self.webhook_timeout),
            "DARKROOM_WEBHOOK_RETRY_SCHEDULE": ",".join(map(str, self.webhook_retries)),
        }

    def __str__(self) -> str:
        return (
            f"start timeout {self.start_timeout} s, longest run {self.longest_run} s, window {self.window} s, "
            f"lease {self.lease} s, webhook timeout {self.webhook_timeout} s, "
            f"webhook retries after {','.join(map(str, self.webhook_retries))} s, mean run {self.mean_run:g} s"
        )


SHORT = Times()

DEFAULT = Times(
    start_timeout=600,
    longest_run=120,
    window=900,
    lease=30,
    webhook_timeout=15,
    webhook_retries=(5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400),
    mean_run=8.0,
)
"""Darkroom's own defaults (darkroom/settings.py), and a run long enough to be killed in the middle of it."""
