"""Reading what callers send: strict JSON bodies, and the few headers that mean something."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from api.auth import AccountId
from api.problems import InvalidRequestError, Mistake, sentence
from darkroom.domain.errors import PermanentError
from darkroom.domain.pointers import escaped, findings

M = TypeVar("M", bound=BaseModel)

_DEPTH: Final = 64
_KEY_LENGTH: Final = 255
_WAIT_SECONDS: Final = 60
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]+")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_WAIT: Final = re.compile(r'\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:;.*)?', re.IGNORECASE)


def json_body(model: type[M], *, optional: bool = False) -> Callable[[Request, str], Awaitable[M]]:
    """A dependency that reads the body as that model, after the key was checked.

    With `optional`, no body at all is the model with its defaults.
    """

    async def read(request: Request, account_id: AccountId) -> M:  # noqa: ARG001 - nobody unknown has a body read
        body = await request.body()
        if optional and not body:
            return model()
        _check_media_type(request.headers.get("content-type"))
        document = parse_json(body)
        try:
            return model.model_validate(document)
        except ValidationError as fault:
            raise invalid(fault, document) from None

    return read


def parse_json(body: bytes) -> Any:  # noqa: ANN401 - any JSON there is
    """Parse UTF-8 JSON that every part on the way can carry. Raises InvalidRequestError, whatever the bytes are.

    Refused are NaN and Infinity, more than 64 levels, NUL characters and lone surrogates, in names too.
    """
    try:
        document = json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise _bad_json("the body is not UTF-8") from None
    except RecursionError:
        raise _bad_json(f"the body has more than {_DEPTH} levels") from None
    except json.JSONDecodeError as fault:
        raise _bad_json(f"{fault.msg} at line {fault.lineno}, column {fault.colno}") from None
    except ValueError as fault:  # a number of thousands of digits
        raise _bad_json(f"the body holds a number that cannot be read: {fault}") from None
    _check_text(document)
    return document


def invalid(fault: ValidationError, document: Any) -> InvalidRequestError:  # noqa: ANN401 - any JSON there is
    """Pydantic's findings as JSON pointers into the document."""
    mistakes = [Mistake(pointer=pointer, detail=sentence(detail)) for pointer, detail in findings(fault, document)]
    detail = "; ".join(f"{mistake.pointer or 'the body'}: {mistake.detail}" for mistake in mistakes[:5])
    return InvalidRequestError(detail, mistakes)


def idempotency_key(header: str | None) -> str | None:
    """The caller's key, quoted (a structured field's string) or bare. Raises PermanentError."""
    if header is None:
        return None
    value = header.strip()
    if (quoted := _QUOTED.fullmatch(value)) is not None:
        value = re.sub(r"\\(.)", r"\1", quoted[1])
    if len(value) > _KEY_LENGTH or not _PRINTABLE.fullmatch(value):
        raise PermanentError(
            f"an Idempotency-Key has 1 to {_KEY_LENGTH} printable ASCII characters", code="idempotency_key_invalid"
        )
    return value


def preferred_wait(header: str | None) -> int:
    """The seconds of `Prefer: wait=N` (RFC 7240), at most 60. What cannot be read is no preference."""
    for preference in (header or "").split(","):
        if (match := _WAIT.fullmatch(preference)) is not None:
            return min(int(match[1]), _WAIT_SECONDS)
    return 0


def _check_media_type(content_type: str | None) -> None:
    kind = (content_type or "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise PermanentError(f"the body is {kind or 'of no type'}, not application/json", code="unsupported_media_type")


def _no_constant(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is not JSON", "", 0)


def _bad_json(detail: str) -> InvalidRequestError:
    return InvalidRequestError(detail, [Mistake(pointer="", detail=detail)], code="invalid_json")


def _check_text(document: Any) -> None:  # noqa: ANN401 - any JSON there is
    """Without recursion: the document chooses its depth."""
    todo: list[tuple[Any, tuple[str | int, ...]]] = [(document, ())]
    while todo:
        value, path = todo.pop()
        if len(path) > _DEPTH:
            raise _bad_json(f"the body has more than {_DEPTH} levels")
        if isinstance(value, str):
            _check_string(value, path)
        elif isinstance(value, list):
            todo.extend((item, (*path, index)) for index, item in enumerate(value))
        elif isinstance(value, dict):
            for name, item in value.items():
                _check_string(name, path)
                todo.append((item, (*path, name)))


def _check_string(text: str, path: tuple[str | int, ...]) -> None:
    what = "NUL characters" if "\x00" in text else "lone surrogates" if not _is_unicode(text) else None
    if what is not None:
        detail = f"must not contain {what}"
        raise InvalidRequestError(detail, [Mistake(pointer=escaped(path), detail=detail)])


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
