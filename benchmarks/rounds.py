"""Several ways of doing one thing, timed side by side. Standard library only.

Absolute figures wander by a quarter from run to run on a shared machine. So every round runs each way once, and
ways are compared by the ratio of their medians within one contest, never with a figure of another run.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Way:
    """One way of doing the work. A call does `units` of it; `prepare` runs before each call, untimed."""

    call: Callable[[], object]
    units: int = 1
    prepare: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A way that cannot run on this machine: the table shows the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Contest:
    """The measured seconds per unit, one value a round, of each way that ran."""

    name: str
    unit: str  # "tile", "query"
    seconds: Mapping[str, list[float]]
    skipped: Mapping[str, str] = field(default_factory=dict)

    def median(self, way: str) -> float:
        return statistics.median(self.seconds[way])

    def minimum(self, way: str) -> float:
        return min(self.seconds[way])

    def ratio(self, ours: str, peer: str) -> float:
        """How many times faster `ours` is, by medians."""
        return self.median(peer) / self.median(ours)

    def ratio_of_minima(self, ours: str, peer: str) -> float:
        """How many times faster `ours` is, by minima: on a busy machine the two ratios differ."""
        return self.minimum(peer) / self.minimum(ours)


def contest(name: str, unit: str, ways: Mapping[str, Way | Skipped], rounds: int, warm_ups: int = 1) -> Contest:
    """Run every way `warm_ups` times untimed, then once in each round.

    Each round begins with the next way, so that none always follows the same neighbour and its caches.
    """
    runnable = {label: way for label, way in ways.items() if isinstance(way, Way)}
    skipped = {label: way.reason for label, way in ways.items() if isinstance(way, Skipped)}
    seconds: dict[str, list[float]] = {label: [] for label in runnable}
    order = list(runnable)
    gc.collect()
    gc.freeze()  # exempts all objects alive now: collecting between calls then costs nothing
    try:
        for _ in range(warm_ups):
            for way in runnable.values():
                _timed(way)
        for turn in range(rounds):
            first = turn % max(1, len(order))
            for label in order[first:] + order[:first]:
                seconds[label].append(_timed(runnable[label]))
    finally:
        gc.unfreeze()
    return Contest(name, unit, seconds, skipped)


def _timed(way: Way) -> float:
    """Seconds a unit of one call."""
    way.prepare()
    gc.collect()  # so that no way pays for another's garbage
    started = time.perf_counter()
    way.call()
    return (time.perf_counter() - started) / way.units
