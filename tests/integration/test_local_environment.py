"""What the stack's programs find in their environment. The parts are built here, and not started."""

from __future__ import annotations

from pathlib import Path

from infra.local.environment import Surroundings
from infra.local.seaweedfs import SeaweedFS
from infra.local.services import Simulator
from infra.local.valkey import Valkey


def environment(user: dict[str, str], tmp_path: Path) -> dict[str, str]:
    simulator = Simulator("simulator", ["darkroom-simulator"], {}, port=18_999, log=tmp_path / "simulator.log")
    surroundings = Surroundings(user)
    return surroundings.for_services(
        None if surroundings.own_redis else Valkey(tmp_path / "valkey"),
        None if surroundings.own_s3 else SeaweedFS(tmp_path / "s3", bucket=surroundings.bucket),
        None if surroundings.own_fal else simulator,
        "127.0.0.1",
        8000,
    )


def test_what_the_user_set_wins(tmp_path: Path) -> None:
    user = {"DARKROOM_LEASE_SECONDS": "9", "DARKROOM_WEBHOOK_ALLOW_HTTP": "0", "DARKROOM_S3_BUCKET": "mine"}
    assert environment(user, tmp_path).items() >= user.items()


def test_the_simulator_is_told_by_loopback_addresses(tmp_path: Path) -> None:
    found = environment({"FAL_KEY": ""}, tmp_path)
    assert found["DARKROOM_FAL_QUEUE_URL"] == "http://127.0.0.1:18999"
    assert found["DARKROOM_FAL_MEDIA_HOSTS"] == "127.0.0.1:18999"
    assert found["DARKROOM_PUBLIC_URL"] == "http://127.0.0.1:8000"
    assert found["FAL_KEY"]


def test_a_real_key_means_the_real_fal_and_no_callbacks_to_loopback(tmp_path: Path) -> None:
    found = environment({"FAL_KEY": "real"}, tmp_path)
    assert found["FAL_KEY"] == "real"
    assert not {"DARKROOM_FAL_QUEUE_URL", "DARKROOM_PUBLIC_URL"} & found.keys()


def test_credentials_for_another_s3_do_not_open_ours(tmp_path: Path) -> None:
    found = environment({"AWS_ACCESS_KEY_ID": "theirs", "AWS_PROFILE": "work"}, tmp_path)
    assert found["AWS_ACCESS_KEY_ID"] != "theirs"
    assert "AWS_PROFILE" not in found


def test_an_s3_of_the_users_is_used_with_the_users_credentials(tmp_path: Path) -> None:
    user = {"DARKROOM_S3_ENDPOINT_URL": "https://s3.example.com", "AWS_PROFILE": "work"}
    found = environment(user, tmp_path)
    assert found.items() >= user.items()
    assert "DARKROOM_S3_CREATE_BUCKET" not in found


def test_the_api_gets_no_key_of_fals(tmp_path: Path) -> None:
    found = Surroundings.for_api(environment({"FAL_KEY": "real"}, tmp_path), "dk_x")
    assert not [name for name in found if name.startswith("FAL_KEY")]
    assert found["DARKROOM_BOOTSTRAP_API_KEY"] == "dk_x"


def test_a_users_proxy_does_not_stand_between_us(tmp_path: Path) -> None:
    found = environment({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "example.com"}, tmp_path)
    assert found["NO_PROXY"] == found["no_proxy"] == "example.com,127.0.0.1,localhost"
