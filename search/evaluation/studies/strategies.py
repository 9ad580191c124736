"""Strategies to be robust, on the same frames: what each finds, what it costs, what it gains over the baseline."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.types import Backbone, Bools, Float32, Floats, UInt8
from search.environment import WARM_UP
from search.evaluation import intervals
from search.evaluation.intervals import median
from search.evaluation.studies.ground_truth import GroundTruth
from search.exact_index import ExactIndex

REPEATS = 15  # of each timed call; the median is kept
EMBED_TIMES = ("embed_1", "embed_8")


class Strategy(NamedTuple):
    """One strategy with its accuracy and costs. nan where a number is unknown."""

    name: str
    recall: float  # share of answers whose place is right
    low: float
    high: float
    error_m: float  # median over frames and their views
    heading_error_deg: float  # median where the place is right
    embed_ms: float
    search_ms: float
    index_bytes: int
    n: int
    ceiling: float = math.nan  # share of answers that could be right, given the references searched
    gain: float = math.nan  # recall above the baseline's, on the frames that both can reach, and its interval
    gain_low: float = math.nan
    gain_high: float = math.nan
    n_eff: float = math.nan  # independent frames that the recall's interval is of
    gain_n: int = 0  # frames whose every view both can reach


StrategyRecord = dict[str, Any]
"""A strategy as `to_json` stores it, by the fields of `Strategy`; studies of earlier versions lack some."""


class EvaluatedStrategy(NamedTuple):
    """A strategy with the values of each frame by which it is compared."""

    strategy: Strategy
    shares: Floats  # [Q], share of each frame's views whose place was right
    correlation: float | None  # of the frames, see `intervals.Estimator`
    reachable: Bools  # [Q], whether every view of a frame could be right


def evaluate_strategy(
    name: str,
    truth: GroundTruth,
    answers: NDArray[np.int64],
    *,
    embed_ms: float,
    search_ms: float,
    index_bytes: int,
    searched: Bools | None = None,
    heading_errors_deg: Floats | None = None,
) -> EvaluatedStrategy:
    """Evaluate the answers of a strategy.

    `answers` int64 [Q, V]: the reference answered for each of Q frames in each of V views of it, turned or from other
    altitudes; `searched` [V, R]: the references that each view was searched in, all by default; `heading_errors_deg`
    [Q, V]: nan where the strategy answers no heading.
    """
    right, error_m = truth.evaluate(answers)
    shares = right.mean(axis=1)  # frames are drawn, not their views
    recall = intervals.share(shares, truth.correlation)
    heading_error = math.nan if heading_errors_deg is None else median(heading_errors_deg[right], None).value
    reachable = truth.reachable(np.ones((1, truth.right.shape[1]), np.bool_) if searched is None else searched)
    strategy = Strategy(
        name, recall.value, recall.low, recall.high, median(error_m.ravel(), None).value, heading_error, embed_ms,
        search_ms, index_bytes, recall.n, float(reachable.mean()), n_eff=recall.n_eff,
    )  # fmt: skip
    return EvaluatedStrategy(strategy, shares, truth.correlation, np.asarray(reachable.all(axis=1)))


def with_gains(evaluated: Sequence[EvaluatedStrategy], baseline_name: str) -> list[Strategy]:
    """The strategies with their gain over the baseline, on the frames that both can reach: a strategy does not lose
    where the references it searches hold no right one. Paired by frame, so that frames hard for all do not widen the
    interval."""
    baseline = next(entry for entry in evaluated if entry.strategy.name == baseline_name)
    strategies = []
    for entry in evaluated:
        if entry is baseline:
            strategies.append(entry.strategy)
            continue
        differences = (entry.shares - baseline.shares)[entry.reachable & baseline.reachable]
        gain = intervals.share_difference(differences, entry.correlation)
        strategies.append(
            entry.strategy._replace(gain=gain.value, gain_low=gain.low, gain_high=gain.high, gain_n=gain.n)
        )
    return strategies


def to_json(strategies: Mapping[str, Sequence[Strategy]]) -> dict[str, list[StrategyRecord]]:
    """Strategies by backbone as JSON: None where a number is unknown."""

    def finite(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {
        backbone: [{key: finite(value) for key, value in strategy._asdict().items()} for strategy in rows]
        for backbone, rows in strategies.items()
    }


# --- milliseconds: medians of single calls after a warm-up, the device synchronised -------------


def embed_times(backbone: Backbone, views: UInt8) -> dict[str, Floats]:
    """`EMBED_TIMES`: to embed one view, and eight at once, all of the same frame."""
    eight = np.stack([views[i % len(views)] for i in range(8)])
    return {
        "embed_1": np.array(median_ms(lambda: backbone.embed(eight[:1]))),
        "embed_8": np.array(median_ms(lambda: backbone.embed(eight))),
    }


def search_ms(vectors: Float32, queries: Float32) -> float:
    """One exact search of these queries at once, k = 10."""
    index = ExactIndex.of(np.ascontiguousarray(vectors, np.float32))
    k = min(10, len(vectors))
    return median_ms(lambda: index.search(np.ascontiguousarray(queries, np.float32), k))


def median_ms(call: Callable[[], object]) -> float:
    for _ in range(WARM_UP):
        call()
    times_ms = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        times_ms.append((time.perf_counter() - started) * 1e3)
    return float(np.median(times_ms))


# --- stored strategies as text ------------------------------------------------------------------


def recall_text(record: StrategyRecord, interval: str = " [{low}, {high}]") -> str:
    """A strategy's recall, with its interval or, where it has none, its n_eff."""
    recall = f"{record['recall']:.1%}"
    if record["low"] is None:
        n_eff = record.get("n_eff")
        return recall if n_eff is None else f"{recall} (n_eff {n_eff:.0f})"
    return recall + interval.format(low=f"{record['low']:.1%}", high=f"{record['high']:.1%}")


def gain_text(record: StrategyRecord, interval: str = " [{low}, {high}]") -> str:
    """A strategy's gain over the baseline in points, with its interval if any; a dash for the baseline."""
    if record["gain"] is None:
        return "–"
    if record["gain_low"] is None:
        return f"{100 * record['gain']:+.1f}"
    low, high = (f"{100 * record[end]:+.1f}" for end in ("gain_low", "gain_high"))
    return f"{100 * record['gain']:+.1f}{interval.format(low=low, high=high)}"


def ceiling_text(record: StrategyRecord) -> str | None:
    """The share of a strategy's answers that could be right; None where an earlier version did not store it."""
    ceiling = record.get("ceiling")
    return None if ceiling is None else f"{ceiling:.1%}"


def gain_sign(record: StrategyRecord) -> int:
    """1 where the gain's interval lies above zero, -1 where below, 0 where it holds zero or there is none."""
    if record["gain_low"] is None:
        return 0
    return int(record["gain_low"] > 0) - int(record["gain_high"] < 0)
