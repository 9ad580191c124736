"""What a run's stored hits say to a rank filter: its references as a grid, and each frame's ranked tiles on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from coarseloc.core.errors import InputError
from coarseloc.core.types import Floats, LonLat, RankedTile
from coarseloc.localize.tracking.rank_grid import RankedHits, ReferenceGrid, reference_grid
from coarseloc.localize.tracking.rank_track import DEFAULTS, RankTrackSettings
from coarseloc.localize.tracking.tracker import LocalPlane
from coarseloc.localize.tracking.virtual_flights import learned_ellipse_factor
from coarseloc.store import Database, references, runs, snapshots
from coarseloc.store.matrix import load_vectors
from coarseloc.store.runs import StoredRun

_MOST_VECTORS = 60_000  # that an ellipse's factor is learnt on; more would be gigabytes
_MOST_PER_FRAME = 200


@dataclass(frozen=True, slots=True)
class RunRanks:
    """Hits by frame index, one entry a run that has some; and what the filter works on."""

    hits: Mapping[int, tuple[RankedHits, ...]]
    grid: ReferenceGrid
    settings: RankTrackSettings


def ranked_hits(hits: Sequence[RankedTile], plane: LocalPlane, references: int) -> RankedHits:
    """The first hits of a frame, at least one, as a rank filter takes them. references: of how many."""
    rows = [
        (*plane.metres(hit.tile.center), float(hit.tile.angle_deg), float(hit.rank)) for hit in hits[:_MOST_PER_FRAME]
    ]
    return RankedHits(np.array(rows), references)


def run_ranks(
    db: Database, stored_runs: Sequence[StoredRun], plane: LocalPlane, notice: Callable[[str], None]
) -> RunRanks:
    """Of runs of one question by different backbones, which count as one piece of evidence where they are alike.

    Raises InputError where the distance of the references is unknown.
    """
    first = stored_runs[0]
    facts = first.reference_set
    if facts.footprint_m is None:
        raise InputError(
            f"reference set {facts.name!r} says no footprint, so that the distance of its places is unknown: ranks "
            "cannot be tracked. Ingest it anew with --footprint-m"
        )
    with db.read() as session:
        places = snapshots.search_map(session, first.search_map)
        hits: dict[int, tuple[RankedHits, ...]] = {}
        for run in stored_runs:
            for result in runs.results(session, run.id):
                if result.hits:
                    ranked = ranked_hits(result.hits, plane, run.references)
                    hits[result.frame.index] = (*hits.get(result.frame.index, ()), ranked)
    centres = np.array([plane.metres(LonLat(lon, lat)) for lon, lat in places[:, :2].tolist()])
    stride_m = facts.footprint_m * (1.0 - facts.overlap)
    grid = reference_grid(centres, stride_m, 360.0 / max(len(facts.angles), 1))
    factor = _ellipse_factor(db, first, plane, grid)
    if factor is None:
        notice("the ellipses of ranks could not be learnt on these references: they may be too wide")
    return RunRanks(hits, grid, replace(DEFAULTS, ellipse_factor=factor or DEFAULTS.ellipse_factor))


def _ellipse_factor(db: Database, run: StoredRun, plane: LocalPlane, grid: ReferenceGrid) -> float | None:
    """Learnt on the references' own embeddings; None where they are gone, too many or too few."""
    vectors, tiles = [], []
    with db.read() as session:
        searched = [stored for stored in references.reference_sets(session) if stored.uid in run.set_uids]
        if len(searched) < len(run.set_uids) or run.references > _MOST_VECTORS:
            return None
        for stored in searched:
            loaded = load_vectors(session, stored.id, run.spec.id)
            columns = loaded.columns
            east_north = [
                plane.metres(LonLat(lon, lat))
                for lon, lat in zip(columns.lon.tolist(), columns.lat.tolist(), strict=True)
            ]
            tiles.append(np.column_stack([np.array(east_north).reshape(-1, 2), columns.angle_deg]))
            vectors += list(loaded.parts)
    if not vectors:
        return None
    every_tile: Floats = np.concatenate(tiles)
    return learned_ellipse_factor(np.concatenate(vectors), every_tile, grid)
