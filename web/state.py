"""What the pages read: the database, and the few summaries worth keeping between requests."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TypeVar

from flask import current_app

from coarseloc.core.config import Settings
from coarseloc.embedding.specs import BackboneSpec, table
from coarseloc.store import Database, Session, gallery
from coarseloc.workspace import Workspace
from web.encoders import QueryEncoders
from web.vectors import Vectors

T = TypeVar("T")
_log = logging.getLogger("coarseloc")


class Memory:
    """The latest `size` results of slow look-ups that do not change; shared among threads."""

    def __init__(self, size: int = 256) -> None:
        self._size, self._kept, self._lock = size, OrderedDict[Hashable, object](), Lock()

    def recall(self, key: Hashable, make: Callable[[], T]) -> T:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]  # type: ignore[return-value]
        made = make()
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return made


@dataclass(frozen=True, slots=True)
class Gallery:
    """What one application holds open."""

    workspace: Workspace
    backbones: Mapping[str, BackboneSpec]
    encoders: QueryEncoders
    vectors: Vectors
    memory: Memory = field(default_factory=Memory)

    @classmethod
    def open(cls, settings: Settings) -> Gallery:
        workspace = Workspace(settings, notice=_log.warning)
        vectors = Vectors(settings, workspace.db)
        return cls(workspace, table(settings.backbones), QueryEncoders(settings), vectors)

    @property
    def settings(self) -> Settings:
        return self.workspace.settings

    @property
    def database(self) -> Database:
        return self.workspace.db

    def place(self, backbone: str) -> int:
        """Where pages list a backbone: as the table does, small ones first, and after them those it does not know."""
        names = list(self.backbones)
        return names.index(backbone) if backbone in names else len(names)

    def until_written(self, key: tuple[Hashable, ...], read: Callable[[Session], T]) -> T:
        """What `read` finds of the references, remembered until one of them is written."""
        with self.database.read() as session:
            return self.memory.recall((*key, gallery.generation(session)), lambda: read(session))

    @property
    def uploads(self) -> Path:
        return self.settings.data_dir / "uploads"

    def close(self) -> None:
        self.vectors.close()
        self.workspace.close()


def the_gallery() -> Gallery:
    """The current application's."""
    found: Gallery = current_app.extensions["coarseloc"]
    return found
