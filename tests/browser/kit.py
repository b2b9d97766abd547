"""What the browser tests look at: batches, rows, pictures, and the page that shows them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from simulator.poster import draw_poster

TEMPLATE = Path(__file__).parents[2] / "darkroom/service/contact_sheet.html"
BY = "\N{MULTIPLICATION SIGN}"
BATCH_ID = "batch_01jd0000000000000000000000"

PROMPTS = (
    "a lighthouse by the sea at dusk",
    "a vintage travel poster for Mars",
    "the city at night, seen from a rooftop",
    "a cabin in the snowy forest",
    "cactus under the desert sun",
    "islands at noon, a sailing boat far out",
)


def render(batch: dict[str, Any], rows: Iterable[dict[str, Any]]) -> str:
    """The page of a batch and its rows."""
    template = TEMPLATE.read_text()
    script = re.findall(r"<script>(.*?)</script>", template, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    parts = {
        "title": str(batch["name"]).replace("&", "&amp;").replace("<", "&lt;"),
        "script_hash": f"sha256-{digest}",
        "batch": _data(batch),
        "rows": "".join(f"{_data(row)}\n" for row in rows),
    }
    page = re.split(r"\{\{(\w+)\}\}", template)
    assert page[1::2] == [*parts], "each placeholder once, in this order"
    return "".join(parts[part] if place % 2 else part for place, part in enumerate(page))


def _data(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def a_batch(rows: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """A batch whose numbers fit these rows, all of them ended."""
    statuses = [row["status"] for row in rows or []]
    codes = [row["error"]["code"] for row in rows or [] if row["status"] == "failed"]
    ended = {status: statuses.count(status) for status in ("succeeded", "failed", "cancelled")}
    batch = {
        "id": BATCH_ID,
        "name": "Posters for spring",
        "status": "completed",
        "status_reason": None,
        "created_at": "2026-11-24T19:04:00+00:00",
        "finished_at": "2026-11-25T03:31:00+00:00",
        "generated_at": "2026-11-25T03:31:02+00:00",
        "links": "download",
        "links_expire_at": None,
        "counts": {"total": sum(ended.values()), "queued": 0, "running": 0, "retrying": 0, "held": 0, **ended},
        "invalid": statuses.count("invalid"),
        "cost": {"spent_usd": round(sum(row["cost_usd"] or 0 for row in rows or []), 4), "budget_usd": None},
        "failures": [
            {"code": code, "count": codes.count(code), "example_job_id": f"job_{codes.index(code)}"}
            for code in sorted(set(codes), key=codes.count, reverse=True)
        ],
    }
    return batch | changes


def a_row(line: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """A job that succeeded, with one picture, unless the changes say otherwise."""
    row = {
        "line": line,
        "custom_id": f"poster-{line}",
        "job_id": f"job_{line:026d}",
        "status": "succeeded",
        "prompt": f"{PROMPTS[line % len(PROMPTS)]}, number {line}",
        "size": "1024x576",
        "cost_usd": 0.0047,
        "error": None,
        "warnings": [],
        "images": [an_image(f"poster-{line}-0")],
    }
    return row | changes


def a_failure(line: int, code: str, message: str, status: str = "failed") -> dict[str, Any]:
    """A line that ended without pictures."""
    return a_row(line, status=status, error={"code": code, "message": message}, cost_usd=None, images=[])


def an_image(name: str, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """One picture of a row, with the links of a downloaded copy."""
    image = {
        "thumb": f"thumbs/{name}.jpg",
        "full": f"images/{name}.png",
        "name": f"{name}.png",
        "width": 1024,
        "height": 576,
        "bytes": 51234,
        "seed": 123,
        "unsafe": False,
        "blank": False,
    }
    return image | changes


def draw(folder: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Store the pictures of these rows, with their thumbnails, where the links of a downloaded copy lead."""
    for row in rows:
        for image in row["images"]:
            if image["unsafe"] or image["blank"]:
                picture = Image.new("RGB", (image["width"], image["height"]))
            else:
                picture = draw_poster(row["prompt"], image["seed"], image["width"], image["height"])
            _store(folder / "images" / image["name"], picture, "PNG")
            picture.thumbnail((320, 320))
            _store((folder / "thumbs" / image["name"]).with_suffix(".jpg"), picture, "JPEG")


def _store(file: Path, picture: Image.Image, kind: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    out = io.BytesIO()
    picture.save(out, kind)
    file.write_bytes(out.getvalue())
