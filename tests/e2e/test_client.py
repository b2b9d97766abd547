"""darkroom-client and the `darkroom` command against the whole of Darkroom."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from darkroom_client import AsyncClient, Client, ConflictError, InvalidRequestError, NotFoundError, verify_webhook
from darkroom_client.models import Model
from tests.e2e.studio import Receiver, Studio, eventually
from tests.e2e.test_local_commands import bare_environment

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def client(house: Studio) -> Iterator[Client]:
    with Client(house.stack.url, house.stack.api_key) as client:
        yield client


@pytest.fixture
async def asking(house: Studio) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(house.stack.url, house.stack.api_key) as client:
        yield client


def unknown(model: Model) -> set[str]:
    """What the server said that the client has no field for."""
    return set(model.model_extra or {}) - {"object"}


def test_a_picture_from_prompt_to_file(client: Client, tmp_path: Path) -> None:
    with Receiver() as receiver:
        job = client.jobs.create(
            "client: a whole job",
            image_size={"width": 320, "height": 200},
            num_images=2,
            webhook_url=receiver.url,
            metadata={"order": "4711"},
        )
        seen = list(client.jobs.events(job.id))
        event = verify_webhook((hook := receiver.next()).body, hook.headers, client.webhook_secret())
    assert [job.ended for job in seen] == [False] * (len(seen) - 1) + [True]
    job = client.jobs.get(job.id)
    assert (job.status, job.metadata, len(job.images)) == ("succeeded", {"order": "4711"}, 2)
    assert (event.type, event.data and event.data.id) == ("job.succeeded", job.id)
    for image in job.images:
        with Image.open(client.download_to(image, tmp_path / f"{image.index}.{image.extension}")) as picture:
            picture.load()
            assert picture.size == (320, 200)

    assert job.id in [listed.id for listed in client.jobs.list(status="succeeded", page_size=1)]
    assert event.id in [logged.id for logged in client.events.list(page_size=1)]
    (delivery,) = eventually(lambda: client.deliveries.list(job_id=job.id, status="delivered"), "its delivery")
    assert client.usage().totals.pictures >= 2
    nothing: set[str] = set()
    parts = [job, *job.images, job.cost, *job.submissions, delivery, *delivery.attempts, client.usage()]
    assert set().union(*map(unknown, parts)) == nothing

    client.jobs.delete(job.id)
    with pytest.raises(NotFoundError):
        client.jobs.get(job.id)


def test_the_same_key_is_the_same_job(client: Client) -> None:
    first = client.jobs.create("client: once", image_size="square", idempotency_key="order 4711")
    again = client.jobs.create("client: once", image_size="square", idempotency_key="order 4711", wait=60)
    assert again.id == first.id
    with pytest.raises(InvalidRequestError) as caught:
        client.jobs.create("client: twice", idempotency_key="order 4711")
    assert caught.value.code == "idempotency_key_reused"


def test_a_refusal_says_where(client: Client) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        client.jobs.create("x", num_images=9)
    assert [mistake.pointer for mistake in caught.value.errors] == ["/input/num_images"]


async def test_awaited_it_is_the_same(asking: AsyncClient) -> None:
    job = await asking.jobs.create(input={"prompt": "client: awaited", "image_size": "square"}, lane="bulk")
    job = await asking.jobs.wait(job.id, timeout=60)
    with Image.open(io.BytesIO(await asking.download(job.images[0]))) as picture:
        assert picture.size == (512, 512)
    assert [seen.status async for seen in asking.jobs.events(job.id)] == ["succeeded"]
    with pytest.raises(ConflictError) as caught:
        await asking.jobs.replay(job.id)
    assert caught.value.code == "job_not_replayable"


def test_waiting_and_following_outlive_the_api(house: Studio, client: Client) -> None:
    house.arm("media_slow", times=1, seconds=6)
    job = client.jobs.create("client: the API dies", image_size="square")
    follower = client.jobs.events(job.id)
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(client.jobs.wait, job.id, 90)
        next(follower)
        followed = pool.submit(list, follower)
        house.stack.api.kill()
        house.stack.api.restart()
        assert waited.result(90).status == "succeeded"
        assert followed.result(90)[-1].status == "succeeded"
    assert len(house.requests("client: the API dies")) == 1


def darkroom(house: Studio, folder: Path, *words: str) -> subprocess.Popen[str]:
    """The command, as a person at a pipe runs it."""
    return subprocess.Popen(  # noqa: S603 - our own command
        [str(Path(sys.executable).with_name("darkroom")), *words],
        cwd=folder,
        env=bare_environment(DARKROOM_URL=house.stack.url, DARKROOM_API_KEY=house.stack.api_key),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(command: subprocess.Popen[str], *, code: int = 0) -> str:
    """What it wrote to stdout, once it ended as it should."""
    out, complaints = command.communicate(timeout=120)
    assert command.returncode == code, complaints
    return out


def test_the_command_takes_a_file_through_the_night(house: Studio, tmp_path: Path) -> None:
    """Submitted twice and rendered once, watched while the API dies, fetched, spoiled, and fetched again."""
    prompts = [f"client: a night's picture {number}" for number in range(8)]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    tried = json.loads(said(darkroom(house, tmp_path, "batch", "submit", "prompts.txt", "--dry-run", "--json")))
    assert (tried["valid"], tried["counts"]["pictures"]) == (8, 8)
    batch_id = said(darkroom(house, tmp_path, "batch", "submit", "prompts.txt", "--budget", "1")).strip()
    again = said(darkroom(house, tmp_path, "batch", "submit", "prompts.txt", "--budget", "1")).strip()
    assert again == batch_id

    watching = darkroom(house, tmp_path, "batch", "watch", batch_id)
    house.stack.api.kill()
    house.stack.api.restart()
    said(watching)
    assert [len(house.requests(prompt)) for prompt in prompts] == [1] * 8

    said(darkroom(house, tmp_path, "batch", "download", batch_id, "--out", "tonight"))
    spoiled = tmp_path / "tonight/images/3-0.png"
    spoiled.write_bytes(spoiled.read_bytes()[:-1] + b"?")
    assert wrong_sums(tmp_path / "tonight") == ["images/3-0.png"]
    said(darkroom(house, tmp_path, "batch", "download", batch_id, "--out", "tonight"))
    assert wrong_sums(tmp_path / "tonight") == []
    page = (tmp_path / "tonight/index.html").read_text()
    assert all((tmp_path / f"tonight/thumbs/{line}-0.jpg").is_file() for line in range(1, 9))
    assert all(f'"full":"images/{line}-0.png"' in page for line in range(1, 9))


def wrong_sums(folder: Path) -> list[str]:
    """What `sha256sum -c` would complain of."""
    named = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert len(named) == 8
    return [name for digest, name in named if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest]


def test_the_command_renders(house: Studio, tmp_path: Path) -> None:
    command = darkroom(
        house, tmp_path, "render", "client: a command", "--size", "640x360", "-n", "2", "--format", "jpeg", "--json"
    )
    job = json.loads(said(command))
    assert job["status"] == "succeeded"
    assert job["files"] == [f"out/{job['id']}-{index}.jpeg" for index in (0, 1)]
    for file in job["files"]:
        with Image.open(tmp_path / file) as picture:
            assert (picture.size, picture.format) == ((640, 360), "JPEG")
