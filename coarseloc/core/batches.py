"""Many rows as a few at a time. Pure; `itertools.batched` does the same from Python 3.12 on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batches(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` rows, in their order; the rows are read as they are asked for."""
    iterator = iter(rows)
    while some := list(islice(iterator, size)):
        yield some
