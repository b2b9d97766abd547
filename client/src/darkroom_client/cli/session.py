"""One command's dealings with the API: the key it uses, and the exit code that an error becomes.

0  done
1  a job failed or was cancelled, nothing of a file would start, or a picture could not be fetched or written
2  usage: an option, the key or the URL cannot be used; nothing was sent
3  the API refused
4  the API cannot be reached
5  the batch paused by itself, and a person has to decide how it goes on
130  Ctrl-C; jobs and batches go on
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import urlsplit

import typer

from darkroom_client.cli.out import Out
from darkroom_client.client import DEFAULT_URL, Client
from darkroom_client.errors import (
    ApiError,
    DarkroomError,
    DownloadError,
    MisuseError,
    UnavailableError,
    UnexpectedAnswerError,
    UnreachableError,
)
from darkroom_client.patience import Patience

LOCAL_KEY: Final = Path(".darkroom/api-key")
"""Where `make up` keeps the key of the stack on this machine."""

_HERE: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class ExitCode(IntEnum):
    """See the module."""

    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNREACHABLE = 4
    UNDECIDED = 5
    INTERRUPTED = 130


def open_client(patience: Patience | None = None) -> Client:
    """A client for the API that the environment names. Raises MisuseError."""
    url = _url()
    return Client(url, _key(url), patience=patience)


@contextmanager
def session(out: Out, *, doubt: str = "see darkroom jobs ls", patience: Patience | None = None) -> Iterator[Client]:
    """A client for one command; what goes wrong inside becomes words and an exit code.

    `doubt` says what to do when nobody knows whether what was asked has happened.
    """
    url = _url()
    try:
        with open_client(patience) as client:
            yield client
    except MisuseError as error:
        fail(out, ExitCode.USAGE, "usage", error.message)
    except (UnreachableError, UnexpectedAnswerError, UnavailableError) as error:
        code = error.code if isinstance(error, ApiError) else "unreachable"
        fail(out, ExitCode.UNREACHABLE, code, f"{url}: {error.message}", "Is it running, and is DARKROOM_URL right?")
    except ApiError as error:
        _refused(out, error)
    except DownloadError as error:
        fail(out, ExitCode.FAILED, "download_failed", error.message)
    except DarkroomError as error:
        fail(out, ExitCode.FAILED, "failed", error.message)
    except KeyboardInterrupt:
        fail(out, ExitCode.INTERRUPTED, "interrupted", f"what was asked may have happened: {doubt}")
    except BrokenPipeError:  # who reads stdout has had enough
        raise
    except OSError as error:
        fail(out, ExitCode.FAILED, "file_error", str(error))


def fail(out: Out, exit_code: ExitCode, code: str, message: str, hint: str = "", **more: object) -> NoReturn:
    """Say what went wrong, in words and for machines, and end."""
    out.failed(f"{message} ({code})")
    if hint:
        out.hint(hint)
    if out.as_json:
        out.document({"error": {"code": code, "message": message, **more}})
    raise typer.Exit(exit_code)


def _refused(out: Out, error: ApiError) -> NoReturn:
    hint = ""
    if error.status == 401:
        hint = "Set DARKROOM_API_KEY to a valid key."
    elif error.retry_after is not None:
        hint = f"It may be asked again in {error.retry_after:.0f} s."
    mistakes = [{"pointer": m.pointer, "parameter": m.parameter, "detail": m.detail} for m in error.errors]
    fail(
        out,
        ExitCode.REFUSED,
        error.code,
        error.message,
        hint,
        status=error.status,
        errors=mistakes,
        retry_after=error.retry_after,
    )


def _url() -> str:
    return os.environ.get("DARKROOM_URL") or DEFAULT_URL


def _key(url: str) -> str | None:
    """DARKROOM_API_KEY; else, for an API on this machine only, the key that `make up` left in this directory."""
    key = os.environ.get("DARKROOM_API_KEY")
    if not key and urlsplit(url).hostname in _HERE and LOCAL_KEY.is_file():
        return LOCAL_KEY.read_text().strip()
    return key
