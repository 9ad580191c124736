"""What is refused before a store sees it: the engines take NaN, and apply half of a bad batch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.errors import VectorStoreError
from coarseloc.core.types import Float32, Point, TileFacts

NORM_TOLERANCE = 1e-3
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*(\.[a-z0-9-]+)*")


def is_name(text: str) -> bool:
    """Test whether a text can be a collection's name."""
    return _NAME.fullmatch(text) is not None


def check_name(collection: str) -> str:
    """Return a valid collection name, else raise VectorStoreError: it becomes a folder and part of URLs."""
    if not is_name(collection):
        raise VectorStoreError(
            f"collection name {collection!r} has other characters than a-z, 0-9, dots and dashes: "
            "take it from EmbeddingSpec.collection"
        )
    return collection


def check_batch(points: Sequence[Point], dim: int, collection: str) -> Float32:
    """Return the batch's vectors as float32 [N, dim] if every point is valid.

    Raises VectorStoreError naming the first that is not: an id that is no UUID or comes twice, a vector of
    another length, not finite or not of unit norm, a position off the globe.
    """
    ids: set[str] = set()
    for point in points:
        _check_id(point.id, ids, collection)
        _check_facts(point.facts)
        if np.shape(point.vector) != (dim,):
            raise VectorStoreError(
                f"{_point_name(point)} has a vector of shape {list(np.shape(point.vector))}, {collection} holds "
                f"[{dim}]: it was embedded with another backbone or spec"
            )
    vectors = np.array([point.vector for point in points], np.float32).reshape(-1, dim)
    unfit = _invalid_rows(vectors)
    if unfit.any():
        first = int(unfit.argmax())
        raise VectorStoreError(f"{_point_name(points[first])} has {_defect(vectors[first])}: embed it again")
    return vectors


def check_query(vector: Float32, k: int, dim: int, collection: str) -> Float32:
    """Return the query as float32 [dim] if it and k are valid, else raise VectorStoreError."""
    if k < 1:
        raise VectorStoreError(f"k is {k}: ask for at least 1 result")
    if np.shape(vector) != (dim,):
        raise VectorStoreError(
            f"the query has shape {list(np.shape(vector))}, {collection} holds [{dim}]: "
            "embed it with the backbone and settings of the collection"
        )
    query = np.ascontiguousarray(vector, np.float32)
    if _invalid_rows(query[None])[0]:
        raise VectorStoreError(f"the query has {_defect(query)}")
    return query


def _check_id(point_id: str, ids: set[str], collection: str) -> None:
    try:
        canonical = str(UUID(point_id))
    except (ValueError, AttributeError, TypeError):
        raise VectorStoreError(f"point id {point_id!r} is not a UUID: use coarseloc.core.ids.point_id") from None
    if canonical in ids:
        raise VectorStoreError(f"point {canonical} comes twice in one batch for {collection}: send each once")
    ids.add(canonical)


def _check_facts(facts: TileFacts) -> None:
    lon, lat = facts.center
    west, south, east, north = facts.bbox
    # `not <=` so that NaN is refused too
    off = not all(-180 <= degrees <= 180 for degrees in (lon, west, east))
    off |= not all(-90 <= degrees <= 90 for degrees in (lat, south, north)) or not south <= north
    if off:
        raise VectorStoreError(
            f"{facts.tile_id} at {facts.angle_deg:03d} has centre {tuple(facts.center)} and bounds "
            f"{tuple(facts.bbox)}: expected WGS84 degrees, west,south,east,north"
        )
    if facts.altitude_m is not None and not math.isfinite(facts.altitude_m):
        raise VectorStoreError(f"{facts.tile_id} has altitude {facts.altitude_m}: give metres, or None for unknown")


def _invalid_rows(vectors: Float32) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(np.linalg.norm(vectors, axis=1) - 1.0)
    fit: NDArray[np.bool_] = off <= NORM_TOLERANCE  # NaN and infinity compare false
    return ~fit


def _defect(vector: Float32) -> str:
    if not np.isfinite(vector).all():
        return f"{np.count_nonzero(~np.isfinite(vector))} values that are not finite"
    return f"norm {np.linalg.norm(vector):.4g}, expected 1 within {NORM_TOLERANCE}"


def _point_name(point: Point) -> str:
    return f"{point.facts.tile_id} at {point.facts.angle_deg:03d}"


def short_identity(database: str) -> str:
    """Shorten a database's identity to the prefix of its collections: long enough that no two share it."""
    return database[:12]
