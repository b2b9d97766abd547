"""Presigned URLs, many at a time.

boto3 works out endpoint, addressing and region anew for every URL, which takes most of its 0.6 ms; a page of ten
thousand pictures needs twenty thousand of them. Here it does so once, and its own signer (SigV4) does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import NoCredentialsError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PROBE = "probe"


class UrlSigner:
    """Signs GETs of one bucket's objects. `credentials` gives those that are valid now."""

    def __init__(
        self, client: S3Client, credentials: Callable[[], ReadOnlyCredentials | None], *, bucket: str, seconds: int
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._bucket = bucket
        self._seconds = seconds
        self._place: tuple[str, str, str] | None = None

    def sign(self, key: str) -> str:
        """A URL that reads the object for so many seconds. Raises botocore's errors."""
        base, region, service = self._place = self._place or self._look()
        if (credentials := self._credentials()) is None:
            raise NoCredentialsError
        auth = S3SigV4QueryAuth(credentials, service, region, expires=self._seconds)
        request = AWSRequest("GET", base + quote(key, safe="/~"))
        auth.add_auth(request)
        return str(request.url)

    def _look(self) -> tuple[str, str, str]:
        """What boto3 puts before the key, and the region and service that it signs for."""
        url = self._client.generate_presigned_url("get_object", Params={"Bucket": self._bucket, "Key": _PROBE})
        scope = parse_qs(urlsplit(url).query)["X-Amz-Credential"][0].split("/")
        return url.partition("?")[0].removesuffix(_PROBE), scope[-3], scope[-2]
