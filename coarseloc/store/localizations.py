"""Answers: where each frame of a flight was taken, by one method. Written once, and only selected afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from coarseloc.core import ids
from coarseloc.core.errors import StoreError
from coarseloc.core.fixes import FrameFix, Pose2D
from coarseloc.core.tracks import TrackEstimate, TrackEvidence, TrackMode
from coarseloc.core.types import Covariance, Estimate, LonLat
from coarseloc.store import fixes, seals, tracks
from coarseloc.store.snapshots import TileSnapshot, snapshots
from coarseloc.store.tables import (
    FlightRow,
    FrameEstimateRow,
    FrameRow,
    LocalizationRow,
    LocalizationRunRow,
    RunRow,
    SpecRow,
    now,
)

BEST_PLACE = "best-place"  # the method that every run answers by
FIX = "fix"  # of frames looked for on the map in metres, among a run's best places
WHOLE_MAP = "whole-map"  # the same on all of the map: from no run, without any backbone
TRACK = "track"  # of frames in their order, each by what came before it
TRACK_SMOOTHED = "track-smoothed"  # the same by all of the flight

_TRACK_MODES: dict[str, TrackMode] = {TRACK: "causal", TRACK_SMOOTHED: "smoothed"}

_COLUMNS = FrameEstimateRow.__table__.columns.keys()
_PLAIN = [field.name for field in fields(Estimate) if field.name in _COLUMNS]  # those that a column holds as they are


@dataclass(frozen=True, slots=True)
class StoredLocalization:
    """One answer for a flight by one method."""

    id: int
    flight_id: str
    method: str
    set_uids: tuple[str, ...]
    reference_set: str  # names, as they were, joined as a run's are
    parameters: Mapping[str, Any]
    created_at: datetime
    finished_at: datetime | None
    backbones: tuple[str, ...] = ()  # of its runs

    @property
    def question(self) -> str:
        """Equal for answers of whole maps that can replace each other: the same references and place filter."""
        return ids.digest({"sets": sorted(self.set_uids), "where": self.parameters.get("where")})

    @property
    def evidence(self) -> TrackEvidence:
        """What told the places of a track: every track is stored with it."""
        evidence: TrackEvidence = self.parameters["evidence"]
        return evidence

    @property
    def track_options(self) -> tuple[str, ...]:
        """What else a track was asked with: the backbones whose ranks are its evidence, and the options of
        `coarseloc track` that are not their defaults, such as "--yaw labels"."""
        parameters = self.parameters
        source, cascade = parameters.get("odometry", "frames"), parameters.get("cascade")
        file_digest, speed_mps = parameters.get("odometry_digest"), parameters.get("speed_mps")
        options = [] if cascade or self.evidence == "fixes" else ["+".join(self.backbones)]
        if cascade:
            options.append(f"--cascade {','.join(cascade)}")
        if source != "frames":
            options.append(f"--odometry {source}" + (f" {file_digest[:6]}" if file_digest else ""))
        if "headings" in parameters:
            options.append("--yaw labels")
        if speed_mps:
            options.append("--speed {:g}:{:g}".format(*speed_mps))
        return tuple(filter(None, options))

    @property
    def track_name(self) -> str:
        """What a track is chosen by: its evidence and options, such as "fixes" or "both --yaw labels"."""
        return " ".join((self.evidence, *self._track_flags))

    @property
    def is_plain_track(self) -> bool:
        """Whether it was asked without options."""
        return not self._track_flags

    @property
    def _track_flags(self) -> tuple[str, ...]:
        return tuple(option for option in self.track_options if option.startswith("--"))

    @property
    def track_question(self) -> tuple[str, str, tuple[str, ...]]:
        """(references, evidence, options): equal for tracks of which a newer one replaces an older one."""
        return self.reference_set, self.evidence, self.track_options

    @property
    def track_mode(self) -> TrackMode:
        """Whether a track is causal or smoothed."""
        return _TRACK_MODES[self.method]


def start_localization(
    session: Session,
    flight: int,
    method: str,
    runs: Sequence[int],
    reference_sets: Sequence[Mapping[str, Any]],
    parameters: Mapping[str, Any],
) -> int:
    """Create the localization of a flight by a method from runs, or find the one begun before; return its key."""
    digest = ids.digest({"runs": sorted(runs), **parameters})
    query = select(LocalizationRow.id).where(
        LocalizationRow.flight_pk == flight, LocalizationRow.method == method, LocalizationRow.digest == digest
    )
    if (stored := session.scalar(query)) is not None:
        if seals.is_sound(session, "localization", stored):
            return stored
        delete_localization(session, stored)
        session.flush()
    row = LocalizationRow(flight_pk=flight, method=method, digest=digest)
    row.reference_sets, row.parameters = [dict(reference_set) for reference_set in reference_sets], dict(parameters)
    session.add(row)
    session.flush()
    session.add_all(LocalizationRunRow(localization_id=row.id, run_id=run) for run in runs)
    return row.id


def save_estimates(
    session: Session, localization: int, estimates: Iterable[tuple[int, Estimate]], snapshot_keys: Mapping[str, int]
) -> None:
    """Write estimates, (frame's key, estimate). snapshot_keys: {point id: snapshot} of the tiles they name."""
    seals.unseal(session, "localization", localization)
    for frame, estimate in estimates:
        covariance = estimate.covariance_m2
        session.add(
            FrameEstimateRow(
                localization_id=localization,
                frame_id=frame,
                lon=estimate.location.lon,
                lat=estimate.location.lat,
                cov_east_east_m2=covariance and covariance.east_east,
                cov_east_north_m2=covariance and covariance.east_north,
                cov_north_north_m2=covariance and covariance.north_north,
                snapshot_id=estimate.tile and snapshot_keys[estimate.tile.point_id],
                **{name: getattr(estimate, name) for name in _PLAIN},
            )
        )


def find_localization(session: Session, localization: int) -> StoredLocalization:
    """Read a localization by its key."""
    (stored,) = _localizations(session, LocalizationRow.id == localization)
    return stored


def newest_map_localizations(
    session: Session, flight_id: str, reference_set: str | None = None
) -> list[StoredLocalization]:
    """List a flight's newest finished answer on the whole map of each reference set and place filter, oldest first."""
    condition = and_(LocalizationRow.method == WHOLE_MAP, FlightRow.flight_id == ids.label(flight_id))
    name = None if reference_set is None else ids.label(reference_set)
    finished = [
        stored
        for stored in _localizations(session, condition)
        if stored.finished_at is not None and name in (None, stored.reference_set)
    ]
    newest = {stored.question: stored for stored in sorted(finished, key=lambda stored: stored.finished_at or now())}
    return sorted(newest.values(), key=lambda stored: stored.id)


def _localizations(session: Session, condition: ColumnElement[bool]) -> list[StoredLocalization]:
    query = (
        select(LocalizationRow, FlightRow.flight_id)
        .join(FlightRow, FlightRow.id == LocalizationRow.flight_pk)
        .where(condition)
        .order_by(LocalizationRow.id)
    )
    rows = session.execute(query).all()
    backbones = _backbones(session, [row.id for row, _ in rows])
    return [
        StoredLocalization(
            row.id,
            flight_id,
            row.method,
            tuple(stored["uid"] for stored in row.reference_sets if "uid" in stored),
            " + ".join(stored["name"] for stored in row.reference_sets),
            row.parameters,
            row.created_at,
            row.finished_at,
            tuple(sorted(backbones.get(row.id, ()))),
        )
        for row, flight_id in rows
    ]


def _backbones(session: Session, localization_keys: Sequence[int]) -> dict[int, set[str]]:
    """{localization: backbones of its runs}; of those from no run, nothing."""
    query = (
        select(LocalizationRunRow.localization_id, SpecRow.backbone)
        .join(RunRow, RunRow.id == LocalizationRunRow.run_id)
        .join(SpecRow, SpecRow.id == RunRow.spec_id)
        .where(LocalizationRunRow.localization_id.in_(localization_keys))
    )
    backbones: dict[int, set[str]] = {}
    for key, backbone in session.execute(query):
        backbones.setdefault(key, set()).add(backbone)
    return backbones


def finish_localization(session: Session, localization: int) -> None:
    row = session.get_one(LocalizationRow, localization)
    row.finished_at = row.finished_at or now()
    seals.seal(session, "localization", localization)


def delete_localization(session: Session, localization: int) -> None:
    """Forget an answer with all of its frames."""
    seals.unseal(session, "localization", localization)
    session.delete(session.get_one(LocalizationRow, localization))


def reopen_localization(session: Session, localization: int) -> None:
    """It is unfinished again."""
    seals.unseal(session, "localization", localization)
    session.get_one(LocalizationRow, localization).finished_at = None


def is_unfinished(session: Session, run: int, method: str, parameters: Mapping[str, Any]) -> bool:
    """Whether this run's answer by a method with these parameters was begun and not ended."""
    query = (
        select(LocalizationRow)
        .join(LocalizationRunRow)
        .where(
            LocalizationRunRow.run_id == run, LocalizationRow.method == method, LocalizationRow.finished_at.is_(None)
        )
    )
    return any(row.parameters == dict(parameters) for row in session.scalars(query))


def newest_localization(session: Session, run: int, method: str) -> int | None:
    """The key of this run's newest answer by a method; of tracks, that of `run_track`."""
    if method in _TRACK_MODES:
        chosen = run_track(session, run, method)
        return None if chosen is None else chosen.id
    query = (
        select(LocalizationRow.id)
        .join(LocalizationRunRow)
        .where(LocalizationRunRow.run_id == run, LocalizationRow.method == method)
        .order_by(LocalizationRow.id.desc())
    )
    return session.scalars(query).first()


@dataclass(frozen=True, slots=True)
class NewestLocalization:
    """A run's newest answer by a method; of tracks, that of `run_track`."""

    run: int
    method: str
    localization: int
    finished_at: datetime | None


def newest_localizations(session: Session) -> list[NewestLocalization]:
    """List each run's newest answer by each method; of tracks, that of `run_track`."""
    newest = (
        select(LocalizationRunRow.run_id, func.max(LocalizationRow.id).label("id"))
        .join(LocalizationRow, LocalizationRow.id == LocalizationRunRow.localization_id)
        .where(LocalizationRow.method.not_in(_TRACK_MODES))
        .group_by(LocalizationRunRow.run_id, LocalizationRow.method)
        .subquery()
    )
    query = select(newest.c.run_id, LocalizationRow.method, LocalizationRow.id, LocalizationRow.finished_at)
    rows = session.execute(query.join(LocalizationRow, LocalizationRow.id == newest.c.id))
    answers = [*(NewestLocalization(*row) for row in rows), *_run_tracks(session)]
    return sorted(answers, key=lambda answer: (answer.run, answer.localization))


def _run_tracks(session: Session) -> Iterator[NewestLocalization]:
    """Of each run that was tracked, the track of each method that `run_track` gives."""
    stored = {track.id: track for track in _localizations(session, LocalizationRow.method.in_(_TRACK_MODES))}
    query = select(LocalizationRunRow.run_id, LocalizationRunRow.localization_id)
    of_run: dict[tuple[int, str], list[StoredLocalization]] = {}
    for run, key in session.execute(query.where(LocalizationRunRow.localization_id.in_(stored))):
        of_run.setdefault((run, stored[key].method), []).append(stored[key])
    for (run, method), candidates in of_run.items():
        chosen = preferred_track(candidates)
        yield NewestLocalization(run, method, chosen.id, chosen.finished_at)


def fix_progress(session: Session, run: int) -> tuple[int, int] | None:
    """(key of the run's newest fixes, frames looked for by now); None where it was not verified."""
    localization = newest_localization(session, run, FIX)
    return None if localization is None else (localization, fixes.count_fixes(session, localization))


def frame_fixes(session: Session, run: int, frame_indices: Sequence[int] | None = None) -> dict[int, FrameFix]:
    """Read {frame index: fix} of a run, for all frames or some; none where it was not verified."""
    localization = newest_localization(session, run, FIX)
    return {} if localization is None else fixes.fixes(session, localization, frame_indices)


def run_track(
    session: Session, run: int, method: str | None = None, track_name: str | None = None
) -> StoredLocalization | None:
    """A run's newest track: the smoothed one where there is one, unless `method` says which; one without options before
    any with them, unless `track_name` says which. Raises StoreError where there is none of that name."""
    of_run = select(LocalizationRunRow.localization_id).where(LocalizationRunRow.run_id == run)
    stored = _localizations(session, and_(LocalizationRow.method.in_(_TRACK_MODES), LocalizationRow.id.in_(of_run)))
    named = [track for track in stored if track_name in (None, track.track_name)]
    if track_name is not None and stored and not named:
        names = ", ".join(repr(name) for name in sorted({track.track_name for track in stored}))
        raise StoreError(f"no track {track_name!r} is stored: expected one of {names}")
    for name in (TRACK_SMOOTHED, TRACK) if method is None else (method,):
        if candidates := [track for track in named if track.method == name]:
            return preferred_track(candidates)
    return None


def preferred_track(tracks: Iterable[StoredLocalization]) -> StoredLocalization:
    """Which of several tracks is meant where nobody says: the newest without options, else the newest."""
    return max(tracks, key=lambda track: (track.is_plain_track, track.id))


def frame_tracks(
    session: Session, stored: StoredLocalization | None, frame_indices: Sequence[int] | None = None
) -> dict[int, TrackEstimate]:
    """Read {frame index: estimate} of a track, for all frames or some; nothing of none."""
    return {} if stored is None else tracks.track_estimates(session, stored.id, stored.track_mode, frame_indices)


def newest_tracks(session: Session, flight_id: str) -> list[StoredLocalization]:
    """List a flight's newest finished track of each method and question, oldest first."""
    condition = and_(LocalizationRow.method.in_(_TRACK_MODES), FlightRow.flight_id == ids.label(flight_id))
    finished = [stored for stored in _localizations(session, condition) if stored.finished_at is not None]
    newest = {
        (stored.method, stored.track_question): stored
        for stored in sorted(finished, key=lambda stored: stored.finished_at or now())
    }
    return sorted(newest.values(), key=lambda stored: stored.id)


def track(session: Session, stored: StoredLocalization) -> dict[int, TrackEstimate]:
    """Read {frame index: estimate} of a stored track, in the flight's order."""
    return tracks.track_estimates(session, stored.id, stored.track_mode)


def methods(session: Session, run: int) -> list[str]:
    """List the methods that have answered from this run, oldest first."""
    query = select(LocalizationRow.method).join(LocalizationRunRow).where(LocalizationRunRow.run_id == run)
    return list(dict.fromkeys(session.scalars(query.order_by(LocalizationRow.id))))


def estimates(
    session: Session,
    run: int,
    method: str,
    frame_indices: Sequence[int] | None = None,
    track_name: str | None = None,
) -> dict[int, tuple[Estimate, TileSnapshot | None]]:
    """Read {frame index: (estimate, snapshot of its best tile)} of a run by one method, for all frames or some.

    A fix's location is its pose's `position`, a track's its estimate's; a track's score is its probability.
    """
    if method == FIX:
        fixes_by_frame = frame_fixes(session, run, frame_indices)
        return {index: (_fix_estimate(fix.pose), None) for index, fix in fixes_by_frame.items() if fix.pose}
    if method in _TRACK_MODES:
        tracked = frame_tracks(session, run_track(session, run, method, track_name), frame_indices)
        return {index: (estimate, None) for index, frame in tracked.items() if (estimate := _track_estimate(frame))}
    if (newest := newest_localization(session, run, method)) is not None:
        seals.check(session, "localization", newest, frame_indices)
    query = (
        select(FrameRow.index, FrameEstimateRow)
        .join(FrameRow, FrameRow.id == FrameEstimateRow.frame_id)
        .join(LocalizationRow, LocalizationRow.id == FrameEstimateRow.localization_id)
        .join(LocalizationRunRow, LocalizationRunRow.localization_id == LocalizationRow.id)
        .where(LocalizationRunRow.run_id == run, LocalizationRow.method == method)
    )
    if frame_indices is not None:
        query = query.where(FrameRow.index.in_(frame_indices))
    rows = [(index, row) for index, row in session.execute(query)]
    tiles = snapshots(session, (row.snapshot_id for _, row in rows if row.snapshot_id is not None))
    return {index: _estimate(row, tiles) for index, row in rows}


def _fix_estimate(pose: Pose2D) -> Estimate:
    return Estimate(
        location=pose.position,
        heading_deg=pose.heading_deg,
        score=pose.score,
        margin=pose.margin,
        covariance_m2=pose.position_covariance_m2,
        probability=pose.probability,
    )


def _track_estimate(tracked: TrackEstimate) -> Estimate | None:
    if tracked.position is None:
        return None
    return Estimate(
        location=tracked.position,
        heading_deg=tracked.heading_deg,
        score=tracked.probability,
        margin=None,
        covariance_m2=tracked.position_covariance_m2,
        probability=tracked.probability,
        state=tracked.state,
    )


def _estimate(row: FrameEstimateRow, tiles: Mapping[int, TileSnapshot]) -> tuple[Estimate, TileSnapshot | None]:
    snapshot = None if row.snapshot_id is None else tiles[row.snapshot_id]
    parts = (row.cov_east_east_m2, row.cov_east_north_m2, row.cov_north_north_m2)
    covariances = [part for part in parts if part is not None]
    estimate = Estimate(
        location=LonLat(row.lon, row.lat),
        tile=snapshot.tile if snapshot else None,
        covariance_m2=Covariance(*covariances) if len(covariances) == len(parts) else None,
        **{name: getattr(row, name) for name in _PLAIN},
    )
    return estimate, snapshot
