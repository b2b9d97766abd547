"""Signing many requests for one bucket.

boto3 works out endpoint, addressing and region anew for every request, which takes most of the 0.6 ms that a presigned
URL costs; a page of ten thousand pictures needs twenty thousand of them. Here it does so once, and botocore's own
signers (SigV4) do the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import NoCredentialsError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PROBE: Final = "probe"
_BODY_UNSIGNED: Final = {"client_config": Config(s3={"payload_signing_enabled": False})}


class _Place(NamedTuple):
    """What comes before the key, and what signatures name."""

    base: str
    region: str
    service: str


class Signer:
    """Signs for one bucket as `client` reaches it. `credentials` gives those that are valid now.

    Its methods raise botocore's errors, such as NoCredentialsError.
    """

    def __init__(self, client: S3Client, credentials: Callable[[], ReadOnlyCredentials | None], *, bucket: str) -> None:
        self._client = client
        self._credentials = credentials
        self._bucket = bucket
        self._found: _Place | None = None

    def url(self, key: str, *, seconds: int) -> str:
        """A URL that reads the object for so long."""
        place = self._place()
        auth = S3SigV4QueryAuth(self._now(), place.service, place.region, expires=seconds)
        request = AWSRequest("GET", place.base + _path(key))
        auth.add_auth(request)
        return str(request.url)

    def put(self, key: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """URL and headers of a PUT. The headers are signed; the body is not: let a checksum among them stand for it."""
        place = self._place()
        request = AWSRequest("PUT", place.base + _path(key), headers=dict(headers))
        request.context = dict(_BODY_UNSIGNED)
        S3SigV4Auth(self._now(), place.service, place.region).add_auth(request)
        return str(request.url), dict(request.headers.items())

    def _now(self) -> ReadOnlyCredentials:
        if (credentials := self._credentials()) is None:
            raise NoCredentialsError
        return credentials

    def _place(self) -> _Place:
        """As boto3 has it in a URL of its own."""
        if self._found is None:
            url = self._client.generate_presigned_url("get_object", Params={"Bucket": self._bucket, "Key": _PROBE})
            *_, region, service, _ = parse_qs(urlsplit(url).query)["X-Amz-Credential"][0].split("/")
            self._found = _Place(url.partition("?")[0].removesuffix(_PROBE), region, service)
        return self._found


def _path(key: str) -> str:
    return quote(key, safe="/~")
