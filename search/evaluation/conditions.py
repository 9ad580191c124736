"""How a run's times were taken: only times of equal conditions are ranked against each other."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

from coarseloc.store.runs import StoredRun

Key = TypeVar("Key", bound=Hashable)


class Conditions(NamedTuple):
    """What a time depends on beside the backbone and the references. None where the run does not record it."""

    batch: int | None  # frames embedded at once; above 1 a frame's time is its batch's, divided by its frames
    device: str | None
    cpu: str | None
    threads: tuple[tuple[str, int], ...] | None  # as `search.facts.threads`, by name


def conditions(run: StoredRun) -> Conditions:
    on = run.environment
    threads = on.get("threads")
    return Conditions(
        run.parameters.get("batch"), on.get("device"), on.get("cpu"), threads and tuple(sorted(threads.items()))
    )


def by_conditions(runs: Mapping[Key, StoredRun]) -> dict[Conditions, list[Key]]:
    """The keys of runs whose times compare, in their order; single frames before batches, small batches first."""
    groups: dict[Conditions, list[Key]] = {}
    for key, run in runs.items():
        groups.setdefault(conditions(run), []).append(key)
    return dict(sorted(groups.items(), key=lambda group: group[0].batch or 0))
