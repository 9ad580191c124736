"""The rotation laboratory: how stable are embeddings when the aircraft turns, and what makes a search robust to it.

Frames are cut at random places off the references' grid and turned to every heading; references lie on the grid at
eight headings. Everything below follows from these two sets of vectors: `queries` float32 [Q, H, D] and `references`
float32 [R, 8, D].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coarseloc import geo
from coarseloc.errors import InputError
from coarseloc.rotation import HEADINGS
from coarseloc.scoring.bootstrap import Estimate, estimate, mean
from coarseloc.store import Database, studies
from coarseloc.store.studies import CurvePoint
from coarseloc.types import Backbone, Bools, EmbeddingSpec, Float32, Floats, LonLat, Progress
from search import ground as grounds
from search.ground import Ortho, Pictures
from search.laboratory import (
    Answer,
    Arrays,
    Load,
    Step,
    Way,
    answer_of,
    collected,
    gather,
    patch_tokens,
    plain,
    point,
    search_ms,
    times,
    with_gains,
)
from search.patches import PATCH_ARRAYS, patch_curves, patch_figures

STEPS = (5, 9, 15, 45)  # degrees: so that the eight headings are among all
_VERSION = 2  # raise it when the same question would be answered otherwise


@dataclass(frozen=True, slots=True)
class Vectors:
    """What one backbone made of it all."""

    queries: Float32  # [Q, H, D]
    references: Float32  # [R, 8, D]
    right: Bools  # [Q, R]: the reference's footprint holds the frame's centre
    error_m: Floats  # [Q, R]; nan where positions are not known
    step: int


def run_rotation(
    db: Database,
    ground: Ortho | Pictures,
    specs: Sequence[EmbeddingSpec],
    load: Load,
    environment: Mapping[str, Any],
    *,
    frames_from: Ortho | None = None,
    step: int = 15,
    frames: int = 40,
    patches: int = 6,
    seed: int = 1,
    progress: Progress | None = None,
) -> Answer:
    """Answer, or go on answering, or look up what was answered before.

    `frames_from`: another orthophoto of the same place (another year, another season) that frames are cut from.
    `patches`: the frames whose patch tokens are followed. Raises InputError for a step that is not 5, 9, 15 or 45.
    """
    if step not in STEPS:
        raise InputError(f"a step of {step} degrees: expected one of {', '.join(map(str, STEPS))}, which divide 45")
    parameters = {
        "version": _VERSION,
        "ground": ground.facts,
        "frames_from": frames_from and frames_from.facts,
        "step": step,
        "frames": frames,
        "patches": patches,
        "seed": seed,
        "backbones": {spec.backbone: spec.digest for spec in specs},
    }
    with db.write() as session:
        study = studies.start_study(session, "rotation", parameters, environment)
    if study.finished_at is None:
        scene = _Scene(ground, frames_from, step, frames, seed)
        steps = scene.steps(patches)
        gather(db, study, specs, steps, load, progress)
        points: list[CurvePoint] = []
        ways: dict[str, list[Way]] = {}
        for spec in specs:
            named = partial(collected, db, study, spec)
            vectors = scene.vectors(named)
            points += curves(spec.backbone, vectors)
            if patches:
                names = [one.name for one in steps if one.name.startswith("patches/")]
                points += patch_curves(spec.backbone, step, {a: named(names, a) for a in PATCH_ARRAYS})
            taken = {name: float(named(["times"], name)[0]) for name in TIMES}
            ways[spec.backbone] = compare(vectors, taken)
        with db.write() as session:
            found = {"ways": plain(ways), "frames": scene.frames, "references": scene.references}
            studies.finish_study(session, study.id, points, found)
    return answer_of(db, study.id)


# --- what is looked at --------------------------------------------------------------------------


class _Scene:
    """Reference places and frames, and the steps that embed them."""

    def __init__(self, ground: Ortho | Pictures, other: Ortho | None, step: int, frames: int, seed: int) -> None:
        self._ground, self._other, self._step = ground, other, step
        self._headings = tuple(range(0, 360, step))
        if isinstance(ground, Ortho):
            self._places = grounds.anywhere(ground, frames, ground.footprint_m, seed)
            if other is not None:
                self._places = [place for place in self._places if other.holds(place, ground.footprint_m)]
                if not self._places:
                    raise InputError(f"{other.path} shows none of the {frames} places: expected the same area")
            self.references, self.frames = len(ground.centres), len(self._places)
        else:
            self.references = len(ground.paths)
            self.frames = min(frames, self.references)

    def steps(self, patches: int) -> list[Step]:
        """Small pieces, each kept when done."""
        made = [Step(f"references/{i}", partial(self._reference, i)) for i in range(self.references)]
        made += [Step(f"frames/{i}", partial(self._frame, i)) for i in range(self.frames)]
        made += [Step(f"patches/{i}", partial(self._patches, i)) for i in range(min(patches, self.frames))]
        return [*made, Step("times", self._times)]

    def vectors(self, named: Any) -> Vectors:
        right, error_m = self._truth()
        return Vectors(
            named([f"frames/{i}" for i in range(self.frames)], "vectors"),
            named([f"references/{i}" for i in range(self.references)], "vectors"),
            right,
            error_m,
            self._step,
        )

    def _see(self, i: int, headings: Sequence[int]) -> np.ndarray:
        """uint8 [H, S, S, 3]: frame i at these headings."""
        if isinstance(self._ground, Pictures):
            return np.stack([self._ground.view(i, heading) for heading in headings])
        eyes = self._other or self._ground
        return np.stack([eyes.view(self._places[i], heading, self._ground.footprint_m) for heading in headings])

    def _reference(self, i: int, backbone: Backbone) -> Arrays:
        if isinstance(self._ground, Pictures):
            return {"vectors": backbone.embed(np.stack([self._ground.view(i, heading) for heading in HEADINGS]))}
        return {"vectors": backbone.embed(np.stack([self._ground.view(self._ground.centres[i], h) for h in HEADINGS]))}

    def _frame(self, i: int, backbone: Backbone) -> Arrays:
        return {"vectors": backbone.embed(self._see(i, self._headings))}

    def _patches(self, i: int, backbone: Backbone) -> Arrays:
        other = self._see((i + 1) % self.frames, (0,))
        mine = patch_tokens(backbone, self._see(i, self._headings))
        return patch_figures(mine, patch_tokens(backbone, other)[0], self._step)

    def _times(self, backbone: Backbone) -> Arrays:
        return times(backbone, self._see(0, HEADINGS))

    def _truth(self) -> tuple[Bools, Floats]:
        """(right [Q, R], error_m [Q, R])."""
        if isinstance(self._ground, Pictures):
            same = np.eye(self.frames, self.references, dtype=bool)
            return same, np.full(same.shape, np.nan) if not self._ground.centres else _distances(
                self._ground.centres[: self.frames], self._ground.centres
            )
        half = self._ground.footprint_m / 2
        centres = np.array(self._ground.centres)
        right = []
        for place in self._places:
            per_lon, per_lat = geo.metres_per_degree(place.lat)
            away = np.abs(centres - np.array(place)) * (per_lon, per_lat)
            right.append(away.max(axis=1) <= half)
        return np.array(right), _distances(self._places, self._ground.centres)


def _distances(a: Sequence[LonLat], b: Sequence[LonLat]) -> Floats:
    first, second = np.array(a, float), np.array(b, float)
    return geo.distance_m(first[:, :1], first[:, 1:], second[:, 0], second[:, 1])


# --- the global token ---------------------------------------------------------------------------


def curves(backbone: str, vectors: Vectors) -> list[CurvePoint]:
    """Cosine of a place with itself, and with another, against the turn between them; margin and recall against the
    frame's heading for an index of one, four and eight headings."""
    step = vectors.step
    turns = list(range(0, 360, step))
    same, other = own_cosine(vectors.queries), other_cosine(vectors.queries)
    points = [point(backbone, "cosine", turn, same[:, i]) for i, turn in enumerate(turns)]
    points += [point(backbone, "cosine_other", turn, other[:, i]) for i, turn in enumerate(turns)]
    for count in (1, 4, 8):
        scores = _scores(vectors, HEADINGS[:: 8 // count])
        found = scores.argmax(axis=2)
        hits = np.take_along_axis(vectors.right[:, None, :], found[..., None], 2)[..., 0]
        error = np.take_along_axis(vectors.error_m[:, None, :], found[..., None], 2)[..., 0]
        margins = margin_over_wrong(scores, vectors.right)
        for i, turn in enumerate(turns):
            points.append(point(backbone, f"recall@{count}", turn, hits[:, i].astype(float)))
            points.append(point(backbone, f"margin@{count}", turn, margins[:, i]))
            if not np.isnan(error).all():
                points.append(
                    CurvePoint(backbone, f"error@{count}", turn, float(np.median(error[:, i])), None, None, len(error))
                )
    return points


def own_cosine(queries: Float32) -> Floats:
    """[Q, H]: mean cosine of a place at two headings so far apart, over all pairs of that turn."""
    gram = np.einsum("qhd,qgd->qhg", queries, queries, dtype=np.float64)
    count = queries.shape[1]
    rows = np.arange(count)
    return np.stack([gram[:, rows, (rows + turn) % count].mean(axis=1) for turn in range(count)], axis=1)


def other_cosine(queries: Float32) -> Floats:
    """[Q, H]: mean cosine of a place with the other places so far turned."""
    q, count, _ = queries.shape
    if q < 2:
        return np.full((q, count), np.nan)
    rows = np.arange(count)
    total = queries.sum(axis=0, dtype=np.float64)
    gram: Floats = np.einsum("qhd,gd->qhg", queries, total)
    gram -= np.einsum("qhd,qgd->qhg", queries, queries, dtype=np.float64)
    by_turn = [gram[:, rows, (rows + turn) % count].mean(axis=1) for turn in range(count)]
    return np.asarray(np.stack(by_turn, axis=1) / (q - 1), np.float64)


def margin_over_wrong(scores: Floats, right: Bools) -> Floats:
    """[Q, H]: the best score of a right reference less the best of a wrong one; nan where there is none of either."""
    best_right = np.where(right[:, None, :], scores, -np.inf).max(axis=2)
    best_wrong = np.where(right[:, None, :], -np.inf, scores).max(axis=2)
    with np.errstate(invalid="ignore"):
        found = best_right - best_wrong
    return np.where(np.isfinite(found), found, np.nan)


def _scores(vectors: Vectors, headings: Sequence[int]) -> Floats:
    """[Q, H, R]: each frame against each place, by its best heading of those the index holds."""
    held = vectors.references[:, [HEADINGS.index(heading) for heading in headings]]
    best = np.full((*vectors.queries.shape[:2], len(held)), -np.inf)
    for i in range(held.shape[1]):
        best = np.maximum(best, np.einsum("qhd,rd->qhr", vectors.queries, held[:, i]))
    return best


# --- the ways to be robust ----------------------------------------------------------------------

TIMES = ("embed_1", "embed_8")
PLAIN, FOUR, EIGHT_REFERENCES = (
    "one heading, nothing known",
    "four headings in the index",
    "eight headings in the index",
)
EIGHT_QUERIES, KNOWN_YAW = "frame turned eight times", "yaw known"


def compare(vectors: Vectors, taken: Mapping[str, float]) -> list[Way]:
    """The ways on the same frames: recall, metres, headings, milliseconds, bytes; gains are over eight references."""
    q, h, dim = vectors.queries.shape
    headings = np.arange(0, 360, vectors.step)
    once, eight = taken["embed_1"], taken["embed_8"]
    one_query, eight_queries = vectors.queries[0, :1], vectors.queries[0, :: 45 // vectors.step]
    answers: list[tuple[Way, Floats]] = []
    for name, held in ((PLAIN, (0,)), (FOUR, HEADINGS[::2]), (EIGHT_REFERENCES, HEADINGS)):
        index = vectors.references[:, [HEADINGS.index(a) for a in held]]
        scores = np.einsum("qhd,rad->qhra", vectors.queries, index).reshape(q, h, -1)
        found, angle = np.divmod(scores.argmax(axis=2), len(held))
        off = _turn(np.array(held)[angle] - headings) if len(held) > 1 else np.full((q, h), np.nan)
        cost = search_ms(index.reshape(-1, dim), one_query)
        answers.append(_way(name, vectors, found, off, once, cost, index.nbytes))
    north = np.einsum("qhd,rd->qhr", vectors.queries, vectors.references[:, 0])
    turned = np.stack([np.roll(north, -k * 45 // vectors.step, axis=1) for k in range(8)], axis=3)  # [Q, H, R, 8]
    found, k = np.divmod(turned.reshape(q, h, -1).argmax(axis=2), 8)
    single = vectors.references[:, 0]
    off = _turn(-45 * k - headings)
    answers.append(_way(EIGHT_QUERIES, vectors, found, off, eight, search_ms(single, eight_queries), single.nbytes))
    known = north[:, :1].argmax(axis=2)
    unsaid = np.full(known.shape, np.nan)
    answers.append(_way(KNOWN_YAW, vectors, known, unsaid, once, search_ms(single, one_query), single.nbytes))
    return with_gains([way for way, _ in answers], {way.name: shares for way, shares in answers}, EIGHT_REFERENCES)


def _way(
    name: str, vectors: Vectors, found: NDArray[np.int64], off: Floats, embed: float, search: float, size: int
) -> tuple[Way, Floats]:
    """A way, and the share of its headings [Q] at which each frame's place was right. `found`, `off` [Q, H]: the
    place answered for each frame at each heading, and how far its heading is off."""
    right = np.take_along_axis(vectors.right, found, 1)
    error = np.take_along_axis(vectors.error_m, found, 1)
    shares = right.mean(axis=1)  # frames are drawn, not their turned copies
    recall: Estimate = estimate(shares, mean)
    told = off[right & ~np.isnan(off)]
    heading = float(np.median(told)) if len(told) else math.nan
    metres = float(np.nanmedian(error)) if not np.isnan(error).all() else math.nan
    return Way(name, recall.value, recall.low, recall.high, metres, heading, embed, search, size, len(found)), shares


def _turn(degrees: NDArray[Any]) -> Floats:
    return np.abs((degrees + 180.0) % 360.0 - 180.0)
