"""Intervals by resampling frames. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coarseloc.types import Floats

Reduce = Callable[[Floats], Floats]
"""float64 [B, n] or [B, n, c] → [B]: one figure of each of B samples."""

RESAMPLES = 1000
LEVEL = 0.95
SEED = 20251124


class Estimate(NamedTuple):
    """A figure, its interval and the number of frames it is of; nan where n is 0."""

    value: float
    low: float
    high: float
    n: int


def estimate(values: Floats, reduce: Reduce) -> Estimate:
    """`reduce` of values [n] or [n, c], with its 95 % percentile interval by the circular block bootstrap.

    Neighbouring frames of a flight see much the same ground, so blocks of ceil(n^(1/3)) consecutive frames are drawn
    instead of single ones (Politis and Romano, 1992): single draws would promise too narrow an interval. Rows with a
    nan are left out first. Deterministic.
    """
    kept = values[~np.isnan(values).any(axis=tuple(range(1, values.ndim)))]
    n = len(kept)
    if n == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    value = float(reduce(kept[None])[0])
    samples = reduce(kept[_draws(n)])
    samples = samples[~np.isnan(samples)]
    if len(samples) == 0:
        return Estimate(value, float("nan"), float("nan"), n)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(samples, [tail, 100 - tail])
    return Estimate(value, float(low), float(high), n)


@lru_cache(maxsize=8)
def _draws(n: int) -> NDArray[np.int64]:
    """int64 [RESAMPLES, n]: rows of each resample, in blocks of consecutive ones that run round the end."""
    length = int(np.ceil(n ** (1 / 3)))
    blocks = -(-n // length)
    starts = np.random.default_rng([SEED, n]).integers(0, n, (RESAMPLES, blocks, 1))
    rows = (starts + np.arange(length)) % n
    drawn: NDArray[np.int64] = rows.reshape(RESAMPLES, -1)[:, :n]
    return drawn


def mean(samples: Floats) -> Floats:
    """[B, n] → [B]."""
    reduced: Floats = samples.mean(axis=1)
    return reduced


def median(samples: Floats) -> Floats:
    """[B, n] → [B]."""
    return np.asarray(np.median(samples, axis=1))


def p90(samples: Floats) -> Floats:
    """[B, n] → [B], the 90th percentile, interpolated."""
    return np.asarray(np.percentile(samples, 90, axis=1))
