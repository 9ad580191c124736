"""Hostile input: whatever comes in, a CoarselocError is the worst that comes out, within seconds.

A few examples each in the suite, the same ones every time; `make fuzz` asks for a thousand of each, new ones every
time (COARSELOC_FUZZ_EXAMPLES).
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coarseloc.core.errors import CoarselocError

EXAMPLES = int(os.environ.get("COARSELOC_FUZZ_EXAMPLES", "0"))
SECONDS = 20.0  # far beyond what any takes, on a machine that is busy with other tests too

_CLAIMS = (b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")  # lengths and offsets of too much


def fuzzed(few: int = 20, **strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`given`, with as many examples as were asked for, else a few; `survives` has a deadline of its own."""
    how = settings(
        max_examples=EXAMPLES or few,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: how(given(**strategies)(test))


class Hung(Exception):
    """An input took longer than it may."""


@contextmanager
def survives() -> Iterator[None]:
    """What runs inside may refuse its input by a CoarselocError, and must do so in time. Of damage that they find,
    libraries may warn; our own code may not."""

    def stop(*_: object) -> None:
        raise Hung(f"not done after {SECONDS:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings(record=True) as told:
            yield
    except CoarselocError as error:
        assert str(error).strip(), "an error without a message"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert [str(one) for one in told if "site-packages" not in one.filename] == []


@st.composite
def mutated(draw: st.DrawFn, whole: bytes, within: int | None = None) -> bytes:
    """`whole` with a few bytes flipped, taken out or put in (the first `within` only), or cut short."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 8))):
        if not data:
            break
        at = draw(st.integers(0, min(len(data), within or len(data)) - 1))
        how = draw(st.sampled_from(["flip", "put", "take", "claim", "cut"]))
        if how == "flip":
            data[at] ^= draw(st.integers(1, 255))
        elif how == "put":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif how == "take":
            del data[at : at + draw(st.integers(1, 16))]
        elif how == "claim":
            data[at : at + 4] = draw(st.sampled_from(_CLAIMS))
        elif draw(st.integers(0, 3)) == 0:
            del data[at:]
    return bytes(data)
