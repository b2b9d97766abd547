"""What the documents say is what the code does: tables, codes, keys, commands, links, and the code a reader copies."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings
from redis.asyncio import Redis

from api.app import create_app
from api.batch_schemas import DryRunView
from api.metrics import HttpMetrics, StoreMetrics
from api.routes import batch_outcome, batches, callback, deliveries, events, health, jobs, usage
from api.schemas import JobRequest, ReplayRequest
from darkroom.adapters.addresses import AddressPolicy
from darkroom.adapters.redis.gauges import read_gauges
from darkroom.adapters.webhooks import HttpWebhookSender, new_webhook_secret
from darkroom.admin.main import command_line
from darkroom.domain.batch_view import BatchView
from darkroom.domain.job import Artifact
from darkroom.domain.lifecycle import JobEvent, JobStatus
from darkroom.ports import Settlement, Trouble
from darkroom.settings import ApiSettings, CommonSettings, WorkerSettings
from infra import diagrams
from infra.diagrams import ROOT, redraw
from tests.integration.api_door import KEY, composed, served
from tests.integration.batch_kit import BatchKit
from tests.integration.store_kit import FAULT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
ROUTES = [
    route
    for room in (batches, batch_outcome, callback, deliveries, events, health, jobs, usage)
    for route in room.router.routes
    if isinstance(route, APIRoute)
]
NOTHING = "\N{EN DASH}"
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()


def rows(document: str, head: str) -> list[list[str]]:
    """The cells of the tables whose first line begins so."""
    found = []
    for table in re.findall(rf"^\| {re.escape(head)} .*\n\|[-| ]+\n((?:\|.*\n)+)", document, re.MULTILINE):
        found += [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]
    assert found, f"there is no table {head}"
    return found


def named(cell: str) -> list[str]:
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", cell)


def snippets(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document, re.MULTILINE | re.DOTALL)


# drawn parts ----------------------------------------------------------------------------------------------------------


def test_the_drawn_parts_are_what_the_code_says() -> None:
    assert diagrams.main(["--check"]) == 0, "run .venv/bin/python -m infra.diagrams"


def test_a_drawn_part_that_differs_is_drawn_anew_and_nothing_else() -> None:
    before = "# A\n<!-- drawn: x -->\nold\n<!-- end -->\nkept <!-- end -->\n"
    assert redraw(before, {"x": "new"}) == before.replace("old", "new")
    for broken in ("# A\n", before + before, "<!-- drawn: x -->\nnever closed"):
        with pytest.raises(ValueError, match="drawn: x"):
            redraw(broken, {"x": "new"})


# configuration --------------------------------------------------------------------------------------------------------


def variables(settings: type[BaseSettings]) -> dict[str, str]:
    """Every variable with its default as the table writes it."""
    found = {}
    for name, field in settings.model_fields.items():
        default = field.get_default()
        if hasattr(default, "get_secret_value"):
            default = default.get_secret_value()
        if isinstance(default, bool):
            default = int(default)
        if isinstance(default, tuple):
            default = ",".join(str(part) for part in default)
        variable = str(field.validation_alias or f"DARKROOM_{name.upper()}")
        found[variable] = NOTHING if default in (None, "") else f"`{default}`"
    return found


def test_every_variable_is_documented_with_its_default_and_its_reader() -> None:
    common, api, worker = (variables(settings) for settings in (CommonSettings, ApiSettings, WorkerSettings))
    said = {
        named(row[0])[0]: (row[1], row[2]) for row in rows((ROOT / "docs/configuration.md").read_text(), "variable")
    }
    assert said == {
        name: (default, "both" if name in common else "API" if name in api else "worker")
        for name, default in (common | api | worker).items()
    }


def test_every_variable_that_is_mentioned_exists() -> None:
    known = variables(ApiSettings) | variables(WorkerSettings)
    # Read by the client, by Docker Compose, or by nobody but the reader.
    known |= dict.fromkeys(
        ("DARKROOM_URL", "DARKROOM_API_KEY", "DARKROOM_FAL", "DARKROOM_S3_ACCESS_KEY", "DARKROOM_S3_SECRET_KEY"), ""
    )
    for document in DOCUMENTS:
        mentioned = set(re.findall(r"\b(?:DARKROOM|FAL)_[A-Z0-9_]+\b", document.read_text()))
        assert mentioned <= known.keys(), document


# codes ----------------------------------------------------------------------------------------------------------------


def codes_in(tree: ast.AST) -> Iterator[str]:
    """`code="…"`, `code = "…"` and `CODE = "…"`, wherever they stand."""
    for node in ast.walk(tree):
        names = [node.arg] if isinstance(node, ast.keyword) else []
        names += [ast.unparse(target) for target in node.targets] if isinstance(node, ast.Assign) else []
        if not {"code", "CODE"}.isdisjoint(names):
            assert isinstance(node, ast.keyword | ast.Assign)
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                yield node.value.value


def sources(*folders: str) -> list[str]:
    return [path.read_text() for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_every_error_code_is_documented() -> None:
    document = (ROOT / "docs/errors.md").read_text()
    found = {code for source in sources("api", "darkroom", "worker") for code in codes_in(ast.parse(source))}
    assert "outcome_unknown" in found
    assert found - set(named(document)) == set()


def test_every_documented_code_is_one_of_the_code() -> None:
    scripts = sorted((ROOT / "darkroom/adapters/redis/lua").glob("*.lua"))
    everything = "\n".join([*sources("api", "darkroom", "worker"), *(path.read_text() for path in scripts)])
    for row in rows((ROOT / "docs/errors.md").read_text(), "code"):
        for code in named(row[0]):
            assert f'"{code}"' in everything or f"'{code}'" in everything, code


def test_every_reason_for_waiting_is_in_the_runbook() -> None:
    runbook = (ROOT / "docs/operations.md").read_text()
    for words in health._WORDS.values():
        assert words in runbook


# keys in Redis --------------------------------------------------------------------------------------------------------


def key_table() -> dict[str, str]:
    """Each documented pattern with its type."""
    return {named(row[0])[0]: row[1] for row in rows(ARCHITECTURE, "key")}


def is_like(key: str, pattern: str) -> bool:
    parts = (re.escape(part) for part in re.split(r"\{\w+\}", pattern))
    return re.fullmatch("[^:]+".join(parts), key) is not None


def test_every_key_that_a_script_names_is_in_the_table() -> None:
    heads = {pattern.partition("{")[0] for pattern in key_table()} | {"dr:changed:", "dr:wake"}
    tails = {pattern.rpartition("}")[2] for pattern in key_table()} | {f":{status}" for status in JobStatus}
    folder = ROOT / "darkroom/adapters/redis/lua"
    for path in sorted(folder.glob("*.lua")):
        code = "\n".join(line.partition("--")[0] for line in path.read_text().splitlines())
        for key in re.findall(r"'(dr:[^']*)'", code):
            assert key in heads or any(is_like(key, pattern) for pattern in key_table()), f"{path.name}: {key}"
        for tail in re.findall(r"'(:[a-z]+)'", code):
            assert tail in tails, f"{path.name}: {tail}"


def test_every_key_that_python_names_is_in_the_table() -> None:
    known = {re.sub(r"\{\w+\}", "{}", pattern) for pattern in key_table()} | {"dr:changed:{}", "dr:wake"}
    for source in sources("darkroom", "api", "worker"):
        for key in re.findall(r'f?"(dr:[^"]*)"', source):
            shape = re.sub(r"\{[^{}]*\}", "{}", key)
            assert any(is_like(shape, pattern) for pattern in known) or shape in known, key


async def test_the_store_holds_only_keys_of_the_table_and_of_their_types(redis: Redis) -> None:
    kit = BatchKit(redis)
    await kit.limit(9)
    await kit.schedule.seen("a worker")
    await kit.ended_badly(await kit.batch(1, webhook_url="https://shop.example", idempotency="b"))
    done = await kit.generated(
        await kit.create(webhook_url="https://shop.example", idempotency="k", deadline_seconds=60)
    )
    assert await kit.store.finish(done.id, done.lease, JobEvent.COMPLETED)
    copying = await kit.generated(await kit.create())
    picture = Artifact(0, "0.png", "image/png", 64, 64, 9, "", 7, has_nsfw_concepts=False, blank=False)
    assert await kit.store.keep_artifact(copying.id, copying.lease, picture)
    await kit.doubted(await kit.create())
    held = await kit.doubted(await kit.create())
    assert await kit.store.settle(held.submission, Settlement.HOLD)
    resumed = await kit.accepted(await kit.create())
    retried = await kit.accepted(await kit.create())
    assert await kit.store.retry(retried.id, retried.lease, delay=1, error=FAULT, counts=True)
    await kit.accept(retried, "another request")
    await kit.limit(9, rate_interval=60_000)
    await kit.create(account="acct_b")
    await kit.create(account="acct_b")
    await kit.limit(9, copying=0)
    assert await kit.store.snooze(resumed.id, resumed.lease)
    await kit.schedule.cool_down(60)
    await kit.schedule.close_gate("", FAULT)
    await kit.schedule.set_storage(FAULT)
    await kit.schedule.trip(retried.id, FAULT, Trouble.RUN)
    patterns = {pattern: kind.replace("sorted set", "zset") for pattern, kind in key_table().items()}
    seen = set()
    async for key in redis.scan_iter("*"):
        fitting = [pattern for pattern in patterns if is_like(key, pattern)]
        exact = [pattern for pattern in fitting if "{" not in pattern] or fitting
        assert len({patterns[pattern] for pattern in exact}) == 1, key
        assert await redis.type(key) == patterns[exact[0]], key
        seen |= set(exact)
    # Accounts and their keys, an account's rate, the secret, an attempt's record: other tests' subjects.
    unseen = {pattern for pattern in set(patterns) - seen if not re.match("dr:(account|accounts|key|secret)", pattern)}
    assert unseen <= {"dr:delivery:{delivery}:attempts"}


# commands, routes, metrics --------------------------------------------------------------------------------------------


def test_every_make_target_that_is_mentioned_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        mentioned = set(re.findall(r"(?:`|^|… )make ([a-z-]+)", document.read_text(), re.MULTILINE))
        assert mentioned <= targets, document


def test_every_operators_command_that_is_mentioned_exists() -> None:
    app = command_line()
    known = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    known |= {group.name or "" for group in app.registered_groups}
    for group in app.registered_groups:
        assert group.typer_instance is not None
        known |= {f"{group.name} {command.name}" for command in group.typer_instance.registered_commands}
    text = "\n".join(document.read_text() for document in DOCUMENTS)
    mentioned = re.findall(r"darkroom-admin ([a-z]+(?: [a-z]+)?)", text)
    mentioned += re.findall(r"`((?:held|gate|keys|accounts) [a-z]+)", text)
    assert len(mentioned) > 10
    for words in mentioned:
        assert words in known or words.split()[0] in known - {"held", "gate", "keys", "accounts"}, words


@pytest.fixture
async def app(valkey_url: str) -> AsyncIterator[Any]:
    async with composed(valkey_url) as services:
        yield create_app(services)


async def test_every_route_that_is_mentioned_exists(app: Any) -> None:  # noqa: ANN401 - FastAPI
    paths = {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }
    text = "\n".join(document.read_text() for document in DOCUMENTS)
    mentioned = re.findall(r"`(GET|POST|DELETE) (/[^`?…]*)", text)
    assert len(mentioned) > 10
    for method, path in mentioned:
        assert (method, re.sub(r"\{\w+\}", "{}", path.strip())) in paths, path


async def test_every_body_and_answer_of_the_document_has_a_valid_example(app: Any) -> None:  # noqa: ANN401 - FastAPI
    bodies: dict[str, type[BaseModel]] = {"/v1/jobs": JobRequest, "/v1/jobs/{job_id}/replay": ReplayRequest}
    models = {(route.path, method.lower()): route.response_model for route in ROUTES for method in route.methods or ()}
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            if "requestBody" in operation and path != "/v1/batches":  # a file, in several formats
                bodies[path].model_validate(operation["requestBody"]["content"]["application/json"]["example"])
            for status, answer in operation["responses"].items():
                if status.startswith("2") and "application/json" in answer.get("content", {}):
                    model = DryRunView if (path, status) == ("/v1/batches", "200") else models[path, method]
                    model = BatchView if (path, status) == ("/v1/batches", "202") else model
                    is_valid(answer["content"]["application/json"], model, operation["operationId"])


def is_valid(content: dict[str, Any], model: type[BaseModel], where: str) -> None:
    if "example" not in content:
        fields = model.model_fields.values()
        assert all(field.examples or field.default for field in fields), f"{where} has no example"
        return
    # FastAPI drops nulls from the document, examples included: a nullable field may be missing there.
    assert kinds_of_mistakes(model, content["example"]) <= {"missing"}, where


def kinds_of_mistakes(model: type[BaseModel], document: object) -> set[str]:
    try:
        model.model_validate(document)
    except ValidationError as fault:
        return {mistake["type"] for mistake in fault.errors()}
    return set()


async def test_every_metric_is_in_the_runbook(redis: Redis) -> None:
    registry = CollectorRegistry()
    HttpMetrics(registry)
    families = [*registry.collect(), *StoreMetrics(await read_gauges(redis)).collect()]
    said = [name for row in rows((ROOT / "docs/operations.md").read_text(), "metric") for name in named(row[0])]
    names = {name.partition("{")[0].removesuffix("_total") for name in said}
    assert {family.name for family in families} <= names
    source = (ROOT / "worker/metrics.py").read_text()
    assert set(re.findall(r'"(darkroom_\w+)"', source)) <= names


# links and what a reader copies ---------------------------------------------------------------------------------------


def anchors(document: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text()), target


def test_the_index_of_decisions_is_complete() -> None:
    index = (ROOT / "docs/adr/README.md").read_text()
    for page in (ROOT / "docs/adr").glob("0*.md"):
        title = page.read_text().partition("\n")[0].partition(". ")[2]
        assert f"({page.name}) | {title} |" in index


def test_shell_snippets_are_shell() -> None:
    for document in DOCUMENTS:
        for text in snippets(document.read_text(), "sh"):
            subprocess.run(["/bin/bash", "-n"], input=text, text=True, check=True)


def python_snippet(name: str, folder: Path) -> Path:
    text = next(text for text in snippets(README, "python") if text.startswith(f"# {name}:"))
    file = folder / name
    file.write_text(text)
    return file


@asynccontextmanager
async def running(file: Path, *arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(file), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.defpath, **environment},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_readmes_receiver_takes_what_is_signed_and_nothing_else(tmp_path: Path) -> None:
    secret = new_webhook_secret()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    body = b'{"type": "job.succeeded", "timestamp": "2026-11-22T00:00:00Z", "data": {"id": "job_1"}}'
    policy = AddressPolicy((ip_network("127.0.0.0/8"),))
    async with (
        running(python_snippet("receiver.py", tmp_path), WEBHOOK_SECRET=secret, PORT=str(port)) as receiver,
        HttpWebhookSender(timeout=5, allow_http=True, policy=policy) as sender,
        asyncio.timeout(20),
    ):

        async def send(key: str) -> int | None:
            when = datetime.now(UTC)
            url = f"http://127.0.0.1:{port}/"
            return (await sender.send(url, secret=key, webhook_id="evt_1", timestamp=when, body=body)).status_code

        while (status := await send(secret)) is None:  # not listening yet
            assert receiver.returncode is None
        assert status == 204
        assert receiver.stdout is not None
        assert await receiver.stdout.readline() == b"evt_1 job.succeeded job_1\n"
        assert await send(new_webhook_secret()) == 401


async def test_the_readmes_sender_makes_each_job_once_however_often_it_runs(
    redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a lighthouse\n\na lighthouse\nfog\n")
    file = python_snippet("send.py", tmp_path)
    async with served(valkey_url) as door:
        where = {"DARKROOM_URL": str(door.client.base_url), "DARKROOM_API_KEY": KEY}
        said = []
        for _ in range(2):
            async with running(file, str(prompts), **where) as sender, asyncio.timeout(30):
                out, err = await sender.communicate()
                assert sender.returncode == 0, err.decode()
                said.append(out)
        made = (await door.client.get("/v1/jobs?lane=bulk")).json()["data"]
    assert said[0] == said[1]
    assert len(made) == 3
    assert len(said[0].splitlines()) == 3
    assert await redis.hget("dr:counts", "queued") == "3"


def test_what_the_readme_says_about_money_is_so() -> None:
    picture = Decimal("1.048576") * Decimal(str(variables(ApiSettings)["DARKROOM_PRICE_PER_MEGAPIXEL_USD"]).strip("`"))
    assert f"${picture:.4f}" in README
    assert abs(50_000 * picture - 420) < 1
