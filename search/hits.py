"""From what a store answers to Hits: the tile's facts joined with its picture."""

from __future__ import annotations

from pathlib import Path

from coarseloc.imagery.decode import thumbnail_path
from coarseloc.store.runs import StoredHit
from coarseloc.types import Hit, TileFacts


def as_hit(rank: int, score: float, tile: TileFacts, path: str | None, content_digest: str, thumbnails: Path) -> Hit:
    """`path` is the capture's file; None for a tile cut from an orthophoto, whose thumbnail stands in for it."""
    if path is not None:
        return Hit(rank, score, tile, path, Path(path).name)
    name, _, index = tile.tile_id.rpartition("/")
    thumbnail = thumbnail_path(thumbnails, content_digest)
    return Hit(rank, score, tile, str(thumbnail), f"{name}_{index}_{tile.angle_deg:03d}.jpg")


def recorded_hit(hit: StoredHit, thumbnails: Path) -> Hit:
    return as_hit(hit.rank, hit.score, hit.tile, hit.path, hit.content_digest, thumbnails)
