"""What is missing: computed from the database and cheap signs, before a picture is read or a model loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coarseloc.core import geo, ids
from coarseloc.core.types import EmbeddingSpec, Tile, TileSource, View
from coarseloc.imagery.decode import thumbnail_digests
from coarseloc.store import Session, embeddings, finished_ingests, references, seals
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet, StoredRotatedTile

MOVED_M = 1.0  # of a tile's centre: less is a label written anew
_log = logging.getLogger("coarseloc")


@dataclass(frozen=True, slots=True)
class Work:
    """One tile to read, at the angles of which something is missing."""

    tile: Tile
    angles: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The work of one ingest, and what is needed to tell which embeddings a view still lacks."""

    reference_set: StoredReferenceSet
    specs: tuple[StoredSpec, ...]
    tile_keys: Mapping[int, int]
    rotated_tiles: Mapping[tuple[int, int], StoredRotatedTile]
    embedded: Mapping[int, Mapping[int, str]]  # spec → rotated tile → content digest
    work: tuple[Work, ...]
    views: int  # everything the source holds
    up_to_date: int  # of these, need not even be read
    removed: int  # that the source no longer gives
    keep_missing: bool  # what the source no longer gives stays in the set

    @property
    def views_to_read(self) -> int:
        return sum(len(work.angles) for work in self.work)

    def missing_specs(self, tile: Tile, view: View) -> list[StoredSpec]:
        """List the specs under which this view's content has no embedding yet."""
        stored = self.rotated_tiles.get((tile.index, view.angle_deg))
        return [
            spec
            for spec in self.specs
            if stored is None or self.embedded[spec.id].get(stored.id) != view.content_digest
        ]


def make_plan(
    session: Session,
    source: TileSource,
    specs: Sequence[EmbeddingSpec],
    thumbnails: Path,
    keep_missing: bool = False,
    reread: bool = False,
) -> Plan:
    """Record the source's reference set, tiles and listing failures, and find what is missing: embeddings, and
    thumbnails of cut tiles, which have no other picture (that of a capture is made from its file when asked for).

    What the set holds and the source no longer gives is removed, unless `keep_missing`. reread: every picture is to be
    read, whatever its size and time say."""
    stored = references.save_reference_set(session, source.reference_set, source.tiles)
    finished_ingests.forget(session, stored.id)
    seals.check(session, "set", stored.id)
    _warn_of_moved_tiles(session, stored, source.tiles)
    tile_keys = references.save_tiles(session, stored.id, source.tiles)
    rotated_tiles, removed = _without_missing(session, stored, source, keep_missing)
    references.clear_failures(session, stored.id)
    references.save_failures(session, stored.id, source.failures)
    stored_specs = tuple(embeddings.save_spec(session, spec) for spec in specs)
    embedded = {spec.id: embeddings.embedded_contents(session, stored.id, spec.id) for spec in stored_specs}
    up_to_date = {} if reread else rotated_tiles
    work, views = missing_work(source, stored_specs, up_to_date, embedded, thumbnails)
    to_read = sum(len(w.angles) for w in work)
    return Plan(
        stored,
        stored_specs,
        tile_keys,
        rotated_tiles,
        embedded,
        tuple(work),
        views,
        views - to_read,
        removed,
        keep_missing,
    )


def missing_work(
    source: TileSource,
    specs: Sequence[StoredSpec],
    rotated_tiles: Mapping[tuple[int, int], StoredRotatedTile],
    embedded: Mapping[int, Mapping[int, str]],
    thumbnails: Path,
) -> tuple[list[Work], int]:
    """(what must be read, the views that the source holds); arguments as of `Plan`."""
    cut = source.reference_set.kind == "orthophoto"
    pictured = thumbnail_digests(thumbnails) if cut and rotated_tiles else set()

    def is_up_to_date(tile: Tile, angle: int) -> bool:
        stored_tile = rotated_tiles.get((tile.index, angle))
        return (
            stored_tile is not None
            and stored_tile.source_fingerprint == source.source_fingerprint(tile, angle)
            and (not cut or stored_tile.content_digest in pictured)
            and all(embedded[spec.id].get(stored_tile.id) == stored_tile.content_digest for spec in specs)
        )

    work, views = [], 0
    for tile in source.tiles:
        angles = source.angles_of(tile)
        views += len(angles)
        if missing := tuple(angle for angle in angles if not is_up_to_date(tile, angle)):
            work.append(Work(tile, missing))
    return work, views


def count_missing(session: Session, source: TileSource, spec: EmbeddingSpec, thumbnails: Path) -> int:
    """How many embeddings an ingest would make under a spec; nothing is recorded. A view whose file has changed counts,
    whatever is in it."""
    sets = {stored.name: stored for stored in references.reference_sets(session)}
    stored = sets.get(ids.label(source.reference_set.name))
    stored_spec = next((candidate for candidate in embeddings.specs(session) if candidate.digest == spec.digest), None)
    if stored is None or stored_spec is None:
        return sum(len(source.angles_of(tile)) for tile in source.tiles)
    embedded = {stored_spec.id: embeddings.embedded_contents(session, stored.id, stored_spec.id)}
    rotated_tiles = references.rotated_tiles(session, stored.id)
    work, _ = missing_work(source, [stored_spec], rotated_tiles, embedded, thumbnails)
    return sum(len(tile_work.angles) for tile_work in work)


def _without_missing(
    session: Session, stored: StoredReferenceSet, source: TileSource, keep_missing: bool
) -> tuple[dict[tuple[int, int], StoredRotatedTile], int]:
    """Remove views that the source no longer gives, or say that they are kept; returns (the set's views, how many are
    removed).

    Of an orthophoto only whole tiles can be gone: asked for at fewer angles, it still gives the others.
    """
    angles = {tile.index: set(source.angles_of(tile)) for tile in source.tiles}
    references.restore_views(
        session, stored.id, {(index, angle) for index, of_tile in angles.items() for angle in of_tile}
    )
    is_cut = source.reference_set.kind == "orthophoto"
    views = references.rotated_tiles(session, stored.id)
    missing = {
        (index, angle): view.id
        for (index, angle), view in views.items()
        if index not in angles or (not is_cut and angle not in angles[index])
    }
    if not missing:
        return views, 0
    index, angle = min(missing)
    text = (
        f"{len(missing)} views of reference set {stored.name!r} (first: tile {index} at {angle:03d}) are no longer in "
        f"{source.reference_set.source}, or left out of it (`coarseloc ingest failures`)"
    )
    if keep_missing:
        _log.warning("%s: kept, as --keep-missing says", text)
        return views, 0
    references.remove_views(session, stored.id, missing.values())
    _log.warning("%s: removed; finished runs keep what they found. --keep-missing would keep them", text)
    return {view: stored_view for view, stored_view in views.items() if view not in missing}, len(missing)


def _warn_of_moved_tiles(session: Session, stored: StoredReferenceSet, tiles: Sequence[Tile]) -> None:
    """Warn of tiles that have moved: corrected labels and another area's captures look alike, only the user knows."""
    stored_centers = {tile.index: tile.center for tile in references.tiles(session, stored.id)}
    centers = {tile.index: tile.center for tile in tiles if tile.index in stored_centers}
    moved = {index: float(geo.distance_m(*stored_centers[index], *centers[index])) for index in centers}
    far = {index: metres for index, metres in moved.items() if metres > MOVED_M}
    if far:
        _log.warning(
            "%d of %d tiles of reference set %r lie elsewhere than before, by up to %.0f m: searches from now on find "
            "them there. If these are another area's, ingest them with a --reference-set of their own",
            len(far), len(moved), stored.name, max(far.values()),
        )  # fmt: skip
