"""Speed against accuracy: the runs that no other beats in both, among times that compare. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

Key = TypeVar("Key", bound=Hashable)


class RunCost(NamedTuple):
    """Time and error of a run; nan where unknown."""

    ms: float
    error_m: float
    conditions: Hashable = None  # how the time was taken: times of different conditions are never compared


def pareto_front(costs: Mapping[Key, RunCost]) -> set[Key]:
    """The runs on the Pareto front of their conditions: no run timed alike is at least as fast and as accurate, and
    better in one of the two. Runs without a time or an error are on no front."""
    complete = {key: cost for key, cost in costs.items() if not (math.isnan(cost.ms) or math.isnan(cost.error_m))}
    return {key for key, cost in complete.items() if not any(_dominates(rival, cost) for rival in complete.values())}


def _dominates(rival: RunCost, cost: RunCost) -> bool:
    no_worse = rival.ms <= cost.ms and rival.error_m <= cost.error_m
    return no_worse and rival != cost and rival.conditions == cost.conditions
