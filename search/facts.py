"""What a run says of itself: what was asked, and what answered."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from coarseloc.core.types import Backbone
from search import faiss_engine, faiss_store

WARM_UP = 3  # embeddings, and searches of each index, before the first that is timed


def environment(backend: str, backbone: Backbone) -> dict[str, Any]:
    """What answers, for the record of a run: a run is only gone on with in the same one."""
    return machine(backbone.device, backend)


def machine(device: str, backend: str) -> dict[str, Any]:
    """This machine and its software, beside the device that embeds and what searches."""
    return {
        "backend": backend,
        "device": device,
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": threads(),
        "warm_up": WARM_UP,
        "versions": {
            "python": platform.python_version(),
            "faiss": faiss_store.owner(),
            **{name: metadata.version(name) for name in ("coarseloc", "torch", "transformers", "numpy")},
        },
    }


def threads() -> dict[str, int]:
    """How many threads may work at one call: `torch` at an embedding on a CPU, `faiss` at a search on a CPU, and `omp`,
    what OpenMP gives each call of FAISS that says nothing else."""
    from coarseloc.embedding.engine import torch_threads  # torch: the program that embeds has it already

    return {
        "torch": torch_threads(),
        "faiss": faiss_engine.most_threads(),
        "omp": int(faiss_store.library().omp_get_max_threads()),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
