"""The machine and software that a run was timed on: recorded with it, and read again to compare times.

Only times of equal conditions are ranked against each other.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Hashable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from search import faiss_cpu, faiss_vectors

if TYPE_CHECKING:
    from coarseloc.store.runs import StoredRun

Key = TypeVar("Key", bound=Hashable)

_CODE = ("coarseloc", "ingest", "search")  # packages that decide an answer
WARM_UP = 3  # embeddings, and searches of each index, before the first that is timed


def machine(device: str, backend: str, search_way: str | None = None) -> dict[str, Any]:
    """Describe this machine and its software, with the device that embeds and the backend that searches: the record of
    a run's times. An unfinished run only goes on in an equal environment, whichever `search_way` it was searched in.
    """
    return {
        "backend": backend,
        "device": device,
        "cpu": faiss_cpu.cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": threads(),
        "warm_up": WARM_UP,
        "versions": {
            "python": platform.python_version(),
            "faiss": faiss_vectors.distribution(),
            **{name: metadata.version(name) for name in ("coarseloc", "torch", "transformers", "numpy")},
        },
        **({} if search_way is None else {"search_way": search_way}),
    }


def threads() -> dict[str, int]:
    """Count the threads of one call: `torch` of an embedding on a CPU, `faiss` of a search on a CPU, `omp` what OpenMP
    gives a call of FAISS by default."""
    from coarseloc.embedding.device import torch_threads  # torch: the program that embeds has it already

    return {
        "torch": torch_threads(),
        "faiss": faiss_cpu.max_threads(),
        "omp": int(faiss_vectors.library().omp_get_max_threads()),
    }


@cache
def code_digest() -> str:
    """SHA-256 of the source that this program runs, hexadecimal: a version's number stays while its code is worked on.

    Over the names and contents of every module of coarseloc, ingest and search, in order.
    """
    home, state = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for package in _CODE for path in (home / package).rglob("*.py")):
        content = path.read_bytes()
        state.update(f"{path.relative_to(home).as_posix()} {len(content)}\n".encode() + content)
    return state.hexdigest()


# --- comparing ----------------------------------------------------------------------------------


class Conditions(NamedTuple):
    """What a time depends on, apart from backbone and references. None where the run does not record it."""

    batch: int | None  # frames embedded at once; above 1 a frame's time is its batch's, divided by its frames
    device: str | None
    cpu: str | None
    threads: tuple[tuple[str, int], ...] | None  # as `threads`, by name


def conditions(run: StoredRun) -> Conditions:
    environment = run.environment
    threads = environment.get("threads")
    return Conditions(
        run.parameters.get("batch"),
        environment.get("device"),
        environment.get("cpu"),
        threads and tuple(sorted(threads.items())),
    )


def by_conditions(runs: Mapping[Key, StoredRun]) -> dict[Conditions, list[Key]]:
    """Group the keys of runs whose times compare, in their order; single frames before batches, small batches first."""
    groups: dict[Conditions, list[Key]] = {}
    for key, run in runs.items():
        groups.setdefault(conditions(run), []).append(key)
    return dict(sorted(groups.items(), key=lambda group: group[0].batch or 0))
