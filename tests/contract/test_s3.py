"""The bucket, on a real SeaweedFS."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import traceback
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from aiohttp import web

from darkroom.adapters.s3 import S3Bucket, encode_metadata
from darkroom.domain.errors import BlockedError, NotFoundError, TransientError
from darkroom.ports import Picture
from infra.local.seaweedfs import SeaweedFS

BUCKET = "pictures"
KEYS = {"writer": "writer-secret-1", "reader": "reader-secret-1"}


@dataclass(frozen=True)
class Store:
    """A running SeaweedFS: a user who may everything, and one who may only read."""

    endpoint: str

    def bucket(self, *, bucket: str = BUCKET, user: str = "writer", secret: str | None = None, **more: Any) -> S3Bucket:  # noqa: ANN401 - S3Bucket's own
        values = {"endpoint_url": self.endpoint, "access_key_id": user, "secret_access_key": secret or KEYS[user]}
        return S3Bucket(bucket=bucket, max_threads=4, **{**values, **more})


class StrictSeaweedFS(SeaweedFS):
    """As the embedded stack runs it, but a missing bucket stays missing, as it does everywhere else."""

    def command(self) -> Sequence[str]:
        return [*super().command(), "-s3.autoCreateBucket=false"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    directory = tmp_path_factory.mktemp("s3")
    identities = [identity("writer", "Admin", "Read", "Write", "List"), identity("reader", "Read", "List")]
    (directory / "s3-credentials.json").write_text(json.dumps({"identities": identities}))
    with StrictSeaweedFS(directory, bucket=BUCKET) as seaweedfs:
        yield Store(seaweedfs.url)


def identity(name: str, *actions: str) -> dict[str, Any]:
    return {"name": name, "credentials": [{"accessKey": name, "secretKey": KEYS[name]}], "actions": list(actions)}


@pytest.fixture
async def bucket(store: Store) -> AsyncIterator[S3Bucket]:
    bucket = store.bucket(create_bucket=True)
    await bucket.ensure_bucket()
    yield bucket
    await bucket.close()


def picture(data: bytes, *, content_type: str = "image/png", sha256: str | None = None) -> Picture:
    digest = sha256 or hashlib.sha256(data).hexdigest()
    return Picture(io.BytesIO(data), len(data), digest, content_type, 4, 4, blank=False)


async def read(url: str) -> tuple[int, bytes, dict[str, str]]:
    """As a caller would: no credentials, nothing but the URL."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        return response.status, await response.read(), headers


# --- what is stored ---


async def test_a_picture_is_stored_as_it_is_with_its_type_and_metadata(bucket: S3Bucket) -> None:
    data = b"\x89PNG" + bytes(range(256)) * 4096
    await bucket.put_picture("renders/a/ü b+%/0.png", picture(data), {"prompt": "Größe: 100 %\n", "seed": "7"})
    url, _ = bucket.presign("renders/a/ü b+%/0.png")
    status, body, headers = await read(url)
    assert (status, body) == (200, data)
    assert headers["content-type"] == "image/png"
    assert headers["x-amz-meta-prompt"] == "Gr%C3%B6%C3%9Fe:%20100%20%25%0A"
    assert headers["x-amz-meta-seed"] == "7"


async def test_a_repeated_upload_reads_the_file_from_its_start_and_overwrites(bucket: S3Bucket) -> None:
    again = picture(b"the whole file")
    await bucket.put_picture("twice.png", again, {})
    await bucket.put_picture("twice.png", again, {})
    assert await bucket.get_bytes("twice.png") == b"the whole file"


async def test_an_upload_that_is_tried_again_sends_the_whole_file_again(store: Store) -> None:
    """An S3 that is busy at first, so that boto3 repeats the request by itself."""
    bodies: list[bytes] = []

    async def busy_at_first(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response(status=503 if len(bodies) == 1 else 200)

    application = web.Application(client_max_size=10_000_000)
    application.router.add_put("/{path:.*}", busy_at_first)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    bucket = store.bucket(endpoint_url=f"http://127.0.0.1:{runner.addresses[0][1]}")
    await bucket.put_picture("again.png", picture(b"x" * 300_000), {})
    await bucket.close()
    await runner.cleanup()
    assert bodies == [b"x" * 300_000] * 2


async def test_bytes_that_are_not_the_picture_are_not_stored(bucket: S3Bucket) -> None:
    """S3 itself compares the checksum: what arrived damaged is refused."""
    with pytest.raises(TransientError, match="BadDigest"):
        await bucket.put_picture("damaged.png", picture(b"bytes", sha256=hashlib.sha256(b"others").hexdigest()), {})
    assert not await bucket.exists("damaged.png")


async def test_documents_and_files_come_back(bucket: S3Bucket) -> None:
    document = {"id": "job_1", "prompt": "Mars, größer", "images": [{"index": 0}]}
    await bucket.put_json("job.json", document)
    assert await bucket.get_json("job.json") == document
    assert (await read(bucket.presign("job.json")[0]))[2]["content-type"] == "application/json"
    results = io.BytesIO()
    results.write(b"{}\n" * 1000)  # and left at its end
    await bucket.put_file("results.jsonl", results, "application/jsonl")
    assert await bucket.get_bytes("results.jsonl") == b"{}\n" * 1000
    assert await bucket.exists("results.jsonl")


async def test_what_is_not_there_is_not_found(bucket: S3Bucket) -> None:
    assert not await bucket.exists("nothing")
    with pytest.raises(NotFoundError):
        await bucket.get_bytes("nothing")


async def test_deleting_takes_many_keys_and_minds_no_missing_ones(bucket: S3Bucket) -> None:
    stored = [f"many/{number} & <more>.txt" for number in range(3)]
    for key in stored:
        await bucket.put_bytes(key, b"x", "text/plain")
    missing = [f"many/missing-{number}" for number in range(2000)]
    await bucket.delete([*stored[:2], *missing, stored[2]])  # three requests, the last with one key
    assert [await bucket.exists(key) for key in stored] == [False, False, False]
    await bucket.delete([])


# --- presigned URLs ---


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"endpoint_url": None, "region": "eu-west-1"},
        {"public_endpoint_url": "https://pictures.example/s3"},
    ],
    ids=["an endpoint", "AWS", "a public endpoint"],
)
@pytest.mark.parametrize("key", ["renders/a/0.png", "renders/a/ü b+%/0.png", "a~b(c)*!'%2F.png"])
async def test_a_presigned_url_is_the_one_that_boto3_would_give(store: Store, more: dict[str, Any], key: str) -> None:
    bucket = store.bucket(**more)
    asked = {"Bucket": BUCKET, "Key": key}
    while True:  # until both were signed in the same second
        ours, theirs = bucket.presign(key)[0], bucket._signer.generate_presigned_url("get_object", asked, 86400)
        if _signed_at(ours) == _signed_at(theirs):
            break
    assert ours == theirs
    await bucket.close()


def _signed_at(url: str) -> str:
    return parse_qs(urlsplit(url).query)["X-Amz-Date"][0]


async def test_a_presigned_url_ends_when_it_says(store: Store, bucket: S3Bucket) -> None:
    await bucket.put_bytes("shared.txt", b"hello", "text/plain")
    short = store.bucket(url_expires_seconds=1)
    url, expires_at = short.presign("shared.txt")
    assert expires_at.tzinfo is UTC
    assert expires_at <= datetime.now(UTC) + timedelta(seconds=1)
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
    while (await read(url))[0] == 200:
        assert datetime.now(UTC) < expires_at + timedelta(seconds=10)
    assert (await read(url))[0] == 403
    assert datetime.now(UTC) >= expires_at
    await short.close()


async def test_a_presigned_url_reads_one_object_only(bucket: S3Bucket) -> None:
    await bucket.put_bytes("mine.txt", b"mine", "text/plain")
    await bucket.put_bytes("other.txt", b"other", "text/plain")
    url, _ = bucket.presign("mine.txt")
    assert (await read(url))[0] == 200
    assert (await read(url.replace("mine.txt", "other.txt")))[0] == 403


async def test_urls_are_signed_for_the_public_endpoint(store: Store) -> None:
    bucket = store.bucket(public_endpoint_url="https://pictures.example")
    url, _ = bucket.presign("a/b.png")
    assert url.startswith(f"https://pictures.example/{BUCKET}/a/b.png?X-Amz-Algorithm=AWS4-HMAC-SHA256&")
    await bucket.close()


async def test_at_aws_urls_name_the_buckets_region() -> None:
    bucket = S3Bucket(bucket=BUCKET, region="eu-central-1", access_key_id="a", secret_access_key="b")
    url, _ = bucket.presign("a/b.png")
    assert url.startswith(f"https://{BUCKET}.s3.eu-central-1.amazonaws.com/a/b.png?")
    await bucket.close()


def test_a_url_cannot_be_valid_for_longer_than_s3_allows() -> None:
    with pytest.raises(ValueError, match="604800"):
        S3Bucket(bucket=BUCKET, url_expires_seconds=604801)


# --- the bucket itself, and what can be wrong with it ---


async def test_a_missing_bucket_is_the_operators(store: Store) -> None:
    bucket = store.bucket(bucket="no-such-bucket")
    for attempt in (bucket.check(), bucket.ensure_bucket(), bucket.put_json("a.json", {}), bucket.get_bytes("a.json")):
        with pytest.raises(BlockedError) as blocked:
            await attempt
        assert blocked.value.code == "s3_bucket_missing"
    await bucket.close()


async def test_a_missing_bucket_is_created_where_that_is_wanted_and_again_without_harm(store: Store) -> None:
    bucket = store.bucket(bucket="made-here", create_bucket=True)
    await bucket.ensure_bucket()
    await bucket.ensure_bucket()
    await bucket._call("create the bucket", bucket._create)  # the other process was faster
    await bucket.check()
    await bucket.close()


@pytest.mark.parametrize(("user", "secret"), [("writer", "wrong-secret-1f9"), ("nobody", "other-secret-1f9")])
async def test_refused_credentials_are_the_operators_and_appear_nowhere(store: Store, user: str, secret: str) -> None:
    bucket = store.bucket(user=user, secret=secret)
    for attempt in (bucket.check(), bucket.put_bytes("a", b"a", "text/plain"), bucket.delete(["a"])):
        with pytest.raises(BlockedError) as blocked:
            await attempt
        assert blocked.value.code == "s3_access_denied"
        told = "".join(traceback.format_exception(blocked.value))
        assert secret not in told
        assert "X-Amz-Signature" not in told
        assert "?" not in blocked.value.message
    await bucket.close()


async def test_a_bucket_that_may_not_be_written_is_the_operators(store: Store, bucket: S3Bucket) -> None:
    await bucket.check()
    reader = store.bucket(user="reader")
    await reader.check()
    for attempt in (reader.put_bytes("a", b"a", "text/plain"), reader.delete(["a"])):
        with pytest.raises(BlockedError) as blocked:
            await attempt
        assert blocked.value.code == "s3_access_denied"
        assert blocked.value.upstream is not None
        assert blocked.value.upstream["code"] == "AccessDenied"
    await reader.close()


async def test_an_impossible_bucket_name_is_the_operators(store: Store) -> None:
    bucket = store.bucket(bucket="not/a bucket")
    with pytest.raises(BlockedError) as blocked:
        await bucket.check()
    assert blocked.value.code == "s3_misconfigured"
    await bucket.close()


async def test_a_store_that_is_away_passes_by_itself(store: Store) -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        bucket = store.bucket(endpoint_url=f"http://127.0.0.1:{nobody_listens.getsockname()[1]}")
        for attempt in (bucket.check(), bucket.put_bytes("a", b"a", "text/plain")):
            with pytest.raises(TransientError) as away:
                await attempt
            assert away.value.code == "s3_unavailable"
        await bucket.close()


async def test_a_store_that_does_not_answer_ends_in_time(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        bucket = store.bucket(endpoint_url=endpoint, connect_timeout=0.2, read_timeout=0.2)
        with pytest.raises(TransientError, match="ReadTimeoutError"):
            await bucket.check()
        await bucket.close()


def test_metadata_that_does_not_fit_is_left_out() -> None:
    encoded = encode_metadata({"seed": "1", "prompt": "ü" * 1000, "job": "job_1"})
    assert encoded == {"seed": "1"}
