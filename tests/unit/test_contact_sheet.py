"""The contact sheet as a document: what stands in it, and that nothing that callers wrote gets out of its place."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from darkroom.domain.batch import Batch, Cause, Counts, OnInvalid
from darkroom.domain.job import Artifact, Job
from darkroom.domain.lifecycle import BatchStatus, JobStatus, SubmissionStatus
from darkroom.service.contact_sheet import ContactSheet, Pictures, in_a_download, in_the_bucket, signed
from tests.unit.stand_ins import CREATED_MS, a_job, a_submission

AT = datetime(2026, 11, 25, 6, tzinfo=UTC)


def a_batch(**fields: Any) -> Batch:  # noqa: ANN401 - Batch's own
    batch = Batch(
        id="batch_1",
        account_id="acct_1",
        name="tonight",
        status=BatchStatus.RUNNING,
        status_reason=None,
        on_invalid=OnInvalid.SKIP,
        created_at=CREATED_MS,
        started_at=CREATED_MS,
        finished_at=None,
        not_before=None,
        finish_by=None,
        webhook_url=None,
        canary=None,
        canary_max_failures=None,
        budget_usd=Decimal(5),
        spent_usd=Decimal("0.5"),
        reserved_usd=Decimal(),
        estimate_usd=Decimal(1),
        pictures=3,
        lines=4,
        bytes=9,
        judged=True,
        valid=3,
        invalid=1,
        last_line=4,
        added=4,
        cursor=0,
        counts=Counts(total=3, running=1, succeeded=1, failed=1),
        rate=0,
        rate_at=None,
        version=1,
        causes=(Cause("rejected_by_fal", 1, "job_2"),),
    )
    return replace(batch, **fields)


def a_picture(index: int = 0, *, thumbnail: bool = True) -> Artifact:
    key = f"renders/acct_1/2023/11/14/job_1/{index}.png"
    return Artifact(
        index, key, "image/png", 1024, 576, 51_234, "ab" * 32, 7, has_nsfw_concepts=index == 1, blank=False,
        thumbnail=thumbnail,
    )  # fmt: skip


def rendered(**fields: Any) -> Job:  # noqa: ANN401 - Job's own
    paid = a_submission(SubmissionStatus.DONE, outcome="ok", cost_usd=Decimal("0.0047"))
    values = {"batch_id": "batch_1", "custom_id": "a/b", "line": 2, "submissions": (paid,), "artifacts": (a_picture(),)}
    return a_job(status=JobStatus.SUCCEEDED, **{**values, **fields})


def page(*rows: Job | dict[str, Any], pictures: Pictures | None = None, **fields: Any) -> str:  # noqa: ANN401
    sheet = ContactSheet(a_batch(**fields), pictures or in_a_download(), at=AT)
    return (sheet.begin() + sheet.rows(rows) + sheet.end()).decode()


def data_of(document: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the page's script reads."""
    batch = re.search(r'<script type="application/json" id="batch">(.*?)</script>', document, re.DOTALL)
    rows = re.search(r'<script type="application/jsonl" id="rows">(.*?)</script>', document, re.DOTALL)
    assert batch is not None
    assert rows is not None
    return json.loads(batch[1]), [json.loads(text) for text in rows[1].split("\n") if text]


def test_it_says_what_became_of_every_job() -> None:
    refused = {"line": 3, "custom_id": None, "job_id": None, "error": {"code": "invalid_line", "message": "no prompt"}}
    error = {"code": "rejected_by_fal", "message": "no"}
    failed = a_job(status=JobStatus.FAILED, error=error, line=4, arguments={"prompt": "B", "image_size": "square"})
    batch, rows = data_of(page(rendered(), refused | {"errors": []}, failed, a_job(line=1)))
    assert [(row["line"], row["status"]) for row in rows] == [(2, "succeeded"), (3, "invalid"), (4, "failed")]
    assert rows[0] | {"images": []} == {
        "line": 2,
        "custom_id": "a/b",
        "job_id": "job_1",
        "status": "succeeded",
        "prompt": "Mars",
        "size": "1024x576",
        "cost_usd": 0.0047,
        "error": None,
        "warnings": [],
        "images": [],
    }
    assert rows[1]["error"] == refused["error"]
    assert (rows[2]["error"], rows[2]["size"]) == (error, "square")
    assert (batch["counts"]["running"], batch["invalid"], batch["cost"]["budget_usd"]) == (1, 1, 5.0)
    assert batch["failures"] == [{"code": "rejected_by_fal", "count": 1, "example_job_id": "job_2"}]


def test_a_picture_that_is_to_be_looked_at_is_marked() -> None:
    _, (row,) = data_of(page(rendered(artifacts=(a_picture(0), a_picture(1)))))
    assert row["warnings"] == ["unsafe"]
    assert [image["unsafe"] for image in row["images"]] == [False, True]


def test_in_a_download_the_pictures_are_beside_it() -> None:
    batch, (row,) = data_of(page(rendered()))
    (image,) = row["images"]
    # The file's name is percent-encoded itself, so its URL is so twice.
    assert (image["thumb"], image["full"]) == ("thumbs/a%252Fb-0.jpg", "images/a%252Fb-0.png")
    assert (image["name"], batch["links"], batch["links_expire_at"]) == ("a%2Fb-0.png", "download", None)


def test_in_the_bucket_the_pictures_are_where_their_jobs_are() -> None:
    _, (row,) = data_of(page(rendered(), pictures=in_the_bucket(a_batch(), "renders/")))
    assert row["images"][0]["thumb"] == "thumbs/a%252Fb-0.jpg"
    assert row["images"][0]["full"] == "../../2023/11/14/job_1/0.png"


def test_signed_links_lead_to_both_and_say_until_when() -> None:
    pictures = signed(a_batch(), "renders/", lambda key: f"https://s3/{key}?X", AT)
    batch, (row,) = data_of(page(rendered(), pictures=pictures))
    assert row["images"][0]["thumb"] == "https://s3/renders/acct_1/batches/batch_1/thumbs/a%2Fb-0.jpg?X"
    assert row["images"][0]["full"] == "https://s3/renders/acct_1/2023/11/14/job_1/0.png?X"
    assert batch["links_expire_at"] == "2026-11-25T06:00:00+00:00"


def test_a_picture_without_a_thumbnail_has_no_link_to_one() -> None:
    _, (row,) = data_of(page(rendered(artifacts=(a_picture(thumbnail=False),))))
    assert row["images"][0]["thumb"] is None


HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>{{rows}}{{batch}}\u2028\u202e'\""


def test_what_callers_wrote_stays_data() -> None:
    job = rendered(arguments={"prompt": HOSTILE, "seed": 1})
    document = page(job, name=HOSTILE)
    plain = page(rendered())
    assert document.count("<script") == plain.count("<script")
    assert document.count("<!--") == plain.count("<!--")
    batch, (row,) = data_of(document)
    assert (batch["name"], row["prompt"]) == (HOSTILE, HOSTILE)


def test_half_a_character_in_fals_words_does_not_spoil_the_page() -> None:
    failed = a_job(status=JobStatus.FAILED, error={"code": "x", "message": "half \ud83d"}, line=1)
    _, (row,) = data_of(page(failed))
    assert row["error"]["message"] == "half \ud83d"


def test_no_script_may_run_but_its_own() -> None:
    document = page(rendered())
    script = re.search(r"<script>(.*?)</script>", document, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', document)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert [part for part in policy[1].split(";") if "script-src" in part] == [
        part for part in policy[1].split(";") if part.strip() == f"script-src 'sha256-{digest}'"
    ]
