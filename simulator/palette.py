"""The inks of the posters: curated, because random colours rarely make anybody smile."""

from __future__ import annotations

import random
from dataclasses import dataclass

Colour = tuple[int, int, int]


def _ink(code: str) -> Colour:
    value = int(code, 16)
    return (value >> 16, value >> 8 & 255, value & 255)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """`share` 0 is the one, 1 the other."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return (red, green, blue)


@dataclass(frozen=True, slots=True)
class Palette:
    """`land` goes from the farthest layer to the nearest; `paper` is the frame, `ink` the title on it."""

    paper: Colour
    ink: Colour
    zenith: Colour
    horizon: Colour
    sun: Colour
    accent: Colour
    land: tuple[Colour, Colour, Colour, Colour]
    night: bool

    def depth(self, share: float) -> Colour:
        """A land colour between the farthest (0) and the nearest (1)."""
        place = max(0.0, min(0.9999, share)) * (len(self.land) - 1)
        return mix(self.land[int(place)], self.land[int(place) + 1], place % 1)


def _palette(codes: str, *, night: bool = False) -> Palette:
    paper, ink, zenith, horizon, sun, accent, *land = (_ink(code) for code in codes.split())
    far, middle, near, nearest = land
    return Palette(paper, ink, zenith, horizon, sun, accent, (far, middle, near, nearest), night)


# paper   ink    zenith horizon sun    accent  land: far ... near
_DAY = (
    _palette("f4e8d0 2b2a33 2f7f86 f6d7a0 f2a541 d1495b 7fb0a4 4f8a85 2e5f66 1b3a45"),  # riviera
    _palette("f6ead2 3a2420 e8743b f9d58b fff0c2 2a6f77 d98f5c b5563c 7c3338 431f2d"),  # canyon
    _palette("f3ead7 23302b 86b9b0 f5e3b8 e4572e f0a202 a3b58a 6d8f63 3f6650 22403a"),  # meadow
    _palette("f7ecdc 33232e e58fa0 fbe0c0 fff6dd c8434f c58aa0 91607f 5e3f62 34263f"),  # blossom
    _palette("f2ecdf 1f2d3d 6fb3d2 f3efd9 f7b538 db3a34 a9c6cf 6b9aae 3b6a85 1c3d56"),  # alpine
    _palette("f5e6c8 3d2b1f f0b24a fbe7b4 d9482b 1f7a74 d9a766 b07b4a 75563f 41332f"),  # mustard
)
_NIGHT = (
    _palette("efe4cd 20203a 17203f 7a5c8e f7e0a3 ef8354 5c4f86 41396d 2a2750 171733", night=True),  # dusk
    _palette("f1e6d2 0f2d33 0c2b36 3f8f86 f3d9a4 f26a4b 2f7474 1f5559 143c44 0a232b", night=True),  # lagoon
    _palette("f3e4cf 2c1520 2a1533 d9594c ffd58a 57b8b0 93395a 672a52 431d42 231029", night=True),  # ember
)


def choose(rng: random.Random, *, night: bool | None = None) -> Palette:
    """One palette; `night` narrows the choice where the prompt said so."""
    return rng.choice({None: _DAY + _NIGHT, True: _NIGHT, False: _DAY}[night])
