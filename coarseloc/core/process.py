"""What a process asks of its C library and of the kernel: which memory it gives back, which work may wait."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_MIB = 1 << 20
_BACKGROUND = 10  # niceness: a tenth of the processor beside a thread that somebody waits for


@cache
def keep_freed_memory() -> None:
    """Let glibc keep what threads free, as much as its own rule comes to at last: 64 MB a thread.

    Before that it gives buffers of a few MB back to the kernel, which clears their pages for the next layer: embedding
    in int8 that was 8,000 page faults an image and a third of the time of two threads. For work that ends.
    """
    _set({_M_MMAP_THRESHOLD: 32 * _MIB, _M_TRIM_THRESHOLD: 64 * _MIB})


def return_freed_memory() -> None:
    """Let glibc give decoded pictures back to the system: left alone it raises its threshold to the largest block ever
    freed, and keeps a heap for each thread. For a server."""
    _set({_M_MMAP_THRESHOLD: _MIB, _M_TRIM_THRESHOLD: _MIB, _M_ARENA_MAX: 4})


def _set(options: dict[int, int]) -> None:
    """By mallopt, which another C library does not have."""
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in options.items():
            mallopt(option, value)


def run_in_background(work: Callable[[], object]) -> None:
    """Do what nobody waits for in a thread that lets others have the processor first, and return when it is done. Only
    Linux knows priorities of threads. What `work` raises is lost; threads that it starts have its priority for good."""

    def run() -> None:
        with suppress(AttributeError, OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BACKGROUND)
        work()

    thread = threading.Thread(target=run, name="background", daemon=True)
    thread.start()
    thread.join()
