"""How much memory a piece of work takes at most."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class PeakMemory:
    mib: float | None = None  # MiB; None where the system does not say


@contextmanager
def peak_memory(device: str) -> Iterator[PeakMemory]:
    """Measure the most memory in use at any moment of the `with`, known when it ends.

    What torch allocates on a CUDA device, else this process's resident memory, which Linux alone tells.
    """
    peak = PeakMemory()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.mib = torch.cuda.max_memory_allocated(device) / 2**20
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    except OSError:
        yield peak
        return
    yield peak
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    if match := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
        peak.mib = int(match[1]) / 1024
