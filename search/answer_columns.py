"""A run's stored answers as columns with their errors and agreement: `search.answers` for thousands of frames at once.

The same estimates, errors and agreement, in arrays in the flight's order; numbers that are not there are NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from coarseloc.core import geo
from coarseloc.core.fixes import CHI2_95
from coarseloc.core.types import Bools, Floats
from coarseloc.localize.places import agreement_distance_m
from coarseloc.store import Session, columns, localizations, runs
from coarseloc.store.columns import Columns, Texts
from coarseloc.store.localizations import BEST_PLACE, FIX, TRACK, TRACK_SMOOTHED
from coarseloc.store.runs import StoredRun

_FRAMES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """One answer for a flight: float64 [frames] each, NaN where a frame has none."""

    is_there: Bools  # which frames have a row, with a position or without
    lon: Floats
    lat: Floats
    heading_deg: Floats
    score: Floats
    margin: Floats
    margin_at_least: Bools
    probability: Floats
    states: Texts
    matches: Floats  # of fixes: 1, 0, NaN where not verified; NaN of every other method
    snapshot: Floats  # the best tile's
    error_m: Floats
    verdict: Floats  # 0 on, 1 near, 2 far of the best tile
    major_m: Floats  # of the ellipse of 95 %
    minor_m: Floats
    azimuth_deg: Floats

    @property
    def placed(self) -> Bools:
        return np.isfinite(self.lon)


def answer_columns(
    session: Session, localization: int, method: str, frames: Columns, *, with_tiles: bool = True
) -> AnswerColumns:
    """Read an answer. frames: of `columns.frame_columns`. with_tiles: heading, state, verdict and tile too, of best
    places."""
    if method == BEST_PLACE:
        stored = columns.best_place_columns(session, localization, frames["id"], with_tiles=with_tiles)
        return _of_best_places(stored, frames, with_tiles)
    if method == FIX:
        return point_answer(columns.fix_columns(session, localization, frames["id"]), frames)
    return point_answer(columns.track_columns(session, localization, frames["id"]), frames)


def no_answer(frames: int) -> AnswerColumns:
    """Of a run that was never asked by a method."""
    blank = np.full(frames, np.nan)
    values: dict[str, Any] = {field.name: blank for field in fields(AnswerColumns)}
    no = np.zeros(frames, np.bool_)
    return AnswerColumns(**values | {"is_there": no, "margin_at_least": no, "states": np.full(frames, None)})


def find_answer(session: Session, flight_id: str, run: StoredRun | None, method: str) -> int | None:
    """The key of a run's newest answer by a method, or of the flight's track where the run has none; which of several
    tracks, `localizations.preferred_track` says."""
    stored = None if run is None else localizations.newest_localization(session, run.id, method)
    if stored is not None or method not in (TRACK, TRACK_SMOOTHED):
        return stored
    tracks = [track for track in localizations.newest_tracks(session, flight_id) if track.method == method]
    return localizations.preferred_track(tracks).id if tracks else None


def agreement_columns(session: Session, run: StoredRun, method: str, frames: Columns) -> tuple[Floats, Floats]:
    """(backbones within the distance of the run's estimate, itself included; backbones that answered), [frames]."""
    voters = runs.agreement_voters(run, runs.runs(session, run.flight_id))
    answers = {
        voter.id: answer_columns(session, stored, method, frames, with_tiles=False)
        for voter in voters
        if (stored := localizations.newest_localization(session, voter.id, method)) is not None
    }
    within_m = agreement_distance_m(run.reference_set.footprint_m, run.reference_set.overlap)
    return count_agreement(answers[run.id], list(answers.values()), within_m)


def count_agreement(own: AnswerColumns, answers: Sequence[AnswerColumns], within_m: float) -> tuple[Floats, Floats]:
    """(answers within a distance of this one, NaN where it has no position; answers with a position), [frames]."""
    votes = np.stack([answer.placed for answer in answers])
    near = np.stack(
        [geo.ellipsoid_distance_m(own.lon, own.lat, answer.lon, answer.lat) <= within_m for answer in answers]
    )
    return np.where(own.placed, near.sum(axis=0), np.nan), votes.sum(axis=0).astype(np.float64)


def on_map(frames: Columns, places: Floats) -> Bools:
    """[frames]: whether some place's footprint holds the truth. places: float64 [P, 6] of `snapshots.search_map`."""
    lon, lat = frames["lon"], frames["lat"]
    inside = np.zeros(len(lon), np.bool_)
    for start in range(0, len(lon), _FRAMES_AT_ONCE):
        part = slice(start, start + _FRAMES_AT_ONCE)
        located = np.isfinite(lat[part])
        if not located.any():
            continue
        low, high = lat[part][located].min(), lat[part][located].max()
        beside = places[(places[:, 3] <= high) & (places[:, 5] >= low)]  # consecutive frames are near each other
        inside[part] = geo.inside(lon[part, None], lat[part, None], beside[:, 2:]).any(axis=1)
    return inside


def _of_best_places(stored: Columns, frames: Columns, with_tiles: bool) -> AnswerColumns:
    error_m = geo.distance_m(frames["lon"], frames["lat"], stored["lon"], stored["lat"])
    blank = np.full(len(error_m), np.nan)
    if not with_tiles:
        names = ("heading_deg", "probability", "snapshot_id", "west", "south", "east", "north")
        stored = stored | dict.fromkeys(names, blank) | {"state": np.full(len(error_m), None)}
    box = np.stack([stored[side] for side in ("west", "south", "east", "north")], axis=1)
    side_m = geo.distance_m(0.0, stored["south"], 0.0, stored["north"])
    verdict = np.where(geo.inside(frames["lon"], frames["lat"], box), 0.0, np.where(error_m <= side_m, 1.0, 2.0))
    return AnswerColumns(
        is_there=stored["is_there"],
        lon=stored["lon"],
        lat=stored["lat"],
        heading_deg=stored["heading_deg"],
        score=stored["score"],
        margin=stored["margin"],
        margin_at_least=stored["margin_at_least"] == 1,
        probability=stored["probability"],
        states=stored["state"],
        matches=blank,
        snapshot=stored["snapshot_id"],
        error_m=error_m,
        verdict=np.where(np.isfinite(error_m) & np.isfinite(side_m), verdict, np.nan),
        major_m=blank,
        minor_m=blank,
        azimuth_deg=blank,
    )


def point_answer(stored: Columns, frames: Columns) -> AnswerColumns:
    """Of fixes and tracks: the aircraft's position where it is known, else the ground's."""
    blank = np.full(len(frames["id"]), np.nan)
    has_aircraft = np.isfinite(stored["aircraft_lon"])
    lon, lat, east_east, east_north, north_north = (
        np.where(has_aircraft, stored[f"aircraft_{name}"], stored[name])
        for name in ("lon", "lat", "cov_east_east_m2", "cov_east_north_m2", "cov_north_north_m2")
    )
    mean, spread = (east_east + north_north) / 2, np.hypot((north_north - east_east) / 2, east_north)
    return AnswerColumns(
        is_there=stored["is_there"],
        lon=lon,
        lat=lat,
        heading_deg=stored["heading_deg"],
        score=stored.get("score", stored["probability"]),
        margin=stored.get("margin", blank),
        margin_at_least=np.zeros(len(blank), np.bool_),
        probability=stored["probability"],
        states=stored.get("state", np.full(len(blank), None)),
        matches=stored.get("match", blank),
        snapshot=blank,
        error_m=geo.distance_m(frames["lon"], frames["lat"], lon, lat),
        verdict=blank,
        major_m=np.sqrt(np.maximum(mean + spread, 0.0) * CHI2_95),
        minor_m=np.sqrt(np.maximum(mean - spread, 0.0) * CHI2_95),
        azimuth_deg=np.degrees(np.arctan2(2 * east_north, north_north - east_east)) / 2 % 180.0,
    )


def median(values: Floats, chosen: Bools | None = None) -> float | None:
    """The median of the numbers that are there, of the chosen frames; None without any."""
    present = values[np.isfinite(values) if chosen is None else np.isfinite(values) & chosen]
    return float(np.median(present)) if len(present) else None
