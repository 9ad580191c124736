"""A drawing surface in metres, and the colours of a season."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from coarseloc.simulate.polygons import Point, Polygon

Colour = tuple[int, int, int]

SUMMER, SPRING, AUTUMN, WINTER = range(4)

_GRASS: tuple[Colour, ...] = ((104, 128, 70), (112, 138, 78), (140, 136, 84), (146, 138, 104))
_LEAVES: tuple[Colour, ...] = ((52, 80, 44), (72, 98, 52), (112, 88, 44), (84, 76, 62))
_CROPS: tuple[Colour, ...] = (
    (64, 96, 58), (78, 116, 60), (96, 128, 66), (128, 140, 78), (164, 154, 98), (188, 174, 124),
    (150, 128, 92), (116, 92, 68), (92, 74, 58), (168, 148, 128), (140, 146, 96), (74, 88, 66), (196, 188, 92),
)  # fmt: skip
_WATER: tuple[Colour, ...] = (
    (28, 40, 50), (36, 62, 76), (54, 86, 88), (64, 92, 72), (92, 100, 62), (70, 66, 54), (104, 116, 104), (24, 28, 30),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Season:
    """What differs between two pictures of one land: crops, leaves, water, and where the sun stands."""

    rng: Generator  # draws colours only: the plan has a generator of its own
    grass: Colour
    leaves: Colour
    sun: tuple[float, float]  # shadow per metre of height, in metres east and south

    @classmethod
    def of(cls, seed: int, number: int) -> Season:
        """Season 0 is summer; every other number is a year and month of its own."""
        rng = np.random.default_rng([seed, 7, number])
        kind = SUMMER if number == 0 else int(rng.integers(4))
        azimuth, length = rng.uniform(-0.9, 0.9), rng.uniform(0.5, 1.1)  # the sun is in the south
        sun = (length * math.sin(azimuth), -length * math.cos(azimuth))
        return cls(rng, vary(_GRASS[kind], rng, 8), vary(_LEAVES[kind], rng, 8), sun)

    def crop(self) -> Colour:
        return vary(_CROPS[int(self.rng.integers(len(_CROPS)))], self.rng, 10)

    def water(self) -> Colour:
        return vary(_WATER[int(self.rng.integers(len(_WATER)))], self.rng, 6)

    def leaf(self) -> Colour:
        return vary(self.leaves, self.rng, 9)


def vary(colour: Colour, rng: Generator, by: float) -> Colour:
    """Draw a colour near another: `by` is the standard deviation of its light, a third of that its hue's."""
    light = rng.normal(0, by)
    r, g, b = (int(min(255, max(0, c + light + h))) for c, h in zip(colour, rng.normal(0, by / 3, 3), strict=True))
    return r, g, b


def shade(colour: Colour, factor: float) -> Colour:
    """Return a colour made lighter or darker."""
    r, g, b = (int(min(255, c * factor)) for c in colour)
    return r, g, b


@dataclass(slots=True)
class Field:
    """A field's furrows: vectorised over the whole picture at the end, by the field's number."""

    angle: float
    period_m: float
    strength: float


@dataclass(slots=True)
class Canvas:
    """Draws metres onto pixels, twice as fine as the picture asked for so that edges come out smooth."""

    width_m: float
    height_m: float
    gsd_m: float
    plan: Generator  # where things are
    season: Season  # what colour they have today
    oversample: int = 2
    image: Image.Image = field(init=False)
    field_ids: Image.Image = field(init=False)  # at the picture's own resolution; 0 is no field
    fields: list[Field] = field(init=False)
    _draw: ImageDraw.ImageDraw = field(init=False)
    _draw_ids: ImageDraw.ImageDraw = field(init=False)

    def __post_init__(self) -> None:
        width, height = round(self.width_m / self.gsd_m), round(self.height_m / self.gsd_m)
        fine = (width * self.oversample, height * self.oversample)
        self.image = Image.new("RGB", fine, self.season.grass)
        self.field_ids = Image.new("I", (width, height), 0)
        self.fields = [Field(0.0, 10.0, 0.0)]
        self._draw, self._draw_ids = ImageDraw.Draw(self.image), ImageDraw.Draw(self.field_ids)

    @property
    def scale(self) -> float:
        """Canvas pixels per metre."""
        return self.oversample / self.gsd_m

    def area(self, polygon: Polygon, colour: Colour) -> None:
        """Fill a polygon."""
        if len(polygon) >= 3:
            k = self.scale
            self._draw.polygon([(x * k, y * k) for x, y in polygon], fill=colour)

    def field(self, polygon: Polygon, colour: Colour, furrows: Field) -> None:
        """Fill a polygon and remember its furrows."""
        if len(polygon) < 3:
            return
        self.area(polygon, colour)
        self._draw_ids.polygon([(x / self.gsd_m, y / self.gsd_m) for x, y in polygon], fill=len(self.fields))
        self.fields.append(furrows)

    def clear_furrows(self, polygon: Polygon) -> None:
        """Remove the furrows inside a polygon, for built-up or wooded ground in former fields."""
        if len(polygon) >= 3:
            self._draw_ids.polygon([(x / self.gsd_m, y / self.gsd_m) for x, y in polygon], fill=0)

    def line(self, points: Sequence[Point], width_m: float, colour: Colour) -> None:
        """A road, track or river of a width in metres, never thinner than a pixel."""
        k = self.scale
        width = max(1, round(width_m * k))
        self._draw.line([(x * k, y * k) for x, y in points], fill=colour, width=width, joint="curve")

    def disc(self, center: Point, radius_m: float, colour: Colour) -> None:
        k = self.scale
        x, y, r = center[0] * k, center[1] * k, max(radius_m * k, 0.5)
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def outline(self, polygon: Polygon, width_m: float, colour: Colour) -> None:
        if len(polygon) >= 3:
            self.line([*polygon, polygon[0]], width_m, colour)

    def block(self, footprint: Polygon, height_m: float, roof: Colour) -> None:
        """A building: its shadow on the ground, then its roof."""
        dx, dy = self.season.sun[0] * height_m, self.season.sun[1] * height_m
        moved = [(x + dx, y + dy) for x, y in footprint]
        self.area(hull(footprint + moved), (48, 50, 52))
        self.area(footprint, roof)

    def tree(self, center: Point, radius_m: float) -> None:
        """A crown and its shadow, the crown's sunny side a little lighter."""
        dx, dy = self.season.sun
        colour = self.season.leaf()
        self.disc((center[0] + dx * radius_m, center[1] + dy * radius_m), radius_m, shade(colour, 0.5))
        self.disc(center, radius_m, colour)
        self.disc(
            (center[0] - 0.3 * dx * radius_m, center[1] - 0.3 * dy * radius_m), radius_m * 0.55, shade(colour, 1.2)
        )


def hull(points: Polygon) -> Polygon:
    """The convex hull (Andrew's monotone chain)."""
    ordered = sorted(set(points))

    def half_hull(sequence: Sequence[Point]) -> Polygon:
        chain: Polygon = []
        for x, y in sequence:
            while len(chain) >= 2:
                (ax, ay), (bx, by) = chain[-2], chain[-1]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                    break
                chain.pop()
            chain.append((x, y))
        return chain[:-1]

    return half_hull(ordered) + half_hull(ordered[::-1])
