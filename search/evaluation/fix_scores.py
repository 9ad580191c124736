"""The scores of fixes, as rows of one table; coverage, rejection by probability and its reliability. Pure.

- Errors are of all matches on the map, the wrong ones too; a share "within" counts frames without a match as outside,
  as benchmarks of visual localization do (Sattler et al., "Benchmarking 6DOF Outdoor Visual Localization in Changing
  Conditions", CVPR 2018).
- Ellipses, NEES and headings are of right matches: a covariance says how far a right place is off, the probability
  whether it is right (see `evaluated_fixes` for what is right).
- A frame without a match keeps no position, so whether it would have been right is unknown: precision and recall by
  probability are known from the threshold of a match upwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from coarseloc.core.types import Bools, Floats
from search.evaluation import rejection
from search.evaluation.evaluated_fixes import EvaluatedFixes, PointErrors
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
    share_below,
    share_upper_bound,
)

WITHIN_M = (1, 5, 25)
COVERAGES = (0.5, 0.95)
RELIABILITY_BINS = 10
CDF_M = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # distances that an error's distribution is stored at

FixPoint = Literal["ground", "aircraft"]
_TITLES: dict[FixPoint, str] = {"ground": "fix, ground", "aircraft": "fix, aircraft"}


@dataclass(frozen=True, slots=True)
class FixScore:
    """One row: `values` computes a metric of each frame [n] (or a few, [n, c]), `estimator` reduces them to one."""

    key: str
    title: str
    unit: str  # "m", "°", "%" (a fraction shown as percent), "ms" or ""
    better: Literal["higher", "lower", "nominal"]  # "nominal": neither, see `nominal`
    values: Callable[[EvaluatedFixes], Floats]
    estimator: Estimator
    nominal: float | None = None  # the value where covariances are right

    @property
    def is_bound(self) -> bool:
        """Whether the interval is a one-sided bound, which a value must not be shown without."""
        return self.estimator is share_upper_bound

    def text(self, value: float) -> str:
        """A value in its unit."""
        return value_text(value, self.unit)

    def evaluate(self, fixes: EvaluatedFixes) -> IntervalEstimate:
        """The score with its 95 % interval, its number of frames and their effective number."""
        return self.estimator(self.values(fixes), correlation(fixes))


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Frames whose stated probability lies in (low, high], and the share of them that are right."""

    low: float
    high: float
    mean_probability: float
    right: IntervalEstimate


def value_text(value: float, unit: str) -> str:
    """A value in its unit: centimetres beside kilometres."""
    if unit in ("%", "ms"):
        return f"{value:.1%}" if unit == "%" else f"{value:.0f}"
    decimals = 3 if abs(value) < 0.1 else 2 if abs(value) < 10 else 1
    return f"{value:,.{decimals}f}"


# --- metrics of single frames -------------------------------------------------------------------


def error_m(fixes: EvaluatedFixes, point: FixPoint) -> Floats:
    """[n] metres of the matches on the map; nan where the point or its truth is unknown."""
    return _point(fixes.select(fixes.on_map & fixes.match), point).error_m()


def distance_m(fixes: EvaluatedFixes, point: FixPoint) -> Floats:
    """[n]: `error_m` of all frames on the map, infinite without a match; all nan where no match has the point."""
    fixes = fixes.select(fixes.on_map)
    errors = _point(fixes, point).error_m()
    unknown = np.isnan(errors)
    if unknown[fixes.match].all() and fixes.match.any():
        return np.full(len(fixes), np.nan)
    return np.where(unknown & ~fixes.match, np.inf, errors)


def nees(fixes: EvaluatedFixes, point: FixPoint) -> Floats:
    """[n] of the right matches: see `PointErrors.nees`."""
    return _point(fixes.select(fixes.right), point).nees()


def heading_error_deg(fixes: EvaluatedFixes) -> Floats:
    """[n] of the right matches."""
    return fixes.heading_error_deg[fixes.right]


def probability_samples(fixes: EvaluatedFixes) -> Floats:
    """[n, 3] for `rejection`; a frame without a match is withheld, and counts as not right."""
    return rejection.sample(fixes.probability, fixes.right, fixes.on_map)


def precision_recall(fixes: EvaluatedFixes) -> rejection.PrecisionRecallCurve:
    """The curve over the probability's threshold, from that of a match upwards."""
    curve = rejection.curve(probability_samples(fixes))
    lowest = float(fixes.probability[fixes.match].min()) if fixes.match.any() else math.inf
    reachable = curve.threshold >= lowest
    return rejection.PrecisionRecallCurve(*(column[reachable] for column in curve))


def judged(fixes: EvaluatedFixes) -> Bools:
    """[F]: whether the frame's answer is known to be right or wrong: matches, and all frames off the map."""
    return fixes.match | ~fixes.on_map


def squared_probability_error(fixes: EvaluatedFixes) -> Floats:
    """[n], whose mean is Brier's score ("Verification of forecasts expressed in terms of probability", 1950)."""
    judged_fixes = fixes.select(judged(fixes))
    return np.asarray((judged_fixes.probability - judged_fixes.right) ** 2)


def correlation(fixes: EvaluatedFixes) -> float:
    """The correlation length of the matches' ground errors in frames, by their ranks in time order; nan where
    unknown."""
    return correlation_length(ranks(error_m(fixes, "ground")))


# --- the probability ----------------------------------------------------------------------------


def reliability(fixes: EvaluatedFixes) -> list[ReliabilityBin]:
    """Stated probability against the share that is right, in bins of equal width; empty bins are left out."""
    judged_fixes = fixes.select(judged(fixes))
    return reliability_bins(judged_fixes.probability, judged_fixes.right, correlation(fixes))


def reliability_bins(probability: Floats, right: Bools, correlation: float) -> list[ReliabilityBin]:
    """[n], [n] → the bins that hold something. correlation: the frames' length, nan where it is unknown."""
    index = _bin_index(probability)
    bins = []
    for i in range(RELIABILITY_BINS):
        inside = index == i
        if inside.any():
            right_share = share(right[inside].astype(np.float64), correlation)
            mean_probability = float(probability[inside].mean())
            bins.append(ReliabilityBin(i / RELIABILITY_BINS, (i + 1) / RELIABILITY_BINS, mean_probability, right_share))
    return bins


def calibration_error(samples: Floats) -> Floats:
    """float64 [B, n, 2], (probability, right) → [B]: expected calibration error, the mean over frames of how far each
    bin's share that is right lies from its mean probability (Naeini, Cooper and Hauskrecht, AAAI 2015)."""
    probability, right = samples[..., 0], samples[..., 1]
    index = _bin_index(probability)
    gaps = [np.abs(((right - probability) * (index == i)).sum(axis=1)) for i in range(RELIABILITY_BINS)]
    return np.asarray(np.sum(gaps, axis=0) / samples.shape[1])


def _bin_index(probability: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.clip(np.ceil(probability * RELIABILITY_BINS).astype(np.int64) - 1, 0, RELIABILITY_BINS - 1)


def _probability_and_right(fixes: EvaluatedFixes) -> Floats:
    judged_fixes = fixes.select(judged(fixes))
    return np.stack([judged_fixes.probability, judged_fixes.right.astype(np.float64)], axis=1)


# --- the table ----------------------------------------------------------------------------------


def _point(fixes: EvaluatedFixes, point: FixPoint) -> PointErrors:
    return fixes.ground if point == "ground" else fixes.aircraft


def _point_rows(point: FixPoint) -> list[FixScore]:
    title = _TITLES[point]
    errors, misses, normalised = (partial(metric, point=point) for metric in (error_m, distance_m, nees))
    rows = [
        FixScore(f"fix_{point}_error_{name}", f"{title}: error, {name}", "m", "lower", errors, estimator)
        for name, estimator in (("median", median), ("p90", p90))
    ]
    rows += [
        FixScore(f"fix_{point}_within@{d}", f"{title}: within {d} m", "%", "higher", misses,
                 partial(share_below, limit=float(d)))
        for d in WITHIN_M
    ]  # fmt: skip
    rows += [
        FixScore(f"fix_{point}_coverage@{level:.0%}"[:-1], f"{title}: truth in the {level:.0%} ellipse", "%", "nominal",
                 normalised, partial(share_below, limit=-2 * math.log1p(-level)), level)
        for level in COVERAGES
    ]  # fmt: skip
    return [*rows, FixScore(f"fix_{point}_nees", f"{title}: NEES, mean", "", "nominal", normalised, mean, 2.0)]


def _rows() -> tuple[FixScore, ...]:
    rows = _point_rows("ground") + _point_rows("aircraft")
    rows += [
        FixScore(f"fix_heading_error_{name}", f"fix: heading error, {name}", "°", "lower", heading_error_deg, estimator)
        for name, estimator in (("median", median), ("p90", p90))
    ]
    rows += [
        FixScore("fix_match", "fix: frames that match", "%", "higher",
                 lambda f: f.match[f.on_map].astype(np.float64), share),
        FixScore("fix_right", "fix: frames at the right place", "%", "higher",
                 lambda f: f.right[f.on_map].astype(np.float64), share),
        FixScore("fix_wrong_matches", "fix: matches that are wrong", "%", "lower",
                 lambda f: (~f.right[f.match]).astype(np.float64), share_upper_bound),
        FixScore("fix_off_map_matches", "fix: frames off the map that match", "%", "lower",
                 lambda f: f.match[~f.on_map].astype(np.float64), share_upper_bound),
        FixScore("fix_probability_area", "fix: precision-recall area by probability", "", "higher", probability_samples,
                 partial(bootstrap, statistic=rejection.area)),
        FixScore("fix_probability_full_precision", "fix: recall at full precision by probability", "%", "higher",
                 probability_samples, partial(point_estimate, statistic=rejection.recall_at_full_precision)),
        FixScore("fix_brier", "fix: Brier score of the probability", "", "lower", squared_probability_error, mean),
        FixScore("fix_calibration_error", "fix: calibration error of the probability", "%", "lower",
                 _probability_and_right, partial(point_estimate, statistic=calibration_error)),
        FixScore("fix_verify_median", "fix: time, median", "ms", "lower", lambda f: f.verify_ms, median),
    ]  # fmt: skip
    return tuple(rows)


FIX_SCORES = _rows()
FIX_SCORES_BY_KEY = {score.key: score for score in FIX_SCORES}


def error_distribution(fixes: EvaluatedFixes, point: FixPoint) -> dict[float, IntervalEstimate]:
    """{metres: share of the frames on the map whose fix is so near}."""
    distances, length = distance_m(fixes, point), correlation(fixes)
    return {metres: share_below(distances, length, limit=metres) for metres in CDF_M}
