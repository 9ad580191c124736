"""Ways to be robust, on the same frames: what each finds, what it costs, and what it gains over the usual one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.types import Bools, Floats
from search.evaluation import intervals
from search.evaluation.intervals import median
from search.evaluation.studies.truth import Truth


class Way(NamedTuple):
    """One way to be robust, and what it gives and costs. nan where it cannot be said."""

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
    gain: float = math.nan  # recall above the usual way's, on the frames that both can reach, and its interval
    gain_low: float = math.nan
    gain_high: float = math.nan
    n_eff: float = math.nan  # independent frames that the recall's interval is of
    gain_n: int = 0  # frames whose every view both can reach


class Tried(NamedTuple):
    """A way, and what it is compared by."""

    way: Way
    shares: Floats  # [Q], share of each frame's views whose place was right
    correlation: float | None  # of the frames, see `intervals.Estimator`
    reached: Bools  # [Q], whether every view of a frame could be right


def tried(
    name: str,
    truth: Truth,
    found: NDArray[np.int64],
    *,
    embed_ms: float,
    search_ms: float,
    index_bytes: int,
    searched: Bools | None = None,
    off_deg: Floats | None = None,
) -> Tried:
    """`found` int64 [Q, V]: the reference answered for each of Q frames in each of V views of it, turned or from
    other altitudes; `searched` [V, R]: the references that each view was searched in, all by default; `off_deg` [Q, V]:
    how far the answer's heading is off, nan where it tells none."""
    right, error_m = truth.of(found)
    shares = right.mean(axis=1)  # frames are drawn, not their views
    recall = intervals.share(shares, truth.correlation)
    heading = math.nan if off_deg is None else median(off_deg[right], None).value
    reachable = truth.reachable(np.ones((1, truth.right.shape[1]), np.bool_) if searched is None else searched)
    way = Way(
        name, recall.value, recall.low, recall.high, median(error_m.ravel(), None).value, heading, embed_ms, search_ms,
        index_bytes, recall.n, float(reachable.mean()), n_eff=recall.n_eff,
    )  # fmt: skip
    return Tried(way, shares, truth.correlation, np.asarray(reachable.all(axis=1)))


def with_gains(ways: Sequence[Tried], usual: str) -> list[Way]:
    """The ways with what each finds more than the usual one, on the frames that both can reach: where the references
    searched hold no right one, a way has not lost to another. Paired by frame, so that what all ways find hard does not
    widen the interval."""
    base = next(one for one in ways if one.way.name == usual)
    gains = [
        intervals.share_difference((one.shares - base.shares)[one.reached & base.reached], one.correlation)
        for one in ways
    ]
    return [
        one.way
        if one is base
        else one.way._replace(gain=gain.value, gain_low=gain.low, gain_high=gain.high, gain_n=gain.n)
        for one, gain in zip(ways, gains, strict=True)
    ]


def plain(ways: Mapping[str, Sequence[Way]]) -> dict[str, list[dict[str, Any]]]:
    """Ways by backbone as JSON: None where there is no number."""

    def told(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {
        name: [{key: told(value) for key, value in way._asdict().items()} for way in rows]
        for name, rows in ways.items()
    }


# --- as findings tell them ----------------------------------------------------------------------

Told = Mapping[str, Any]
"""A way as `plain` stores it."""


def share(way: Told, interval: str = " [{low}, {high}]") -> str:
    """A way's recall, with its interval or, where it has none, its n_eff."""
    recall = f"{way['recall']:.1%}"
    if way["low"] is None:
        n_eff = way.get("n_eff")  # studies of earlier versions store none
        return recall if n_eff is None else f"{recall} (n_eff {n_eff:.0f})"
    return recall + interval.format(low=f"{way['low']:.1%}", high=f"{way['high']:.1%}")


def gain(way: Told, interval: str = " [{low}, {high}]") -> str:
    """What a way finds more than the usual one, in points, with its interval if any; a dash for the usual one."""
    if way["gain"] is None:
        return "–"
    if way["gain_low"] is None:
        return f"{100 * way['gain']:+.1f}"
    low, high = (f"{100 * way[end]:+.1f}" for end in ("gain_low", "gain_high"))
    return f"{100 * way['gain']:+.1f}{interval.format(low=low, high=high)}"


def ceiling(way: Told) -> str | None:
    """The share of a way's answers that could be right; None in a study of before it was told."""
    found = way.get("ceiling")
    return None if found is None else f"{found:.1%}"


def beats(way: Told) -> int:
    """1 where a way finds more than the usual one beyond its interval, -1 where less, 0 where it is not told apart."""
    if way["gain_low"] is None:
        return 0
    return int(way["gain_low"] > 0) - int(way["gain_high"] < 0)
