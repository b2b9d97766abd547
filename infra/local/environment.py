"""What the programs find in their environment: the stack's addresses, and what the user set, which wins."""

from __future__ import annotations

from collections.abc import Mapping

from infra.local.ports import LOOPBACK, base_url
from infra.local.seaweedfs import SeaweedFS
from infra.local.services import Simulator
from infra.local.valkey import Valkey

# Variables that would lead boto3 away from the embedded S3.
_FOREIGN_AWS = {
    *("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
}
_FAL_CREDENTIALS = {"FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET"}


class Surroundings:
    """The user's environment, and what follows from it.

    `own_redis`, `own_s3`, `own_fal` are true where the user points to one elsewhere, which is then used and not
    started: DARKROOM_REDIS_URL; DARKROOM_S3_ENDPOINT_URL (with the user's AWS credentials); FAL_KEY, FAL_KEY_ID or
    DARKROOM_FAL_QUEUE_URL. An empty variable counts as not set, as it does in darkroom/settings.py.
    """

    def __init__(self, user: Mapping[str, str]) -> None:
        self._user = {name: value for name, value in user.items() if value}
        self.own_redis = "DARKROOM_REDIS_URL" in self._user
        self.own_s3 = "DARKROOM_S3_ENDPOINT_URL" in self._user
        self.own_fal = not self._user.keys().isdisjoint({"FAL_KEY", "FAL_KEY_ID", "DARKROOM_FAL_QUEUE_URL"})
        self.bucket = self._user.get("DARKROOM_S3_BUCKET", "darkroom")

    def plain(self) -> dict[str, str]:
        """The user's, without anything secret or of ours: for the simulator."""
        return {
            name: value
            for name, value in self._user.items()
            if not name.startswith(("DARKROOM_", "AWS_")) and name not in _FAL_CREDENTIALS
        }

    def for_services(
        self, valkey: Valkey | None, s3: SeaweedFS | None, simulator: Simulator | None, host: str, port: int
    ) -> dict[str, str]:
        """What workers are started with. `host` and `port` are the API's."""
        ours = {"DARKROOM_WEBHOOK_ALLOW_CIDRS": "127.0.0.0/8,::1/128", "DARKROOM_WEBHOOK_ALLOW_HTTP": "1"}
        if valkey:
            ours["DARKROOM_REDIS_URL"] = valkey.url
        if simulator:
            ours |= simulator.client_environment() | {"DARKROOM_PUBLIC_URL": base_url(host, port)}
        user = self._user
        if s3:
            # The embedded S3 opens to its own credentials only; the user's are for another one.
            embedded = s3.client_environment()
            ours |= embedded
            user = {name: value for name, value in user.items() if name not in _FOREIGN_AWS | embedded.keys()}
        # A proxy of the user's must not stand between programs on one machine.
        unproxied = ",".join([*filter(None, [user.get("NO_PROXY") or user.get("no_proxy")]), LOOPBACK, "localhost"])
        chosen = {"DARKROOM_HOST": host, "DARKROOM_PORT": str(port), "NO_PROXY": unproxied, "no_proxy": unproxied}
        return ours | user | chosen

    @staticmethod
    def for_api(environment: Mapping[str, str], api_key: str) -> dict[str, str]:
        """The same for the API: with the key that exists from the start, and without fal's, which it does not need."""
        without = {name: value for name, value in environment.items() if name not in _FAL_CREDENTIALS}
        return without | {"DARKROOM_BOOTSTRAP_API_KEY": api_key}
