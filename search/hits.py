"""From a ranked tile to a Hit: the tile's facts joined with its picture."""

from __future__ import annotations

from pathlib import Path

from coarseloc.core.types import Hit, RankedTile
from coarseloc.imagery.decode import thumbnail_path


def picture_hit(ranked: RankedTile, thumbnails: Path) -> Hit:
    """The hit with its picture: the capture's file, or the thumbnail that stands in for a cut tile's."""
    tile = ranked.tile
    if ranked.path is not None:
        return Hit(ranked.rank, ranked.score, tile, ranked.path, Path(ranked.path).name)
    name, _, index = tile.tile_id.rpartition("/")
    thumbnail = thumbnail_path(thumbnails, ranked.content_digest)
    return Hit(ranked.rank, ranked.score, tile, str(thumbnail), f"{name}_{index}_{tile.angle_deg:03d}.jpg")
