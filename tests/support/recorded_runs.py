"""SearchRuns of given hits, recorded as a search records them, without one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from coarseloc.core.fixes import FrameFix
from coarseloc.core.tracks import TrackEstimate
from coarseloc.core.types import Flight, Floats, Frame, RankedTile, Timing
from coarseloc.localize.localizer import LocalizedImage
from coarseloc.localize.places import best_place
from coarseloc.store import Database, embeddings, fixes, flights, localizations, references, runs, tracks
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.localizations import FIX, TRACK, TRACK_SMOOTHED
from coarseloc.store.references import StoredReferenceSet
from search.flight import FrameOutcome, RunRequest, record_outcomes, start_runs
from search.tracking.flight_track import TrackRequest
from search.tracking.frames import RecordedEvidence
from search.verification import FixRequest

Hits = Sequence[tuple[int, float]]  # (rotated tile, score), best first


def record_run(
    db: Database,
    flight: Flight,
    reference_set: StoredReferenceSet,
    spec: StoredSpec,
    parameters: Mapping[str, Any],
    environment: Mapping[str, Any],
    outcomes_by_frame: Mapping[int, tuple[Timing, Hits] | str],
    *,
    places: Floats | None = None,
    index_build_ms: float = 12.5,
    count: int = 8,
) -> int:
    """found: {frame index: its timing and hits, or its error}. places: what was searched, all of the set by default."""
    request = RunRequest(
        parameters, environment, index_build_ms, count, places_of(db, reference_set) if places is None else places
    )
    stored, started = start_runs(db, flight, [reference_set], spec, [request])

    def outcomes() -> Iterator[FrameOutcome]:
        for frame in stored.flight.frames:
            answer = outcomes_by_frame[frame.index]
            if isinstance(answer, str):
                yield FrameOutcome(frame, [], answer)
            else:
                yield outcome(db, frame, *answer)

    record_outcomes(db, started, stored, outcomes(), len(outcomes_by_frame), None)
    return started[0].id


def record_fixes(db: Database, run_id: int, fix_by_frame: Mapping[int, FrameFix]) -> None:
    """Store a finished run's fixes, {frame index: fix}, as its verification does."""
    with db.write() as session:
        flight = flights.find_flight(session, runs.find_run(session, run_id).flight_id)
        localization = localizations.start_localization(session, flight.id, FIX, [run_id], [], FixRequest().to_json())
        fixes.save_fixes(session, localization, [(flight.frame_keys[i], fix) for i, fix in fix_by_frame.items()])
        localizations.finish_localization(session, localization)


def record_track(
    db: Database,
    flight_id: str,
    causal: Mapping[int, TrackEstimate],
    smoothed: Mapping[int, TrackEstimate],
    evidence: Mapping[int, RecordedEvidence],
    map_path: str = "/maps/area.tif",
    request: TrackRequest | None = None,
    runs: Sequence[int] = (),
) -> None:
    """Store a flight's two tracks, {frame index: estimate}, as tracking on a map does; none where `smoothed` is
    empty."""
    with db.write() as session:
        flight = flights.find_flight(session, flight_id)
        parameters = (request or TrackRequest()).to_json()
        for method, estimates in ((TRACK, causal), (TRACK_SMOOTHED, smoothed)):
            if not estimates:
                continue
            localization = localizations.start_localization(
                session, flight.id, method, runs, [{"name": map_path}], parameters
            )
            rows = [
                (flight.frame_keys[i], estimate, evidence[i].to_json() if method == TRACK else None)
                for i, estimate in estimates.items()
            ]
            tracks.save_track_estimates(session, localization, rows)
            localizations.finish_localization(session, localization)


def outcome(db: Database, frame: Frame, timing: Timing, hits: Hits) -> FrameOutcome:
    with db.read() as session:
        facts = embeddings.facts_by_key(session, [key for key, _ in hits])
    ranked = [RankedTile(rank, score, *facts[key], key) for rank, (key, score) in enumerate(hits, start=1)]
    return FrameOutcome(frame, [LocalizedImage(ranked, best_place(ranked), timing)])


def places_of(db: Database, reference_set: StoredReferenceSet) -> Floats:
    with db.read() as session:
        tiles = references.tiles(session, reference_set.id)
    return np.array([(*tile.center, *tile.bbox) for tile in tiles]).reshape(-1, 6)
