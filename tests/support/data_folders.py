"""Copies of data folders that tests may change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def own_database() -> Iterator[None]:
    """What is opened meanwhile has its database in its own folder, whatever server the tests run on: to be copied."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COARSELOC_DATABASE_URL", raising=False)
        yield


def copy_data(source: Path, target: Path) -> Path:
    """Copy a data folder whose stores are closed; returns the copy. A shard's files are a hundred megabytes of holes,
    which stay holes."""
    copy = _copy_with_holes if hasattr(os, "copy_file_range") else shutil.copy2  # Linux has it
    return Path(shutil.copytree(source, target, copy_function=copy))


def _copy_with_holes(source: str, target: str) -> None:
    with Path(source).open("rb", buffering=0) as reader, Path(target).open("wb", buffering=0) as writer:
        size = os.fstat(reader.fileno()).st_size
        writer.truncate(size)
        end = 0
        while end < size:
            try:
                start = os.lseek(reader.fileno(), end, os.SEEK_DATA)
            except OSError:  # nothing but a hole follows
                break
            end = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            while start < end:
                start += os.copy_file_range(reader.fileno(), writer.fileno(), end - start, start, start)
    shutil.copystat(source, target)
