"""What goes over the wire, blocking and awaited alike: who gets the key, and which picture is believed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from darkroom_client import (
    Client,
    DownloadError,
    Image,
    IntegrityError,
    MisuseError,
    UnreachableError,
)
from tests.client.kit import JOB_ID, PICTURE, SECRET_KEY, Clock, Run, Said, Server, image_document, job_document, says


def image(url: str, **more: object) -> Image:
    return Image.model_validate(image_document(url, **more))


def test_a_lost_answer_is_repeated_with_the_same_key(api: Server, run: Run) -> None:
    api.then(Said(drop=True), says({}, 503, Retry_After="0"), says(job_document("queued"), 202))
    job = run(lambda client: client.jobs.create("a fox", num_images=2, wait=0))
    assert job.id == JOB_ID
    assert len({heard.headers["idempotency-key"] for heard in api.heard}) == 1
    assert [heard.body for heard in api.heard] == [b'{"input":{"prompt":"a fox","num_images":2}}'] * 3
    assert {heard.headers["authorization"] for heard in api.heard} == {f"Bearer {SECRET_KEY}"}


def test_all_pages_are_walked(api: Server, run: Run) -> None:
    page = {"data": [job_document(), job_document("failed")], "has_more": True, "next_cursor": "c&1"}
    api.then(says(page), says({"data": [], "has_more": True, "next_cursor": "c2"}), says({"data": [job_document()]}))
    jobs = run(lambda client: client.jobs.list(status="failed", page_size=2))
    assert [job.status for job in jobs] == ["succeeded", "failed", "succeeded"]
    assert [heard.target for heard in api.heard] == [
        "/v1/jobs?status=failed&limit=2",
        "/v1/jobs?status=failed&limit=2&cursor=c%261",
        "/v1/jobs?status=failed&limit=2&cursor=c2",
    ]


def test_a_broken_stream_is_taken_up_again(api: Server, run: Run) -> None:
    def stream(*events: tuple[int, str], cut: int = 0) -> Said:
        text = "".join(f"event: job\nid: {n}\ndata: {says(job_document(s)).body.decode()}\n\n" for n, s in events)
        return Said(body=text.encode(), cut=cut)

    api.then(stream((1, "queued"), (2, "running"), cut=10), Said(drop=True), stream((1, "queued"), (4, "succeeded")))
    jobs = run(lambda client: client.jobs.events(JOB_ID))
    assert [job.status for job in jobs] == ["queued", "succeeded"]


def test_no_connection_is_unreachable(run: Run, api: Server) -> None:
    api.__exit__()
    try:
        with pytest.raises(UnreachableError, match="no connection"):
            run(lambda client: client.usage())
    finally:
        api.__init__()  # type: ignore[misc] # so that the fixture has something to leave
        api.__enter__()


# pictures -----------------------------------------------------------------------------------------------------------


def test_a_picture_is_fetched_without_the_key_and_its_signature_not_logged(
    api: Server, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    api.then(Said(body=PICTURE))
    url = f"{api.url}/bucket/a%20b.png?X-Amz-Signature=recognisable&x=%2F"
    assert run(lambda client: client.download(image(url))) == PICTURE
    assert api.heard[0].target == "/bucket/a%20b.png?X-Amz-Signature=recognisable&x=%2F"
    assert "authorization" not in api.heard[0].headers
    assert "/bucket/a%20b.png" in caplog.text
    assert "recognisable" not in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        Said(body=PICTURE[:-1]),
        Said(body=PICTURE + b"x"),
        Said(body=PICTURE[:-1] + b"x"),
        Said(body=PICTURE, cut=100),
        Said(503),
        Said(drop=True),
    ],
    ids=["short", "long", "other", "cut", "503", "dropped"],
)
def test_a_wrong_picture_is_fetched_again(api: Server, run: Run, tmp_path: Path, wrong: Said) -> None:
    api.then(wrong, Said(body=PICTURE))
    file = tmp_path / "new" / "fox.png"
    assert run(lambda client: client.download_to(image(api.url), file)) == file
    assert file.read_bytes() == PICTURE
    assert list(file.parent.iterdir()) == [file]


def test_a_picture_that_stays_wrong_is_not_kept(api: Server, run: Run, tmp_path: Path) -> None:
    (tmp_path / "fox.png").write_bytes(b"older")
    api.then(*[Said(body=b"something else")] * 3)
    with pytest.raises(IntegrityError):
        run(lambda client: client.download_to(image(api.url), tmp_path / "fox.png"))
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("fox.png", b"older")]


def test_an_expired_url_is_told_and_not_repeated(api: Server, run: Run) -> None:
    api.then(Said(403, b"<Error><Code>AccessDenied</Code></Error>"))
    with pytest.raises(DownloadError, match="expired") as caught:
        run(lambda client: client.download(image(f"{api.url}/x?X-Amz-Signature=recognisable")))
    assert "recognisable" not in str(caught.value)
    assert len(api.heard) == 1


# what a client is made from -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["foo", "ftp://x", "http://", "//x", "http://x:99999", "http://x:ab", "http://..", "http://xn--"]
)
def test_what_is_no_url_is_told(url: str) -> None:
    with pytest.raises(MisuseError):
        Client(url, SECRET_KEY)


@pytest.mark.parametrize("key", ["", "a b", "a\n", "é"])
def test_what_is_no_key_is_told(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DARKROOM_API_KEY", raising=False)
    with pytest.raises(MisuseError):
        Client("http://127.0.0.1:1", key)


def test_the_environment_says_where_and_who(api: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_URL", api.url + "/")
    monkeypatch.setenv("DARKROOM_API_KEY", SECRET_KEY)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # never between us and this machine
    api.then(says({"secret": "whsec_x"}))
    with Client() as client:
        assert client.webhook_secret() == "whsec_x"
    assert (api.heard[0].target, api.heard[0].headers["authorization"]) == (
        "/v1/webhook-secret",
        f"Bearer {SECRET_KEY}",
    )


def test_what_no_json_carries_is_misuse(api: Server) -> None:
    with Client(api.url, SECRET_KEY) as client, pytest.raises(MisuseError, match="cannot be sent"):
        client.jobs.create("\ud800")
    assert api.heard == []


def test_a_newer_server_may_say_more(api: Server, clock: Clock) -> None:
    api.then(says(job_document("dreaming", stage="rem", future={"x": 1})))
    with Client(api.url, SECRET_KEY, patience=clock.patience()) as client:
        job = client.jobs.get(JOB_ID)
    assert (job.status, job.stage, job.ended) == ("dreaming", "rem", False)
    assert job.model_dump(mode="json")["future"] == {"x": 1}
