"""Scores as JSON, the same for runs, fixes and tracks. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from search.evaluation.fix_scores import ReliabilityBin
from search.evaluation.intervals import BlockInterval, IntervalEstimate


class ScoreRow(Protocol):
    """A row of a table of scores."""

    @property
    def key(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def better(self) -> str: ...


def scores_json(table: Iterable[ScoreRow], estimates: Mapping[str, IntervalEstimate]) -> dict[str, dict[str, Any]]:
    """{score's key: what it is, with its value, interval and counts}."""
    return {
        score.key: {
            "title": score.title,
            "unit": score.unit,
            "better": score.better,
            **estimate_json(estimates[score.key]),
        }
        for score in table
    }


def estimate_json(estimate: IntervalEstimate) -> dict[str, Any]:
    """A score's value, interval and counts."""
    return {
        "value": number_json(estimate.value),
        "low": number_json(estimate.low),
        "high": number_json(estimate.high),
        "n": estimate.n,
        "n_eff": number_json(estimate.n_eff),
    }


def block_json(interval: BlockInterval | None) -> dict[str, Any] | None:
    """Its ends and the length of its blocks."""
    if interval is None:
        return None
    return {"low": number_json(interval.low), "high": number_json(interval.high), "block_frames": interval.block}


def reliability_json(bins: Sequence[ReliabilityBin]) -> list[dict[str, Any]]:
    """Stated probability against the share that is right, a row each bin."""
    return [
        {
            "low": group.low,
            "high": group.high,
            "mean_probability": group.mean_probability,
            "right": estimate_json(group.right),
        }
        for group in bins
    ]


def number_json(value: float) -> float | None:
    """None in place of nan, which JSON lacks."""
    return None if math.isnan(value) else float(value)
