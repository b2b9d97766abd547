"""Names of things: a prefix that tells the kind, then a ULID-like part that sorts by the time it was made."""

from __future__ import annotations

import re
import secrets
import time
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_ID: Final = re.compile(r"[a-z]{2,5}_[0-9a-hjkmnp-tv-z]{26}")


def new_id(prefix: str, *, at_ms: int | None = None) -> str:
    """A new name: `prefix_`, 48 bits of wall-clock milliseconds, 80 random bits, in lower-case Crockford base 32."""
    value = ((at_ms if at_ms is not None else time.time_ns() // 1_000_000) << 80) | secrets.randbits(80)
    return f"{prefix}_{encode(value, 26)}"


def encode(value: int, length: int) -> str:
    """A number in lower-case Crockford base 32, in so many digits."""
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(5 * length - 5, -5, -5))


def decode(text: str) -> int:
    """The inverse of `encode`."""
    value = 0
    for digit in text:
        value = value << 5 | _ALPHABET.index(digit)
    return value


def is_id(text: str, prefix: str) -> bool:
    """Whether the text could be such a name: checked before it becomes part of a key."""
    return text.startswith(prefix + "_") and _ID.fullmatch(text) is not None
