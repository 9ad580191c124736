"""What all fuzzing shares: bounded memory, and a folder to write to."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

GROWTH_KIB = 1024 * 1024


@pytest.fixture(scope="module", autouse=True)
def bounded_memory() -> Iterator[None]:
    """The peak of this process grows by less than a gigabyte over a file of these tests."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < GROWTH_KIB, f"the peak of memory grew by {grown / 1024:.0f} MiB"


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder that the examples of one test write over."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        yield Path(folder)
