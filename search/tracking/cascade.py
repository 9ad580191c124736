"""A larger backbone beside a smaller one's run: asked for a frame alone while the track is not sure of its place."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from coarseloc.core.errors import ImageryError
from coarseloc.core.tracks import TrackEstimate
from coarseloc.core.types import Backbone, Frame
from coarseloc.localize.localizer import decode, localize
from coarseloc.localize.tracking.tracker import LocalPlane
from coarseloc.store import Database, runs
from coarseloc.store.runs import StoredRun
from search.mirror_index import MirrorIndex
from search.tracking.frames import LargerAnswer
from search.tracking.ranks import ranked_hits

_LEAST_SURE = 0.6  # probability of the frame before; a margin of scores tells less


@dataclass(frozen=True, slots=True)
class Cascade:
    """answer: of the frame with this index."""

    backbone: str
    answer: Callable[[int], LargerAnswer]

    def escalates(self, before: TrackEstimate | None) -> bool:
        """Whether a frame after this estimate needs the larger backbone."""
        return before is None or not before.claimed or before.probability < _LEAST_SURE


def recorded_cascade(db: Database, run: StoredRun, plane: LocalPlane) -> Cascade:
    """The larger backbone's answers are in a run already."""

    def answer(frame_index: int) -> LargerAnswer:
        with db.read() as session:
            (result,) = runs.results(session, run.id, [frame_index])
        total_ms = result.timing.total_ms if result.timing else 0.0
        return LargerAnswer(ranked_hits(result.hits, plane, run.references) if result.hits else None, total_ms)

    return Cascade(run.spec.backbone, answer)


def embedded_cascade(
    backbone: str,
    opened: Callable[[], tuple[Backbone, MirrorIndex]],
    frames: Mapping[int, Frame],
    plane: LocalPlane,
    k: int,
) -> Cascade:
    """Frames are embedded and searched as they are asked for. opened: the model and its references, loaded at the first
    one."""
    loaded = functools.cache(opened)

    def answer(frame_index: int) -> LargerAnswer:
        encoder, index = loaded()
        try:
            picture = decode(frames[frame_index].path)
        except ImageryError:
            return LargerAnswer(None, 0.0)  # the track says why
        ((localized,),) = localize([picture], encoder, [index], k)
        hits = ranked_hits(localized.hits, plane, index.count) if localized.hits else None
        return LargerAnswer(hits, localized.timing.total_ms)

    return Cascade(backbone, answer)
