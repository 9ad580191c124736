"""The machine: what it is, how busy it was, and the two ceilings that everything here runs under."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import torch

from benchmarks.rounds import Contest, Way
from coarseloc.embedding import kernels

CEILING = "ceiling: "
_INSTRUCTIONS = ("avx2", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "sve")
_PACKAGES = (
    "coarseloc", "torch", "transformers", "timm", "onnxruntime", "faiss-cpu", "faiss-gpu", "numpy", "pillow",
    "qdrant-edge-py", "qdrant-client",
)  # fmt: skip


def facts() -> dict[str, Any]:
    """The facts that are written above every table."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "instructions": _instructions(),
        "threads": _threads(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "commit": _commit(),
    }


def _instructions() -> str:
    """The CPU's instruction sets that decide what is fast here."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().partition("flags")[2].partition("\n")[0].split()) if cpuinfo.exists() else set()
    return ", ".join(flag for flag in _INSTRUCTIONS if flag in flags) or "unknown"


def _threads() -> str:
    """Each library's threads, and which BLAS it is. On a lent GPU's machine there is torch alone."""
    try:
        import faiss
        from threadpoolctl import threadpool_info
    except ImportError:
        return f"torch {torch.get_num_threads()}"
    pools = [
        f"{pool['internal_api']} {pool['num_threads']}"
        + (f" ({pool['architecture']})" if "architecture" in pool else "")
        for pool in threadpool_info()
    ]
    return f"torch {torch.get_num_threads()}, faiss {faiss.omp_get_max_threads()}; {', '.join(dict.fromkeys(pools))}"


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> float:
    """Processes that ran or wanted to, over the last minute."""
    return round(os.getloadavg()[0], 2)


def busiest(seconds: float = 1.0, count: int = 3) -> list[str]:
    """Who uses the processors just now, but for this process: `python (4711) 98 %`, at least 5 % each. Linux only."""
    before = _cpu_times()
    time.sleep(seconds)
    ticks = os.sysconf("SC_CLK_TCK") * seconds
    shares = [
        ((used - before[process][1]) / ticks, f"{name} ({process})")
        for process, (name, used) in _cpu_times().items()
        if process in before and process != os.getpid()
    ]
    return [f"{name} {share:.0%}" for share, name in sorted(shares, reverse=True)[:count] if share >= 0.05]


def _cpu_times() -> dict[int, tuple[str, int]]:
    """{process: (its name, clock ticks that it has run)}."""
    times = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            name, _, rest = file.read_text(errors="replace").partition("(")[2].rpartition(")")
            fields = rest.split()
            times[int(file.parent.name)] = (name, int(fields[11]) + int(fields[12]))
    return times


def free_memory() -> int:
    """Bytes that can be had without swapping."""
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return pages
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


# --- ceilings -----------------------------------------------------------------------------------


def matmul_ways(side: int = 2048) -> dict[str, Way]:
    """A large float32 product by each library that torch has, on all cores. One unit is one FLOP."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    ways: dict[str, Callable[[], object]] = {"torch matmul": lambda: a @ b}
    onednn = kernels.choose(torch.device("cpu"), "fp32")
    if onednn.name != "torch":
        layer = kernels.Linear(onednn.pack(b), torch.zeros(side))
        ways["oneDNN matmul"] = lambda: onednn.linear(a, layer)
    return {CEILING + name: Way(_on_all_cores(call), units=2 * side**3) for name, call in ways.items()}


def read_ways(mib: int = 1024) -> dict[str, Way]:
    """A sum over memory far larger than the caches, on all cores. One unit is one byte."""
    values = np.ones(mib * 2**18, np.float32)
    tensor = torch.from_numpy(values)
    parts = np.array_split(values, cores())
    pool = ThreadPoolExecutor(cores())
    return {
        CEILING + "torch sum": Way(_on_all_cores(tensor.sum), units=values.nbytes),
        CEILING + "numpy dot": Way(lambda: list(pool.map(lambda x: x @ x, parts)), units=values.nbytes),
    }


def ceiling(contest: Contest) -> float:
    """Units a second of the best ceiling way in a contest: FLOP or bytes."""
    return max(1 / contest.median(way) for way in contest.seconds if way.startswith(CEILING))


def _on_all_cores(call: Callable[[], object]) -> Callable[[], object]:
    """Set torch's number of threads before the call: it belongs to the calling thread and may be lower."""

    def run() -> object:
        torch.set_num_threads(cores())
        return call()

    return run


# --- memory -------------------------------------------------------------------------------------


@contextmanager
def peak_memory(every_s: float = 0.01) -> Iterator[list[int]]:
    """Yields a list that holds, at the end, one number: the most bytes resident meanwhile. Linux only."""
    statm, page, stop = Path("/proc/self/statm"), os.sysconf("SC_PAGE_SIZE"), Event()
    peak: list[int] = []

    def watch() -> None:
        peak_bytes = 0
        while not stop.wait(every_s):
            peak_bytes = max(peak_bytes, int(statm.read_text().split()[1]) * page)
        peak.append(peak_bytes)

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


# --- names --------------------------------------------------------------------------------------


def _cpu() -> str:
    """The model as the kernel names it, and the widest instructions that matter here."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    lines = [line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line]
    fields = {key.strip(): value.strip() for key, value in reversed(lines)}
    flags = fields.get("flags", "").split()
    widest = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    return f"{fields.get('model name', platform.machine())} (family {fields.get('cpu family', '?')}, {widest})"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
