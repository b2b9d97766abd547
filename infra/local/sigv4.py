"""One signed S3 request (AWS Signature Version 4), enough to ask a local S3 whether it works."""

from __future__ import annotations

import hashlib
import hmac
import http.client
from contextlib import closing
from datetime import UTC, datetime

_SCOPE_TAIL = "us-east-1/s3/aws4_request"
_SIGNED_HEADERS = "host;x-amz-content-sha256;x-amz-date"


def signed_request(
    method: str, host: str, port: int, path: str, body: bytes, *, access_key: str, secret_key: str
) -> tuple[int, bytes]:
    """Send one request and return status and body. `path` is taken as it is: no query, nothing that needs escaping.

    Not a client: the service uses boto3, which lives in one file of the core's.
    """
    moment = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": f"{host}:{port}", "x-amz-content-sha256": digest, "x-amz-date": moment}
    canonical = "\n".join(
        [method, path, "", *(f"{name}:{value}" for name, value in headers.items()), "", _SIGNED_HEADERS, digest]
    )
    scope = f"{moment[:8]}/{_SCOPE_TAIL}"
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret_key}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={_SIGNED_HEADERS}, Signature={signature}"
    )
    with closing(http.client.HTTPConnection(host, port, timeout=5)) as connection:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
