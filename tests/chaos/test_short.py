"""The short form of `make chaos`: everything breaks at once, with few jobs, and every promise is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import schedule
from tests.chaos.conduct import conduct
from tests.chaos.scenarios import Scenario, by_name
from tests.chaos.table import complaints, row

JOBS = 60

SHORT_ALL: Scenario = replace(
    by_name("all"),
    name="short",
    disturbances=(
        schedule.kill_workers(every=(3.0, 6.0)),
        schedule.kill_valkey(times=1),
        schedule.lose_s3(at=0.4, seconds=6.0),
    ),
    workers=2,
)


@pytest.mark.timeout(400)
async def test_nothing_is_lost_or_paid_twice_while_everything_breaks(tmp_path: Path) -> None:
    verdict = await conduct(SHORT_ALL, jobs=JOBS, seed=1, folder=tmp_path / "chaos", say=lambda _line: None)
    assert verdict.evidence is not None, verdict.not_run
    assert len(verdict.evidence.jobs) == JOBS
    assert any("kill -9 worker" in note for note in verdict.evidence.notes), "the schedule dealt its blows"
    assert any("kill -9 valkey" in note for note in verdict.evidence.notes)
    assert any("kill -9 seaweedfs" in note for note in verdict.evidence.notes)
    assert not verdict.problems, "\n".join([row(verdict), *complaints(verdict)])
