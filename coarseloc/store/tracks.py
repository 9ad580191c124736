"""Tracks as rows: an estimate a frame, and what a causal one was made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from coarseloc.core.tracks import (
    AlternativePlace,
    MotionSource,
    TrackEstimate,
    TrackMode,
    TrackSearch,
    TrackState,
)
from coarseloc.core.types import LonLat, batches
from coarseloc.store import seals
from coarseloc.store.points import point_columns, point_of
from coarseloc.store.tables import FrameRow, TrackEstimateRow

_KEYS_AT_ONCE = 500  # below the least limit of a database

_PLAIN = (
    "state", "heading_deg", "heading_sd_deg", "scale", "speed_mps", "probability", "p_off_map", "p_blind", "odometry",
    "reset_counter", "measured", "searched",
)  # fmt: skip


def save_track_estimates(
    session: Session, localization: int, rows: Iterable[tuple[int, TrackEstimate, Mapping[str, Any] | None]]
) -> None:
    """Write estimates: (frame's key, estimate, its evidence as JSON, if any)."""
    seals.unseal(session, "localization", localization)
    for frame, estimate, evidence in rows:
        session.add(
            TrackEstimateRow(
                localization_id=localization,
                frame_id=frame,
                evidence=None if evidence is None else dict(evidence),
                alternatives=[asdict(place) for place in estimate.alternatives],
                **{name: getattr(estimate, name) for name in _PLAIN},
                **point_columns("", estimate.ground, estimate.ground_covariance_m2),
                **point_columns("aircraft_", estimate.aircraft, estimate.aircraft_covariance_m2),
            )
        )


def delete_track_estimates(session: Session, localization: int, frames: Sequence[int] | None = None) -> None:
    """Forget a track's estimates, of all frames or of those with these keys."""
    seals.unseal(session, "localization", localization)
    query = delete(TrackEstimateRow).where(TrackEstimateRow.localization_id == localization)
    if frames is None:
        session.execute(query)
        return
    for keys in batches(frames, _KEYS_AT_ONCE):
        session.execute(query.where(TrackEstimateRow.frame_id.in_(keys)))


def track_estimates(
    session: Session, localization: int, mode: TrackMode, frame_indices: Sequence[int] | None = None
) -> dict[int, TrackEstimate]:
    """Read {frame index: estimate} in the flight's order, for all frames or some. Raises StoreError where they are not
    as they were written."""
    seals.check(session, "localization", localization, frame_indices)
    query = (
        select(FrameRow.index, TrackEstimateRow)
        .join(FrameRow, FrameRow.id == TrackEstimateRow.frame_id)
        .where(TrackEstimateRow.localization_id == localization)
        .order_by(FrameRow.sequence, FrameRow.index)
    )
    if frame_indices is not None:
        query = query.where(FrameRow.index.in_(frame_indices))
    return {index: _estimate(index, mode, row) for index, row in session.execute(query)}


def track_evidence(
    session: Session, localization: int, frame_indices: Sequence[int] | None = None
) -> dict[int, dict[str, Any]]:
    """Read {frame index: the evidence of its causal estimate}, for all frames or some."""
    query = (
        select(FrameRow.index, TrackEstimateRow.evidence)
        .join(FrameRow, FrameRow.id == TrackEstimateRow.frame_id)
        .where(TrackEstimateRow.localization_id == localization, TrackEstimateRow.evidence.is_not(None))
    )
    if frame_indices is not None:
        query = query.where(FrameRow.index.in_(frame_indices))
    return {index: evidence for index, evidence in session.execute(query) if evidence is not None}


def _estimate(index: int, mode: TrackMode, row: TrackEstimateRow) -> TrackEstimate:
    ground, ground_covariance_m2 = point_of(row, "")
    aircraft, aircraft_covariance_m2 = point_of(row, "aircraft_")
    return TrackEstimate(
        index=index,
        mode=mode,
        state=cast(TrackState, row.state),
        ground=ground,
        ground_covariance_m2=ground_covariance_m2,
        heading_deg=row.heading_deg,
        heading_sd_deg=row.heading_sd_deg,
        scale=row.scale,
        speed_mps=row.speed_mps,
        probability=row.probability,
        p_off_map=row.p_off_map,
        p_blind=row.p_blind,
        odometry=cast(MotionSource, row.odometry),
        reset_counter=row.reset_counter,
        measured=row.measured,
        searched=cast(TrackSearch | None, row.searched),
        alternatives=tuple(
            AlternativePlace(LonLat(*place["location"]), place["heading_deg"], place["probability"])
            for place in row.alternatives
        ),
        aircraft=aircraft,
        aircraft_covariance_m2=aircraft_covariance_m2,
    )
