"""Intervals hold what they promise, on simulated flights whose true figures are known, or are not given."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest

from coarseloc.core.types import Bools, Floats
from search.evaluation import intervals, rejection
from search.evaluation.intervals import (
    MIN_N_EFF,
    IntervalEstimate,
    block_bootstrap,
    block_length,
    block_quantile,
    block_share,
    bootstrap,
    correlation_length,
    mean,
    median,
    p90,
    ranks,
    share,
    share_difference,
)

SHARES, FRAMES, LENGTHS = (0.5, 0.9, 0.98), (24, 48, 100, 200, 400), (0, 1, 5, 20)


# --- flights ------------------------------------------------------------------------------------

Flights = Callable[[np.random.Generator, int, int, float, int], tuple[Bools, Floats]]
"""(rng, frames, correlation in frames, share of right frames, flights) → right and error, both [flights, frames]."""


def gliding(rng: np.random.Generator, n: int, length: int, p: float, flights: int) -> tuple[Bools, Floats]:
    """The ground turns harder and easier by degrees: one Gaussian autoregression decides the error."""
    hard = autoregression(rng, n, length, flights)
    right = hard < NormalDist().inv_cdf(p)
    return right, np.where(right, 50, 400) * np.exp(hard)


def patchy(rng: np.random.Generator, n: int, length: int, p: float, flights: int) -> tuple[Bools, Floats]:
    """Patches of ground that cannot be recognised: a chain of two states, errors of neighbours unrelated."""
    stay = math.exp(-1 / length) if length else 0.0
    drawn = rng.random((flights, n))
    right = drawn < p
    for i in range(1, n):
        right[:, i] = drawn[:, i] < stay * right[:, i - 1] + (1 - stay) * p
    error = np.where(
        right, 50 * np.sqrt(rng.exponential(1, drawn.shape)), 300 + 2700 * np.sqrt(rng.random(drawn.shape))
    )
    return right, error


def autoregression(rng: np.random.Generator, n: int, length: int, flights: int) -> Floats:
    stay = math.exp(-1 / length) if length else 0.0
    values = rng.standard_normal((flights, n))
    values[:, 1:] *= math.sqrt(1 - stay**2)
    for i in range(1, n):
        values[:, i] += stay * values[:, i - 1]
    return values


# --- coverage -----------------------------------------------------------------------------------


def holds(estimate: IntervalEstimate, true: float) -> bool | None:
    """None where no interval is given."""
    return None if math.isnan(estimate.low) else estimate.low <= true <= estimate.high


@pytest.mark.parametrize("flights", [gliding, patchy])
def test_given_intervals_of_shares_hold_the_true_share_in_nine_of_ten_flights(flights: Flights) -> None:
    """Pooled over lengths of flights and of correlation; and whatever these are, no more than one flight in ten gets an
    interval that is wrong."""
    rng = np.random.default_rng(7)
    with_interval: dict[float, list[bool]] = defaultdict(list)
    wrong = {}
    for p, n, length in product(SHARES, FRAMES, LENGTHS):
        outcomes = [
            holds(share(right.astype(float), correlation_length(ranks(error))), p)
            for right, error in zip(*flights(rng, n, length, p, 150), strict=True)
        ]
        with_interval[p] += [outcome for outcome in outcomes if outcome is not None]
        wrong[p, n, length] = outcomes.count(False) / len(outcomes)
    assert min(len(outcomes) for outcomes in with_interval.values()) > 500
    assert {p: np.mean(outcomes) >= 0.9 for p, outcomes in with_interval.items()} == dict.fromkeys(SHARES, True)
    assert max(wrong.values()) <= 0.1, wrong


def test_independent_frames_of_a_high_share_are_covered() -> None:
    """Resampling the frames themselves covered 55 % at p = 0.98, n = 48: half of such flights have no wrong frame."""
    rng = np.random.default_rng(1)
    outcomes = [holds(share((rng.random(48) < 0.98).astype(float)), 0.98) for _ in range(1000)]
    assert np.mean(outcomes) > 0.93  # type: ignore[arg-type]


def area(right: Bools, error: Floats, length: float) -> IntervalEstimate:
    """Of a margin that is larger where the answer is right, by one standard deviation of its noise."""
    margin = right + np.random.default_rng([len(error), int(error[0] * 1e6)]).standard_normal(len(error))
    answers = rejection.sample(margin, right, np.ones(len(error), np.bool_))
    return bootstrap(answers, length, statistic=rejection.area)


ESTIMATORS: dict[str, Callable[[Bools, Floats, float], IntervalEstimate]] = {
    "median": lambda _, error, length: median(error, length),
    "p90": lambda _, error, length: p90(error, length),
    "mean": lambda _, error, length: mean(error, length),
    "near": lambda _, error, length: mean(np.exp(-error / 300), length),  # as SDM and PDM weigh errors
    "area": area,
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_given_intervals_hold_the_true_figure_in_nine_of_ten_flights(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 200)
    outcomes = list(_coverage(ESTIMATORS[name], rare=name != "median"))
    with_interval = [outcome for outcome in outcomes if outcome is not None]
    assert len(with_interval) > len(outcomes) / 3
    assert np.mean(with_interval) >= 0.9


def _coverage(estimator: Callable[[Bools, Floats, float], IntervalEstimate], rare: bool) -> Iterator[bool | None]:
    rng = np.random.default_rng(11)
    for flights, p in product((gliding, patchy), SHARES):
        right, error = flights(rng, 100, 0, p, 2000)
        true = estimator(right.ravel(), error.ravel(), math.nan).value  # without an interval
        for n, length in product((100, 400), (0, 1, 5)):
            for right, error in zip(*flights(rng, n, length, p, 40), strict=True):
                lengths = [correlation_length(ranks(error))]
                lengths += [correlation_length(right.astype(float))] if rare else []
                yield holds(estimator(right, error, float(np.max(lengths))), true)


# --- correlation --------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "true"), [(0, 1.0), (3, 6.06), (10, 20.02)])
def test_the_correlation_length_of_a_long_series_is_the_true_one(length: int, true: float) -> None:
    """(1 + ρ) / (1 - ρ) with ρ = exp(-1 / length)."""
    series = autoregression(np.random.default_rng(0), 50_000, length, 1)[0]
    assert correlation_length(series) == pytest.approx(true, rel=0.15)


def test_a_slow_drift_beneath_noise_is_seen() -> None:
    """One lag alone does not show it: ρ(1) is 0.2, of which a fifth of the length comes."""
    rng = np.random.default_rng(0)
    series = autoregression(rng, 20_000, 40, 1)[0] / 2 + rng.standard_normal(20_000)
    assert correlation_length(series) == pytest.approx(1 + 0.2 * 79, rel=0.25)


def test_a_series_of_equal_values_or_of_few_tells_nothing() -> None:
    assert math.isnan(correlation_length(np.ones(100)))
    assert math.isnan(correlation_length(np.zeros(0)))
    assert correlation_length(np.array([1.0, 0.0, 1.0])) == 3


def test_ranks_give_equal_values_one_rank() -> None:
    assert ranks(np.array([7.0, 2.0, 7.0, 900.0])).tolist() == [1, 0, 1, 2]


# --- figures by hand ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_interval_of_all_or_none_holds_it_to_the_last_bit(value: float) -> None:
    estimates = [intervals.share(np.full(n, value)) for n in range(30, 400)]
    assert all(estimate.low <= value <= estimate.high for estimate in estimates)


def test_the_interval_of_a_share_is_wilsons() -> None:
    """47 of 48: 0.8910 … 0.9963, of any statistics package."""
    estimate = share(np.r_[np.ones(47), 0.0])
    assert (estimate.value, estimate.n, estimate.n_eff) == (47 / 48, 48, 48)
    assert (estimate.low, estimate.high) == (pytest.approx(0.8910, abs=2e-4), pytest.approx(0.9963, abs=2e-4))


def test_the_interval_of_a_median_lies_at_order_statistics() -> None:
    """Of 1 … 101 Wilson's interval of a half is 0.4045 … 0.5955."""
    estimate = median(np.arange(1.0, 102.0), None)
    assert estimate.value == 51
    assert (estimate.low, estimate.high) == (pytest.approx(41.4, abs=0.1), pytest.approx(60.6, abs=0.1))


def test_a_few_differing_pairs_are_not_proof() -> None:
    """By the sign test 3 of 3 have p = 0.25 and 8 of 8 have p = 0.008."""
    short, long = (np.r_[np.ones(count), np.zeros(40 - count)] for count in (3, 8))
    assert share_difference(short).low < 0 < share_difference(long).low
    assert share_difference(-long).high == pytest.approx(-share_difference(long).low)


def test_below_the_bound_n_eff_stands_alone() -> None:
    values = np.random.default_rng(0).random(int(MIN_N_EFF) - 1)
    for estimator in (share, share_difference, median, p90, mean):
        estimate = estimator(values, None)
        assert math.isnan(estimate.low) and math.isnan(estimate.high) and estimate.n_eff == len(values)
        assert not math.isnan(estimator(np.append(values, 0.5), None).low)


def test_a_row_with_a_nan_is_left_out() -> None:
    values = np.append(np.arange(40.0), np.nan)
    for estimator in (median, p90, mean):
        assert estimator(values, None) == estimator(values[:-1], None)
    assert share(np.full(3, np.nan)).n == median(np.full(3, np.nan), None).n == 0


def test_resampling_is_deterministic_and_works_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((100, 2))
    reduce = lambda samples: samples[:, :, 0].mean(axis=1) - samples[:, :, 1].mean(axis=1)  # noqa: E731
    whole = bootstrap(values, statistic=reduce)
    assert whole == bootstrap(values, statistic=reduce)
    monkeypatch.setattr(intervals, "_MAX_RESAMPLED_ROWS", 700)
    assert bootstrap(values, statistic=reduce) == whole


# --- blocks -------------------------------------------------------------------------------------


def walk(n: int, keep: float, seed: int) -> Floats:
    """float64 [n], standard normal, each value `keep` of the one before."""
    steps = np.random.default_rng(seed).normal(size=n + 200)
    values = np.zeros(n + 200)
    for i in range(1, n + 200):
        values[i] = keep * values[i - 1] + math.sqrt(1 - keep * keep) * steps[i]
    return values[200:]


def average(samples: Floats) -> Floats:
    return np.asarray(np.nanmean(samples, axis=1))


def test_blocks_are_longer_where_frames_are_more_alike() -> None:
    lengths = [np.median([block_length(walk(300, keep, seed)) for seed in range(9)]) for keep in (0.0, 0.5, 0.8)]
    assert lengths[0] <= 3 < lengths[1] + 1 < lengths[2] <= 30
    assert block_length(np.ones(50)) == block_length(np.arange(5.0)) == 0


def test_an_interval_of_blocks_is_as_wide_as_the_correlation_makes_it() -> None:
    """The mean of an autoregression has 1.96 sqrt((1 + 0.5) / (1 - 0.5) / n) to each side."""
    widths = []
    for seed in range(20):
        values = walk(400, 0.5, seed)
        interval = block_bootstrap(values, average, values)
        assert interval == block_bootstrap(values, average, values), "deterministic"
        widths.append(interval.high - interval.low)
    assert np.mean(widths) == pytest.approx(2 * 1.96 * math.sqrt(3 / 400), rel=0.15)


def test_intervals_of_short_correlated_flights_mislead_in_few_of_a_hundred(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/metrics.md has the figures of many flights. An interval that is not said misleads nobody."""
    monkeypatch.setattr(intervals, "RESAMPLES", 200)
    misses, said, wider = 0, 0, 0
    third = NormalDist().inv_cdf(0.75)
    for seed, keep in product(range(25), (0.8, 0.95)):
        values = walk(100, keep, seed + 1000)
        correlation = correlation_length(ranks(values))
        below = (values <= third).astype(float)
        rate, middle = block_share(below, correlation), block_quantile(values, correlation, q=0.5)
        for interval, true in ((rate, 0.75), (middle, 0.0)):
            said += not math.isnan(interval.low)
            misses += not math.isnan(interval.low) and not interval.low <= true <= interval.high
        plain = block_bootstrap(below, average, below)
        wider += rate.high - rate.low > plain.high - plain.low + 1e-9
        assert math.isnan(block_quantile(values, correlation, q=0.9).low), "no order statistic bounds it"
    assert misses <= 8 and said > 20 and wider > 5, "5 in 100 are asked for"


def test_intervals_of_independent_frames_are_hardly_wider_for_it() -> None:
    values = walk(400, 0.0, 3)
    below = (values <= np.median(values)).astype(float)
    plain, widened = block_bootstrap(below, average, below), block_share(below, correlation_length(ranks(values)))
    assert 1.0 <= (widened.high - widened.low) / (plain.high - plain.low) < 1.3
    middle = block_quantile(values, 1.0, q=0.5)
    assert middle.low < np.median(values) < middle.high < middle.low + 0.5


def test_frames_without_a_value_stay_in_their_blocks_and_few_blocks_have_no_interval() -> None:
    values = np.where(np.arange(200) % 2, walk(200, 0.0, 1), np.nan)
    interval = block_bootstrap(values, average, values)
    assert interval.low < np.nanmean(values) < interval.high
    assert math.isnan(block_bootstrap(values[:20], average, walk(20, 0.9, 2)).low)
