"""Fixes of frames as rows: a pose, no match, or why a frame was not looked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from coarseloc.core.fixes import FixConditions, FrameFix, NoMatch, NoMatchReason, NotVerified, Pose2D, RunnerUp
from coarseloc.core.types import LonLat
from coarseloc.store import seals
from coarseloc.store.points import point_columns, point_of
from coarseloc.store.tables import FrameFixRow, FrameRow

_IN_COLUMNS = (
    "ground", "ground_covariance_m2", "aircraft", "aircraft_covariance_m2", "heading_deg", "score", "margin",
    "probability", "fit_digest",
)  # fmt: skip


def save_fixes(session: Session, localization: int, fixes: Iterable[tuple[int, FrameFix]]) -> None:
    """Write fixes, (frame's key, fix). Of a frame without a match no position is written."""
    seals.unseal(session, "localization", localization)
    session.add_all(FrameFixRow(localization_id=localization, frame_id=frame, **_values(fix)) for frame, fix in fixes)


def fixes(session: Session, localization: int, frame_indices: Sequence[int] | None = None) -> dict[int, FrameFix]:
    """Read {frame index: fix}, for all frames or some. Raises StoreError where they are not as they were written."""
    seals.check(session, "localization", localization, frame_indices)
    query = (
        select(FrameRow.index, FrameFixRow)
        .join(FrameRow, FrameRow.id == FrameFixRow.frame_id)
        .where(FrameFixRow.localization_id == localization)
    )
    if frame_indices is not None:
        query = query.where(FrameRow.index.in_(frame_indices))
    return {index: _fix(row) for index, row in session.execute(query)}


def count_fixes(session: Session, localization: int) -> int:
    """How many frames have been looked for."""
    query = select(func.count()).select_from(FrameFixRow).where(FrameFixRow.localization_id == localization)
    return session.scalars(query).one()


def fixed_frames(session: Session, localization: int) -> set[int]:
    """The keys of the frames that have been looked for."""
    return set(session.scalars(select(FrameFixRow.frame_id).where(FrameFixRow.localization_id == localization)))


def _values(fix: FrameFix) -> dict[str, Any]:
    answer = fix.answer
    values: dict[str, Any] = {"match": fix.match, "reason": fix.reason}
    values["conditions"] = fix.conditions and asdict(fix.conditions)
    if not isinstance(answer, NotVerified):
        values |= {name: getattr(answer, name) for name in ("score", "margin", "probability", "fit_digest")}
    if isinstance(answer, Pose2D):
        values |= {"heading_deg": answer.heading_deg, **point_columns("", answer.ground, answer.ground_covariance_m2)}
        values |= point_columns("aircraft_", answer.aircraft, answer.aircraft_covariance_m2)
        values["pose"] = {name: value for name, value in asdict(answer).items() if name not in _IN_COLUMNS}
    return values


def _fix(row: FrameFixRow) -> FrameFix:
    conditions = None if row.conditions is None else FixConditions(**row.conditions)
    if row.match is None:
        return FrameFix(NotVerified(row.reason or ""), conditions)
    if not row.match:
        reason = cast(NoMatchReason, row.reason)
        return FrameFix(
            NoMatch(reason, row.score, row.margin, row.probability or 0.0, row.fit_digest or ""), conditions
        )
    return FrameFix(_pose(row, row.pose or {}), conditions)


def _pose(row: FrameFixRow, rest: dict[str, Any]) -> Pose2D:
    ground, ground_covariance = point_of(row, "")
    aircraft, aircraft_covariance = point_of(row, "aircraft_")
    numbers = (row.heading_deg, row.score, row.margin, row.probability)
    heading_deg, score, margin, probability = (number for number in numbers if number is not None)
    assert ground is not None and ground_covariance is not None  # noqa: S101 - a match has a position
    upper_left, upper_right, lower_right, lower_left = (LonLat(*corner) for corner in rest["corners"])
    runner_up = rest["runner_up"]
    return Pose2D(
        **rest
        | {
            "ground": ground,
            "ground_covariance_m2": ground_covariance,
            "aircraft": aircraft,
            "aircraft_covariance_m2": aircraft_covariance,
            "heading_deg": heading_deg,
            "score": score,
            "margin": margin,
            "probability": probability,
            "fit_digest": row.fit_digest,
            "corners": (upper_left, upper_right, lower_right, lower_left),
            "runner_up": runner_up
            and RunnerUp(LonLat(*runner_up["location"]), runner_up["heading_deg"], runner_up["score"]),
        }
    )
