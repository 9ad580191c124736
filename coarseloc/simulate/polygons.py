"""Convex polygons as lists of (x, y) in metres: the plan of districts, blocks, fields and lots. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from numpy.random import Generator

Point = tuple[float, float]
Polygon = list[Point]


def cut(polygon: Polygon, at: Point, angle: float) -> tuple[Polygon, Polygon]:
    """Cut a convex polygon: returns the parts left and right of the line through `at` at `angle` (radians)."""
    nx, ny = -math.sin(angle), math.cos(angle)
    left: Polygon = []
    right: Polygon = []
    px, py = polygon[-1]
    ps = (px - at[0]) * nx + (py - at[1]) * ny
    for x, y in polygon:
        s = (x - at[0]) * nx + (y - at[1]) * ny
        if (ps > 0 > s) or (ps < 0 < s):
            t = ps / (ps - s)
            crossing = (px + t * (x - px), py + t * (y - py))
            left.append(crossing)
            right.append(crossing)
        if s >= 0:
            left.append((x, y))
        if s <= 0:
            right.append((x, y))
        px, py, ps = x, y, s
    return left, right


def inset(polygon: Polygon, by: float) -> Polygon:
    """Return the polygon with every edge moved `by` metres inwards; empty where nothing is left."""
    cx, cy = centroid(polygon)
    inner = polygon
    for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        length = math.hypot(x1 - x0, y1 - y0)
        if length < 1e-9 or len(inner) < 3:
            continue
        nx, ny = -(y1 - y0) / length, (x1 - x0) / length
        inward = 1.0 if (cx - x0) * nx + (cy - y0) * ny >= 0 else -1.0
        angle = math.atan2(y1 - y0, x1 - x0)
        parts = cut(inner, (x0 + inward * by * nx, y0 + inward * by * ny), angle)
        inner = parts[0] if inward > 0 else parts[1]
    return inner if len(inner) >= 3 else []


def extent(polygon: Polygon, angle: float) -> tuple[float, float, float, float]:
    """(min, max) along `angle` and (min, max) across it: the polygon's bounds in turned axes."""
    c, s = math.cos(angle), math.sin(angle)
    along = [x * c + y * s for x, y in polygon]
    across = [-x * s + y * c for x, y in polygon]
    return min(along), max(along), min(across), max(across)


def centroid(polygon: Polygon) -> Point:
    """Return the mean of the corners, a point inside a convex polygon."""
    return sum(x for x, _ in polygon) / len(polygon), sum(y for _, y in polygon) / len(polygon)


def rectangle(center: Point, along: float, across: float, angle: float) -> Polygon:
    """Return a rectangle of `along` x `across` metres, turned by `angle`."""
    c, s = math.cos(angle) / 2, math.sin(angle) / 2
    ax, ay, bx, by = along * c, along * s, -across * s, across * c
    x, y = center
    return [
        (x - ax - bx, y - ay - by),
        (x + ax - bx, y + ay - by),
        (x + ax + bx, y + ay + by),
        (x - ax + bx, y - ay + by),
    ]


def subdivide(
    polygon: Polygon, rng: Generator, along: float, across: float, angle: float, jitter: float = 0.0
) -> Iterator[Polygon]:
    """Cut a convex polygon again and again, across its longer relative side, until each piece is about
    `along` x `across` metres in the axes turned by `angle`; `jitter` (radians) turns each cut a little."""
    lo_u, hi_u, lo_v, hi_v = extent(polygon, angle)
    u, v = (hi_u - lo_u) / along, (hi_v - lo_v) / across
    if max(u, v) <= 1.35 or len(polygon) < 3:
        yield polygon
        return
    share = float(rng.uniform(0.4, 0.6)) if max(u, v) > 2 else 0.5
    middle_u, middle_v = (lo_u + hi_u) / 2, (lo_v + hi_v) / 2
    direction = angle + float(rng.normal(0.0, 1.0)) * jitter
    if u > v:
        middle_u = lo_u + share * (hi_u - lo_u)
        direction += math.pi / 2
    else:
        middle_v = lo_v + share * (hi_v - lo_v)
    c, s = math.cos(angle), math.sin(angle)
    at = (middle_u * c - middle_v * s, middle_u * s + middle_v * c)
    for part in cut(polygon, at, direction):
        if len(part) >= 3:
            yield from subdivide(part, rng, along, across, angle, jitter)
