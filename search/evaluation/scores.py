"""The scores of a run, as rows of one table: it drives the command line, the JSON, the axis labels and the pages. Pure.

A metric is of a frame (`coarseloc.localize.metrics`), a score is of a run: a metric of each frame, and the estimator
that reduces the frames' values to one. Places are scored on the frames that the map shows; a heading only where its
place is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import numpy as np

from coarseloc.core.types import Bools, Floats
from coarseloc.localize import metrics
from search.evaluation import rejection
from search.evaluation.evaluated_frames import EvaluatedFrames
from search.evaluation.intervals import (
    Estimator,
    IntervalEstimate,
    bootstrap,
    correlation_length,
    mean,
    median,
    p90,
    point_estimate,
    ranks,
    share,
)

SWEEP_M = tuple(range(10, 101, 10))  # distances of the hit curve
IOU_BOUND = 0.39  # a positive pair in GTA-UAV (Ji et al., "Game4Loc", AAAI 2025)
HEADING_STEP_DEG = 45.0  # of the usual references: half of it is the best possible error
SDM_SCALE = 5e3  # per degree
PDM_STEEPNESS, PDM_TOLERANCE = 6.0, 0.9
KS = (1, 5, 10)

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Score:
    """One row: `values` computes a metric of each frame [n] (or a few, [n, c]), `estimator` reduces them to one.

    `outlier_sensitive`: a few frames can decide it, as the wrong ones decide a mean error, so that its interval depends
    on how right and wrong frames follow each other.
    """

    key: str
    title: str
    unit: str  # "m", "°", "%" (a fraction shown as percent) or ""
    better: Better
    group: str  # "error", "hit", "weighted", "heading" or "rejection"
    values: Callable[[EvaluatedFrames], Floats]
    estimator: Estimator
    outlier_sensitive: bool = True

    def evaluate(self, frames: EvaluatedFrames) -> IntervalEstimate:
        """The score with its 95 % interval, its number of frames and their effective number."""
        return self.estimator(self.values(frames), correlation(frames, outlier_sensitive=self.outlier_sensitive))


# --- metrics of single frames, all [F] ----------------------------------------------------------


def top1_error(frames: EvaluatedFrames) -> Floats:
    """Metres from the best candidate's centre to the truth."""
    return metrics.error_m(frames.ranked)


def best_error(frames: EvaluatedFrames, k: int) -> Floats:
    """Metres from the truth to the nearest centre among the first k candidates."""
    return metrics.best_error_m(frames.ranked, k)


def hit_centre(frames: EvaluatedFrames, k: int, within_m: float | None = None) -> Floats:
    """1 where one of the first k centres lies within `within_m` metres of the truth (half a stride by default);
    nan where the stride is not known."""
    limit = frames.stride_m / 2 if within_m is None else within_m
    if np.isnan(limit):
        return np.full(len(frames), np.nan)
    return _hit_within_k(frames.errors_m() <= limit, k)


def hit_footprint(frames: EvaluatedFrames, k: int) -> Floats:
    """1 where one of the first k footprints holds the truth."""
    return _hit_within_k(metrics.inside_footprints(frames.ranked), k)


def hit_overlap(frames: EvaluatedFrames, k: int, bound: float = IOU_BOUND) -> Floats:
    """1 where one of the first k footprints overlaps the frame's by more than `bound` (see `EvaluatedFrames.iou`)."""
    return _hit_within_k(frames.iou() > bound, k)


def reachable(frames: EvaluatedFrames, within_m: float) -> Floats:
    """1 where any reference centre lies within `within_m` metres of the truth: the ceiling of `hit_centre`."""
    return np.asarray(frames.nearest_m <= within_m, float)


def sdm(frames: EvaluatedFrames, k: int) -> Floats:
    """SDM@K of Dai et al., "Vision-Based UAV Self-Positioning in Low-Altitude Urban Environments" (DenseUAV, IEEE
    TIP 2024): sum of (K - i + 1) exp(-s d_i) / sum of (K - i + 1), d_i the plain distance in degrees, s = 5000."""
    return _weighted(np.exp(-SDM_SCALE * frames.errors_deg()), k)


def pdm(frames: EvaluatedFrames, k: int) -> Floats:
    """PDM@K of "Exploring the best way for UAV visual localization under low-altitude multi-view observation
    condition" (AnyVisLoc, arXiv 2503.10692) with the constants of its published code: sum of (K - i + 1) p_i /
    sum of (K - i + 1), p_i = 1 / (1 + exp(6 (d_i / side_i - 0.9))), side_i the reference's on the ground."""
    off = PDM_STEEPNESS * (frames.errors_m() / frames.sides_m() - PDM_TOLERANCE)
    return _weighted(1 / (1 + np.exp(np.clip(off, -60, 60))), k)


def error_below(frames: EvaluatedFrames, metres: float) -> Floats:
    """MA@d, as DenseUAV's evaluation counts it: 1 where the top-1 error is less than d metres."""
    return np.asarray(top1_error(frames) < metres, float)


def right_place(frames: EvaluatedFrames) -> Bools:
    """What counts as the right place for headings and rejection: the top-1 footprint holds the truth."""
    return metrics.right_place(frames.ranked)


def heading_error(frames: EvaluatedFrames) -> Floats:
    """Degrees between the best hit's heading and the yaw, 0 … 180; nan where the place is wrong or no yaw known."""
    return metrics.heading_error_deg(frames.ranked)


def heading_right(frames: EvaluatedFrames) -> Floats:
    """1 where the best hit's heading is the nearest one of a 45-degree step; nan as `heading_error`."""
    error = heading_error(frames)
    return np.where(np.isnan(error), np.nan, (error <= HEADING_STEP_DEG / 2).astype(float))


def correlation(frames: EvaluatedFrames, *, outlier_sensitive: bool = False) -> float:
    """The flight's correlation length in frames, from its errors' ranks in time order, of the frames on the map; if
    `outlier_sensitive` at least that of right and wrong answers, nan where all are right or all are wrong."""
    on_map = frames.select(frames.on_map)
    error_length = correlation_length(ranks(top1_error(on_map)))
    if not outlier_sensitive:
        return error_length
    verdict_length = correlation_length(right_place(on_map).astype(float))
    return math.nan if math.isnan(verdict_length) else max(error_length, verdict_length)


def rejection_samples(frames: EvaluatedFrames, confidence: str) -> Floats:
    """[n, 3] for `rejection`: "margin" or "agreement" against the right place, frames off the map included."""
    return rejection.sample(
        frames.margin if confidence == "margin" else frames.agreement, right_place(frames), frames.on_map
    )


def _hit_within_k(hits: Bools, k: int) -> Floats:
    return cast(Floats, hits[:, :k].any(axis=1).astype(np.float64))


def _weighted(scores: Floats, k: int) -> Floats:
    """Mean of the first k scores, weighted K … 1; where there are fewer candidates, K is their number."""
    top_scores = scores[:, :k]
    present = ~np.isnan(top_scores)
    weights = present.sum(axis=1, keepdims=True) - np.arange(top_scores.shape[1])
    weights = np.where(present, weights, 0)
    with np.errstate(invalid="ignore"):  # nan where there is no candidate
        return cast(Floats, (weights * np.where(present, top_scores, 0)).sum(axis=1) / weights.sum(axis=1))


# --- the table ----------------------------------------------------------------------------------


def _placed(values: Callable[[EvaluatedFrames], Floats]) -> Callable[[EvaluatedFrames], Floats]:
    return lambda frames: values(frames.select(frames.on_map))


def _error(key: str, title: str, values: Callable[[EvaluatedFrames], Floats]) -> list[Score]:
    estimators = (("median", median), ("mean", mean), ("p90", p90))
    return [
        Score(
            f"{key}_{name}",
            f"{title}, {name}",
            "m",
            "lower",
            "error",
            _placed(values),
            estimator,
            estimator is not median,
        )
        for name, estimator in estimators
    ]


def _share(key: str, title: str, group: str, values: Callable[[EvaluatedFrames], Floats]) -> Score:
    return Score(key, title, "%", "higher", group, _placed(values), share, outlier_sensitive=False)


def _weighted_score(key: str, title: str, values: Callable[[EvaluatedFrames], Floats]) -> Score:
    return Score(key, title, "", "higher", "weighted", _placed(values), mean)


def _rows() -> tuple[Score, ...]:
    rows = _error("error", "top-1 error", top1_error) + _error(
        "best10_error", "best of top 10", partial(best_error, k=10)
    )
    for k in KS:
        rows += [
            _share(f"hit_centre@{k}", f"centre within half a stride, top {k}", "hit", partial(hit_centre, k=k)),
            _share(f"hit_footprint@{k}", f"truth in the footprint, top {k}", "hit", partial(hit_footprint, k=k)),
            _share(f"hit_overlap@{k}", f"overlap above {IOU_BOUND} IoU, top {k}", "hit", partial(hit_overlap, k=k)),
        ]
    rows += [_share(f"ma@{d}", f"MA@{d} m", "hit", partial(error_below, metres=d)) for d in (20, 50, 100)]
    rows += [_weighted_score(f"sdm@{k}", f"SDM@{k}", partial(sdm, k=k)) for k in (1, 3, 5, 10)]
    rows += [_weighted_score(f"pdm@{k}", f"PDM@{k}", partial(pdm, k=k)) for k in (1, 3, 5, 10)]
    rows += [
        Score(
            "heading_error_median", "heading error, median", "°", "lower", "heading", _placed(heading_error), median,
            outlier_sensitive=False,
        ),
        Score("heading_error_mean", "heading error, mean", "°", "lower", "heading", _placed(heading_error), mean),
        _share("heading_right", "heading within 22.5°", "heading", heading_right),
    ]  # fmt: skip
    for confidence in ("margin", "agreement"):
        values = partial(rejection_samples, confidence=confidence)
        rows += [
            Score(
                f"{confidence}_area", f"precision-recall area by {confidence}", "", "higher", "rejection",
                values, partial(bootstrap, statistic=rejection.area),
            ),
            Score(
                f"{confidence}_full_precision", f"recall at full precision by {confidence}", "%", "higher", "rejection",
                values, partial(point_estimate, statistic=rejection.recall_at_full_precision),
            ),
        ]  # fmt: skip
    return tuple(rows)


SCORES = _rows()
BY_KEY = {score.key: score for score in SCORES}


def hit_curve(frames: EvaluatedFrames, k: int, sweep_m: tuple[int, ...] = SWEEP_M) -> dict[int, IntervalEstimate]:
    """{metres: share of frames with a top-k centre so near}."""
    on_map = frames.select(frames.on_map)
    correlation_frames = correlation(on_map)
    return {d: share(hit_centre(on_map, k, float(d)), correlation_frames) for d in sweep_m}


def ceiling(frames: EvaluatedFrames, sweep_m: tuple[int, ...] = SWEEP_M) -> dict[int, float]:
    """{metres: share of frames that have any reference centre so near}: what no search of this grid can pass."""
    on_map = frames.select(frames.on_map)
    return {d: float(reachable(on_map, d).mean()) if len(on_map) else float("nan") for d in sweep_m}
