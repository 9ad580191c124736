"""Fixes saved as they come: a kill loses a few seconds of them."""

from __future__ import annotations

import time
from collections.abc import Mapping

from coarseloc.core.fixes import FrameFix
from coarseloc.store import Database, fixes

_COMMIT_EVERY_S = 2.0


class FixRecorder:
    """Saves fixes of one localization every few seconds and, used in a `with`, at its end, Ctrl-C included."""

    def __init__(self, db: Database, localization: int, frame_keys: Mapping[int, int]) -> None:
        """frame_keys: {frame index: primary key}."""
        self._db, self._localization, self._frame_keys = db, localization, frame_keys
        self._unsaved: list[tuple[int, FrameFix]] = []
        self._saved_at = time.monotonic()

    def __enter__(self) -> FixRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._save()

    def add(self, frame_index: int, fix: FrameFix) -> None:
        self._unsaved.append((self._frame_keys[frame_index], fix))
        if time.monotonic() - self._saved_at > _COMMIT_EVERY_S:
            self._save()

    def _save(self) -> None:
        saving, self._unsaved = self._unsaved, []  # emptied first: a Ctrl-C while saving must not save them twice
        if saving:
            with self._db.write() as session:
                fixes.save_fixes(session, self._localization, saving)
        self._saved_at = time.monotonic()
