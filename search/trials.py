"""Which way of exact search is fastest here: tried on the user's own vectors when it is first asked, and kept.

A table from one machine is wrong on the next, so each machine, size, dimension and number of queries has a trial of
some tens of milliseconds, or up to a few seconds where the vectors are more than a core's cache holds. Its winner is
kept in `search_trials.json` beside the mirrors; `coarseloc doctor` shows it.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, get_args

import numpy as np

from coarseloc.core import files
from coarseloc.core.config import SearchEngine
from search import faiss_vectors
from search.engines import Numpy, Torch
from search.faiss_cpu import PLAIN_WAY, CpuWay, FaissCpu, Library, cpu_name, cpu_ways, max_threads
from search.faiss_vectors import FaissVectors
from search.neighbors import SMALL, CandidateEngine, nearest

FILE = "search_trials.json"
_BUDGET_S = 0.06  # of the rounds after the first ones
_FIRST_ROUNDS = 2  # of all ways: in one round anything else may disturb the fastest
_ROUNDS = 8  # more
_HOPELESS = 1.6  # times the fastest: such ways are not tried again
_SAMPLE_BYTES = 2**26  # of vectors, at least: far more than a core's own cache
_MOST_SAMPLE_BYTES = 2**29
_CACHES = 2  # the sample is so many times the processor's cache: what lies in it hides what reading memory costs
_CPU_CACHE = Path("/sys/devices/system/cpu/cpu0/cache")
_SAMPLE_PRODUCTS = 2**27  # multiplications of one round
_MOST_QUERIES = 64  # more at once are as fast in the same way

_log = logging.getLogger("coarseloc")


@dataclass(frozen=True, slots=True)
class Trial:
    """The fastest way for vectors [count, dim] and so many queries at once, and what the ways took."""

    count: int
    dim: int
    queries: int
    way: CpuWay
    ms: Mapping[str, float]  # each way's least, of the vectors that were tried
    tried_at: str
    load: float  # processes that ran or wanted to, over the minute before

    def __str__(self) -> str:
        queries = "1 query" if self.queries == 1 else f"{self.queries} queries"
        return f"{self.count:,} x {self.dim}, {queries}: {self.way}"


class SearchTrials:
    """The trials of this machine, kept in a file where one is given."""

    def __init__(self, file: Path | None = None, engine: SearchEngine = "faiss") -> None:
        """engine: "faiss" admits FAISS alone, "auto" numpy and torch too."""
        self.file = file
        self.engine = engine
        self._libraries = ("faiss",) if engine == "faiss" else get_args(Library)
        self._trials: dict[str, Trial] = {}
        self._lock = Lock()

    def admitting(self, engine: SearchEngine) -> SearchTrials:
        """The same file's trials, with other libraries admitted."""
        return shared_trials(self.file, engine) if self.file else SearchTrials(engine=engine)

    def way(self, stored: FaissVectors, queries: int, k: int) -> CpuWay:
        """The fastest way for these vectors and so many queries, tried now where no trial of their like is kept."""
        if stored.flat.ntotal <= SMALL:
            return PLAIN_WAY
        queries = query_class(queries)
        key = self._key(stored, queries)
        with self._lock:
            if key not in self._trials:
                known = self._read().get(key)
                has_half = stored.half is not None
                if known is None or known.way not in cpu_ways(queries, has_half, self._libraries):
                    known = _try_ways(stored, queries, k, self._libraries)
                    self._write(key, known)
                self._trials[key] = known
            return self._trials[key].way

    def _key(self, stored: FaissVectors, queries: int) -> str:
        size = round(2 * np.log2(max(1, stored.flat.ntotal)))  # within a fifth, sizes are searched alike
        half = "" if stored.half is None else " with half"
        return f"2^{size / 2:g}{half} x {stored.flat.d}, {queries}, {'+'.join(self._libraries)}"

    def _read(self) -> dict[str, Trial]:
        return {} if self.file is None else read_trials(self.file).get(_machine(), {})

    def _write(self, key: str, trial: Trial) -> None:
        """Keep a trial, but not of a busy machine, where it is luck which way wins."""
        if self.file is None or trial.load > (os.cpu_count() or 1):
            return
        stored = read_trials(self.file)
        stored.setdefault(_machine(), {})[key] = trial
        content = {name: {k: _to_json(t) for k, t in trials.items()} for name, trials in stored.items()}
        try:
            files.write_text(self.file, json.dumps(content, indent=1))
        except OSError as error:
            _log.info("%s cannot be written (%s): the trial of exact search is made again next time", self.file, error)


@cache
def shared_trials(file: Path, engine: SearchEngine = "faiss") -> SearchTrials:
    """The trials of a file, one object for a process."""
    return SearchTrials(file, engine)


def query_class(queries: int) -> int:
    """Round up to a power of two, at most 64: so many queries at once are searched alike."""
    return min(_MOST_QUERIES, 1 << (queries - 1).bit_length())


def make_engine(stored: FaissVectors, way: CpuWay) -> CandidateEngine:
    match way.library:
        case "numpy":
            return Numpy(stored.vectors)
        case "torch":
            return Torch(stored.vectors, "cpu")
        case _:
            return FaissCpu(stored, way)


# --- a trial ------------------------------------------------------------------------------------


def _try_ways(stored: FaissVectors, queries: int, k: int, libraries: tuple[str, ...]) -> Trial:
    """Time all ways interleaved, over a part of the vectors where they are many."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    sample = _sample(stored, queries)
    sampled = np.array(sample.vectors[np.arange(queries) * sample.flat.ntotal // queries])
    calls: dict[CpuWay, Callable[[], object]] = {
        way: partial(nearest, sample.vectors, make_engine(sample, way), sampled, k)
        for way in cpu_ways(queries, sample.half is not None, libraries)
    }
    next(iter(calls.values()))()  # pages are read and threads started before the times
    seconds: dict[CpuWay, list[float]] = {way: [] for way in calls}

    def time_round(ways: Iterable[CpuWay]) -> None:
        for way in ways:
            seconds[way].append(_seconds(calls[way]))

    for _ in range(_FIRST_ROUNDS):
        time_round(calls)
    fastest = min(map(min, seconds.values()))
    hopeful = [way for way, times in seconds.items() if min(times) <= _HOPELESS * fastest]
    started = time.perf_counter()
    for turn in range(_ROUNDS):
        if turn >= 2 and time.perf_counter() - started > _BUDGET_S:
            break
        time_round(hopeful)
    least = {way: min(times) for way, times in seconds.items()}  # what else ran meanwhile only adds to it
    best = min(least, key=least.__getitem__)
    ms = {str(way): round(least_s * 1e3, 4) for way, least_s in least.items()}
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return Trial(stored.flat.ntotal, stored.flat.d, queries, best, ms, now, round(load, 2))


def _sample(stored: FaissVectors, queries: int) -> FaissVectors:
    """The first rows, copied, where all would take too long."""
    dim = stored.flat.d
    most_bytes = min(max(_SAMPLE_BYTES, _CACHES * cache_bytes()), _MOST_SAMPLE_BYTES)
    rows = max(1024, min(most_bytes // (4 * dim), _SAMPLE_PRODUCTS // (queries * dim)))
    if stored.flat.ntotal <= rows:
        return stored
    return faiss_vectors.store(rows, dim, [stored.vectors[:rows]], with_half=stored.half is not None)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


# --- the file -----------------------------------------------------------------------------------


def read_trials(file: Path) -> dict[str, dict[str, Trial]]:
    """{machine: {question: its trial}}; empty where there are none, or where the file is not as it was written."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {name: {k: _of_json(fields) for k, fields in trials.items()} for name, trials in content.items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}


def trials_here(folder: Path) -> list[Trial]:
    """The trials of this machine that are kept in a folder of mirrors."""
    return list(read_trials(folder / FILE).get(_machine(), {}).values())


def _to_json(trial: Trial) -> dict[str, Any]:
    names = ("count", "dim", "queries", "ms", "tried_at", "load")
    return {name: getattr(trial, name) for name in names} | {"way": trial.way._asdict()}


def _of_json(fields: Mapping[str, Any]) -> Trial:
    return Trial(**{**fields, "way": CpuWay(**fields["way"])})


@cache
def _machine() -> str:
    """What a trial holds for: the processor, its cache, the cores that may be used, and FAISS."""
    cached = f"{cache_bytes() >> 20} MB of cache"
    return f"{cpu_name()}, {cached}, {max_threads()} threads, {faiss_vectors.distribution()}"


@cache
def cache_bytes() -> int:
    """Of the processor's largest cache, as the kernel says; 0 where it does not."""
    sizes = [0]
    for file in _CPU_CACHE.glob("index*/size"):
        with suppress(OSError, ValueError):
            sizes.append(int(file.read_text(encoding="ascii").strip().removesuffix("K")) << 10)
    return max(sizes)
