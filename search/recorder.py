"""Rows saved as they come: a kill loses a few seconds of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from coarseloc.core.fixes import FrameFix
from coarseloc.store import Database, fixes

T = TypeVar("T")

COMMIT_EVERY_S = 2.0


class Recorder(Generic[T]):
    """Saves rows every few seconds and, used in a `with`, at its end, Ctrl-C included. `save`: called with some."""

    def __init__(self, save: Callable[[Sequence[T]], None]) -> None:
        self._save = save
        self._unsaved: list[T] = []
        self._saved_at = time.monotonic()

    def __enter__(self) -> Recorder[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()

    def add(self, row: T) -> None:
        self._unsaved.append(row)
        if time.monotonic() - self._saved_at > COMMIT_EVERY_S:
            self._flush()

    def _flush(self) -> None:
        saving, self._unsaved = self._unsaved, []  # emptied first: a Ctrl-C while saving must not save them twice
        if saving:
            self._save(saving)
        self._saved_at = time.monotonic()


def fix_recorder(db: Database, localization: int) -> Recorder[tuple[int, FrameFix]]:
    """A recorder of one localization's fixes, (frame's key, fix)."""

    def save(saving: Sequence[tuple[int, FrameFix]]) -> None:
        with db.write() as session:
            fixes.save_fixes(session, localization, saving)

    return Recorder(save)
