"""Figures of many frames, each with a 95 % interval and the number of frames that its interval stands on. Pure.

Neighbouring frames of a flight see much the same ground, so n of them say less than n independent ones: an interval is
that of n_eff = n / tau independent frames, tau being the correlation length, the number of neighbouring frames that
count as one. Below `LEAST_N_EFF` an estimated tau is not to be relied on and the ends are nan.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from coarseloc.core.types import Floats

Reduce = Callable[[Floats], Floats]
"""float64 [B, n] or [B, n, c] → [B]: one figure of each of B samples."""

LEVEL = 0.95
LEAST_N_EFF = 30.0  # from here on nine of ten intervals hold the true value: tests/unit/test_scoring_intervals.py
RESAMPLES = 1000
SEED = 20251124
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
_WINDOW = 5.0  # in correlation lengths, as Sokal advises
_LEAST_FRAMES = 8  # a shorter series tells no correlation
_DRAWN_AT_ONCE = 4_000_000  # rows of resamples held in memory


class Estimate(NamedTuple):
    """A figure, its interval, the number of frames it is of and how many independent ones these are worth.

    The value is nan where n is 0, the ends where n_eff is below `LEAST_N_EFF` or nan, n_eff where it cannot be told.
    """

    value: float
    low: float
    high: float
    n: int
    n_eff: float


Figure = Callable[[Floats, float | None], Estimate]
"""(values [n] or [n, c] in time order, correlation) → their figure.

`correlation`: a length in frames that the values' own is at least; nan where it cannot be told; None for frames drawn
independently of each other, whose n_eff is n. Rows with a nan are left out.
"""


# --- figures ------------------------------------------------------------------------------------


def share(values: Floats, correlation: float | None = None) -> Estimate:
    """The mean of values in [0, 1], with the interval of Wilson ("Probable inference", JASA 1927) for n_eff frames.

    Values between 0 and 1, such as a share of a frame's views, vary less than 0 and 1 do: their interval is wider than
    it need be. Where all values of a flight are alike, nothing tells how often they change, and there is no interval.
    """
    known = _known(values)
    n_eff = _n_eff(known, correlation)
    if not _enough(n_eff):
        return _bare(_mean(known), len(known), n_eff)
    value = _mean(known)
    return Estimate(value, *_wilson(value, n_eff), len(known), n_eff)


def share_difference(values: Floats, correlation: float | None = None) -> Estimate:
    """The mean of differences in [-1, 1] between the shares of two ways on the same frames.

    Interval of Agresti and Min ("Simple improved confidence intervals for comparing matched proportions", Statistics
    in Medicine 2005): half a frame is added to each of the four outcomes of a pair, so that a few frames that differ,
    all of them one way, are not taken for proof.
    """
    known = _known(values)
    n_eff = _n_eff(known, correlation)
    if not _enough(n_eff):
        return _bare(_mean(known), len(known), n_eff)
    total, pairs = n_eff * _mean(known), n_eff + 2
    half = _Z * math.sqrt(max(0.0, n_eff * float((known**2).mean()) + 1 - total**2 / pairs)) / pairs
    return Estimate(_mean(known), total / pairs - half, total / pairs + half, len(known), n_eff)


def quantile(values: Floats, correlation: float | None = None, *, q: float) -> Estimate:
    """The q-quantile, interpolated, with the interval of Woodruff ("Confidence intervals for medians and other position
    measures", JASA 1952): the values' quantiles at the ends of the interval of a share q of n_eff frames."""
    known = _known(values)
    if not len(known):
        return _bare(math.nan, 0, math.nan)
    value = float(np.quantile(known, q))
    n_eff = _n_eff((known <= value).astype(float), correlation)
    if not _enough(n_eff):
        return _bare(value, len(known), n_eff)
    low, high = np.quantile(known, _wilson(q, n_eff))
    return Estimate(value, float(low), float(high), len(known), n_eff)


median: Figure = partial(quantile, q=0.5)
p90: Figure = partial(quantile, q=0.9)


def resampled(values: Floats, correlation: float | None = None, *, reduce: Reduce) -> Estimate:
    """`reduce` of values [n] or [n, c], with the percentile interval of 1,000 samples of n_eff frames each.

    Samples of n frames in blocks keep the correlation within a block but lose it between blocks: simulated, with blocks
    of two correlation lengths, their intervals held the true value 2 to 7 points less often. Deterministic.
    """
    bare = without_interval(values, correlation, reduce=reduce)
    if not _enough(bare.n_eff):
        return bare
    figures = _figures_of_samples(_known(values), round(bare.n_eff), reduce)
    figures = figures[~np.isnan(figures)]
    if not len(figures):
        return bare
    low, high = np.quantile(figures, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return bare._replace(low=float(low), high=float(high))


def without_interval(values: Floats, correlation: float | None = None, *, reduce: Reduce) -> Estimate:
    """`reduce` of values [n, c] for a figure that no interval suits, as an extreme of the frames moves with n."""
    known = _known(values)
    value = float(reduce(known[None])[0]) if len(known) else math.nan
    return _bare(value, len(known), _n_eff(known, correlation))


def mean(values: Floats, correlation: float | None = None) -> Estimate:
    """The mean of values [n] of any range, by `resampled`."""
    return resampled(values, correlation, reduce=lambda samples: np.asarray(samples.mean(axis=1)))


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
    if n < _LEAST_FRAMES:
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


def _n_eff(known: Floats, correlation: float | None) -> float:
    """nan where the values do not tell. Of several columns the one of the longest correlation decides."""
    n = len(known)
    if correlation is None:
        return float(n)
    lengths = [correlation_length(column) for column in (known.T if known.ndim > 1 else [known])]
    own = max((length for length in lengths if not math.isnan(length)), default=math.nan)
    return math.nan if math.isnan(own) or math.isnan(correlation) else n / max(own, correlation)


# --- parts --------------------------------------------------------------------------------------


def _wilson(value: float, n: float) -> tuple[float, float]:
    middle = (value + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(value * (1 - value) / n + _Z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _figures_of_samples(known: Floats, size: int, reduce: Reduce) -> Floats:
    """float64 [RESAMPLES]: `reduce` of so many rows, drawn one by one."""
    rng = np.random.default_rng([SEED, len(known), size])
    batch = max(1, _DRAWN_AT_ONCE // size)
    counts = [min(batch, RESAMPLES - start) for start in range(0, RESAMPLES, batch)]
    return np.concatenate([reduce(known[rng.integers(0, len(known), (count, size))]) for count in counts])


def _known(values: Floats) -> Floats:
    return values[~np.isnan(values).any(axis=tuple(range(1, values.ndim)))]


def _mean(known: Floats) -> float:
    return float(known.mean()) if len(known) else math.nan


def _enough(n_eff: float) -> bool:
    return n_eff >= LEAST_N_EFF


def _bare(value: float, n: int, n_eff: float) -> Estimate:
    """A figure without an interval."""
    return Estimate(value, math.nan, math.nan, n, n_eff)
