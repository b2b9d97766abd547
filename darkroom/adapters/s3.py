"""The deployment's bucket, through boto3: the one file that knows it. Whole objects are stored by s3_puts.py.

boto3 blocks, so its calls run in threads of this store's own pool. Vendor errors stop here: what leaves is a
DarkroomError whose text names the operation and S3's code, never a URL or a credential.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import string
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar, cast
from urllib.parse import quote, urlsplit

import aiohttp
import boto3.session
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from darkroom.adapters.s3_puts import ObjectPuts, PutRefusedError
from darkroom.adapters.s3_signing import Signer
from darkroom.domain.errors import BlockedError, DarkroomError, NotFoundError, TransientError
from darkroom.ports import Picture

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.literals import BucketLocationConstraintType
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

T = TypeVar("T")

LONGEST_PRESIGN_SECONDS = 7 * 24 * 3600  # SigV4's own limit
_PART = 8 << 20  # S3 wants at least 5 MB of each part but the last
_CHUNK = 1 << 20
_DELETE_BATCH = 1000  # S3's limit for DeleteObjects
_METADATA_BYTES = 2048  # S3's limit for all user metadata of an object, names included
_LOOKS = frozenset({"GetObject", "HeadObject", "HeadBucket"})  # where a 404 is an answer
_MISSING_BUCKET = frozenset({"NoSuchBucket"})
_REFUSED = frozenset({"AccessDenied", "AllAccessDisabled", "AccountProblem", "ExpiredToken", "InvalidToken"})
_MISCONFIGURED = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "InvalidBucketName"})


class S3Bucket:
    """Implements `ports.ArtifactStore` on one bucket of AWS S3 or anything that speaks its protocol.

    An object that a put returned from is durable as far as S3 promises it, and is what was sent: its SHA-256 goes with
    it, signed, and S3 compares. A call that ends in TransientError may have happened: every one may be repeated.
    A call cancelled from outside still ends in its thread. Timeouts are in seconds and per try; a call tries three
    times. Without `access_key_id`, credentials come from boto3's usual chain.
    """

    def __init__(
        self,
        *,
        bucket: str,
        endpoint_url: str | None = None,
        region: str = "us-east-1",
        public_endpoint_url: str | None = None,
        url_expires_seconds: int = 86400,
        create_bucket: bool = False,
        max_threads: int = 16,
        connect_timeout: float = 5.0,
        read_timeout: float = 30.0,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
    ) -> None:
        if not 1 <= url_expires_seconds <= LONGEST_PRESIGN_SECONDS:
            raise ValueError(f"presigned URLs can be valid for 1 to {LONGEST_PRESIGN_SECONDS} s")
        session = boto3.session.Session(access_key_id, secret_access_key, region_name=region)

        def client(endpoint: str | None, addressing: Literal["auto", "virtual", "path"]) -> S3Client:
            return session.client("s3", endpoint_url=endpoint, config=config.merge(_addressed(addressing)))

        config = Config(
            signature_version="s3v4",
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=max_threads,
            tcp_keepalive=True,
            # boto3's default since 1.36 is a CRC-32 trailer in aws-chunked encoding, which R2 and others refuse.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self._client = client(endpoint_url, "path" if endpoint_url else "auto")
        self._client.meta.events.register("before-call.s3.DeleteObjects", _add_content_md5)
        # "auto" would presign AWS's global host, which redirects to the bucket's region, where the signature is wrong.
        public = public_endpoint_url or self._client.meta.endpoint_url
        self._signer = client(public, "virtual" if _is_aws(public) else "path")
        credentials = partial(_credentials_now, session)
        self._public = Signer(self._signer, credentials, bucket=bucket)
        self._private = Signer(self._client, credentials, bucket=bucket)
        self._puts = ObjectPuts(connections=max_threads, connect_timeout=connect_timeout, read_timeout=read_timeout)
        self._executor = ThreadPoolExecutor(max_threads, thread_name_prefix="s3")
        self._bucket = bucket
        self._region = region
        self._url_expires_seconds = url_expires_seconds
        self._create_bucket = create_bucket

    # --- pictures and documents ---

    async def put_picture(self, key: str, picture: Picture, metadata: Mapping[str, str]) -> None:
        """Upload; a repeat overwrites itself. After return the object is durable and has the picture's SHA-256.

        Metadata is percent-encoded ASCII; what does not fit into S3's 2 kB is left out. Raises TransientError or
        BlockedError.
        """
        await self._put(key, picture.file, picture.content_type, bytes.fromhex(picture.sha256), metadata)

    async def put_json(self, key: str, document: Mapping[str, Any]) -> None:
        """Upload a JSON document. Raises TransientError or BlockedError."""
        await self.put_bytes(key, json.dumps(document, ensure_ascii=False).encode(), "application/json")

    async def put_bytes(self, key: str, data: bytes, content_type: str) -> None:
        """Upload a few bytes. Raises TransientError or BlockedError."""
        await self._put(key, io.BytesIO(data), content_type, hashlib.sha256(data).digest(), {})

    async def put_file(self, key: str, file: BinaryIO, content_type: str) -> None:
        """Upload an open file from its start, up to S3's 5 GB. Raises TransientError or BlockedError."""
        await self._put(key, file, content_type, None, {})

    @asynccontextmanager
    async def upload(self, key: str, content_type: str) -> AsyncIterator[S3Upload]:
        """Write an object in parts. On leaving it is there as a whole; on an exception nothing is, its parts included.

        Parts of a process that died stay unseen until the bucket's rule for incomplete uploads removes them. Raises
        TransientError or BlockedError.
        """
        upload = S3Upload(self._client, self._call, self._bucket, key, content_type)
        try:
            yield upload
            await upload.finish()
        except BaseException:
            await upload.abort()
            raise

    async def chunks(self, key: str) -> AsyncIterator[bytes]:
        """Read an object in pieces of up to 1 MB. Raises NotFoundError, TransientError or BlockedError."""
        answer = await self._call("read an object", lambda: self._client.get_object(Bucket=self._bucket, Key=key))
        body = answer["Body"]
        try:
            while piece := await self._call("read an object", lambda: body.read(_CHUNK)):
                yield piece
        finally:
            await self._call("read an object", body.close)

    async def get_bytes(self, key: str) -> bytes:
        """Read a whole object. Raises NotFoundError, TransientError or BlockedError."""

        def get() -> bytes:
            with self._client.get_object(Bucket=self._bucket, Key=key)["Body"] as body:
                return body.read()

        return await self._call("read an object", get)

    async def get_json(self, key: str) -> dict[str, Any]:
        """Read a JSON document. Raises as `get_bytes` does, and ValueError where it is none."""
        document = json.loads(await self.get_bytes(key))
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004 - the value in the bucket is wrong, not an argument
        return document

    async def exists(self, key: str) -> bool:
        """Whether there is such an object. Raises TransientError or BlockedError."""
        try:
            await self._call("look for an object", lambda: self._client.head_object(Bucket=self._bucket, Key=key))
        except NotFoundError:
            return False
        return True

    async def delete(self, keys: list[str]) -> None:
        """Remove objects; those that are not there are no error. Raises TransientError or BlockedError."""
        for start in range(0, len(keys), _DELETE_BATCH):
            await self._call("delete objects", partial(self._delete, keys[start : start + _DELETE_BATCH]))

    def _delete(self, batch: list[str]) -> None:
        answer = self._client.delete_objects(
            Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
        )
        for failure in answer.get("Errors", []):
            if failure.get("Code") != "NoSuchKey":
                raise _fault("delete objects", str(failure.get("Code")), status=200)

    def presign(self, key: str) -> tuple[str, datetime]:
        """Return a URL that reads the object without credentials (SigV4), and when it expires (UTC). No network.

        A URL signed with temporary credentials ends with them, however late it says that it expires.
        """
        expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=self._url_expires_seconds)
        with _translated("sign a URL"):
            url = self._public.url(key, seconds=self._url_expires_seconds)
        return url, expires_at

    # --- the bucket itself ---

    async def check(self) -> None:
        """One cheap look at the bucket.

        Raises BlockedError with code `s3_bucket_missing`, `s3_access_denied` or `s3_misconfigured`, or TransientError
        with code `s3_unavailable`. It proves reading: whether writing is allowed shows with the first put.
        """
        try:
            await self._call("look at the bucket", lambda: self._client.head_bucket(Bucket=self._bucket))
        except NotFoundError:  # a HEAD has no body, so a missing bucket is only a 404
            raise _bucket_missing() from None

    async def ensure_bucket(self) -> None:
        """As `check`, but a missing bucket is created where `create_bucket` allows it."""
        try:
            await self.check()
        except BlockedError as blocked:
            if blocked.code != "s3_bucket_missing" or not self._create_bucket:
                raise
            await self._call("create the bucket", self._create)

    def _create(self) -> None:
        try:
            if _is_aws(self._client.meta.endpoint_url) and self._region != "us-east-1":
                place = cast("BucketLocationConstraintType", self._region)
                self._client.create_bucket(Bucket=self._bucket, CreateBucketConfiguration={"LocationConstraint": place})
            else:
                self._client.create_bucket(Bucket=self._bucket)
        except self._client.exceptions.BucketAlreadyOwnedByYou:
            pass  # another process of ours was faster

    async def close(self) -> None:
        """Wait for the calls under way (their timeouts bound it), then close the connections."""
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)
        await self._puts.close()
        self._client.close()
        self._signer.close()

    # --- how ---

    async def _put(
        self, key: str, body: BinaryIO, content_type: str, sha256: bytes | None, metadata: Mapping[str, str]
    ) -> None:
        digest = sha256 if sha256 is not None else await asyncio.to_thread(_sha256, body)
        headers = {
            "Content-Type": content_type,
            "x-amz-checksum-sha256": base64.b64encode(digest).decode(),
            **{f"x-amz-meta-{name}": value for name, value in encode_metadata(metadata).items()},
        }
        with _translated("store an object"):
            await self._puts.put(partial(self._private.put, key, headers), body, body.seek(0, io.SEEK_END))

    async def _call(self, what: str, operation: Callable[[], T]) -> T:
        def translated() -> T:
            with _translated(what):
                return operation()

        return await asyncio.get_running_loop().run_in_executor(self._executor, translated)


class S3Upload:
    """One object being written. At most one part is held; a small object is put at once."""

    def __init__(
        self,
        client: S3Client,
        call: Callable[[str, Callable[[], Any]], Awaitable[Any]],
        bucket: str,
        key: str,
        content_type: str,
    ) -> None:
        self._client = client
        self._call = call
        self._bucket = bucket
        self._key = key
        self._content_type = content_type
        self._part = bytearray()
        self._upload_id: str | None = None
        self._etags: list[str] = []

    async def write(self, data: bytes) -> None:
        """Append. Raises TransientError or BlockedError."""
        self._part += data
        if len(self._part) >= _PART:
            await self._send()

    async def finish(self) -> None:
        """Make the object whole."""
        if self._upload_id is None:
            body = bytes(self._part)
            await self._call(
                "store an object",
                lambda: self._client.put_object(
                    Bucket=self._bucket, Key=self._key, Body=body, ContentType=self._content_type
                ),
            )
            return
        if self._part:
            await self._send()
        parts: list[CompletedPartTypeDef] = [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(self._etags, 1)]
        upload_id = self._upload_id
        await self._call(
            "store an object",
            lambda: self._client.complete_multipart_upload(
                Bucket=self._bucket, Key=self._key, UploadId=upload_id, MultipartUpload={"Parts": parts}
            ),
        )
        self._upload_id = None

    async def abort(self) -> None:
        """Leave nothing, where that can be done now."""
        if self._upload_id is None:
            return
        upload_id = self._upload_id
        with suppress(DarkroomError):
            await self._call(
                "abort an upload",
                lambda: self._client.abort_multipart_upload(Bucket=self._bucket, Key=self._key, UploadId=upload_id),
            )

    async def _send(self) -> None:
        if self._upload_id is None:
            begun = await self._call(
                "begin an upload",
                lambda: self._client.create_multipart_upload(
                    Bucket=self._bucket, Key=self._key, ContentType=self._content_type
                ),
            )
            self._upload_id = str(begun["UploadId"])
        upload_id, number, body = self._upload_id, len(self._etags) + 1, bytes(self._part)
        self._part.clear()
        answer = await self._call(
            "store a part",
            lambda: self._client.upload_part(
                Bucket=self._bucket, Key=self._key, UploadId=upload_id, PartNumber=number, Body=body
            ),
        )
        self._etags.append(answer["ETag"])


def encode_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Make values fit for HTTP headers: percent-encoded ASCII, in order, as many as S3 takes (2 kB with the names)."""
    encoded: dict[str, str] = {}
    room = _METADATA_BYTES
    for name, value in metadata.items():
        text = quote(value, safe=string.punctuation.replace("%", ""))
        room -= len(name) + len(text)
        if room < 0:
            break
        encoded[name] = text
    return encoded


def _addressed(style: Literal["auto", "virtual", "path"]) -> Config:
    # The body is not part of the signature: its SHA-256 is, as a checksum that S3 verifies. Hashing a picture once more
    # for the signature costs almost as much as sending it (measured, 3 MB: 6.2 ms of CPU instead of 3.6).
    return Config(s3={"addressing_style": style, "payload_signing_enabled": False})


def _credentials_now(session: boto3.session.Session) -> ReadOnlyCredentials | None:
    """Temporary ones are renewed on the way."""
    found = session.get_credentials()
    return found.get_frozen_credentials() if found else None


def _is_aws(url: str) -> bool:
    return (urlsplit(url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _sha256(body: BinaryIO) -> bytes:
    digest = hashlib.sha256()
    body.seek(0)
    while piece := body.read(1 << 20):
        digest.update(piece)
    return digest.digest()


def _add_content_md5(params: dict[str, Any], **_: object) -> None:
    # AWS takes any checksum here, and boto3 sends a CRC-32; several other servers still insist on the old header.
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = str(error.response.get("Error", {}).get("Code", ""))
        if status == 404 and error.operation_name in _LOOKS and code not in _MISSING_BUCKET:
            raise NotFoundError("S3: no such object") from error
        raise _fault(what, code, status) from error
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
        raise BlockedError(f"S3: could not {what}: no usable credentials found", code="s3_access_denied") from error
    except ParamValidationError as error:
        raise BlockedError(f"S3: could not {what}: the bucket's name is not valid", code="s3_misconfigured") from error
    except PutRefusedError as refused:
        raise _fault(what, refused.code, refused.status) from None
    except (BotoCoreError, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise TransientError(f"S3: could not {what}: {type(error).__name__}", code="s3_unavailable") from error


def _fault(what: str, code: str, status: int) -> DarkroomError:
    upstream = {"code": code, "status": status}
    text = f"S3: could not {what}: {code or status}"
    if code in _MISSING_BUCKET:
        return _bucket_missing()
    if code in _MISCONFIGURED or status == 301:
        return BlockedError(text, code="s3_misconfigured", upstream=upstream)
    if code in _REFUSED or status in {401, 403}:
        return BlockedError(text, code="s3_access_denied", upstream=upstream)
    return TransientError(text, code="s3_unavailable", upstream=upstream)


def _bucket_missing() -> BlockedError:
    return BlockedError("S3: the bucket does not exist", code="s3_bucket_missing")
