"""Cursors that callers cannot make: where a page ended, signed for one account."""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

from darkroom.domain.errors import PermanentError
from darkroom.domain.ids import is_id

_MAC_BYTES: Final = 16


def sign_cursor(secret: bytes, account_id: str, position: tuple[int, str]) -> str:
    """An opaque cursor for the page after that position: (created ms, id)."""
    text = f"{position[0]}:{position[1]}".encode()
    return base64.urlsafe_b64encode(_mac(secret, account_id, text) + text).rstrip(b"=").decode()


def read_cursor(secret: bytes, account_id: str, cursor: str, *, kind: str = "job") -> tuple[int, str]:
    """The position that `sign_cursor` signed for this account. Raises PermanentError, `invalid_cursor`."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _invalid() from None
    mac, text = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(secret, account_id, text)):
        raise _invalid()
    created, _, job_id = text.decode().partition(":")
    if not created.isdigit() or not is_id(job_id, kind):
        raise _invalid()
    return int(created), job_id


def _mac(secret: bytes, account_id: str, text: bytes) -> bytes:
    # The purpose is part of the message: the same secret signs callback tokens too.
    return hmac.digest(secret, b"darkroom cursor\n" + account_id.encode() + b"\n" + text, "sha256")[:_MAC_BYTES]


def _invalid() -> PermanentError:
    return PermanentError("this cursor was not given out for this account", code="invalid_cursor")
