"""Evaluation of stored tracks: what they claim, how far off that is, and how soon they know again after a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from coarseloc.core import geo
from coarseloc.core.fixes import CHI2_95
from coarseloc.core.tracks import TrackEstimate
from coarseloc.core.types import Floats, Frame
from coarseloc.store import Session, flights, localizations
from coarseloc.store.localizations import StoredLocalization
from search.evaluation import intervals
from search.evaluation.fix_evaluation import estimate_json
from search.evaluation.intervals import IntervalEstimate

FALSE_CLAIM_M = {"fixes": 100.0, "both": 100.0, "ranks": 300.0}  # a claim farther off than this is false
WITHIN_M = (25.0, 50.0, 100.0)


@dataclass(frozen=True, slots=True)
class TrackScore:
    """One figure of a track."""

    key: str
    title: str
    unit: str
    better: str  # "lower", "higher" or "nominal"


TRACK_SCORES = (
    TrackScore("track_error_median", "track: error, median", "m", "lower"),
    TrackScore("track_error_p90", "track: error, 90 %", "m", "lower"),
    *(TrackScore(f"track_within@{m:g}", f"track: within {m:g} m, of all frames", "%", "higher") for m in WITHIN_M),
    TrackScore("track_claimed", "track: frames claimed", "%", "higher"),
    TrackScore("track_false_claims", "track: claims that are false", "%", "lower"),
    TrackScore("track_coverage@95", "track: 95 % ellipse holds", "%", "nominal"),
)


@dataclass(frozen=True, slots=True)
class TrackedFrames:
    """Frames with truth, in the flight's order. `error_m`, `nees` [F]: nan where nothing is claimed."""

    claimed: Floats  # 0 or 1
    error_m: Floats  # great circle, of the estimate's position
    nees: Floats  # normalised error squared, of two dimensions, the truth's own error included


@dataclass(frozen=True)
class TrackEvaluation:
    """A stored track with its scores."""

    localization: StoredLocalization
    frames: int
    without_truth: int
    judged: TrackedFrames
    acquired_after: int | None  # frames until the first claim; None: there is none
    losses: Sequence[int | None]  # of each loss, frames until it was recovered; None: it was not

    @property
    def label(self) -> str:
        """Method and evidence: `track, ranks`."""
        return f"{self.localization.method}, {self.localization.evidence}"

    @property
    def false_claim_m(self) -> float:
        return FALSE_CLAIM_M[self.localization.evidence]

    @cached_property
    def scores(self) -> Mapping[str, IntervalEstimate]:
        """{score's key: estimate}, of `TRACK_SCORES`."""
        judged = self.judged
        correlation = intervals.correlation_length(judged.error_m[~np.isnan(judged.error_m)])
        holds = np.where(np.isnan(judged.nees), np.nan, judged.nees <= CHI2_95)
        is_false = np.where(np.isnan(judged.error_m), np.nan, judged.error_m > self.false_claim_m)
        values: dict[str, Callable[[], IntervalEstimate]] = {
            "track_error_median": partial(intervals.median, judged.error_m, correlation),
            "track_error_p90": partial(intervals.p90, judged.error_m, correlation),
            "track_claimed": partial(intervals.share, judged.claimed, correlation),
            "track_false_claims": partial(intervals.share_upper_bound, is_false),
            "track_coverage@95": partial(intervals.share, holds, correlation),
        }
        for metres in WITHIN_M:
            near = (np.nan_to_num(judged.error_m, nan=math.inf) <= metres).astype(np.float64)
            values[f"track_within@{metres:g}"] = partial(intervals.share, near, correlation)
        return {key: evaluate() for key, evaluate in values.items()}

    def to_json(self) -> dict[str, Any]:
        """Every score with its interval, n and n_eff."""
        return {
            "flight_id": self.localization.flight_id,
            "method": self.localization.method,
            "evidence": self.localization.evidence,
            "odometry": self.localization.parameters.get("odometry"),
            "reference_set": self.localization.reference_set,
            "counts": {"frames": self.frames, "without_truth": self.without_truth, "judged": len(self.judged.error_m)},
            "false_claim_m": self.false_claim_m,
            "acquired_after": self.acquired_after,
            "losses": list(self.losses),
            "scores": {
                score.key: {
                    "title": score.title,
                    "unit": score.unit,
                    "better": score.better,
                    **estimate_json(self.scores[score.key]),
                }
                for score in TRACK_SCORES
            },
        }


def evaluate_tracks(
    session: Session, flight_ids: Iterable[str], reference_set: str | None = None
) -> list[TrackEvaluation]:
    """The newest stored tracks of flights, of each method, references and evidence."""
    return [
        _evaluation(session, stored)
        for flight_id in dict.fromkeys(flight_ids)
        for stored in localizations.newest_tracks(session, flight_id)
        if reference_set in (None, stored.reference_set)
    ]


def _evaluation(session: Session, stored: StoredLocalization) -> TrackEvaluation:
    flight = flights.find_flight(session, stored.flight_id).flight
    estimates = localizations.track(session, stored)
    tracked = [(frame, estimates[frame.index]) for frame in flight.frames if frame.index in estimates]
    claims = [estimate.claimed for _, estimate in tracked]
    with_truth = [(frame, estimate) for frame, estimate in tracked if frame.truth.location is not None]
    errors = np.array([_error(frame, estimate, flight.truth_sd_m) for frame, estimate in with_truth]).reshape(-1, 2)
    judged = TrackedFrames(
        np.array([float(estimate.claimed) for _, estimate in with_truth]), errors[:, 0], errors[:, 1]
    )
    acquired = claims.index(True) if True in claims else None
    return TrackEvaluation(stored, len(tracked), len(tracked) - len(with_truth), judged, acquired, losses(claims))


def losses(claims: Sequence[bool]) -> list[int | None]:
    """How many frames each gap of claims lasts, after the first claim; None for one that lasts to the end."""
    gaps: list[int | None] = []
    gap: int | None = None
    for claimed in claims[claims.index(True) :] if True in claims else ():
        if claimed and gap is not None:
            gaps.append(gap)
            gap = None
        elif not claimed:
            gap = 1 if gap is None else gap + 1
    return gaps if gap is None else [*gaps, None]


def _error(frame: Frame, estimate: TrackEstimate, truth_sd_m: float) -> tuple[float, float]:
    """(metres, normalised error squared) of a claim; nan without one."""
    truth, position, covariance = frame.truth.location, estimate.position, estimate.position_covariance_m2
    if truth is None or position is None or covariance is None:
        return math.nan, math.nan
    offset = np.array(geo.offset_m(truth, position))
    matrix = covariance.matrix() + truth_sd_m**2 * np.eye(2)
    return float(geo.distance_m(*truth, *position)), float(offset @ np.linalg.solve(matrix, offset))
