"""Threads of a CPU for registration's many short operations: one of torch's for each, several side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

from coarseloc.embedding.device import torch_threads

ResultT = TypeVar("ResultT")


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """This thread's operations on one of torch's: of several, those that have nothing to do spin till the next one."""
    torch_threads()  # read before it is changed
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def workers_on(device: torch.device) -> int:
    """How many jobs go on side by side: one on a GPU, which does one after the other."""
    return 1 if device.type == "cuda" else torch_threads()


def side_by_side(jobs: Sequence[Callable[[], ResultT]], device: torch.device) -> list[ResultT]:
    """What jobs give, in order. A job starts no others."""
    workers = min(len(jobs), workers_on(device))
    if workers <= 1:
        return [job() for job in jobs]
    return list(_pool(workers_on(device)).map(lambda job: job(), jobs))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "registration", initializer=lambda: torch.set_num_threads(1))
