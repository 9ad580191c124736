"""Ingest on several machines by Ray: the plan's work in chunks is its tasks, an actor holds the models.

This process plans and commits, alone and by the same code as ever; actors read, turn and embed. Every machine needs
this version of coarseloc and sees the sources, the weights and the data folder under the same paths.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from coarseloc.core.errors import CoarselocError, InputError
from coarseloc.core.types import TileSource, batches
from ingest.plan import Plan, Work
from ingest.worker import EmbeddedBatch, IngestEngine, IngestSummary, LoadBackbone, Models, embed_work

CHUNK_TILES = 8  # what the death of an actor can cost
IN_FLIGHT = 2  # chunks an actor has before it, so that it never waits
DEATHS = 3  # of actors over one chunk, or when they begin: the fault is then not the machines'
PATIENCE_S = 300.0  # while the cluster has no room for a single actor

ChunkResult = tuple[list[EmbeddedBatch], IngestSummary]


class Embedder:
    """An actor: the models, and whatever is sent to it. Loads in its first chunk, so that errors come back as such."""

    def __init__(self, plan: Plan, source: TileSource, load: LoadBackbone, thumbnails: Path, mark: Path) -> None:
        self._plan, self._source, self._models = plan, source, Models(plan, load)
        self._thumbnails, self._mark = thumbnails, mark

    def begin(self) -> None:
        """Return once the actor runs, on a machine that sees the data folder."""
        if not self._mark.exists():
            raise InputError(
                f"{socket.gethostname()} does not see {self._thumbnails}: share the data folder with every machine, "
                "under the same path"
            )

    def work(self, work: Sequence[Work]) -> ChunkResult:
        """Embed one chunk; returns its batches, and the seconds of each stage."""
        part = IngestSummary(self._plan.reference_set.name, 0, 0)
        return list(embed_work(self._plan, self._source, work, self._models, self._thumbnails, part)), part


def over_ray(address: str | None = None, cores: int = 4) -> IngestEngine:
    """Make the engine on the cluster at `address`, or on this machine alone: an actor for each GPU, or, where there is
    none, for every `cores` cores of a machine. Raises InputError where Ray is not installed, where the cluster does
    not answer or has no room, and for tiles over which actor after actor dies."""

    def engine(
        plan: Plan, source: TileSource, load: LoadBackbone, thumbnails: Path, summary: IngestSummary
    ) -> Iterator[EmbeddedBatch]:
        thumbnails.mkdir(parents=True, exist_ok=True)
        mark = thumbnails / f".seen-{uuid4().hex[:8]}"
        mark.touch()
        ray = _connect(address)
        try:
            needs, count = _actor_capacity([node["Resources"] for node in ray.nodes() if node["Alive"]], cores)
            actor = ray.remote(**needs)(Embedder)
            shared = [ray.put(argument) for argument in (plan, source, load, thumbnails, mark)]  # once for all actors
            for embedded_batches, part in _chunk_results(ray, lambda: actor.remote(*shared), count, plan.work):
                summary.read += part.read
                summary.embedded.update(part.embedded)
                for stage, seconds in part.seconds.items():
                    summary.seconds[stage] += seconds
                yield from embedded_batches
        finally:
            mark.unlink(missing_ok=True)
            ray.shutdown()

    return engine


def _connect(address: str | None) -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing leaves this machine that was not asked to
    try:
        import ray
    except ModuleNotFoundError:
        raise InputError("Ray is not installed: `pip install 'ray>=2.40,<3'`, or leave out --engine ray") from None
    if address and address != "auto":
        _check_listening(address)  # Ray itself would try for minutes
        _check_joined(address)
    try:
        # "local": with no address at all Ray would join a cluster that happens to run here
        ray.init(address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _unusable_error(
            address or "this machine", (str(error).splitlines() or [type(error).__name__])[0]
        ) from error
    return ray


def _check_listening(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise _unusable_error(address, str(error)) from None


def _check_joined(address: str) -> None:
    """Connect in a process of its own: on a machine that has not joined, Ray's core ends it with a stack trace."""
    connect = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False)"
    connection = subprocess.run([sys.executable, "-c", connect, address], capture_output=True, text=True)
    if "InvalidAuthToken" in connection.stderr:
        raise _unusable_error(address, "it wants a token: put its ~/.ray/auth_token here and set RAY_AUTH_MODE=token")
    if connection.returncode < 0 or "*** StackTrace" in connection.stderr:
        raise _unusable_error(address, f"this machine has not joined it: `ray start --address={address}`")
    if connection.returncode:
        raise _unusable_error(address, (connection.stderr.strip().splitlines() or ["no reason given"])[-1])


def _unusable_error(where: str, reason: str) -> InputError:
    return InputError(
        f"Ray at {where} cannot be used: {reason.rstrip('.')}. Give its head as host:port, as `ray start --head` shows "
        "it, on a machine of the cluster (docs/operations.md)"
    )


def _actor_capacity(machines: Sequence[Mapping[str, float]], cores: int) -> tuple[dict[str, int], int]:
    """Compute the resources of one actor, and how many actors fit. None spans two machines."""
    if gpus := sum(int(machine.get("GPU", 0)) for machine in machines):
        return {"num_gpus": 1}, gpus
    sizes = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1] or [1]
    group = min(cores, *sizes)
    return {"num_cpus": group}, sum(size // group for size in sizes)


def _chunk_results(ray: Any, hire: Callable[[], Any], count: int, work: Sequence[Work]) -> Iterator[ChunkResult]:
    """Yield each chunk's result as it comes, from up to `count` actors.

    Ray by itself restarts a dead actor and keeps its chunks for it, for ever where the cluster has no room left. Here
    they go to whoever lives, and an actor hired in its stead takes part once it says that it is there.
    """
    todo = deque(batches(work, CHUNK_TILES))
    left = len(todo)
    free: deque[Any] = deque()  # an actor, as often as it can take a chunk
    waiting: dict[Any, tuple[Any, list[Work]]] = {}  # answer → actor, its chunk; none: it begins
    deaths: Counter[int | None] = Counter()  # by the first tile of the chunk at work; None: before any

    def begin() -> None:
        actor = hire()
        waiting[actor.begin.remote()] = actor, []

    def replace_actor(actor: Any, chunk: list[Work], error: Exception) -> None:
        cause = chunk[0].tile.index if chunk else None
        deaths[cause] += 1
        if deaths[cause] == DEATHS:
            raise _deaths_error(chunk, error) from error
        owned = [ref for ref, (owner, _) in waiting.items() if owner is actor]
        todo.extendleft(lost for lost in (*(waiting.pop(ref)[1] for ref in owned), chunk) if lost)
        while actor in free:
            free.remove(actor)
        ray.kill(actor)  # one that is only cut off may live on, and keep its place

    for _ in range(count):
        begin()
    while left:
        while free and todo:
            actor, chunk = free.popleft(), todo.popleft()
            waiting[actor.work.remote(chunk)] = actor, chunk
        ready = _next_result(ray, waiting)
        actor, chunk = waiting.pop(ready)
        try:
            answer = ray.get(ready)
        except ray.exceptions.RayActorError as error:
            replace_actor(actor, chunk, error)
            begin()
            continue
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, CoarselocError):
                raise error.cause from None
            raise
        if chunk:
            free.append(actor)
            left -= 1
            yield answer
        else:
            free.extend([actor] * IN_FLIGHT)
            deaths.pop(None, None)


def _next_result(ray: Any, waiting: Mapping[Any, tuple[Any, list[Work]]]) -> Any:
    """Wait for the result that comes next; returns its reference."""
    at_work = any(chunk for _, chunk in waiting.values())
    ready, _ = ray.wait(list(waiting), num_returns=1, timeout=None if at_work else PATIENCE_S)
    if not ready:
        raise InputError(
            f"the Ray cluster has had no room for a worker in {PATIENCE_S / 60:.0f} minutes: add machines or end other "
            "jobs, then run this again; what is embedded is kept"
        )
    return ready[0]


def _deaths_error(chunk: Sequence[Work], error: Exception) -> InputError:
    where = f"over tiles {chunk[0].tile.index} … {chunk[-1].tile.index}" if chunk else "before they began"
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
    return InputError(
        f"{DEATHS} workers have died {where}, so another would too: {reason}. See that coarseloc is the same on every "
        "machine and that memory suffices; Ray's logs (/tmp/ray) say more"
    )
