"""The exact mirrors of reference sets as one index of tiles: what a flight, a picture and a page are searched in."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.filters import ANYTHING, Where
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
    """The rows of one mirror that may answer, in the mirror's own index or gathered into another."""

    mirror: Mirror
    index: ExactIndex
    allowed: Selection | None  # of the mirror's rows; None for all
    headings: int

    @property
    def count(self) -> int:
        return self.mirror.index.count if self.allowed is None else len(self.allowed)

    def search(self, queries: Float32, k: int) -> tuple[Float32, Rows]:
        """Scores float32 [Q, K] and the mirror's rows int64 [Q, K]."""
        if self.allowed is None or self.index is self.mirror.index:
            return self.index.search(queries, k, self.allowed)
        scores, rows = self.index.search(queries, k)
        return scores, self.allowed.rows[rows]


@dataclass
class MirrorIndex:
    """A `TileIndex` over the mirrors of one or several reference sets: one search space."""

    db: Database
    parts: Sequence[_Part]
    build_ms: float
    _known: dict[int, tuple[TileFacts, str | None, str]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Rotated tiles that may answer."""
        return sum(part.count for part in self.parts)

    @property
    def headings(self) -> int:
        return sum(part.headings for part in self.parts)

    @property
    def backend(self) -> str:
        return self.parts[0].index.backend if self.parts else backend()

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
        both, of_all = np.concatenate(points, axis=1), np.concatenate(keys, axis=1)
        best = np.lexsort((both[..., 1], both[..., 0], -scores), axis=-1)[:, :k]
        return np.take_along_axis(scores, best, 1), np.take_along_axis(of_all, best, 1)

    def tiles(self, scores: Float32, keys: NDArray[Any]) -> list[RankedTile]:
        """See `TileIndex`."""
        wanted = [int(key) for key in keys]
        if unknown := [key for key in wanted if key not in self._known]:
            with self.db.read() as session:
                self._known.update(embeddings.facts_by_key(session, unknown))
        known = [(float(score), key) for score, key in zip(scores, wanted, strict=True) if key in self._known]
        return [RankedTile(rank, score, *self._known[key], key) for rank, (score, key) in enumerate(known, start=1)]

    def places(self) -> Floats:
        """float64 [P, 6]: lon, lat, west, south, east, north of every place that is searched, once."""
        return np.concatenate([_places(part) for part in self.parts])

    def copied(self) -> MirrorIndex:
        """The same with the rows that may answer gathered into indexes of their own, for who asks many times."""
        started = time.perf_counter()
        parts = [_gathered(part) for part in self.parts]
        copying = any(part.allowed is not None for part in self.parts)
        return MirrorIndex(self.db, parts, ms_since(started) if copying else self.build_ms, self._known)


OpenMirrors = Sequence[tuple[StoredReferenceSet, Mirror]]


def open_mirrors(
    db: Database, root: Path, sets: Sequence[StoredReferenceSet], spec: StoredSpec, *, rebuild: bool = True
) -> OpenMirrors:
    """Each set's mirror, opened or built under the folder `root`. Raises what `open_mirror` does."""
    return [(one, open_mirror(db, root, one, spec, rebuild=rebuild)) for one in sets]


def matching(db: Database, opened: OpenMirrors, where: Where = ANYTHING) -> MirrorIndex:
    """The tiles of these mirrors that match; perhaps none."""
    parts = list(_parts(opened, where))
    return MirrorIndex(db, parts, sum(part.mirror.build_ms for part in parts))


def by_heading(db: Database, opened: OpenMirrors, where: Where = ANYTHING) -> list[tuple[int, MirrorIndex]]:
    """(heading, its tiles that match) of every heading that has any, as sets of their own."""
    angles = sorted({angle for one, _ in opened for angle in one.reference_set.angles})
    wanted = [angle for angle in angles if not where.angles or angle in where.angles]
    found = [(angle, list(_parts(opened, replace(where, angles=(angle,))))) for angle in wanted]
    return [(angle, MirrorIndex(db, parts, 0.0).copied()) for angle, parts in found if parts]


def _parts(opened: OpenMirrors, where: Where) -> Iterator[_Part]:
    for one, mirror in opened:
        allowed = mirror.selection(replace(where, reference_sets=()))
        if allowed is None or len(allowed):
            angles = [a for a in one.reference_set.angles if not where.angles or a in where.angles]
            yield _Part(mirror, mirror.index, allowed, max(1, len(angles)))


def _gathered(part: _Part) -> _Part:
    return part if part.allowed is None else replace(part, index=part.mirror.index.subset(part.allowed.rows))


def _places(part: _Part) -> Floats:
    columns = part.mirror.columns
    rows: Any = slice(None) if part.allowed is None else part.allowed.rows
    lon, lat = columns.lon[rows], columns.lat[rows]
    first = np.unique(lon + 1j * lat, return_index=True)[1]
    west, south, east, north = (getattr(columns, name)[rows][first] for name in ("west", "south", "east", "north"))
    return np.stack([lon[first], lat[first], west, south, np.where(east > 180.0, east - 360.0, east), north], axis=1)
