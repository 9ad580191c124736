"""Ingest on several machines by Ray: the plan's work in chunks is its tasks, an actor holds the models.

This process plans and commits, alone and by the same code as ever; actors read, turn and embed. Every machine needs
this version of coarseloc and sees the sources, the weights and the data folder under the same paths.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from coarseloc.batches import batches
from coarseloc.errors import CoarselocError, InputError
from coarseloc.types import TileSource
from ingest.plan import Plan, Work
from ingest.worker import Done, Engine, Load, Models, Summary, embed_work

CHUNK_TILES = 8  # what the death of an actor can cost
IN_FLIGHT = 2  # chunks an actor has before it, so that it never waits


class Embedder:
    """An actor: the models, and whatever is sent to it. Loads in its first task, so that errors come back as such."""

    def __init__(self, plan: Plan, source: TileSource, load: Load, thumbnails: Path, mark: Path) -> None:
        self._plan, self._source, self._models = plan, source, Models(plan, load)
        self._thumbnails, self._mark = thumbnails, mark

    def work(self, work: Sequence[Work]) -> tuple[list[Done], Summary]:
        """One chunk: what came of it, and how long each stage took."""
        if not self._mark.exists():
            raise InputError(
                f"{socket.gethostname()} does not see {self._thumbnails}: share the data folder with every machine, "
                "under the same path"
            )
        part = Summary(self._plan.reference_set.name, 0, 0)
        return list(embed_work(self._plan, self._source, work, self._models, self._thumbnails, part)), part


def over_ray(address: str | None = None, cores: int = 4) -> Engine:
    """The engine on the cluster at `address`, or on this machine alone: an actor for each GPU, or, where there is
    none, for every `cores` cores. Raises InputError where Ray is not installed or the cluster does not answer."""

    def engine(plan: Plan, source: TileSource, load: Load, thumbnails: Path, summary: Summary) -> Iterator[Done]:
        thumbnails.mkdir(parents=True, exist_ok=True)
        mark = thumbnails / f".seen-{uuid4().hex[:8]}"
        mark.touch()
        ray = _connected(address)
        try:
            actors = _actors(ray, cores, plan, source, load, thumbnails, mark)
            for done, part in _answers(ray, actors, plan):
                summary.read += part.read
                summary.embedded.update(part.embedded)
                for stage, seconds in part.seconds.items():
                    summary.seconds[stage] += seconds
                yield from done
        finally:
            mark.unlink(missing_ok=True)
            ray.shutdown()

    return engine


def _connected(address: str | None) -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing leaves this machine that was not asked to
    try:
        import ray
    except ModuleNotFoundError:
        raise InputError("Ray is not installed: `pip install 'coarseloc[ray]'`, or leave out --engine ray") from None
    if address and address != "auto":
        _check_listening(address)  # Ray itself would try for minutes
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _unusable(address or "this machine", error) from error
    return ray


def _check_listening(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise _unusable(address, error) from None


def _unusable(where: str, error: Exception) -> InputError:
    why = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(
        f"Ray at {where} cannot be used: {why}. Give its head as host:port, as `ray start --head` shows it"
    )


def _actors(ray: Any, cores: int, *what: object) -> list[Any]:
    """As many as the cluster has GPUs or groups of cores. One whose process or machine dies is started elsewhere, and
    its chunks are done again."""
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    group = min(cores, cpus)
    needs = {"num_gpus": 1} if gpus else {"num_cpus": group}
    made = ray.remote(max_restarts=-1, max_task_retries=-1, **needs)(Embedder)
    kept = [ray.put(one) for one in what]  # once for all actors
    return [made.remote(*kept) for _ in range(gpus or max(1, cpus // group))]


def _answers(ray: Any, actors: Sequence[Any], plan: Plan) -> Iterator[tuple[list[Done], Summary]]:
    """Each chunk's answer as it comes."""
    chunks = batches(plan.work, CHUNK_TILES)
    waiting = {
        actor.work.remote(chunk): actor
        for _, actor, chunk in zip(range(IN_FLIGHT * len(actors)), [*actors] * IN_FLIGHT, chunks, strict=False)
    }
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        actor = waiting.pop(ready)
        if chunk := next(chunks, None):
            waiting[actor.work.remote(chunk)] = actor
        try:
            yield ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, CoarselocError):
                raise error.cause from None
            raise
