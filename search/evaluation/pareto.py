"""Speed against accuracy: what no other beats in both, among times that compare. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Cost(NamedTuple):
    """The time of a run and its error; nan where one is not known."""

    ms: float
    error_m: float
    conditions: Hashable = None  # how the time was taken: times of different conditions are never compared


def unbeaten(costs: Mapping[Key, Cost]) -> set[Key]:
    """The Pareto front of each condition: the runs that no run timed alike beats, which is to be no slower and no
    further off, and better in one of the two. Runs without a time or an error are on no front."""
    known = {key: cost for key, cost in costs.items() if not (math.isnan(cost.ms) or math.isnan(cost.error_m))}
    return {key for key, cost in known.items() if not any(_beats(other, cost) for other in known.values())}


def _beats(other: Cost, cost: Cost) -> bool:
    no_worse = other.ms <= cost.ms and other.error_m <= cost.error_m
    return no_worse and other != cost and other.conditions == cost.conditions
