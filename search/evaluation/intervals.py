"""Statistics over many frames, each with a 95 % interval and the effective number of frames it rests on. Pure.

Neighbouring frames of a flight see much the same ground, so n of them say less than n independent ones: an interval is
that of n_eff = n / tau independent frames, tau being the correlation length, the number of neighbouring frames that
count as one. Below `MIN_N_EFF` an estimated tau is unreliable and the ends are nan.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from coarseloc.core.types import Floats

Statistic = Callable[[Floats], Floats]
"""float64 [B, n] or [B, n, c] → [B]: one value for each of B samples."""

LEVEL = 0.95
MIN_N_EFF = 30.0  # from here on nine of ten intervals hold the true value: tests/unit/test_evaluation_intervals.py
MIN_STUDENT_N_EFF = 10.0  # below, the correlation of a short flight is too often taken for less than it is
RESAMPLES = 1000
SEED = 20251124
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
_WINDOW = 5.0  # in correlation lengths, as Sokal advises
_MIN_FRAMES = 8  # the correlation of a shorter series is not estimated
_MIN_TAIL = 3.0  # of n_eff frames
_MIN_BLOCKS = 20  # fewer make no distribution
_MAX_RESAMPLED_ROWS = 4_000_000  # rows of resamples held in memory


class IntervalEstimate(NamedTuple):
    """A value with its interval, the number of frames it is of and their effective number n_eff.

    The value is nan where n is 0, the ends where n_eff is below `MIN_N_EFF` or nan, n_eff where it is unknown.
    """

    value: float
    low: float
    high: float
    n: int
    n_eff: float


Estimator = Callable[[Floats, float | None], IntervalEstimate]
"""(values [n] or [n, c] in time order, correlation) → their estimate.

`correlation`: a length in frames that the values' own is at least; nan where it is unknown; None for frames drawn
independently of each other, whose n_eff is n. Rows with a nan are left out.
"""


# --- estimators -----------------------------------------------------------------------------------


def share(values: Floats, correlation: float | None = None) -> IntervalEstimate:
    """The mean of values in [0, 1], with the interval of Wilson ("Probable inference", JASA 1927) for n_eff frames.

    Values between 0 and 1, such as a share of a frame's views, vary less than 0 and 1 do: their interval is wider than
    it need be. Where all values of a flight are equal, how often they change is unknown, and there is no interval.
    """
    values = _without_nan(values)
    n_eff = _n_eff(values, correlation)
    if not _allows_interval(n_eff):
        return _estimate_without_interval(_mean(values), len(values), n_eff)
    value = _mean(values)
    return IntervalEstimate(value, *_wilson(value, n_eff), len(values), n_eff)


def share_below(values: Floats, correlation: float | None = None, *, limit: float) -> IntervalEstimate:
    """The share of values [n] up to a limit, with Wilson's interval for n_eff frames, infinite values above it.

    How often frames change sides is told by the values too: there is an interval where all lie on one side.
    """
    values = _without_nan(values)
    below = (values <= limit).astype(np.float64)
    n_eff = _n_eff(np.stack([below, ranks(values)], axis=1), correlation)
    value = _mean(below)
    if not _allows_interval(n_eff):
        return _estimate_without_interval(value, len(values), n_eff)
    return IntervalEstimate(value, *_wilson(value, n_eff), len(values), n_eff)


def share_upper_bound(values: Floats, correlation: float | None = None) -> IntervalEstimate:
    """The mean of zeros and ones [n] with its exact upper bound at 95 %, one-sided (Clopper and Pearson, Biometrika
    1934): none in n frames leaves 1 − 0.05^(1/n), near 3/n. `low` is 0. There is a bound at any n.

    n_eff is n / correlation, n where that is unknown; the share is kept, and rounded up to whole frames.
    """
    values = _without_nan(values)
    n = len(values)
    if not n:
        return _estimate_without_interval(math.nan, 0, math.nan)
    length = 1.0 if correlation is None or math.isnan(correlation) else correlation
    n_eff = max(1, math.floor(n / length))
    events = min(n_eff, math.ceil(round(_mean(values) * n_eff, 9)))
    high = 1.0 if events == n_eff else _bisect(lambda p: _binomial_cdf(events, n_eff, p) - (1 - LEVEL), 0.0, 1.0)
    return IntervalEstimate(_mean(values), 0.0, high, n, float(n_eff))


def mean_square_region(n: float) -> tuple[float, float]:
    """Where the mean of n independent normalised squared errors of two dimensions lies in 95 of 100 cases if their
    covariances are right: chi-square's quantiles of 2n degrees of freedom, over n (Bar-Shalom, Li and Kirubarajan,
    "Estimation with Applications to Tracking and Navigation", 2001, 5.4.2). n is rounded down; nan below 1."""
    if math.isnan(n) or n < 1:
        return math.nan, math.nan
    pairs = math.floor(n)
    farthest = 2 * pairs + 40 * math.sqrt(pairs) + 60
    tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    low, high = (_bisect(lambda x, p=p: p - _chi_square_cdf(x, pairs), 0.0, farthest) / pairs for p in tails)  # type: ignore[misc]
    return low, high


def share_difference(values: Floats, correlation: float | None = None) -> IntervalEstimate:
    """The mean of differences in [-1, 1] between the shares of two strategies on the same frames.

    Interval of Agresti and Min ("Simple improved confidence intervals for comparing matched proportions", Statistics
    in Medicine 2005): half a frame is added to each of the four outcomes of a pair, so that a few frames that differ,
    all of them one way, are not taken for proof.
    """
    values = _without_nan(values)
    n_eff = _n_eff(values, correlation)
    if not _allows_interval(n_eff):
        return _estimate_without_interval(_mean(values), len(values), n_eff)
    total, pairs = n_eff * _mean(values), n_eff + 2
    half = _Z * math.sqrt(max(0.0, n_eff * float((values**2).mean()) + 1 - total**2 / pairs)) / pairs
    return IntervalEstimate(_mean(values), total / pairs - half, total / pairs + half, len(values), n_eff)


def quantile(values: Floats, correlation: float | None = None, *, q: float) -> IntervalEstimate:
    """The q-quantile, interpolated, with the interval of Woodruff ("Confidence intervals for medians and other position
    measures", JASA 1952): the values' quantiles at the ends of the interval of a share q of n_eff frames."""
    values = _without_nan(values)
    if not len(values):
        return _estimate_without_interval(math.nan, 0, math.nan)
    value = float(np.quantile(values, q))
    n_eff = _n_eff((values <= value).astype(float), correlation)
    if not _allows_interval(n_eff):
        return _estimate_without_interval(value, len(values), n_eff)
    low, high = np.quantile(values, _wilson(q, n_eff))
    return IntervalEstimate(value, float(low), float(high), len(values), n_eff)


median: Estimator = partial(quantile, q=0.5)
p90: Estimator = partial(quantile, q=0.9)


def bootstrap(values: Floats, correlation: float | None = None, *, statistic: Statistic) -> IntervalEstimate:
    """`statistic` of values [n] or [n, c], with the percentile interval of 1,000 samples of n_eff frames each.

    Samples of n frames in blocks keep the correlation within a block but lose it between blocks: simulated, with blocks
    of two correlation lengths, their intervals held the true value 2 to 7 points less often. Deterministic.
    """
    estimate = point_estimate(values, correlation, statistic=statistic)
    if not _allows_interval(estimate.n_eff):
        return estimate
    statistics = _bootstrap_statistics(_without_nan(values), round(estimate.n_eff), statistic)
    statistics = statistics[~np.isnan(statistics)]
    if not len(statistics):
        return estimate
    low, high = np.quantile(statistics, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return estimate._replace(low=float(low), high=float(high))


def point_estimate(values: Floats, correlation: float | None = None, *, statistic: Statistic) -> IntervalEstimate:
    """`statistic` of values [n, c] without an interval: for an extreme of the frames, which moves with n."""
    values = _without_nan(values)
    value = float(statistic(values[None])[0]) if len(values) else math.nan
    return _estimate_without_interval(value, len(values), _n_eff(values, correlation))


def mean(values: Floats, correlation: float | None = None) -> IntervalEstimate:
    """The mean of values [n] of any range, by `bootstrap`."""
    return bootstrap(values, correlation, statistic=lambda samples: np.asarray(samples.mean(axis=1)))


# --- blocks of consecutive frames ------------------------------------------------------------------


class BlockInterval(NamedTuple):
    """A 95 % interval from resampled blocks of so many consecutive frames; the ends are nan where there is none."""

    low: float
    high: float
    block: int


def block_share(values: Floats, correlation: float) -> BlockInterval:
    """The mean of values [n] in [0, 1], nan where a frame does not count: the wider of the interval from blocks and of
    Wilson's with Student's factor for n_eff frames.

    Percentiles of blocks alone promise too much of short, strongly correlated flights: they hold neither the doubt
    about the spread nor the correlation beyond a block. None below `MIN_STUDENT_N_EFF`. correlation: as of `Estimator`.
    """
    interval = block_bootstrap(values, _nan_mean, values)
    values = _without_nan(values)
    ends = _student_share(_mean(values), _n_eff(values, correlation))
    return _widened(interval, ends)


def block_quantile(values: Floats, correlation: float, *, q: float) -> BlockInterval:
    """The q-quantile of values [n], nan where a frame has none, as `block_share`: of the shares' ends the order
    statistics beyond them (Woodruff, JASA 1952). None where fewer than `_MIN_TAIL` of n_eff frames lie beyond the
    quantile: no order statistic bounds it then."""
    numbers = np.sort(_without_nan(values))
    if not len(numbers):
        return BlockInterval(math.nan, math.nan, 0)
    below = np.where(np.isnan(values), np.nan, values <= np.quantile(numbers, q))
    take = np.nanquantile if np.isnan(values).any() else np.quantile  # a tenth of its time
    interval = block_bootstrap(values, lambda samples: np.asarray(take(samples, q, axis=1)), below)
    n_eff = _n_eff(_without_nan(below), correlation)
    if not n_eff * min(q, 1 - q) >= _MIN_TAIL:
        return interval._replace(low=math.nan, high=math.nan)
    low, high = _student_share(q, n_eff)
    if math.isnan(low):
        return interval._replace(low=math.nan, high=math.nan)
    last = len(numbers) - 1
    first_row, last_row = math.floor(low * len(numbers)) - 1, math.ceil(high * len(numbers))
    return _widened(interval, (float(numbers[max(0, first_row)]), float(numbers[min(last, last_row)])))


def _widened(interval: BlockInterval, ends: tuple[float, float]) -> BlockInterval:
    """To hold `ends`; without an interval from blocks they stand alone, and without them there is none."""
    if math.isnan(interval.low) or math.isnan(ends[0]):
        return interval._replace(low=ends[0], high=ends[1])
    return interval._replace(low=min(interval.low, ends[0]), high=max(interval.high, ends[1]))


def _student_share(value: float, n_eff: float) -> tuple[float, float]:
    """Wilson's interval with Student's factor of n_eff - 1 degrees of freedom; nan below `MIN_STUDENT_N_EFF`."""
    if not n_eff >= MIN_STUDENT_N_EFF:
        return math.nan, math.nan
    freedom, z = n_eff - 1, _Z  # Cornish and Fisher's expansion of Student's quantile, within 1e-4 from 9 on
    factor = (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
    return _wilson(value, n_eff, factor)


def _nan_mean(samples: Floats) -> Floats:
    """[B, n] → [B]; nan where a sample has no value."""
    counts = (~np.isnan(samples)).sum(axis=1)
    return np.where(counts > 0, np.nansum(samples, axis=1) / np.maximum(counts, 1), np.nan)


def block_bootstrap(values: Floats, statistic: Statistic, varying: Floats) -> BlockInterval:
    """The percentile interval of `statistic` over 1,000 flights put together from blocks of this one's frames.

    Circular block bootstrap (Politis and Romano, "A circular block-resampling procedure for stationary data", 1992):
    blocks of consecutive rows, the last followed by the first, drawn with replacement. values: float64 [n], nan where a
    frame has none: `statistic` leaves these out, and they stay in their blocks. varying: float64 [n], the series whose
    mean the statistic is, or the indicator of a quantile; its `block_length` is taken. No interval where it is constant
    or fewer than `_MIN_BLOCKS` blocks make the flight. Deterministic.
    """
    block, n = block_length(varying[~np.isnan(varying)]), len(values)
    if not block or n < _MIN_BLOCKS * block:
        return BlockInterval(math.nan, math.nan, block)
    rng = np.random.default_rng([SEED, n, block])
    starts = rng.integers(0, n, (RESAMPLES, math.ceil(n / block)))
    rows = (starts[:, :, None] + np.arange(block)).reshape(RESAMPLES, -1)[:, :n] % n
    statistics = statistic(values[rows])
    low, high = np.nanquantile(statistics, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return BlockInterval(float(low), float(high), block)


def block_length(series: Floats) -> int:
    """Frames a block of a series [n] in time order, by its own correlation; 0 where all values are alike or too few.

    Politis and White ("Automatic block-length selection for the dependent bootstrap", Econometric Reviews 2004), with
    the constant put right by Patton, Politis and White (2009), for circular blocks: (3/2 (G / g)² n)^(1/3), with G and
    g the sums of |k| R(k) and R(k) under a flat-top window that ends where the correlation is noise.
    """
    n = len(series)
    if n < _MIN_FRAMES or (series == series[0]).all():
        return 0
    rho = _autocorrelation(series)
    quiet_lags = max(5, math.ceil(math.sqrt(math.log10(n))))
    noise = np.abs(rho) < 2.0 * math.sqrt(math.log10(n) / n)
    widest = min(math.ceil(math.sqrt(n)) + quiet_lags, n - quiet_lags - 1)
    last = next((lag for lag in range(widest) if noise[lag + 1 : lag + 1 + quiet_lags].all()), widest)
    lags = np.arange(1, min(2 * max(last, 1), n - 1) + 1)
    window = np.clip(2.0 * (1.0 - lags / (2 * max(last, 1))), 0.0, 1.0) * rho[lags]
    spread, power = 2.0 * float((window * lags).sum()), 1.0 + 2.0 * float(window.sum())
    longest = math.ceil(min(3.0 * math.sqrt(n), n / 3))
    length = (1.5 * (spread / power) ** 2 * n) ** (1 / 3) if power > 0 else longest
    return min(max(1, math.ceil(length)), longest)


# --- correlation --------------------------------------------------------------------------------


def correlation_length(series: Floats) -> float:
    """The integrated autocorrelation time, in frames and at least 1, of a series [n] in time order: 1 + 2 Σ ρ(k).

    Gaps count as none: the mean over n frames depends on the correlation of one row with the next, however far apart.
    The longer of two estimates is taken, since an interval from too short a length promises too much: the sum over a
    window of five correlation lengths (Sokal, "Monte Carlo methods in statistical mechanics", 1997) with the bias of
    Wolff ("Monte Carlo errors with less errors", CPC 2004) put right; and (1 + ρ) / (1 - ρ) of an autoregression, its ρ
    corrected for a short series (Marriott and Pope, Biometrika 1954). nan where all values are alike.
    """
    n = len(series)
    if n == 0 or (series == series[0]).all():
        return math.nan
    if n < _MIN_FRAMES:
        return float(n)
    rho = _autocorrelation(series)
    sums = 2 * np.cumsum(rho) - 1
    wide_enough = np.arange(n) >= _WINDOW * sums
    window = int(wide_enough.argmax()) if wide_enough.any() else n - 1
    summed = float(sums[window]) * (1 + (2 * window + 1) / n)
    first = min(max((float(rho[1]) * n + 1) / (n - 4), 0.0), 1 - 1 / n)
    return max(1.0, summed, (1 + first) / (1 - first))


def ranks(values: Floats) -> Floats:
    """[n]: the rank of each value, equal ones alike: a series whose correlation no single outlier decides."""
    return np.unique(values, return_inverse=True)[1].astype(np.float64)


def _autocorrelation(series: Floats) -> Floats:
    """[n]: at lags 0 … n - 1."""
    spectrum = np.fft.rfft(series - series.mean(), 2 * len(series))
    products = np.fft.irfft(np.abs(spectrum) ** 2)[: len(series)]
    return np.asarray(products / products[0])


def _n_eff(values: Floats, correlation: float | None) -> float:
    """The effective number of frames; nan where unknown. The column of the longest correlation decides."""
    n = len(values)
    if correlation is None:
        return float(n)
    lengths = [correlation_length(column) for column in (values.T if values.ndim > 1 else [values])]
    own = max((length for length in lengths if not math.isnan(length)), default=math.nan)
    return math.nan if math.isnan(own) or math.isnan(correlation) else n / max(own, correlation)


# --- parts --------------------------------------------------------------------------------------


def _wilson(value: float, n: float, z: float = _Z) -> tuple[float, float]:
    middle = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(value * (1 - value) / n + z**2 / (4 * n**2))
    return min(max(0.0, middle - half), value), max(min(1.0, middle + half), value)  # at 0 and 1 but for rounding


def _binomial_cdf(events: int, n: int, p: float) -> float:
    """P(X ≤ events) of n trials."""
    if p <= 0.0 or p >= 1.0:
        return 1.0 if p <= 0.0 or events >= n else 0.0
    k = range(events + 1)
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k]
    return min(
        1.0, sum(math.exp(log + i * math.log(p) + (n - i) * math.log1p(-p)) for i, log in zip(k, logs, strict=True))
    )


def _chi_square_cdf(x: float, pairs: int) -> float:
    """Of 2 x pairs degrees of freedom: 1 − the Poisson probability of fewer than `pairs` at mean x / 2."""
    if x <= 0.0:
        return 0.0
    rate = x / 2
    return 1.0 - math.fsum(math.exp(i * math.log(rate) - rate - math.lgamma(i + 1)) for i in range(pairs))


def _bisect(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that falls from above to below zero crosses it."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def _bootstrap_statistics(values: Floats, size: int, statistic: Statistic) -> Floats:
    """float64 [RESAMPLES]: `statistic` of so many rows, drawn with replacement."""
    rng = np.random.default_rng([SEED, len(values), size])
    batch = max(1, _MAX_RESAMPLED_ROWS // size)
    counts = [min(batch, RESAMPLES - start) for start in range(0, RESAMPLES, batch)]
    return np.concatenate([statistic(values[rng.integers(0, len(values), (count, size))]) for count in counts])


def _without_nan(values: Floats) -> Floats:
    return values[~np.isnan(values).any(axis=tuple(range(1, values.ndim)))]


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _allows_interval(n_eff: float) -> bool:
    return n_eff >= MIN_N_EFF


def _estimate_without_interval(value: float, n: int, n_eff: float) -> IntervalEstimate:
    """A value whose interval is unknown."""
    return IntervalEstimate(value, math.nan, math.nan, n, n_eff)
