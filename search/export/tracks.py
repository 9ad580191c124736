"""A flight's stored tracks, as the files of other programs hold them: which are taken, and where each breaks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from coarseloc.core.errors import InputError, StoreError
from coarseloc.core.tracks import TrackEstimate, continues
from coarseloc.core.types import Covariance, Flight, Frame, LonLat
from coarseloc.imagery.terrain import terrain_heights_m
from coarseloc.store import Database, Session, flights, localizations
from coarseloc.store.localizations import BEST_PLACE, TRACK, TRACK_SMOOTHED, StoredLocalization


@dataclass(frozen=True, slots=True)
class TrackFrame:
    """A frame and its estimate; it has a position only where the track claims one."""

    frame: Frame
    estimate: TrackEstimate
    terrain_m: float | None = None  # the ground's height above sea level beneath the position

    @property
    def position(self) -> LonLat | None:
        return self.estimate.position if self.estimate.claimed else None

    @property
    def covariance_m2(self) -> Covariance | None:
        return self.estimate.position_covariance_m2 if self.estimate.claimed else None

    @property
    def point(self) -> Literal["aircraft", "ground"]:
        """What `position` is of."""
        return "ground" if self.estimate.aircraft is None else "aircraft"

    @property
    def height_msl_m(self) -> float | None:
        """The height of `point` above sea level, by the label, else the terrain; None where neither tells it: a label
        above take-off, or above nobody knows what, does not."""
        label = self.frame.truth
        if self.point == "ground":
            return self.terrain_m
        if label.altitude_datum == "sea":
            return label.altitude_label_m
        if self.terrain_m is None or label.altitude_datum != "ground" or label.altitude_label_m is None:
            return None
        return self.terrain_m + label.altitude_label_m


@dataclass(frozen=True, slots=True)
class FlightTrack:
    """A stored track: the frames that it answers for, in the flight's order."""

    flight: Flight
    stored: StoredLocalization
    frames: tuple[TrackFrame, ...]

    @property
    def has_utc(self) -> bool:
        """Whether every frame's time is known, and how far it is from UTC."""
        timed = all(tracked.frame.time is not None for tracked in self.frames)
        return timed and self.flight.clock.utc_offset_s is not None

    def utc_times(self, purpose: str) -> dict[int, datetime]:
        """{frame index: its time in UTC}. Raises InputError where there is none; purpose: what needs it."""
        return {tracked.frame.index: self.flight.clock.to_utc(tracked.frame.time, purpose) for tracked in self.frames}

    def segments(self) -> list[list[TrackFrame]]:
        """The unbroken runs of frames with a position.

        A run ends before a frame without one, where the position jumps (`reset_counter` has gone up), where it becomes
        that of another point (aircraft, ground), and at a frame of the flight that the track does not answer for.
        """
        order = {frame.index: place for place, frame in enumerate(self.flight.frames)}
        segments: list[list[TrackFrame]] = []
        previous: TrackFrame | None = None
        for tracked in self.frames:
            if tracked.position is not None:
                if previous is None or not _joined(previous, tracked, order):
                    segments.append([])
                segments[-1].append(tracked)
            previous = tracked
        return segments


def with_terrain(track: FlightTrack, dem: Path) -> FlightTrack:
    """With the ground's heights beneath its positions. Raises InputError where the file gives none."""
    places = [tracked.position for tracked in track.frames if tracked.position is not None]
    heights = terrain_heights_m(dem, places)
    if places and not any(height is not None for height in heights):
        raise InputError(f"{dem} has no height where the track lies: is it of this area?")
    remaining = iter(heights)
    frames = (
        tracked if tracked.position is None else replace(tracked, terrain_m=next(remaining)) for tracked in track.frames
    )
    return replace(track, frames=tuple(frames))


def _joined(previous: TrackFrame, tracked: TrackFrame, order: dict[int, int]) -> bool:
    neighbours = order[tracked.frame.index] == order[previous.frame.index] + 1
    return neighbours and continues(previous.estimate, tracked.estimate)


def flight_tracks(
    db: Database,
    flight_id: str,
    reference_set: str | None = None,
    method: str = BEST_PLACE,
    utc_offset_s: int | None = None,
) -> list[FlightTrack]:
    """As `finished_tracks`. Raises StoreError where there is no track."""
    finished = finished_tracks(db, flight_id, reference_set, method, utc_offset_s)
    if not finished:
        kind = f" {method!r}" if method in (TRACK, TRACK_SMOOTHED) else ""
        of = f" on {reference_set!r}" if reference_set else ""
        raise StoreError(f"flight {flight_id} has no finished track{kind}{of}: run `coarseloc track` to its end first")
    return finished


def finished_tracks(
    db: Database,
    flight_id: str,
    reference_set: str | None = None,
    method: str = BEST_PLACE,
    utc_offset_s: int | None = None,
) -> list[FlightTrack]:
    """A flight's newest finished track of each question: the smoothed one where there is one, else the
    causal one; that of `method` where it names one of the two.

    utc_offset_s: of the frames' times, in place of the stored one.
    """
    methods = (method,) if method in (TRACK, TRACK_SMOOTHED) else (TRACK_SMOOTHED, TRACK)
    with db.read() as session:
        flight = flights.find_flight(session, flight_id).flight
        if utc_offset_s is not None:
            flight = replace(flight, clock=replace(flight.clock, utc_offset_s=utc_offset_s))
        chosen: dict[tuple[object, ...], StoredLocalization] = {}
        newest = localizations.newest_tracks(session, flight_id)
        for stored in sorted(newest, key=lambda stored: stored.method != methods[0]):
            if stored.method in methods and reference_set in (None, stored.reference_set):
                chosen.setdefault(stored.track_question, stored)
        return [load_track(session, flight, stored) for stored in sorted(chosen.values(), key=lambda stored: stored.id)]


def load_track(session: Session, flight: Flight, stored: StoredLocalization) -> FlightTrack:
    """A flight's stored track."""
    estimates = localizations.track(session, stored)
    frames = (frame for frame in flight.frames if frame.index in estimates)
    return FlightTrack(flight, stored, tuple(TrackFrame(frame, estimates[frame.index]) for frame in frames))
