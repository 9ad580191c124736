"""Evaluation of stored tracks: what they claim, how far off that is, and how soon they know again after a loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from coarseloc.core import geo
from coarseloc.core.fixes import CHI2_95
from coarseloc.core.types import Floats
from coarseloc.store import Session, flights, localizations, tracks
from coarseloc.store.localizations import StoredLocalization
from search.evaluation import intervals
from search.evaluation.fix_scores import ReliabilityBin, reliability_bins, value_text
from search.evaluation.intervals import BlockInterval, IntervalEstimate
from search.evaluation.score_json import block_json, reliability_json, scores_json
from search.export.tracks import FlightTrack, TrackFrame, load_track
from search.tracking.gaps import TrackGap, track_gaps

FALSE_CLAIM_M = {"fixes": 100.0, "both": 100.0, "ranks": 300.0}  # a claim farther off than this is false
WITHIN_M = (25.0, 50.0, 100.0)


@dataclass(frozen=True, slots=True)
class TrackScore:
    """One figure of a track."""

    key: str
    title: str
    unit: str
    better: str  # "lower", "higher" or "nominal"

    def text(self, value: float) -> str:
        """A value in its unit."""
        return value_text(value, self.unit)


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
    probability: Floats  # that the track states
    error_m: Floats  # great circle, of the estimate's position
    nees: Floats  # normalised error squared, of two dimensions, the truth's own error included


@dataclass(frozen=True)
class TrackEvaluation:
    """A stored track with its scores."""

    track: FlightTrack
    gaps: Sequence[TrackGap]  # of a causal track, and why
    judged: TrackedFrames
    acquired_after: int | None  # frames until the first claim; None: there is none
    losses: Sequence[int | None]  # of each loss, frames until it was recovered; None: it was not

    @property
    def localization(self) -> StoredLocalization:
        return self.track.stored

    @property
    def without_truth(self) -> int:
        return len(self.track.frames) - len(self.judged.error_m)

    @property
    def label(self) -> str:
        """Method, evidence and options: `track, ranks, --yaw labels`."""
        stored = self.localization
        return ", ".join((stored.method, stored.evidence, *stored.track_options))

    @property
    def false_claim_m(self) -> float:
        return FALSE_CLAIM_M[self.localization.evidence]

    @cached_property
    def scores(self) -> Mapping[str, IntervalEstimate]:
        """{score's key: estimate}, of `TRACK_SCORES`."""
        errors_m = self.judged.error_m
        is_false = np.where(np.isnan(errors_m), np.nan, errors_m > self.false_claim_m)
        return {
            "track_error_median": intervals.median(errors_m, self._correlation),
            "track_error_p90": intervals.p90(errors_m, self._correlation),
            "track_false_claims": intervals.share_upper_bound(is_false),
            **{key: intervals.share(values, self._correlation) for key, values in self._shares.items()},
        }

    @cached_property
    def block_intervals(self) -> Mapping[str, BlockInterval]:
        """{score's key: its interval from blocks of consecutive frames}; false claims have their exact bound alone."""
        errors_m = self.judged.error_m
        quantiles = {"track_error_median": 0.5, "track_error_p90": 0.9}
        return {
            **{key: intervals.block_quantile(errors_m, self._correlation, q=q) for key, q in quantiles.items()},
            **{key: intervals.block_share(values, self._correlation) for key, values in self._shares.items()},
        }

    @cached_property
    def reliability(self) -> Sequence[ReliabilityBin]:
        """The claims' stated probability against the share of them that are not false."""
        errors_m = self.judged.error_m
        claimed = ~np.isnan(errors_m)
        right = errors_m[claimed] <= self.false_claim_m
        return reliability_bins(self.judged.probability[claimed], right, self._correlation)

    @cached_property
    def _correlation(self) -> float:
        errors_m = self.judged.error_m
        return intervals.correlation_length(intervals.ranks(errors_m[~np.isnan(errors_m)]))

    @cached_property
    def _shares(self) -> Mapping[str, Floats]:
        """{score's key: 0 or 1 of each frame [F]}, nan where it does not count."""
        judged = self.judged
        distances_m = np.nan_to_num(judged.error_m, nan=math.inf)
        return {
            **{f"track_within@{metres:g}": (distances_m <= metres).astype(np.float64) for metres in WITHIN_M},
            "track_claimed": judged.claimed,
            "track_coverage@95": np.where(np.isnan(judged.nees), np.nan, judged.nees <= CHI2_95),
        }

    def to_json(self) -> dict[str, Any]:
        """Every score with its interval, n and n_eff."""
        return {
            "flight_id": self.localization.flight_id,
            "method": self.localization.method,
            "evidence": self.localization.evidence,
            "options": list(self.localization.track_options),
            "odometry": self.localization.parameters.get("odometry"),
            "reference_set": self.localization.reference_set,
            "counts": {
                "frames": len(self.track.frames),
                "without_truth": self.without_truth,
                "judged": len(self.judged.error_m),
            },
            "false_claim_m": self.false_claim_m,
            "acquired_after": self.acquired_after,
            "losses": list(self.losses),
            "scores": {
                key: row | {"block_bootstrap": block_json(self.block_intervals.get(key))}
                for key, row in scores_json(TRACK_SCORES, self.scores).items()
            },
            "reliability": reliability_json(self.reliability),
            "gaps": [asdict(gap) for gap in self.gaps],
        }


def evaluate_tracks(
    session: Session, flight_ids: Iterable[str], reference_set: str | None = None
) -> list[TrackEvaluation]:
    """The newest stored tracks of flights, of each method and question."""
    return [
        _evaluation(session, stored)
        for flight_id in dict.fromkeys(flight_ids)
        for stored in localizations.newest_tracks(session, flight_id)
        if reference_set in (None, stored.reference_set)
    ]


def _evaluation(session: Session, stored: StoredLocalization) -> TrackEvaluation:
    flight = flights.find_flight(session, stored.flight_id).flight
    track = load_track(session, flight, stored)
    claims = [tracked.estimate.claimed for tracked in track.frames]
    with_truth = [tracked for tracked in track.frames if tracked.frame.truth.location is not None]
    errors = np.array([_error(tracked, flight.truth_sd_m) for tracked in with_truth]).reshape(-1, 2)
    judged = TrackedFrames(
        np.array([float(tracked.estimate.claimed) for tracked in with_truth]),
        np.array([tracked.estimate.probability for tracked in with_truth]),
        errors[:, 0],
        errors[:, 1],
    )
    acquired = claims.index(True) if True in claims else None
    return TrackEvaluation(track, _gaps(session, track), judged, acquired, losses(claims))


def _gaps(session: Session, track: FlightTrack) -> list[TrackGap]:
    if track.stored.track_mode == "smoothed":
        return []
    estimates = [tracked.estimate for tracked in track.frames]
    unplaced = [estimate.index for estimate in estimates if not estimate.claimed]
    return track_gaps(estimates, tracks.track_evidence(session, track.stored.id, unplaced))


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


def _error(tracked: TrackFrame, truth_sd_m: float) -> tuple[float, float]:
    """(metres, normalised error squared) of a claim; nan without one."""
    truth, position, covariance = tracked.frame.truth.location, tracked.position, tracked.covariance_m2
    if truth is None or position is None or covariance is None:
        return math.nan, math.nan
    offset = np.array(geo.offset_m(truth, position))
    matrix = covariance.matrix() + truth_sd_m**2 * np.eye(2)
    return float(geo.distance_m(*truth, *position)), float(offset @ np.linalg.solve(matrix, offset))
