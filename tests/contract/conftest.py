"""Points for the vector stores: a small area of rotated tiles with vectors that are nobody's embedding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from coarseloc.core import geo, ids
from coarseloc.core.types import Float32, LonLat, Point, TileFacts

DIM = 16


def unit_vectors(count: int, seed: int = 0) -> Float32:
    """float32 [count, DIM], unit norm."""
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def points(count: int, reference_set: str = "area", seed: int = 0) -> list[Point]:
    """`count` rotated tiles, eight headings a tile, tiles 200 m apart on a line to the east."""
    return [_point(reference_set, i, vector) for i, vector in enumerate(unit_vectors(count, seed))]


def _point(reference_set: str, i: int, vector: Float32) -> Point:
    index, angle = i // 8 + 1, i % 8 * 45
    center = geo.offset(LonLat(127.0, 37.5), 200.0 * index, 0.0)
    facts = TileFacts(
        point_id=str(ids.point_id(reference_set, index, angle)),
        reference_set=reference_set,
        tile_id=ids.tile_id(reference_set, index),
        place_id=ids.place_id(*center),
        angle_deg=angle,
        altitude_m=300.0,
        overlap=0.5,
        center=center,
        bbox=geo.square(center, 400.0),
    )
    return Point(facts, vector)


@pytest.fixture(scope="session")
def make_points() -> Callable[..., list[Point]]:
    """`points(count, reference_set="area", seed=0)`."""
    return points


@pytest.fixture(scope="session")
def make_vectors() -> Callable[..., Float32]:
    """`unit_vectors(count, seed=0)`."""
    return unit_vectors
