"""A flight's stored tracks as its page shows them: a causal and a smoothed answer a frame, and why it has gaps."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from flask import g, request
from pydantic import Field

from coarseloc.core import geo
from coarseloc.core.tracks import MotionSource, TrackEstimate, TrackEvidence, continues
from coarseloc.core.types import Frame, LonLat
from coarseloc.i18n import translator
from coarseloc.store import Database, localizations, tracks
from coarseloc.store.flights import StoredFlight
from coarseloc.store.localizations import BEST_PLACE, TRACK, StoredLocalization
from coarseloc.store.runs import StoredRun
from search.answers import track_errors
from search.export.records import Location, TrackErrorsInfo, TrackInfo
from search.export.track_infos import track_errors_info, track_info
from search.tracking.gaps import GapCause, track_gaps
from search.tracking.texts import gap_text
from web.models import AnswerModel, location_of
from web.state import WebState


class TrackChoice(AnswerModel):
    """One of a flight's tracks; `key` chooses it in an address (`?track=`)."""

    key: int
    evidence: TrackEvidence
    options: list[str] = Field(
        description="what else it was asked with: backbones of ranks, options not at their default"
    )
    map: str = Field(description="the reference sets, or the file, that it was tracked on")


class TrackFigures(AnswerModel):
    placed: int = Field(ge=0, description="frames with a position")
    median_error_m: float | None = Field(description="of those whose truth is known")


class TrackPoint(AnswerModel):
    """One frame of one track."""

    info: TrackInfo
    errors: TrackErrorsInfo | None = Field(description="null where the truth or the location is unknown")
    continues: bool = Field(description="a line may join it to the frame before")


class FrameOnTrack(AnswerModel):
    index: int
    elapsed_s: float | None = Field(description="since the first frame; null where no time is known")
    truth: Location | None
    causal: TrackPoint
    smoothed: TrackPoint | None = Field(description="null where the flight was tracked online alone")
    top1_jump_m: float | None = Field(description="between this frame's best tile and that of the frame before")


class TrackGapView(AnswerModel):
    """Frames in a row that the causal track does not place, and why."""

    start_index: int
    end_index: int
    frames: int
    found_index: int | None = Field(description="the frame placed after it; null where none is")
    acquiring: bool = Field(description="nothing was placed before")
    cause: GapCause
    alternatives: int
    searches: int = Field(description="frames of it that were looked for on the map")
    text: str = Field(description="the same in words")


class TrackView(AnswerModel):
    """A track of a flight, and the choice of others."""

    choices: list[TrackChoice]
    chosen: TrackChoice
    odometry: MotionSource
    causal: TrackFigures
    smoothed: TrackFigures | None
    gaps: list[TrackGapView]
    frames: list[FrameOnTrack]


def track_view(state: WebState, stored: StoredFlight, run: StoredRun | None) -> TrackView | None:
    """The flight's track that `?track=` names, by default as exports choose it; None where there is none.

    run: whose best tiles are shown beside it. Made once: a finished track does not change, the truth may.
    """
    with state.database.read() as session:
        newest = localizations.newest_tracks(session, stored.flight.flight_id)
    causal_tracks = [track for track in newest if track.method == TRACK]
    if not causal_tracks:
        return None
    named = request.args.get("track", None, int)
    causal = next((track for track in causal_tracks if track.id == named), localizations.preferred_track(causal_tracks))
    smoothed = next(
        (track for track in newest if track.method != TRACK and track.parameters == causal.parameters), None
    )
    truth = hash(tuple((frame.index, frame.truth) for frame in stored.flight.frames))
    ends = tuple((track.id, track.finished_at) for track in (causal, smoothed) if track)
    cache_key = ("track", ends, run.id if run else None, truth, g.language)
    view = state.memory.recall(cache_key, lambda: _view(state.database, stored, causal, smoothed, run))
    return view.model_copy(update={"choices": [_choice(track) for track in causal_tracks]})


def _view(
    database: Database,
    stored: StoredFlight,
    causal: StoredLocalization,
    smoothed: StoredLocalization | None,
    run: StoredRun | None,
) -> TrackView:
    with database.read() as session:
        estimates = localizations.track(session, causal)
        smooth = localizations.track(session, smoothed) if smoothed else {}
        unplaced = [index for index, estimate in estimates.items() if not estimate.claimed]
        evidence = tracks.track_evidence(session, causal.id, unplaced)
        best = localizations.estimates(session, run.id, BEST_PLACE) if run else {}
    all_frames, clock = stored.flight.frames, stored.flight.clock
    frames = [frame for frame in all_frames if frame.index in estimates]
    points, smooth_points = _points(all_frames, estimates), _points(all_frames, smooth)
    elapsed_s = clock.elapsed_s([frame.time for frame in frames], [frame.index for frame in frames])
    jumps_m = _jumps_m(all_frames, {index: estimate.location for index, (estimate, _) in best.items()})
    gaps = track_gaps(list(estimates.values()), evidence)
    return TrackView(
        choices=[],
        chosen=_choice(causal),
        odometry=next(iter(estimates.values())).odometry,
        causal=track_figures(points),
        smoothed=track_figures(smooth_points) if smooth else None,
        gaps=[TrackGapView(**asdict(gap), text=gap_text(gap, translator(g.language))) for gap in gaps],
        frames=[
            FrameOnTrack(
                index=frame.index,
                elapsed_s=elapsed_s[number] if elapsed_s else None,
                truth=location_of(frame.truth.location) if frame.truth.location else None,
                causal=points[frame.index],
                smoothed=smooth_points.get(frame.index),
                top1_jump_m=jumps_m.get(frame.index),
            )
            for number, frame in enumerate(frames)
        ],
    )


def _choice(track: StoredLocalization) -> TrackChoice:
    """Its map's name; of a file, without the folder that it lies in."""
    name = track.reference_set if track.set_uids else Path(track.reference_set).name
    return TrackChoice(key=track.id, evidence=track.evidence, options=list(track.track_options), map=name)


def _points(frames: Sequence[Frame], estimates: Mapping[int, TrackEstimate]) -> dict[int, TrackPoint]:
    """{frame index: its point}; of frames that the track does not answer for, none."""
    points: dict[int, TrackPoint] = {}
    before: TrackEstimate | None = None
    for frame in frames:
        estimate = estimates.get(frame.index)
        if estimate is not None:
            points[frame.index] = TrackPoint(
                info=track_info(estimate),
                errors=track_errors_info(track_errors(estimate, frame.truth)),
                continues=before is not None and continues(before, estimate),
            )
        before = estimate
    return points


def _jumps_m(frames: Sequence[Frame], places: Mapping[int, LonLat]) -> dict[int, float]:
    """{frame index: metres from the place of the frame before}, where both have one."""
    return {
        after.index: float(geo.distance_m(*places[before.index], *places[after.index]))
        for before, after in pairwise(frames)
        if before.index in places and after.index in places
    }


def track_figures(points: Mapping[int, TrackPoint]) -> TrackFigures:
    """Count and judge a track's points by any key."""
    errors_m = [point.errors.track_m for point in points.values() if point.errors]
    return TrackFigures(
        placed=sum(point.info.location is not None for point in points.values()),
        median_error_m=statistics.median(errors_m) if errors_m else None,
    )
