"""The scores of a run, as rows of one table: it drives the command line, the JSON, the axis labels and the pages. Pure.

A metric is of a frame (`scoring.metrics`), a score is of a run: a figure of each frame, and how many frames' figures
become one. Places are scored on the frames that the map shows; a heading only where its place is right.
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
from search.evaluation.intervals import (
    Estimate,
    Figure,
    correlation_length,
    mean,
    median,
    p90,
    ranks,
    resampled,
    share,
    without_interval,
)
from search.evaluation.judged import Judged

SWEEP_M = tuple(range(10, 101, 10))  # distances of the hit curve
IOU_BOUND = 0.39  # a positive pair in GTA-UAV (Ji et al., "Game4Loc", AAAI 2025)
HEADING_STEP_DEG = 45.0  # of the usual references: half of it is the best that can be asked
SDM_SCALE = 5e3  # per degree
PDM_STEEPNESS, PDM_TOLERANCE = 6.0, 0.9
KS = (1, 5, 10)

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Score:
    """One row: `values` gives a figure of each frame [n] (or a few, [n, c]), `figure` one figure of all.

    `rare`: a few frames can decide it, as the wrong ones decide a mean error, so that its interval needs to know how
    right and wrong frames follow each other.
    """

    key: str
    title: str
    unit: str  # "m", "°", "%" (a fraction shown as percent) or ""
    better: Better
    group: str  # "error", "hit", "weighted", "heading" or "rejection"
    values: Callable[[Judged], Floats]
    figure: Figure
    rare: bool = True

    def of(self, judged: Judged) -> Estimate:
        """The figure with its 95 % interval, the number of frames it is of and their effective number."""
        return self.figure(self.values(judged), correlation(judged, rare=self.rare))


# --- figures of single frames, all [F] ----------------------------------------------------------


def top1_error(judged: Judged) -> Floats:
    """Metres from the best candidate's centre to the truth."""
    return metrics.error_m(judged.ranked)


def best_error(judged: Judged, k: int) -> Floats:
    """Metres from the truth to the nearest centre among the first k candidates."""
    return metrics.best_error_m(judged.ranked, k)


def hit_centre(judged: Judged, k: int, within_m: float | None = None) -> Floats:
    """1 where one of the first k centres lies within `within_m` metres of the truth (half a stride by default);
    nan where the stride is not known."""
    limit = judged.stride_m / 2 if within_m is None else within_m
    if np.isnan(limit):
        return np.full(len(judged), np.nan)
    return _any(judged.errors_m() <= limit, k)


def hit_footprint(judged: Judged, k: int) -> Floats:
    """1 where one of the first k footprints holds the truth."""
    return _any(metrics.inside_footprints(judged.ranked), k)


def hit_overlap(judged: Judged, k: int, bound: float = IOU_BOUND) -> Floats:
    """1 where one of the first k footprints overlaps the frame's by more than `bound` (see `Judged.iou`)."""
    return _any(judged.iou() > bound, k)


def reachable(judged: Judged, within_m: float) -> Floats:
    """1 where any reference centre lies within `within_m` metres of the truth: the ceiling of `hit_centre`."""
    return np.asarray(judged.nearest_m <= within_m, float)


def sdm(judged: Judged, k: int) -> Floats:
    """SDM@K of Dai et al., "Vision-Based UAV Self-Positioning in Low-Altitude Urban Environments" (DenseUAV, IEEE
    TIP 2024): sum of (K - i + 1) exp(-s d_i) / sum of (K - i + 1), d_i the plain distance in degrees, s = 5000."""
    return _weighted(np.exp(-SDM_SCALE * judged.degrees()), k)


def pdm(judged: Judged, k: int) -> Floats:
    """PDM@K of "Exploring the best way for UAV visual localization under low-altitude multi-view observation
    condition" (AnyVisLoc, arXiv 2503.10692) with the constants of its published code: sum of (K - i + 1) p_i /
    sum of (K - i + 1), p_i = 1 / (1 + exp(6 (d_i / side_i - 0.9))), side_i the reference's on the ground."""
    off = PDM_STEEPNESS * (judged.errors_m() / judged.sides_m() - PDM_TOLERANCE)
    return _weighted(1 / (1 + np.exp(np.clip(off, -60, 60))), k)


def below(judged: Judged, metres: float) -> Floats:
    """MA@d, as DenseUAV's evaluation counts it: 1 where the top-1 error is less than d metres."""
    return np.asarray(top1_error(judged) < metres, float)


def right(judged: Judged) -> Bools:
    """What counts as the right place for headings and rejection: the top-1 footprint holds the truth."""
    return metrics.right_place(judged.ranked)


def heading_error(judged: Judged) -> Floats:
    """Degrees between the best hit's heading and the yaw, 0 … 180; nan where the place is wrong or no yaw known."""
    return metrics.heading_error_deg(judged.ranked)


def heading_right(judged: Judged) -> Floats:
    """1 where the best hit's heading is the nearest one of a 45-degree step; nan as `heading_error`."""
    error = heading_error(judged)
    return np.where(np.isnan(error), np.nan, (error <= HEADING_STEP_DEG / 2).astype(float))


def correlation(judged: Judged, *, rare: bool = False) -> float:
    """The flight's correlation length in frames, from its errors' ranks in time order; with `rare` at least that of
    right and wrong answers, nan where all are right or all are wrong. Of the frames on the map."""
    here = judged.only(judged.on_map)
    of_errors = correlation_length(ranks(top1_error(here)))
    if not rare:
        return of_errors
    of_verdicts = correlation_length(right(here).astype(float))
    return math.nan if math.isnan(of_verdicts) else max(of_errors, of_verdicts)


def rejected_by(judged: Judged, confidence: str) -> Floats:
    """[n, 3] for `rejection`: "margin" or "agreement" against the right place, frames off the map included."""
    return rejection.sample(judged.margin if confidence == "margin" else judged.agreement, right(judged), judged.on_map)


def _any(hits: Bools, k: int) -> Floats:
    return cast(Floats, hits[:, :k].any(axis=1).astype(np.float64))


def _weighted(scores: Floats, k: int) -> Floats:
    """Mean of the first k scores, weighted K … 1; where there are fewer candidates, K is their number."""
    given = scores[:, :k]
    there = ~np.isnan(given)
    weights = there.sum(axis=1, keepdims=True) - np.arange(given.shape[1])
    weights = np.where(there, weights, 0)
    return cast(Floats, (weights * np.where(there, given, 0)).sum(axis=1) / weights.sum(axis=1))


# --- the table ----------------------------------------------------------------------------------


def _placed(values: Callable[[Judged], Floats]) -> Callable[[Judged], Floats]:
    return lambda judged: values(judged.only(judged.on_map))


def _error(key: str, title: str, values: Callable[[Judged], Floats]) -> list[Score]:
    figures = (("median", median), ("mean", mean), ("p90", p90))
    return [
        Score(f"{key}_{name}", f"{title}, {name}", "m", "lower", "error", _placed(values), figure, figure is not median)
        for name, figure in figures
    ]


def _share(key: str, title: str, group: str, values: Callable[[Judged], Floats]) -> Score:
    return Score(key, title, "%", "higher", group, _placed(values), share, rare=False)


def _weighted_score(key: str, title: str, values: Callable[[Judged], Floats]) -> Score:
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
    rows += [_share(f"ma@{d}", f"MA@{d} m", "hit", partial(below, metres=d)) for d in (20, 50, 100)]
    rows += [_weighted_score(f"sdm@{k}", f"SDM@{k}", partial(sdm, k=k)) for k in (1, 3, 5, 10)]
    rows += [_weighted_score(f"pdm@{k}", f"PDM@{k}", partial(pdm, k=k)) for k in (1, 3, 5, 10)]
    rows += [
        Score(
            "heading_error_median", "heading error, median", "°", "lower", "heading", _placed(heading_error), median,
            rare=False,
        ),
        Score("heading_error_mean", "heading error, mean", "°", "lower", "heading", _placed(heading_error), mean),
        _share("heading_right", "heading within 22.5°", "heading", heading_right),
    ]  # fmt: skip
    for confidence in ("margin", "agreement"):
        values = partial(rejected_by, confidence=confidence)
        rows += [
            Score(
                f"{confidence}_area", f"precision-recall area by {confidence}", "", "higher", "rejection",
                values, partial(resampled, reduce=rejection.area),
            ),
            Score(
                f"{confidence}_full_precision", f"recall at full precision by {confidence}", "%", "higher", "rejection",
                values, partial(without_interval, reduce=rejection.recall_at_full_precision),
            ),
        ]  # fmt: skip
    return tuple(rows)


SCORES = _rows()
BY_KEY = {score.key: score for score in SCORES}


def hit_curve(judged: Judged, k: int, sweep_m: tuple[int, ...] = SWEEP_M) -> dict[int, Estimate]:
    """{metres: share of frames with a top-k centre so near}."""
    here = judged.only(judged.on_map)
    length = correlation(here)
    return {d: share(hit_centre(here, k, float(d)), length) for d in sweep_m}


def ceiling(judged: Judged, sweep_m: tuple[int, ...] = SWEEP_M) -> dict[int, float]:
    """{metres: share of frames that have any reference centre so near}: what no search of this grid can pass."""
    here = judged.only(judged.on_map)
    return {d: float(reachable(here, d).mean()) if len(here) else float("nan") for d in sweep_m}
