"""The exact mirrors of reference sets as one index of tiles, for a flight, a single image and a page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.config import SearchEngine
from coarseloc.core.filters import ALL_TILES, Where
from coarseloc.core.types import Float32, Floats, RankedTile, TileFacts
from coarseloc.localize.localizer import ms_since
from coarseloc.store import Database, embeddings
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from search.exact_index import ExactIndex, backend
from search.mirror import Mirror, open_mirror
from search.neighbors import Rows, Selection


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of one mirror that may answer, in the mirror's own index or copied into another."""

    mirror: Mirror
    index: ExactIndex
    allowed: Selection | None  # of the mirror's rows; None for all
    headings: int
    is_copy: bool = False  # `index` holds the allowed rows alone

    @property
    def count(self) -> int:
        return self.mirror.index.count if self.allowed is None else len(self.allowed)

    @property
    def is_selected(self) -> bool:
        return self.allowed is not None and not self.is_copy

    def search(self, queries: Float32, k: int) -> tuple[Float32, Rows]:
        """Scores float32 [Q, K] and the mirror's rows int64 [Q, K]."""
        if self.allowed is None or not self.is_copy:
            return self.index.search(queries, k, self.allowed)
        scores, rows = self.index.search(queries, k)
        return scores, self.allowed.rows[rows]


@dataclass
class MirrorIndex:
    """A `TileIndex` over the mirrors of one or several reference sets: one search space."""

    db: Database
    parts: Sequence[_Part]
    build_ms: float
    _facts: dict[int, tuple[TileFacts, str | None, str]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Rotated tiles that may answer."""
        return sum(part.count for part in self.parts)

    @property
    def headings(self) -> int:
        return sum(part.headings for part in self.parts)

    @property
    def backend(self) -> str:
        """Name what answers a single query."""
        return self.backend_for(1, 10)

    def backend_for(self, queries: int, k: int) -> str:
        """Name what answers so many queries at once."""
        if not self.parts:
            return backend()
        part = self.parts[0]
        return part.index.backend(queries, k, part.is_selected)

    def way_for(self, queries: int, k: int) -> str | None:
        """How so many queries at once are searched on a CPU, as `CpuWay` says it; None on a GPU."""
        ways = dict.fromkeys(str(way) for part in self.parts if (way := part.index.way(queries, k, part.is_selected)))
        return "; ".join(ways) or None

    def search(self, queries: Float32, k: int) -> tuple[Float32, Rows]:
        """The k best of each query, by score, then point id; keys are rotated tiles. See `TileIndex`."""
        if not self.parts:
            return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
        answers = [part.search(queries, k) for part in self.parts]
        mirrors = [part.mirror for part in self.parts]
        keys = [mirror.rotated_tile_ids[rows] for mirror, (_, rows) in zip(mirrors, answers, strict=True)]
        if len(answers) == 1:
            return answers[0][0], keys[0]
        points = [mirror.point_ids[rows] for mirror, (_, rows) in zip(mirrors, answers, strict=True)]
        scores = np.concatenate([scores for scores, _ in answers], axis=1)
        all_points, all_keys = np.concatenate(points, axis=1), np.concatenate(keys, axis=1)
        best = np.lexsort((all_points[..., 1], all_points[..., 0], -scores), axis=-1)[:, :k]
        return np.take_along_axis(scores, best, 1), np.take_along_axis(all_keys, best, 1)

    def tiles(self, scores: Float32, keys: NDArray[Any]) -> list[RankedTile]:
        """See `TileIndex`."""
        tile_keys = [int(key) for key in keys]
        if unread := [key for key in tile_keys if key not in self._facts]:
            with self.db.read() as session:
                self._facts.update(embeddings.facts_by_key(session, unread))
        live = [(float(score), key) for score, key in zip(scores, tile_keys, strict=True) if key in self._facts]
        return [RankedTile(rank, score, *self._facts[key], key) for rank, (score, key) in enumerate(live, start=1)]

    def places(self) -> Floats:
        """Each place that may answer, once: float64 [P, 6] of lon, lat, west, south, east, north."""
        return np.concatenate([_places(part) for part in self.parts])

    def copy_rows(self) -> MirrorIndex:
        """Copy the rows that may answer into indexes of their own, which many searches of one filter pay for."""
        started = time.perf_counter()
        parts = [
            part if part.allowed is None else replace(part, index=part.index.subset(part.allowed.rows), is_copy=True)
            for part in self.parts
        ]
        has_filter = any(part.allowed is not None for part in self.parts)
        return MirrorIndex(self.db, parts, ms_since(started) if has_filter else self.build_ms, self._facts)


OpenMirrors = Sequence[tuple[StoredReferenceSet, Mirror]]


def open_mirrors(
    db: Database, root: Path, sets: Sequence[StoredReferenceSet], spec: StoredSpec, *, rebuild: bool = True
) -> OpenMirrors:
    """Open or build each set's mirror under the folder `root`. Raises the errors of `open_mirror`."""
    return [(stored_set, open_mirror(db, root, stored_set, spec, rebuild=rebuild)) for stored_set in sets]


def index_tiles(
    db: Database, opened: OpenMirrors, where: Where = ALL_TILES, engine: SearchEngine = "faiss"
) -> MirrorIndex:
    """Index the tiles of these mirrors that match, perhaps none. engine: who may search one mirror on a CPU; several
    are searched by FAISS, so that a record names one backend."""
    parts = list(_parts(opened, where, engine if len(opened) == 1 else "faiss"))
    return MirrorIndex(db, parts, sum(part.mirror.build_ms for part in parts))


def index_by_heading(
    db: Database, opened: OpenMirrors, where: Where = ALL_TILES, engine: SearchEngine = "faiss"
) -> list[tuple[int, MirrorIndex]]:
    """(heading, an index of its tiles that match) for each heading that has any."""
    angles = sorted({angle for stored_set, _ in opened for angle in stored_set.reference_set.angles})
    angles = [angle for angle in angles if not where.angles or angle in where.angles]
    indexes = [(angle, index_tiles(db, opened, replace(where, angles=(angle,)), engine)) for angle in angles]
    return [(angle, replace(index, build_ms=0.0).copy_rows()) for angle, index in indexes if index.parts]


def _parts(opened: OpenMirrors, where: Where, engine: SearchEngine) -> Iterator[_Part]:
    for stored_set, mirror in opened:
        allowed = mirror.selection(replace(where, reference_sets=()))
        if allowed is None or len(allowed):
            angles = [angle for angle in stored_set.reference_set.angles if not where.angles or angle in where.angles]
            yield _Part(mirror, mirror.index.admitting(engine), allowed, max(1, len(angles)))


def _places(part: _Part) -> Floats:
    columns = part.mirror.columns
    rows: Any = slice(None) if part.allowed is None else part.allowed.rows
    lon, lat = columns.lon[rows], columns.lat[rows]
    first = np.unique(lon + 1j * lat, return_index=True)[1]
    west, south, east, north = (getattr(columns, name)[rows][first] for name in ("west", "south", "east", "north"))
    return np.stack([lon[first], lat[first], west, south, np.where(east > 180.0, east - 360.0, east), north], axis=1)
