"""Land as seen from the air, out of a seed: the demonstration area and the demo backbone's training ground.

The plan (where things are) and the season (their colours today) come from two separate random streams,
so `season=1` of a seed is the same place in another month: fields resown, leaves turned, water and sun changed.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from coarseloc.core.errors import InputError
from coarseloc.core.types import LonLat, UInt8
from coarseloc.simulate.canvas import Canvas, Season, vary
from coarseloc.simulate.landuse import ASPHALT, paint
from coarseloc.simulate.polygons import Polygon, subdivide

Float = NDArray[np.float32]

# Shares of land use, and of ground under lakes, by style.
STYLES: dict[str, tuple[dict[str, float], float]] = {
    "mixed": ({"city": 2, "suburb": 3, "farm": 5, "forest": 2, "meadow": 2, "industry": 1, "park": 1}, 0.07),
    "city": ({"city": 6, "suburb": 3, "industry": 2, "park": 2, "forest": 0.5}, 0.04),
    "suburb": ({"suburb": 7, "farm": 1, "forest": 1.5, "park": 1.5, "industry": 1, "meadow": 1}, 0.05),
    "farmland": ({"farm": 9, "meadow": 2, "forest": 1, "suburb": 0.4}, 0.11),
    "forest": ({"forest": 7, "meadow": 2, "farm": 2, "suburb": 0.3}, 0.08),
    "coast": ({"suburb": 3, "city": 2, "farm": 3, "meadow": 2, "forest": 2, "industry": 1}, 0.05),
}


def render_area(
    seed: int, width_m: float, height_m: float, gsd_m: float, style: str = "mixed", season: int = 0
) -> UInt8:
    """Paint an area as uint8 [H, W, 3] RGB, north up, `gsd_m` metres per pixel. The same arguments give the same bytes.

    Raises InputError for an unknown style or a size that is no picture.
    """
    if style not in STYLES:
        raise InputError(f"there is no terrain style {style!r}: choose one of {', '.join(STYLES)}")
    if min(width_m, height_m) < 10 * gsd_m or gsd_m <= 0:
        raise InputError(
            f"an area of {width_m} x {height_m} m at {gsd_m} m per pixel is no picture: "
            "give a positive ground sampling distance and at least 10 pixels a side"
        )
    plan = np.random.default_rng([seed, 1])
    canvas = Canvas(width_m, height_m, gsd_m, plan, Season.of(seed, season))
    roads = _districts(canvas, STYLES[style][0])
    _river(canvas)
    _roads(canvas, roads)
    land = np.asarray(canvas.image.reduce(canvas.oversample), np.float32)
    land = _furrows(canvas, land)
    land = _relief(canvas, land)
    land = _lakes(canvas, land, STYLES[style][1], style == "coast")
    return np.clip(land, 0, 255).astype(np.uint8)


def write_area(
    path: Path,
    seed: int,
    *,
    width_m: float = 3000.0,
    height_m: float = 2400.0,
    gsd_m: float = 2.0,
    style: str = "mixed",
    season: int = 0,
    center: LonLat = LonLat(127.03, 37.49),  # noqa: B008 (a constant tuple)
) -> Path:
    """Write `render_area` as a tiled GeoTIFF in the UTM zone of `center`, with overviews; returns `path`."""
    from coarseloc.imagery import geotiff  # here: areas are painted where there is no rasterio, on a lent GPU's machine

    pixels = render_area(seed, width_m, height_m, gsd_m, style, season)
    return geotiff.write_rgb(path, pixels, center=center, gsd_m=gsd_m)


def _districts(canvas: Canvas, shares: dict[str, float]) -> list[tuple[Polygon, float]]:
    """Cut the area into districts and paint each; returns (outline, road width)."""
    rng = canvas.plan
    margin = 300.0
    w, h = canvas.width_m + margin, canvas.height_m + margin
    frame: Polygon = [(-margin, -margin), (w, -margin), (w, h), (-margin, h)]
    angle = rng.uniform(-math.pi / 4, math.pi / 4)
    kinds, weights = list(shares), np.array(list(shares.values()))
    outlines: list[tuple[Polygon, float]] = []
    size = rng.uniform(450, 750)
    for district in subdivide(frame, rng, size, size, angle, 0.22):
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        grain = angle + rng.normal(0, 0.25) if rng.random() < 0.6 else rng.uniform(0, math.pi)
        paint(canvas, district, kind, grain)
        busy = kind in ("city", "suburb", "industry", "park")
        outlines.append((district, rng.uniform(11, 22) if busy else rng.choice([0.0, 5.0, 8.0, 12.0])))
    return outlines


def _roads(canvas: Canvas, outlines: list[tuple[Polygon, float]]) -> None:
    """Main roads along the districts, one highway and sometimes a railway right across."""
    rng = canvas.plan
    for outline, width in outlines:
        if width > 0:
            canvas.outline(outline, width, vary(ASPHALT, rng, 12))
            if width > 14:
                canvas.outline(outline, 1.5, (196, 194, 180))
    for width, colour, middle in ((26.0, (128, 126, 124), (92, 112, 70)), (9.0, (126, 114, 104), (84, 80, 80))):
        if rng.random() < 0.6:
            path = _winding(canvas, rng, 0.10)
            canvas.line(path, width, colour)
            canvas.line(path, width / 6, middle)


def _river(canvas: Canvas) -> None:
    """A river with banks through some areas."""
    rng = canvas.plan
    if rng.random() < 0.55:
        path = _winding(canvas, rng, 0.32)
        width = float(rng.lognormal(math.log(24), 0.6))
        canvas.line(path, width * 1.5 + 6, vary((126, 128, 92), rng, 10))
        canvas.line(path, width, canvas.season.water())


def _winding(canvas: Canvas, rng: Generator, bend: float) -> Polygon:
    """A smooth line that crosses the whole area, from any side to the opposite."""
    w, h = canvas.width_m, canvas.height_m
    heading = rng.uniform(0, math.pi)
    length = 1.3 * math.hypot(w, h)
    at = (w * rng.uniform(0.25, 0.75), h * rng.uniform(0.25, 0.75))
    phases = rng.uniform(0, 2 * math.pi, 4)
    c, s = math.cos(heading), math.sin(heading)
    path: Polygon = []
    for t in np.linspace(-0.5, 0.5, 160):
        side = sum(math.sin(2 * math.pi * 1.3 * (k + 1) * t + float(p)) / (k + 1) for k, p in enumerate(phases))
        u, v = float(t) * length, bend * side * 420.0
        path.append((at[0] + u * c - v * s, at[1] + u * s + v * c))
    return path


def _furrows(canvas: Canvas, land: Float) -> Float:
    """Rows and mottled soil in every field at once."""
    ids = np.asarray(canvas.field_ids)
    table = np.array([(f.angle, f.period_m, f.strength) for f in canvas.fields], np.float32)
    y, x = np.mgrid[: ids.shape[0], : ids.shape[1]].astype(np.float32) * np.float32(canvas.gsd_m)
    angle, period, strength = (table[:, column][ids] for column in range(3))
    rows = np.sin((y * np.cos(angle) - x * np.sin(angle)) * (2 * math.pi / period)) * strength
    soil = _fbm(canvas.plan, ids.shape, canvas.gsd_m, 130, 4, 0.65)
    in_field = strength > 0
    pale = np.clip((soil - 1.0) * 1.2, 0, 0.7) * in_field
    drawn: Float = land + rows[..., None] + (soil * 7 * in_field)[..., None]
    bare = np.array([186, 172, 146], np.float32)
    mixed: Float = drawn + (bare - drawn) * pale[..., None]
    return mixed


def _relief(canvas: Canvas, land: Float) -> Float:
    """Hill shade, slow changes of hue, fine grain."""
    shape = land.shape[:2]
    rng = canvas.plan
    height = _fbm(rng, shape, canvas.gsd_m, 900, 4)
    slope = np.gradient(height, axis=1) - np.gradient(height, axis=0)
    light = 1 + np.clip(slope * (22.0 / canvas.gsd_m), -0.16, 0.16)
    light += 0.05 * _fbm(rng, shape, canvas.gsd_m, 60, 4)
    hue = _fbm(rng, shape, canvas.gsd_m, 700, 3)[..., None] * np.array([5, 1, -4], np.float32)
    grain = canvas.season.rng.standard_normal(shape).astype(np.float32)[..., None] * np.float32(2.5)
    lit: Float = (land + hue) * light[..., None].astype(np.float32) + grain
    return lit


def _lakes(canvas: Canvas, land: Float, share: float, coast: bool) -> Float:
    """Lakes where the ground lies low, the sea where the style is coast; a rim of reeds, sand or mud."""
    rng, season = canvas.plan, canvas.season.rng
    shape = land.shape[:2]
    ground = _fbm(rng, shape, canvas.gsd_m, rng.uniform(250, 900), 5, 0.45)
    share = share * float(rng.uniform(0.2, 1.8))
    level = float(np.quantile(ground, share)) + float(season.normal(0, 0.025))
    if coast:
        heading = rng.uniform(0, 2 * math.pi)
        y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
        ramp = (x / shape[1] - 0.5) * math.cos(heading) + (y / shape[0] - 0.5) * math.sin(heading)
        ground = ground + (8 * ramp + rng.uniform(0.9, 2.2)).astype(np.float32)
        level = 0.0
    depth = level - ground
    water = np.clip(depth / 0.02 + 0.5, 0, 1)[..., None]
    rim = np.clip(1 - np.abs(depth + 0.05) / 0.07, 0, 1)[..., None] * np.float32(0.85)
    # Lakes far apart take different colours: a very slow field mixes two of the season's waters.
    pick = np.clip(_fbm(rng, shape, canvas.gsd_m, 2500, 2) * 0.6 + float(season.uniform(0, 1)), 0, 1)[..., None]
    first_water, second_water = (np.array(canvas.season.water(), np.float32) for _ in range(2))
    shallow = np.clip(1.25 - depth / 0.8, 0.9, 1.25)[..., None]
    colour = (first_water * pick + second_water * (1 - pick)) * shallow.astype(np.float32)
    colour += canvas.season.rng.standard_normal(shape).astype(np.float32)[..., None] * np.float32(1.5)
    bank = np.array(vary((178, 166, 138) if rng.random() < 0.6 else (98, 106, 66), rng, 12), np.float32)
    banked = land + (bank - land) * rim
    flooded: Float = (banked + (colour - banked) * water).astype(np.float32)
    return flooded


# --- smooth random fields: lengths in metres, so that a finer raster shows the same land -------------


def _value_noise(rng: Generator, shape: tuple[int, int], gsd_m: float, wavelength_m: float) -> Float:
    """Bicubic noise float32 [H, W], zero mean and unit variance, with features of about `wavelength_m`."""
    height, width = shape
    cells = [math.ceil(side * gsd_m / wavelength_m) + 4 for side in (width, height)]
    grid = Image.fromarray(rng.standard_normal((cells[1], cells[0])).astype(np.float32))
    # One cell of margin on each side keeps the resampling filter away from the grid's border.
    box = (1.0, 1.0, 1.0 + width * gsd_m / wavelength_m, 1.0 + height * gsd_m / wavelength_m)
    field: Float = np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC, box=box), np.float32)
    return field / np.float32(0.7)  # bicubic interpolation keeps about half of the variance


def _fbm(
    rng: Generator, shape: tuple[int, int], gsd_m: float, wavelength_m: float, octaves: int, gain: float = 0.5
) -> Float:
    """Fractal sum of `octaves` noises, each of half the wavelength and `gain` times the height of the one
    before; float32 [H, W], about zero mean and unit variance. Octaves finer than two pixels add nothing
    but are drawn, so that one seed gives one land at every `gsd_m`."""
    total = np.zeros(shape, np.float32)
    power = 0.0
    for octave in range(octaves):
        amplitude = gain**octave
        field = _value_noise(rng, shape, gsd_m, wavelength_m / 2**octave)
        total += np.float32(amplitude) * field
        power += amplitude**2
    return total / np.float32(math.sqrt(power))
