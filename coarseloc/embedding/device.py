"""The device that embeds: which it is, its threads, and the memory that work takes there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from coarseloc.core.errors import BackboneError


def resolve_device(device: str) -> torch.device:
    """Return the device of this name; "auto" is the first CUDA device, where there is one, else the CPU.

    Raises BackboneError for a device that is not here.
    """
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        torch_device = torch.device(device)
    except RuntimeError as error:
        raise BackboneError(f"device {device!r} is not known: use auto, cpu or cuda:0") from error
    if torch_device.type == "cuda" and (
        not torch.cuda.is_available() or (torch_device.index or 0) >= torch.cuda.device_count()
    ):
        raise BackboneError(f"device {device!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices")
    if torch_device.type not in ("cpu", "cuda"):
        raise BackboneError(f"device {device!r} is not supported: use auto, cpu or cuda:0")
    return torch_device


@cache
def torch_threads() -> int:
    """Return torch's own number of threads, read once: setting it in one thread changes what new threads see."""
    return torch.get_num_threads()


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
