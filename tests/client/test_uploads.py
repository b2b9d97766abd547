"""What a file or lines become on the wire."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from darkroom_client import MisuseError
from darkroom_client.uploads import Source, UploadFormat, upload_of

LINES = b'{"input":{"prompt":"a fox"}}\n{"input":{"prompt":"an owl"}}\n'


def sent(source: Source, file_format: UploadFormat | None = None) -> tuple[dict[str, str], bytes]:
    """The headers, and the body, which is the same when it is sent again."""
    with upload_of(source, file_format) as upload:
        body = b"".join(upload.pieces())
        assert b"".join(upload.pieces()) == body
        return upload.headers, body


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.jsonl", "application/jsonl"),
        ("a.NDJSON", "application/x-ndjson"),
        ("a.csv", "text/csv"),
        ("a.b.json", "application/json"),
    ],
)
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_file_goes_as_it_is_and_its_name_says_what_it_is(
    tmp_path: Path, name: str, content_type: str, packed: str
) -> None:
    file = tmp_path / (name + packed)
    file.write_bytes(gzip.compress(LINES) if packed else LINES)
    encoding = {"Content-Encoding": "gzip"} if packed else {}
    assert sent(file) == ({"Content-Type": content_type, **encoding}, file.read_bytes())
    assert sent(str(file)) == sent(file)


def test_a_format_that_is_given_counts(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes(LINES)
    assert sent(tmp_path / "prompts.txt", "jsonl") == ({"Content-Type": "application/jsonl"}, LINES)


@pytest.mark.parametrize("name", ["prompts.txt", "prompts.txt.gz"])
def test_prompts_become_lines_of_json_with_the_files_numbers(tmp_path: Path, name: str) -> None:
    text = '\ufeffa fox\r\n\n  \nan "owl", größer\nlast'.encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    headers, body = sent(tmp_path / name)
    assert headers == {"Content-Type": "application/jsonl"}
    prompts = [json.loads(line)["input"]["prompt"] if line else None for line in body.decode().splitlines()]
    assert prompts == ["a fox", None, None, 'an "owl", größer', "last"]


def test_lines_of_a_program_are_prompts_or_whole_lines() -> None:
    line = {"custom_id": "ü", "input": {"prompt": "an owl", "seed": 1}, "metadata": {"a": "b"}}
    headers, body = sent(["a fox", line])
    assert headers == {"Content-Type": "application/jsonl"}
    assert [json.loads(text) for text in body.splitlines()] == [{"input": {"prompt": "a fox"}}, line]


def test_a_generator_can_be_sent_again_and_is_not_held_in_memory() -> None:
    def prompts() -> Iterator[str]:
        for number in range(3000):
            yield f"{number} " + "x" * 2000

    with upload_of(prompts()) as upload:
        for _ in range(2):
            sizes = [len(piece) for piece in upload.pieces()]
            assert sum(sizes) > 3000 * 2000
            assert max(sizes) <= 1 << 18


def test_a_file_is_read_in_pieces(tmp_path: Path) -> None:
    file = tmp_path / "big.jsonl"
    file.write_bytes(b"x" * 3_000_000)
    with upload_of(file) as upload:
        pieces = upload.pieces()
        assert len(next(pieces)) <= 1 << 18
        assert sum(map(len, pieces)) < 3_000_000


@pytest.mark.parametrize(
    ("source", "about"),
    [
        ("a fox", "no file 'a fox'"),
        ({"input": {"prompt": "x"}}, "a list"),
        (b"a fox", "a list"),
        ([1], "not int"),
        ([{"input": {"prompt": "\ud800"}}], "JSON"),
        ([{"input": {"seed": float("nan")}}], "JSON"),
        ([{"input": object()}], "JSON"),
    ],
    ids=["no file", "a mapping", "bytes", "a number", "half a character", "no number", "no JSON"],
)
def test_what_cannot_be_sent_is_misuse(source: Source, about: str) -> None:
    with pytest.raises(MisuseError, match=about):
        sent(source)


@pytest.mark.parametrize(
    ("name", "content", "about"),
    [("prompts", b"x", "tells no format"), ("a.gz", b"x", "no format"), ("a.txt", b"x\n\xff\n", "line 2 is not UTF-8")],
)
def test_a_file_that_cannot_be_sent_is_misuse(tmp_path: Path, name: str, content: bytes, about: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MisuseError, match=about):
        sent(tmp_path / name)
