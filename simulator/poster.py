"""One picture: a vintage travel poster made of flat shapes, the prompt's own words on its title band."""

from __future__ import annotations

import math
import random
import re
import unicodedata

from PIL import Image, ImageDraw, ImageFont

from simulator import scenery
from simulator.palette import Colour, Palette, choose, mix
from simulator.scenery import Canvas

_MOTIFS = {
    "space": "mars moon planet space rocket star stars galaxy venus jupiter saturn astronaut cosmic orbit alien",
    "sea": "sea ocean beach boat ship island lighthouse coast harbor harbour wave waves lake fish whale sail riviera",
    "city": "city town skyline street tokyo paris york london berlin building tower neon cyberpunk cafe metropolis",
    "forest": "forest tree trees wood woods fox bear deer cabin mountain mountains alps snow ski winter hike valley",
    "desert": "desert canyon cactus dune dunes sand mesa camel sahara arizona texas western cowboy egypt",
}
_WORDS = {
    "filler": "a an the of in on at for with and or to from by vintage travel poster photo picture image",
    "night": "night midnight moon mars moonlight star stars galaxy space neon dusk cyberpunk dark",
    "day": "day sun sunny morning noon summer spring dawn sunrise bright",
}
_FILLER, _NIGHT, _DAY = (frozenset(words.split()) for words in _WORDS.values())
_LARGEST_DOUBLED = 3_000_000  # pixels; larger pictures are drawn without the doubling that smooths edges
_SMALLEST_WITH_TITLE = 96


def draw_poster(prompt: str, seed: int, width: int, height: int) -> Image.Image:
    """The picture (RGB, exactly `width` by `height`) of a prompt and a seed: the same for the same four arguments."""
    rng = random.Random(f"{prompt}|{seed}")  # noqa: S311 - art, not cryptography
    words = re.findall(r"[^\W_]+", prompt.lower())
    motif = next((name for name, keys in _MOTIFS.items() if set(words) & set(keys.split())), None) or rng.choice(
        [*_MOTIFS]
    )
    palette = choose(rng, night=True if _NIGHT & set(words) else False if _DAY & set(words) else None)
    scale = 2 if width * height <= _LARGEST_DOUBLED else 1
    full = Image.new("RGB", (width * scale, height * scale), palette.paper)
    if min(width, height) < _SMALLEST_WITH_TITLE:
        full.paste(_scene(motif, palette, rng, full.width, full.height))
        return full.reduce(scale)
    margin = round(min(full.size) * 0.045)
    band = round(min(full.height * 0.15, full.width * 0.17))
    full.paste(_scene(motif, palette, rng, full.width - 2 * margin, full.height - margin - band), (margin, margin))
    picture = full.reduce(scale)
    # The title goes on at the final size: small letters are sharper when they are not shrunk.
    _title(picture, palette, prompt, seed, band // scale, margin // scale)
    return picture


def _scene(motif: str, palette: Palette, rng: random.Random, width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (max(1, width), max(1, height)), palette.horizon)
    canvas = Canvas(ImageDraw.Draw(image), image.width, image.height, palette, rng)
    sun_x, sun_y = width * rng.choice((0.3, 0.38, 0.5, 0.62, 0.7)), height * rng.uniform(0.26, 0.42)
    radius = canvas.unit * rng.uniform(0.11, 0.17)
    _sky(canvas, sun_x, sun_y, radius)
    _celestial(canvas, motif, sun_x, sun_y, radius)
    if not palette.night and motif != "space":
        _clouds(canvas)
    _LANDSCAPES[motif](canvas, sun_x)
    return image


def _sky(canvas: Canvas, sun_x: float, sun_y: float, radius: float) -> None:
    palette, rng = canvas.palette, canvas.rng
    bands = rng.randint(7, 11)
    for band in range(bands):
        share = band / bands
        canvas.box(
            0, canvas.height * 0.72 * share, canvas.width, canvas.height, mix(palette.zenith, palette.horizon, share)
        )
    match rng.randrange(3):
        case 0:  # a sunburst
            rays, reach = rng.choice((18, 24, 32)), float(canvas.width + canvas.height)
            light = mix(palette.zenith, palette.horizon, 0.62)
            for ray in range(0, rays, 2):
                one, two = (math.tau * (ray + k) / rays for k in (0, 1))
                canvas.shape(
                    [(sun_x, sun_y), *((sun_x + reach * math.cos(a), sun_y + reach * math.sin(a)) for a in (one, two))],
                    light,
                )
        case 1:  # halos
            for ring in range(5, 0, -1):
                colour = mix(palette.horizon, palette.zenith, 0.12 + 0.13 * ring)
                canvas.disc(sun_x, sun_y, radius * (1 + ring * 0.42), colour)
        case _:
            pass
    if palette.night:
        for _ in range(70):
            size = canvas.unit * rng.choice((0.0012, 0.0018, 0.0018, 0.0032))
            canvas.disc(
                rng.uniform(0, canvas.width), canvas.height * 0.62 * rng.random() ** 1.2, max(0.6, size), palette.paper
            )


def _celestial(canvas: Canvas, motif: str, x: float, y: float, radius: float) -> None:
    palette, rng = canvas.palette, canvas.rng
    if motif == "space":
        _planet(canvas, x, y, radius)
        return
    canvas.disc(x, y, radius, palette.sun)
    if palette.night:  # a moon with its seas
        shade = mix(palette.sun, palette.horizon, 0.3)
        for dx, dy, size in ((-0.35, -0.2, 0.2), (0.25, 0.3, 0.26), (0.3, -0.4, 0.13), (-0.2, 0.45, 0.12)):
            canvas.disc(x + dx * radius, y + dy * radius, size * radius, shade)
    elif rng.random() < 0.35:  # the sun of a hundred record sleeves
        for slot in range(5):
            top = y + radius * (0.08 + 0.19 * slot)
            canvas.box(
                x - radius,
                top,
                x + radius,
                top + radius * (0.025 + 0.022 * slot),
                mix(palette.zenith, palette.horizon, 0.75),
            )


def _planet(canvas: Canvas, x: float, y: float, radius: float) -> None:
    palette = canvas.palette
    inwards = 1 if x < canvas.width / 2 else -1
    moon_x, moon_y = x + inwards * radius * 1.5, y - radius * 1.15
    canvas.disc(moon_x, moon_y, radius * 0.26, mix(palette.paper, palette.horizon, 0.3))
    canvas.disc(moon_x - radius * 0.07, moon_y - radius * 0.05, radius * 0.07, mix(palette.paper, palette.horizon, 0.6))
    ring = (x - radius * 1.75, y - radius * 0.42, x + radius * 1.75, y + radius * 0.42)
    thick, light = max(1, round(radius * 0.13)), mix(palette.paper, palette.sun, 0.4)
    canvas.draw.arc(ring, 180, 360, fill=light, width=thick)
    canvas.disc(x, y, radius, palette.sun)
    for band, share in ((-0.55, 0.25), (-0.2, 0.5), (0.2, 0.3), (0.5, 0.6)):
        half = radius * math.sqrt(1 - band * band) * 0.995
        colour = mix(palette.sun, palette.accent, share)
        canvas.draw.rounded_rectangle(
            (x - half, y + radius * band, x + half, y + radius * (band + 0.14)), radius=radius * 0.06, fill=colour
        )
    canvas.draw.arc(ring, 0, 180, fill=light, width=thick)


def _clouds(canvas: Canvas) -> None:
    colour = mix(canvas.palette.horizon, canvas.palette.paper, 0.6)
    for _ in range(canvas.rng.randint(2, 4)):
        x, y = canvas.rng.uniform(0.02, 0.95) * canvas.width, canvas.rng.uniform(0.08, 0.42) * canvas.height
        size = canvas.unit * canvas.rng.uniform(0.05, 0.09)
        for dx, dy, wide in ((-0.2, 0.0, 1.9), (0.3, -0.34, 1.2), (-0.5, 0.34, 1.3)):
            left, top = x + (dx - wide / 2) * size, y + dy * size
            canvas.draw.rounded_rectangle(
                (left, top, left + wide * size, top + size * 0.36), radius=size * 0.18, fill=colour
            )


def _other_side(canvas: Canvas, sun_x: float) -> float:
    """Where something can fly without standing before the sun."""
    return canvas.width * (0.2 if sun_x > canvas.width / 2 else 0.8)


def _space(canvas: Canvas, sun_x: float) -> None:
    palette, rng = canvas.palette, canvas.rng
    scenery.mountains(canvas, 0.74, 0.16, palette.depth(0.15))
    canvas.under(scenery.hill(canvas, 0.72, 0.03), palette.depth(0.35))
    ground = scenery.hill(canvas, 0.8, 0.025)
    side = 0.3 if sun_x > canvas.width / 2 else 0.66
    for place, size in ((side, 0.12), (side + 0.17, 0.07)):
        scenery.dome(
            canvas, canvas.width * place, ground(canvas.width * place) + canvas.unit * 0.012, canvas.unit * size
        )
    canvas.under(ground, palette.depth(0.6))
    for _ in range(9):
        y = rng.uniform(0.86, 0.98)
        wide = canvas.unit * rng.uniform(0.025, 0.07) * (y - 0.5) * 2
        x, flat = rng.uniform(0, canvas.width), wide * 0.28
        box = (x - wide, canvas.height * y - flat, x + wide, canvas.height * y + flat)
        canvas.draw.ellipse(box, fill=palette.depth(0.85))
        canvas.draw.ellipse((box[0] + wide * 0.14, box[1] + flat * 0.5, box[2], box[3]), fill=palette.depth(0.72))
    scenery.rocket(canvas, _other_side(canvas, sun_x), canvas.height * 0.3, canvas.unit * 0.13)


def _sea(canvas: Canvas, sun_x: float) -> None:
    palette, rng = canvas.palette, canvas.rng
    scenery.mountains(canvas, 0.63, 0.13, palette.depth(0.1))
    scenery.sea(canvas, 0.62, sun_x)
    other = _other_side(canvas, sun_x) / canvas.width
    scenery.sailboat(
        canvas, canvas.width * (1 - other) * rng.uniform(0.9, 1.05), canvas.height * 0.76, canvas.unit * 0.17
    )
    scenery.sailboat(canvas, canvas.width * rng.uniform(0.45, 0.55), canvas.height * 0.665, canvas.unit * 0.06)
    cliff = scenery.hill(canvas, 0.0, 0.012)

    def headland(x: float) -> float:
        away = abs(x / canvas.width - other)
        return canvas.height * (0.72 + 2.6 * math.pow(away, 1.7)) + cliff(x)

    scenery.lighthouse(
        canvas, canvas.width * other, headland(canvas.width * other) + canvas.unit * 0.02, canvas.unit * 0.34
    )
    canvas.under(headland, palette.depth(0.9))
    scenery.birds(canvas, canvas.width * (1 - other), canvas.height * 0.28)


def _city(canvas: Canvas, sun_x: float) -> None:
    palette = canvas.palette
    lights = mix(palette.sun, palette.paper, 0.25)
    scenery.skyline(canvas, 0.74, 0.38, palette.depth(0.05), None)
    scenery.skyline(canvas, 0.84, 0.36, palette.depth(0.45), mix(palette.depth(0.45), lights, 0.6))
    scenery.skyline(canvas, 0.96, 0.3, palette.depth(0.9), lights)
    scenery.birds(canvas, _other_side(canvas, sun_x), canvas.height * 0.2)


def _forest(canvas: Canvas, sun_x: float) -> None:
    palette, rng = canvas.palette, canvas.rng
    scenery.mountains(canvas, 0.7, 0.34, palette.depth(0.1), snow=mix(palette.paper, palette.horizon, 0.2))
    for level, depth, tall, count in ((0.66, 0.35, 0.07, 46), (0.75, 0.6, 0.12, 30), (0.86, 0.85, 0.2, 15)):
        ridge = scenery.hill(canvas, level, 0.035)
        scenery.forest(canvas, ridge, tall, count, palette.depth(depth))
        canvas.under(ridge, palette.depth(depth))
    if rng.random() < 0.6:
        scenery.balloon(canvas, _other_side(canvas, sun_x), canvas.height * 0.25, canvas.unit * 0.075)
    else:
        scenery.birds(canvas, _other_side(canvas, sun_x), canvas.height * 0.25)


def _desert(canvas: Canvas, sun_x: float) -> None:
    palette, rng = canvas.palette, canvas.rng
    for place in (0.12, 0.45, 0.83):
        _mesa(
            canvas, canvas.width * (place + rng.uniform(-0.06, 0.06)), rng.uniform(0.09, 0.17), rng.uniform(0.1, 0.24)
        )
    for level, depth in ((0.68, 0.3), (0.76, 0.5), (0.84, 0.7)):
        canvas.under(scenery.hill(canvas, level, 0.03), palette.depth(depth))
    ground = scenery.hill(canvas, 0.92, 0.02)
    canvas.under(ground, palette.depth(0.9))
    for place in (0.16, 0.72, 0.88):
        x = canvas.width * (place + rng.uniform(-0.05, 0.05))
        scenery.cactus(canvas, x, ground(x), canvas.unit * rng.uniform(0.13, 0.25), palette.depth(1.0))
    scenery.balloon(canvas, _other_side(canvas, sun_x), canvas.height * 0.3, canvas.unit * rng.uniform(0.06, 0.09))


def _mesa(canvas: Canvas, x: float, half: float, tall: float) -> None:
    palette = canvas.palette
    top, foot, wide = canvas.height * (0.7 - tall), canvas.height * 0.74, canvas.unit * half
    canvas.shape(
        [(x - wide, top), (x + wide, top), (x + wide * 1.15, foot), (x - wide * 1.15, foot)], palette.depth(0.05)
    )
    canvas.shape(
        [(x + wide * 0.35, top), (x + wide, top), (x + wide * 1.15, foot), (x + wide * 0.55, foot)], palette.depth(0.22)
    )
    for share in (0.22, 0.5):
        y = top + (foot - top) * share
        canvas.box(
            x - wide * (1 + 0.15 * share),
            y,
            x + wide * (1 + 0.15 * share),
            y + canvas.unit * 0.008,
            palette.depth(0.22),
        )


_LANDSCAPES = {"space": _space, "sea": _sea, "city": _city, "forest": _forest, "desert": _desert}


def _title(picture: Image.Image, palette: Palette, prompt: str, seed: int, band: int, margin: int) -> None:
    draw, middle = ImageDraw.Draw(picture), picture.width / 2
    room = picture.width - 2.4 * margin
    top = picture.height - band
    lines, size = _set_title(draw, _headline(prompt), room, band * 0.62)
    font = ImageFont.load_default(size)
    for row, line in enumerate(lines):
        y = top + band * 0.42 + (row - (len(lines) - 1) / 2) * size * 1.08
        draw.text(
            (middle, y), line, font=font, fill=palette.ink, anchor="mm", stroke_width=size / 36, stroke_fill=palette.ink
        )
    small = ImageFont.load_default(max(7.0, band * 0.095))
    y = top + band * 0.84
    credit = f"SIMULATED  ·  SEED {seed}"
    draw.text((middle, y), credit, font=small, fill=mix(palette.ink, palette.paper, 0.25), anchor="mm")
    half = draw.textlength(credit, font=small) / 2 + margin * 0.4
    for start, end in ((1.2 * margin, middle - half), (middle + half, picture.width - 1.2 * margin)):
        if end > start:
            _rule(draw, start, end, y, palette.accent, max(1, round(band * 0.014)))


def _rule(draw: ImageDraw.ImageDraw, start: float, end: float, y: float, colour: Colour, width: int) -> None:
    draw.line((start, y, end, y), fill=colour, width=width)


def _headline(prompt: str) -> list[str]:
    # Pillow's own typeface has no accents: Zürich is set as Zurich, and what has no Latin letter at all is left out.
    latin = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode()
    words = re.findall(r"[A-Za-z0-9]+(?:['-][A-Za-z0-9]+)*", latin)
    telling = [word for word in words if word.lower() not in _FILLER] or words or ["untitled"]
    return [word.upper()[:18] for word in telling[:7]]


def _set_title(draw: ImageDraw.ImageDraw, words: list[str], room: float, height: float) -> tuple[list[str], float]:
    """The words in one line or two, whichever allows the larger letters, and their size in pixels."""
    probe = ImageFont.load_default(40)

    def fit(lines: list[str]) -> tuple[float, float]:
        widest = max(draw.textlength(line, font=probe) for line in lines)
        return (round(min(40 * room / max(1.0, widest), height / (len(lines) * 1.08)), 1), -widest)

    splits = [[" ".join(words)]] + [[" ".join(words[:cut]), " ".join(words[cut:])] for cut in range(1, len(words))]
    best = max(splits, key=fit)
    return best, max(6.0, fit(best)[0])
