"""What stands in a poster: land, water, towns, trees, and things that fly. Flat shapes, sized by the canvas."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import ImageDraw

from simulator.palette import Colour, Palette, mix

Ridge = Callable[[float], float]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Canvas:
    """A drawing surface of `width` by `height` pixels with its inks and its dice; `unit` is the shorter side."""

    draw: ImageDraw.ImageDraw
    width: int
    height: int
    palette: Palette
    rng: random.Random

    @property
    def unit(self) -> float:
        """The shorter side in pixels: things keep their proportions on any format."""
        return float(min(self.width, self.height))

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """A filled circle; radii under half a pixel are left out."""
        if radius >= 0.5:
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """A filled rectangle; an empty one is left out."""
        if right >= left and bottom >= top:
            self.draw.rectangle((left, top, right, bottom), fill=colour)

    def shape(self, points: list[Point], colour: Colour) -> None:
        """A filled polygon."""
        self.draw.polygon(points, fill=colour)

    def under(self, ridge: Ridge, colour: Colour) -> None:
        """Everything below a ridge line (x and y in pixels)."""
        step = max(1, self.width // 160)
        line = [(float(x), ridge(x)) for x in range(0, self.width + step, step)]
        self.shape([*line, (self.width + step, self.height), (0, self.height)], colour)


def hill(canvas: Canvas, level: float, swing: float) -> Ridge:
    """A soft ridge around `level` (share of the height from the top), waving by `swing`."""
    waves = [(canvas.rng.uniform(0.6, 1.6) * k, canvas.rng.uniform(0, math.tau), 1 / k) for k in (1, 2, 3)]

    def ridge(x: float) -> float:
        place = x / canvas.width * math.tau / 1.6
        wave = sum(size * math.sin(place * speed + phase) for speed, phase, size in waves)
        return canvas.height * (level + swing * wave / 1.8)

    return ridge


def mountains(canvas: Canvas, level: float, tall: float, colour: Colour, *, snow: Colour | None = None) -> None:
    """A row of peaks with a lit and a shaded side; `snow` caps them."""
    x, foot = -0.1, canvas.height
    while x < 1.05:
        half = canvas.rng.uniform(0.12, 0.22)
        peak = canvas.rng.uniform(0.55, 1.0) * tall
        centre, top = (x + half) * canvas.width, canvas.height * (level - peak)
        slope = (canvas.height * level - top) / (half * canvas.width)
        reach = (foot - top) / slope
        lean = canvas.rng.uniform(-0.12, 0.12) * reach
        canvas.shape([(centre, top), (centre + reach, foot), (centre - reach, foot)], colour)
        canvas.shape(
            [(centre, top), (centre + reach, foot), (centre + lean, foot)], mix(colour, canvas.palette.ink, 0.16)
        )
        if snow:
            cap = (canvas.height * level - top) * 0.3
            run, teeth = cap / slope, cap * 0.45
            edge = [(centre - run * (1 - k / 3), top + cap + (teeth if k % 2 else 0)) for k in range(7)]
            edge[0], edge[-1] = (centre - run, top + cap), (centre + run, top + cap)
            canvas.shape([(centre, top), *reversed(edge)], snow)
        x += half * canvas.rng.uniform(0.8, 1.3)


def conifer(canvas: Canvas, x: float, foot: float, tall: float, colour: Colour) -> None:
    """A tree of three skirts."""
    canvas.box(
        x - tall * 0.03, foot - tall * 0.2, x + tall * 0.03, foot + tall * 0.03, mix(colour, canvas.palette.ink, 0.5)
    )
    for low, high, wide in ((0.1, 0.55, 0.24), (0.35, 0.8, 0.19), (0.58, 1.0, 0.13)):
        canvas.shape(
            [(x - tall * wide, foot - tall * low), (x, foot - tall * high), (x + tall * wide, foot - tall * low)],
            colour,
        )


def forest(canvas: Canvas, ridge: Ridge, tall: float, count: int, colour: Colour) -> None:
    """Conifers along a ridge, the far ones first."""
    for _ in range(count):
        x, size = canvas.rng.uniform(0, canvas.width), canvas.unit * tall * canvas.rng.uniform(0.6, 1.15)
        conifer(canvas, x, ridge(x) + size * 0.08, size, mix(colour, canvas.palette.ink, canvas.rng.uniform(0, 0.25)))


def cactus(canvas: Canvas, x: float, foot: float, tall: float, colour: Colour) -> None:
    """A saguaro with two raised arms."""
    thick = tall * 0.09

    def limb(dx: float, low: float, high: float, part: float) -> None:
        left, right = x + dx * tall - thick * part, x + dx * tall + thick * part
        canvas.draw.rounded_rectangle(
            (left, foot - tall * high, right, foot - tall * low), radius=thick * part, fill=colour
        )

    limb(0, -0.04, 1.0, 1.0)
    for side, low, high in ((-1, 0.42, 0.78), (1, 0.3, 0.66)):
        limb(side * 0.26, low, high, 0.72)
        left, right = sorted((x, x + side * 0.26 * tall))
        canvas.box(left, foot - tall * (low + 0.12), right, foot - tall * low, colour)


def skyline(canvas: Canvas, foot: float, tall: float, colour: Colour, lights: Colour | None) -> None:
    """A town from edge to edge; `foot` and `tall` are shares of the height, `lights` are its windows."""
    x = -canvas.unit * 0.02
    while x < canvas.width:
        wide = canvas.unit * canvas.rng.uniform(0.05, 0.11)
        # Higher towards the middle: a skyline is a hill that people made.
        swell = 0.45 + 0.55 * math.sin(math.pi * min(1.0, max(0.0, (x + wide / 2) / canvas.width)))
        top = canvas.height * (foot - tall * swell * canvas.rng.uniform(0.45, 1.0))
        _tower(canvas, x, top, wide, mix(colour, canvas.palette.ink, canvas.rng.uniform(0, 0.22)), lights)
        x += wide * canvas.rng.uniform(0.92, 1.12)


def _tower(canvas: Canvas, x: float, top: float, wide: float, colour: Colour, lights: Colour | None) -> None:
    bottom, middle = canvas.height, x + wide / 2
    canvas.box(x, top, x + wide, bottom, colour)
    match canvas.rng.randrange(5):
        case 0:  # setbacks and a needle
            canvas.box(x + wide * 0.2, top - wide * 0.35, x + wide * 0.8, top, colour)
            canvas.box(x + wide * 0.36, top - wide * 0.65, x + wide * 0.64, top, colour)
            canvas.shape(
                [
                    (middle - wide * 0.05, top - wide * 0.6),
                    (middle, top - wide * 1.7),
                    (middle + wide * 0.05, top - wide * 0.6),
                ],
                colour,
            )
        case 1:  # a dome
            canvas.disc(middle, top, wide * 0.42, colour)
        case 2:  # a slanted roof
            canvas.shape([(x, top), (x + wide, top), (x + wide, top - wide * 0.5)], colour)
        case 3:  # a gable
            canvas.shape([(x, top), (x + wide, top), (middle, top - wide * 0.55)], colour)
        case _:
            pass
    if lights is None:
        return
    columns = canvas.rng.choice((2, 3, 3, 4))
    cell = wide / (columns * 2 + 1)
    for row in range(int(canvas.height * 0.34 / (cell * 2.6))):
        for column in range(columns):
            if canvas.rng.random() < 0.42:
                left, high = x + cell * (1 + 2 * column), top + cell * (1.5 + 2.6 * row)
                canvas.box(left, high, left + cell, high + cell * 1.3, lights)


def sea(canvas: Canvas, level: float, sun_x: float) -> None:
    """Water from `level` down in ever broader stripes, with the sun's path on it."""
    palette, top = canvas.palette, canvas.height * level
    near, far = palette.land[2], mix(palette.land[0], palette.horizon, 0.35)
    bands = 7
    for band in range(bands):
        share = band / bands
        canvas.box(0, top + (canvas.height - top) * share**1.5, canvas.width, canvas.height, mix(far, near, share))
    for glint in range(26):
        share = (glint + 0.5) / 26
        y = top + (canvas.height - top) * share**1.35
        reach = canvas.unit * (0.035 + 0.13 * share) * canvas.rng.uniform(0.35, 1.0)
        x = sun_x + canvas.unit * canvas.rng.uniform(-0.05, 0.05) * (0.3 + share)
        thick = max(1.0, canvas.unit * 0.0022 * (1 + 2 * share))
        canvas.draw.rounded_rectangle(
            (x - reach, y - thick, x + reach, y + thick), radius=thick, fill=mix(palette.sun, far, 0.15)
        )


def sailboat(canvas: Canvas, x: float, y: float, size: float) -> None:
    """Two sails over a hull; `y` is the waterline."""
    palette = canvas.palette
    canvas.shape(
        [(x - size * 0.03, y - size), (x - size * 0.03, y - size * 0.16), (x - size * 0.5, y - size * 0.16)],
        palette.paper,
    )
    canvas.shape(
        [(x + size * 0.03, y - size * 0.9), (x + size * 0.03, y - size * 0.16), (x + size * 0.4, y - size * 0.16)],
        palette.accent,
    )
    canvas.shape(
        [
            (x - size * 0.55, y - size * 0.11),
            (x + size * 0.55, y - size * 0.11),
            (x + size * 0.34, y + size * 0.06),
            (x - size * 0.38, y + size * 0.06),
        ],
        palette.ink,
    )


def lighthouse(canvas: Canvas, x: float, foot: float, tall: float) -> None:
    """A striped tower with its lamp lit."""
    palette = canvas.palette
    for stripe in range(5):
        low, high = stripe / 5 * 0.78, (stripe + 1) / 5 * 0.78
        below, above = 0.13 - 0.05 * low / 0.78, 0.13 - 0.05 * high / 0.78
        colour = palette.accent if stripe % 2 == 0 else palette.paper
        canvas.shape(
            [
                (x - tall * below, foot - tall * low),
                (x + tall * below, foot - tall * low),
                (x + tall * above, foot - tall * high),
                (x - tall * above, foot - tall * high),
            ],
            colour,
        )
    canvas.box(x - tall * 0.11, foot - tall * 0.81, x + tall * 0.11, foot - tall * 0.78, palette.ink)
    canvas.box(x - tall * 0.055, foot - tall * 0.91, x + tall * 0.055, foot - tall * 0.81, palette.sun)
    canvas.shape(
        [(x - tall * 0.08, foot - tall * 0.91), (x + tall * 0.08, foot - tall * 0.91), (x, foot - tall)], palette.ink
    )


def dome(canvas: Canvas, x: float, foot: float, size: float) -> None:
    """A glass habitat with a lit inside: what one builds on other planets."""
    palette = canvas.palette
    canvas.draw.pieslice(
        (x - size, foot - size, x + size, foot + size), 180, 360, fill=mix(palette.horizon, palette.paper, 0.45)
    )
    canvas.draw.pieslice(
        (x - size * 0.86, foot - size * 0.86, x + size * 0.86, foot + size * 0.86),
        180,
        360,
        fill=mix(palette.sun, palette.paper, 0.3),
    )
    for share in (-0.62, -0.3, 0.05, 0.42):
        tall = size * canvas.rng.uniform(0.22, 0.5)
        canvas.box(
            x + share * size,
            foot - tall,
            x + (share + 0.22) * size,
            foot,
            mix(palette.land[2], palette.ink, canvas.rng.uniform(0, 0.4)),
        )
    canvas.box(x - size * 1.06, foot - size * 0.06, x + size * 1.06, foot + size * 0.08, palette.ink)


def rocket(canvas: Canvas, x: float, y: float, size: float) -> None:
    """A rocket that climbs to the right on a tapering trail."""
    palette, lean = canvas.palette, math.radians(28)

    def at(across: float, along: float) -> Point:
        return (
            x + size * (across * math.cos(lean) + along * math.sin(lean)),
            y - size * (along * math.cos(lean) - across * math.sin(lean)),
        )

    canvas.shape(
        [at(-0.1, -0.42), at(0.1, -0.42), at(0.02, -3.0), at(-0.02, -3.0)], mix(palette.horizon, palette.paper, 0.6)
    )
    canvas.shape([at(-0.11, -0.4), at(0.0, -1.0), at(0.11, -0.4)], palette.sun)
    for side in (-1, 1):
        canvas.shape([at(side * 0.14, 0.0), at(side * 0.36, -0.48), at(side * 0.13, -0.34)], palette.accent)
    hull = [at(math.sin(k / 10 * math.pi) * 0.2, 0.8 - 1.2 * k / 10) for k in range(9)]
    hull += [at(-math.sin(k / 10 * math.pi) * 0.2, 0.8 - 1.2 * k / 10) for k in range(8, -1, -1)]
    canvas.shape(hull, palette.paper)
    canvas.shape([at(0, 0.8), at(0.125, 0.53), at(-0.125, 0.53)], palette.accent)
    canvas.disc(*at(0, 0.26), size * 0.1, palette.ink)
    canvas.disc(*at(0, 0.26), size * 0.065, mix(palette.zenith, palette.paper, 0.5))


def balloon(canvas: Canvas, x: float, y: float, size: float) -> None:
    """A striped hot-air balloon with its basket."""
    palette = canvas.palette
    canvas.shape(
        [
            (x - size * 0.72, y + size * 0.66),
            (x + size * 0.72, y + size * 0.66),
            (x + size * 0.16, y + size * 1.35),
            (x - size * 0.16, y + size * 1.35),
        ],
        palette.accent,
    )
    for wide, colour in ((1.0, palette.accent), (0.72, palette.paper), (0.42, palette.accent), (0.14, palette.paper)):
        canvas.draw.ellipse((x - size * wide, y - size, x + size * wide, y + size), fill=colour)
    for side in (-1, 1):
        canvas.draw.line(
            (x + side * size * 0.15, y + size * 1.3, x + side * size * 0.13, y + size * 1.62),
            fill=palette.ink,
            width=max(1, round(size * 0.03)),
        )
    canvas.draw.rounded_rectangle(
        (x - size * 0.17, y + size * 1.6, x + size * 0.17, y + size * 1.85), radius=size * 0.04, fill=palette.ink
    )


def birds(canvas: Canvas, x: float, y: float) -> None:
    """A loose flock of simple wings."""
    for _ in range(canvas.rng.randint(3, 6)):
        size = canvas.unit * canvas.rng.uniform(0.012, 0.024)
        bx, by = x + canvas.unit * canvas.rng.uniform(-0.14, 0.14), y + canvas.unit * canvas.rng.uniform(-0.06, 0.06)
        thick = max(1, round(size * 0.18))
        canvas.draw.arc((bx - size * 2, by - size, bx, by + size), 200, 350, fill=canvas.palette.ink, width=thick)
        canvas.draw.arc((bx, by - size, bx + size * 2, by + size), 190, 340, fill=canvas.palette.ink, width=thick)
