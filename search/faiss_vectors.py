"""FAISS's own files: the vectors of an index in memory and on disk, in float32 and in half precision.

`faiss.read_index` opens both.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from coarseloc.core.errors import ConfigError, StoreError
from coarseloc.core.types import Float32

_OWNERS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss")
# FAISS multiplies matrices when queries x dim reaches this, and its own 128,000 is far too high. It is global, so it
# is set once: above the dim of one query (a pass is faster there), below eight queries of the narrowest backbone.
_BLAS_FROM = 2048
# OpenBLAS's name for kernels, and the instruction sets that they use; the best first.
_KERNELS = {"SkylakeX": {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "fma"}, "Haswell": {"avx2", "fma"}}
_CORE_TYPE = "OPENBLAS_CORETYPE"
_HALF_FROM = 4_000_000  # bytes of float32: less lies in a core's cache, where half of it is no faster

# Half precision keeps 11 bits of a value between 2^-14 and 2^16. Unit vectors have many values below 2^-14, which
# would lose more; scaled by a power of two, which is exact, those that do are below 2^-24.
SCALE = 2.0**10


def distribution() -> str:
    """The installed distribution that owns the module `faiss`, with its version, e.g. "faiss-cpu 1.11.0".

    Raises ConfigError unless there is exactly one: faiss-cpu and faiss-gpu overwrite each other's files, and pip
    cannot keep them apart.
    """
    installed = []
    for name in _OWNERS:
        try:
            installed.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    if len(installed) == 1:
        return installed[0]
    if not installed:
        raise ConfigError("no FAISS is installed: expected exactly one, run `pip install faiss-cpu` or `faiss-gpu`")
    raise ConfigError(
        f"{' and '.join(installed)} are both installed and overwrite each other: uninstall them all, "
        "then install exactly one, with `pip install faiss-cpu` or `faiss-gpu`"
    )


@cache
def library() -> Any:
    """Import FAISS, check and set it up at the first call, so that nothing happens at import."""
    distribution()
    with _openblas_kernels(_processor_flags()):
        import faiss

    faiss.cvar.distance_compute_blas_threshold = _BLAS_FROM
    return faiss


@contextmanager
def _openblas_kernels(flags: Collection[str]) -> Iterator[None]:
    """Tell the OpenBLAS that loads meanwhile which kernels this x86 processor can run, unless the environment does.

    FAISS's wheels bring OpenBLAS 0.3.15, which takes processors that it does not know for a Pentium 4 ("Prescott"):
    64 queries then take more than three times as long. It reads this variable once, as it loads.
    """
    core = next((core for core, instructions in _KERNELS.items() if instructions <= set(flags)), None)
    if core is None or _CORE_TYPE in os.environ:
        yield
        return
    os.environ[_CORE_TYPE] = core
    try:
        yield
    finally:
        del os.environ[_CORE_TYPE]


def _processor_flags() -> list[str]:
    """The instruction sets of this processor; none where the system does not list them as Linux does on x86."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])


def count_gpus() -> int:
    """Count the GPUs that this FAISS can use."""
    return int(library().get_num_gpus())


# --- the vectors --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FaissVectors:
    """N vectors [N, D] in FAISS's own structures: `flat` is enough; `half` makes single queries faster."""

    flat: Any  # IndexFlatIP
    half: Any  # IndexScalarQuantizer in half precision, of the vectors times SCALE; None where they are few

    @property
    def vectors(self) -> Float32:
        """float32 [N, D]: a view, not to be written to; perhaps mapped, perhaps unaligned."""
        return _view(self.flat)


def store(count: int, dim: int, parts: Iterable[Float32], *, with_half: bool | None = None) -> FaissVectors:
    """Fill an index of exactly `count` vectors from parts float32 [n, dim]: in memory once, never copied to grow.

    with_half: whether to hold them in half precision too; by default where they are many.
    """
    faiss = library()
    flat = faiss.IndexFlatIP(dim)
    flat.codes.resize(count * dim * 4)
    flat.ntotal = count
    half = None
    if count * dim * 4 >= _HALF_FROM if with_half is None else with_half:
        half = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        half.codes.resize(count * dim * 2)
        half.codes.clear()  # the memory stays allocated
    rows, filled = _view(flat), 0
    for part in parts:
        if filled + len(part) > count:
            raise StoreError(f"more than the {count} vectors that were announced came: try again")
        rows[filled : filled + len(part)] = part
        if half is not None:
            half.add(rows[filled : filled + len(part)] * np.float32(SCALE))
        filled += len(part)
    if filled != count:
        raise StoreError(f"{filled} of {count} vectors came: try again")
    return FaissVectors(flat, half)


def read(path: Path) -> FaissVectors:
    """Map saved vectors into memory, which takes no time whatever their size. Raises StoreError if they are damaged."""
    flat = _read(path)
    half = _read(half_path(path)) if flat.ntotal * flat.d * 4 >= _HALF_FROM else None
    if half is not None and (half.ntotal, half.d) != (flat.ntotal, flat.d):
        raise StoreError(f"{half_path(path)} holds {half.ntotal} x {half.d} vectors, expected {flat.ntotal} x {flat.d}")
    return FaissVectors(flat, half)


def write(stored: FaissVectors, path: Path) -> None:
    """Write `path`, and beside it the copy in half precision. Raises OSError where one cannot be written."""
    try:
        library().write_index(stored.flat, str(path))
        if stored.half is not None:
            library().write_index(stored.half, str(half_path(path)))
    except RuntimeError as error:
        raise OSError(str(error).splitlines()[0]) from None


def half_path(path: Path) -> Path:
    """index.faiss → index.half.faiss."""
    return path.with_suffix(f".half{path.suffix}")


def _read(path: Path) -> Any:
    faiss = library()
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise StoreError(f"{path} is not a complete FAISS index: {str(error).splitlines()[0]}") from None


def _view(flat: Any) -> Float32:
    if flat.ntotal == 0:
        return np.empty((0, flat.d), np.float32)
    values: Float32 = library().rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d)
    return values.reshape(flat.ntotal, flat.d)
