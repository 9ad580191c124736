"""How each kind of district looks from the air. One painter per kind; geometry from `plan`, colours from `season`."""

from __future__ import annotations

import math
from collections.abc import Callable

from coarseloc.simulate.canvas import Canvas, Colour, Field, shade, vary
from coarseloc.simulate.polygons import Point, Polygon, centroid, extent, inset, rectangle, subdivide

ASPHALT: Colour = (112, 112, 112)
PAVEMENT: Colour = (150, 148, 142)
TRACK: Colour = (176, 162, 132)
_HOUSE_ROOFS: tuple[Colour, ...] = (
    (150, 92, 72),
    (124, 84, 72),
    (104, 100, 98),
    (134, 130, 124),
    (92, 96, 108),
    (168, 150, 128),
)
_TOWN_ROOFS: tuple[Colour, ...] = (
    (168, 166, 160),
    (132, 132, 130),
    (194, 190, 182),
    (110, 120, 112),
    (146, 120, 104),
    (92, 96, 102),
)
_HALL_ROOFS: tuple[Colour, ...] = (
    (206, 208, 208),
    (170, 178, 186),
    (92, 124, 164),
    (148, 152, 150),
    (188, 180, 164),
    (120, 148, 140),
)


def paint(canvas: Canvas, district: Polygon, kind: str, angle: float) -> None:
    """Fill a district with a kind of land use, its streets and furrows along `angle`."""
    PAINTERS[kind](canvas, district, angle)


def farm(canvas: Canvas, district: Polygon, angle: float) -> None:
    """Fields with furrows, headlands, hedges, tracks, ponds and a farmstead now and then."""
    rng = canvas.plan
    along, across = rng.uniform(140, 420), rng.uniform(90, 300)
    pieces = list(subdivide(district, rng, along, across, angle, 0.03))
    for piece in pieces:
        direction = angle + (math.pi / 2 if rng.random() < 0.4 else 0.0) + rng.normal(0, 0.02)
        furrows = Field(direction, rng.uniform(5, 16), rng.uniform(2, 9))
        ground = canvas.season.crop()
        canvas.field(piece, ground, furrows)
        if rng.random() < 0.12:
            _pivot(canvas, piece, direction)
        elif rng.random() < 0.25:  # strips: one owner's field under several crops
            for strip in subdivide(piece, rng, 1e6, rng.uniform(35, 80), direction):
                canvas.field(strip, canvas.season.crop(), furrows)
        canvas.outline(piece, rng.uniform(2, 5), shade(ground, 0.8))
        if rng.random() < 0.35:
            _hedge(canvas, piece)
        if rng.random() < 0.18:
            _pond(canvas, _random_point(canvas, piece), rng.uniform(8, 45))
        if rng.random() < 0.12:
            _farmstead(canvas, _random_point(canvas, piece), angle)
        if rng.random() < 0.10:
            _grove(canvas, _random_point(canvas, piece), rng.uniform(25, 70))
    for piece in pieces[::3]:
        canvas.outline(piece, 3.5, vary(TRACK, rng, 6))


def suburb(canvas: Canvas, district: Polygon, angle: float) -> None:
    """Streets of houses in gardens; one block in ten is a green or a school."""
    rng = canvas.plan
    canvas.area(district, canvas.season.grass)
    lot = rng.uniform(17, 28)
    for street in subdivide(district, rng, rng.uniform(120, 240), 2 * lot + 14, angle, 0.05):
        block = inset(street, 4.5)
        canvas.area(street, ASPHALT)
        canvas.area(block, vary(canvas.season.grass, rng, 6))
        if rng.random() < 0.08:
            _sports_ground(canvas, block, angle)
            continue
        for plot in subdivide(block, rng, lot, lot * 1.25, angle):
            if rng.random() < 0.9:
                _house(canvas, plot, angle)
            for _ in range(int(rng.integers(0, 4))):
                canvas.tree(_random_point(canvas, plot), rng.uniform(1.8, 4.2))


def city(canvas: Canvas, district: Polygon, angle: float) -> None:
    """Dense blocks: large roofs and long shadows, courtyards, squares, car parks."""
    rng = canvas.plan
    canvas.area(district, ASPHALT)
    tall = rng.uniform(10, 40)
    for street in subdivide(district, rng, rng.uniform(80, 150), rng.uniform(60, 110), angle, 0.03):
        block = inset(street, rng.uniform(5, 9))
        canvas.area(block, vary(PAVEMENT, rng, 8))
        dice = rng.random()
        if dice < 0.08:
            park(canvas, block, angle)
        elif dice < 0.16:
            _car_park(canvas, block, angle)
        else:
            for plot in subdivide(block, rng, rng.uniform(22, 55), rng.uniform(22, 45), angle):
                roof = vary(_TOWN_ROOFS[int(rng.integers(len(_TOWN_ROOFS)))], rng, 10)
                height = float(rng.lognormal(math.log(tall), 0.5))
                if rng.random() < 0.92:
                    _building(canvas, inset(plot, rng.uniform(1, 5)), min(height, 90.0), roof)
        for corner in block:
            canvas.tree(corner, rng.uniform(2, 4))


def industry(canvas: Canvas, district: Polygon, angle: float) -> None:
    """Halls with ribbed roofs, yards, lorries, tanks."""
    rng = canvas.plan
    canvas.area(district, ASPHALT)
    for street in subdivide(district, rng, rng.uniform(150, 260), rng.uniform(110, 200), angle, 0.02):
        yard = inset(street, 8)
        canvas.area(yard, vary((142, 140, 134), rng, 12))
        for plot in subdivide(yard, rng, rng.uniform(70, 130), rng.uniform(40, 90), angle):
            dice = rng.random()
            if dice < 0.7:
                roof = vary(_HALL_ROOFS[int(rng.integers(len(_HALL_ROOFS)))], rng, 8)
                hall = inset(plot, rng.uniform(6, 14))
                _building(canvas, hall, rng.uniform(7, 14), roof)
            elif dice < 0.85:
                _car_park(canvas, inset(plot, 5), angle)
            elif dice < 0.93:
                for _ in range(6):
                    canvas.disc(_random_point(canvas, plot), rng.uniform(6, 12), vary((206, 206, 200), rng, 8))
            else:
                canvas.area(plot, canvas.season.grass)


def forest(canvas: Canvas, district: Polygon, angle: float) -> None:
    """Closed canopy, with rides, clearings and a winding track."""
    rng = canvas.plan
    canvas.area(district, shade(canvas.season.leaves, 0.62))
    canvas.clear_furrows(district)
    spacing = rng.uniform(8, 11)
    for stand in subdivide(district, rng, rng.uniform(150, 400), rng.uniform(120, 350), angle, 0.25):
        if rng.random() < 0.12:
            canvas.area(inset(stand, 12), vary(canvas.season.grass, rng, 8))
        else:
            _canopy(canvas, stand, spacing * rng.uniform(0.9, 1.3), rng.uniform(0.72, 1.0))
        if rng.random() < 0.5:
            canvas.outline(stand, rng.uniform(3, 7), vary(TRACK, rng, 10))


def meadow(canvas: Canvas, district: Polygon, angle: float) -> None:
    """Rough pasture with scattered trees, scrub and ponds."""
    rng = canvas.plan
    for piece in subdivide(district, rng, rng.uniform(250, 500), rng.uniform(250, 500), angle, 0.2):
        canvas.area(piece, vary(canvas.season.grass, canvas.season.rng, 10))
        canvas.outline(piece, 2.5, shade(canvas.season.grass, 0.8))
        for _ in range(int(rng.integers(5, 60))):
            canvas.tree(_random_point(canvas, piece), rng.uniform(2, 6))
        for _ in range(int(rng.integers(0, 3))):
            _grove(canvas, _random_point(canvas, piece), rng.uniform(15, 60))
        if rng.random() < 0.5:
            _pond(canvas, _random_point(canvas, piece), rng.uniform(10, 60))


def park(canvas: Canvas, district: Polygon, angle: float) -> None:
    """Lawns, paths, trees, a pond, a playing field."""
    rng = canvas.plan
    canvas.area(district, vary(canvas.season.grass, rng, 5))
    lo_u, hi_u, lo_v, hi_v = extent(district, angle)
    size = min(hi_u - lo_u, hi_v - lo_v)
    if size > 160:
        _sports_ground(canvas, rectangle(_random_point(canvas, district), 120, 80, angle), angle)
        _pond(canvas, _random_point(canvas, district), rng.uniform(0.06, 0.14) * size)
    for _ in range(3):
        canvas.line(
            [_random_point(canvas, district), centroid(district), _random_point(canvas, district)], 3, (190, 180, 156)
        )
    for _ in range(int(size / 2.5)):
        canvas.tree(_random_point(canvas, district), rng.uniform(2.5, 5.5))


PAINTERS: dict[str, Callable[[Canvas, Polygon, float], None]] = {
    "farm": farm,
    "suburb": suburb,
    "city": city,
    "industry": industry,
    "forest": forest,
    "meadow": meadow,
    "park": park,
}


def _random_point(canvas: Canvas, polygon: Polygon) -> Point:
    """A random point of a convex polygon: a random mean of its corners, kept off the very edge."""
    weights = canvas.plan.exponential(1.0, len(polygon))
    weights /= weights.sum()
    cx, cy = centroid(polygon)
    x = sum(float(w) * p[0] for w, p in zip(weights, polygon, strict=True))
    y = sum(float(w) * p[1] for w, p in zip(weights, polygon, strict=True))
    return cx + 1.2 * (x - cx), cy + 1.2 * (y - cy)


def _house(canvas: Canvas, plot: Polygon, angle: float) -> None:
    """A hipped roof, its northern half darker, and a drive."""
    rng = canvas.plan
    cx, cy = centroid(plot)
    at = (cx + rng.normal(0, 1.5), cy + rng.normal(0, 1.5))
    along, across = rng.uniform(9, 15), rng.uniform(7, 11)
    roof = vary(_HOUSE_ROOFS[int(rng.integers(len(_HOUSE_ROOFS)))], rng, 10)
    turned = angle + (math.pi / 2 if rng.random() < 0.5 else 0.0)
    canvas.block(rectangle(at, along, across, turned), rng.uniform(4, 7), roof)
    ridge = (at[0] - math.sin(turned) * across / 4, at[1] + math.cos(turned) * across / 4)
    canvas.area(rectangle(ridge, along, across / 2, turned), shade(roof, 0.78))
    if rng.random() < 0.5:
        canvas.line([at, plot[int(rng.integers(len(plot)))]], 2.5, PAVEMENT)
        canvas.area(rectangle(at, along * 0.8, across * 0.5, turned), shade(roof, 0.95))


def _building(canvas: Canvas, footprint: Polygon, height_m: float, roof: Colour) -> None:
    """A flat roof with a parapet and something on it."""
    if len(footprint) < 3:
        return
    canvas.block(footprint, height_m, shade(roof, 0.85))
    top = inset(footprint, 1.2)
    canvas.area(top, roof)
    if top and canvas.plan.random() < 0.6:
        canvas.area(rectangle(_random_point(canvas, top), 6, 4, 0.0), shade(roof, canvas.plan.uniform(0.6, 1.25)))


def _car_park(canvas: Canvas, polygon: Polygon, angle: float) -> None:
    rng = canvas.plan
    canvas.area(polygon, vary((124, 124, 124), rng, 6))
    for row in subdivide(polygon, rng, 1e6, 13, angle):
        lo, hi, low, high = extent(row, angle)
        c, s = math.cos(angle), math.sin(angle)
        v = (low + high) / 2
        for step in range(int((hi - lo - 8) / 3)):
            if rng.random() < 0.55:
                u = lo + 4 + 3 * step
                car = vary((170, 172, 176) if rng.random() < 0.6 else (70, 66, 70), rng, 30)
                canvas.area(rectangle((u * c - v * s, u * s + v * c), 1.9, 4.4, angle), car)


def _sports_ground(canvas: Canvas, block: Polygon, angle: float) -> None:
    """A pitch in its running track, or two courts."""
    rng = canvas.plan
    cx, cy = centroid(block)
    lo_u, hi_u, lo_v, hi_v = extent(block, angle)
    side = min((hi_u - lo_u) / 1.7, hi_v - lo_v, 75.0)
    track = (168, 96, 76) if rng.random() < 0.7 else (150, 140, 110)
    canvas.area(rectangle((cx, cy), side * 1.5, side, angle), track)
    canvas.area(rectangle((cx, cy), side * 1.35, side * 0.8, angle), (88, 134, 74))
    canvas.outline(rectangle((cx, cy), side * 1.25, side * 0.7, angle), 1.0, (222, 226, 218))


def _pivot(canvas: Canvas, piece: Polygon, direction: float) -> None:
    """A circular, irrigated field."""
    lo_u, hi_u, lo_v, hi_v = extent(piece, direction)
    canvas.disc(centroid(piece), 0.46 * min(hi_u - lo_u, hi_v - lo_v), canvas.season.crop())


def _hedge(canvas: Canvas, piece: Polygon) -> None:
    rng = canvas.plan
    start = int(rng.integers(len(piece)))
    (x0, y0), (x1, y1) = piece[start], piece[(start + 1) % len(piece)]
    count = int(math.hypot(x1 - x0, y1 - y0) / rng.uniform(6, 14))
    for step in range(count):
        t = step / max(count, 1)
        canvas.tree((x0 + t * (x1 - x0) + rng.normal(0, 1), y0 + t * (y1 - y0) + rng.normal(0, 1)), rng.uniform(2, 4.5))


def _rounded_outline(canvas: Canvas, at: Point, radius_m: float) -> Polygon:
    """A rounded, uneven outline."""
    rng = canvas.plan
    phases, sizes = rng.uniform(0, 2 * math.pi, 4), rng.uniform(0.05, 0.28, 4)
    outline: Polygon = []
    for step in range(28):
        t = 2 * math.pi * step / 28
        r = radius_m * (
            1
            + sum(
                float(a) * math.sin((k + 1) * t + float(p)) for k, (a, p) in enumerate(zip(sizes, phases, strict=True))
            )
        )
        outline.append((at[0] + r * math.cos(t), at[1] + r * math.sin(t)))
    return outline


def _pond(canvas: Canvas, at: Point, radius_m: float) -> None:
    shore = vary((172, 162, 138), canvas.plan, 14)
    outline = _rounded_outline(canvas, at, radius_m)
    canvas.clear_furrows(outline)
    canvas.area(outline, shore if canvas.plan.random() < 0.6 else shade(canvas.season.leaves, 1.1))
    cx, cy = at
    canvas.area([(cx + 0.85 * (x - cx), cy + 0.85 * (y - cy)) for x, y in outline], canvas.season.water())


def _grove(canvas: Canvas, at: Point, radius_m: float) -> None:
    outline = _rounded_outline(canvas, at, radius_m)
    canvas.clear_furrows(outline)
    canvas.area(outline, shade(canvas.season.leaves, 0.65))
    rng = canvas.plan
    for _ in range(int(radius_m**2 * 0.035)):
        r, t = radius_m * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
        canvas.tree((at[0] + r * math.cos(t), at[1] + r * math.sin(t)), rng.uniform(2.5, 5))


def _farmstead(canvas: Canvas, at: Point, angle: float) -> None:
    rng = canvas.plan
    canvas.area(rectangle(at, 70, 55, angle), vary((158, 148, 124), rng, 10))
    for _ in range(4):
        spot = (at[0] + rng.normal(0, 18), at[1] + rng.normal(0, 14))
        roof = vary(_HALL_ROOFS[int(rng.integers(len(_HALL_ROOFS)))], rng, 12)
        canvas.block(rectangle(spot, rng.uniform(14, 34), rng.uniform(9, 15), angle), 6, roof)
    for _ in range(14):
        canvas.tree((at[0] + rng.normal(0, 36), at[1] + rng.normal(0, 30)), rng.uniform(3, 5))


def _canopy(canvas: Canvas, stand: Polygon, spacing: float, cover: float) -> None:
    """Crowns on a shaken grid."""
    rng = canvas.plan
    lo_x, hi_x, lo_y, hi_y = extent(stand, 0.0)
    columns, rows = int((hi_x - lo_x) / spacing) + 1, int((hi_y - lo_y) / spacing) + 1
    tone = rng.uniform(0.8, 1.15)
    edges = [(a, b) for a, b in zip(stand, stand[1:] + stand[:1], strict=True)]
    jitter, keep, size = (
        rng.uniform(-0.5, 0.5, (rows, columns, 2)),
        rng.random((rows, columns)),
        rng.uniform(0.4, 0.68, (rows, columns)),
    )
    dx, dy = canvas.season.sun
    lights = canvas.season.rng.normal(1.0, 0.13, (rows, columns))
    turn = 1.0 if sum(ax * by - bx * ay for (ax, ay), (bx, by) in edges) > 0 else -1.0
    for row in range(rows):
        for column in range(columns):
            x = lo_x + (column + 0.5 + float(jitter[row, column, 0])) * spacing
            y = lo_y + (row + 0.5 + float(jitter[row, column, 1])) * spacing
            if keep[row, column] > cover or any(
                turn * ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) < 0 for (ax, ay), (bx, by) in edges
            ):
                continue
            radius = spacing * float(size[row, column])
            colour = shade(canvas.season.leaves, tone * float(lights[row, column]))
            canvas.disc((x + dx * radius * 0.5, y + dy * radius * 0.5), radius, shade(colour, 0.55))
            canvas.disc((x, y), radius * 0.9, colour)
