"""What a process asks of its C library and of the kernel."""

import os
import resource
import subprocess
import sys
import threading

import pytest

from coarseloc.core.process import run_in_background

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="what glibc and Linux know alone")


@LINUX
def test_work_in_the_background_lets_others_go_first_and_leaves_their_priority_alone() -> None:
    priorities: list[int] = []

    def note() -> None:
        priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, 0)
    run_in_background(note)
    assert priorities == [max(before, 10)] and os.getpriority(os.PRIO_PROCESS, 0) == before


_BUFFERS = """
import resource, sys, threading
from coarseloc.core import process
getattr(process, sys.argv[1])()
def work():
    for _ in range(50):
        for _ in [bytearray(6_000_000) for _ in range(3)]: pass
def faults():
    thread = threading.Thread(target=work); before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread.start(); thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults())
"""


@LINUX
def test_a_threads_buffers_are_cleared_once_where_memory_is_kept_and_each_time_where_it_is_returned() -> None:
    kept, returned = (
        int(subprocess.run([sys.executable, "-c", _BUFFERS, name], capture_output=True, text=True, check=True).stdout)
        for name in ("keep_freed_memory", "return_freed_memory")
    )
    assert kept < returned / 5, f"{kept} page faults, {returned}; pages of {resource.getpagesize()} bytes"
