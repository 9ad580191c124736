"""The rotation laboratory: how stable are embeddings when the aircraft turns, and what makes a search robust to it.

Frames are cut at random places off the references' grid and turned to every heading; references lie on the grid at
eight headings. Everything below follows from these two sets of vectors: `queries` float32 [Q, H, D] and `references`
float32 [R, 8, D].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coarseloc import geo
from coarseloc.errors import BackboneError, InputError
from coarseloc.rotation import HEADINGS
from coarseloc.store import Database
from coarseloc.store.studies import Arrays, CurvePoint
from coarseloc.types import Backbone, Bools, EmbeddingSpec, Float32, Floats, Progress, UInt8
from search.laboratory import truth
from search.laboratory.ground import Ortho, Pictures, anywhere
from search.laboratory.patches import PATCH_ARRAYS, patch_curves, patch_figures
from search.laboratory.study import Answer, Load, Parts, Step, point, run_study
from search.laboratory.timing import EMBED_TIMES, embed_times, search_ms
from search.laboratory.truth import Truth
from search.laboratory.ways import Tried, Way, tried, with_gains

STEPS = (5, 9, 15, 45)  # degrees: so that the eight headings are among all
_VERSION = 2  # raise it when the same question would be answered otherwise


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
    asked = {
        "version": _VERSION,
        "ground": ground.facts,
        "frames_from": frames_from and frames_from.facts,
        "step": step,
        "frames": frames,
        "patches": patches,
        "seed": seed,
    }

    def set_up() -> Rotation:
        if isinstance(ground, Pictures):
            scene = _pictured(ground, frames)
        else:
            scene = _cut(ground, frames_from or ground, frames, seed)
        return Rotation(scene, step, patches)

    return run_study(db, "rotation", asked, environment, specs, load, set_up, progress)


# --- what is looked at --------------------------------------------------------------------------

See = Callable[[int, Sequence[int]], UInt8]
"""(a number, H headings) → uint8 [H, S, S, 3]."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Reference places and frames, each seen from any heading."""

    references: int
    frames: int
    reference: See
    frame: See
    truth: Truth


def _cut(ground: Ortho, eyes: Ortho, count: int, seed: int) -> Scene:
    """References of one orthophoto, frames at random places in the same or another."""
    places = anywhere(ground, count, ground.footprint_m, seed)
    if eyes is not ground:
        places = [place for place in places if eyes.holds(place, ground.footprint_m)]
        if not places:
            raise InputError(f"{eyes.path} shows none of the {count} places: expected the same area")

    def reference(i: int, headings: Sequence[int]) -> UInt8:
        return np.stack([ground.view(ground.centres[i], heading) for heading in headings])

    def frame(i: int, headings: Sequence[int]) -> UInt8:
        return np.stack([eyes.view(places[i], heading, ground.footprint_m) for heading in headings])

    held = truth.of_places(places, ground.centres, ground.footprint_m / 2)
    return Scene(len(ground.centres), len(places), reference, frame, held)


def _pictured(ground: Pictures, count: int) -> Scene:
    """Pictures are references and frames at once."""
    references = len(ground.paths)
    frames = min(count, references)

    def see(i: int, headings: Sequence[int]) -> UInt8:
        return np.stack([ground.view(i, heading) for heading in headings])

    return Scene(references, frames, see, see, truth.of_pictures(frames, references, ground.centres))


@dataclass(frozen=True, slots=True)
class Rotation:
    """The experiment: the scene at every `step` degrees, the patch tokens of the first frames."""

    scene: Scene
    step: int
    patches: int

    @property
    def counts(self) -> Mapping[str, int]:
        return {"frames": self.scene.frames, "references": self.scene.references}

    def steps(self) -> list[Step]:
        made = [Step(name, partial(self._reference, i)) for i, name in enumerate(self._names("references"))]
        made += [Step(name, partial(self._frame, i)) for i, name in enumerate(self._names("frames"))]
        made += [Step(name, partial(self._patches, i)) for i, name in enumerate(self._names("patches"))]
        return [*made, Step("times", self._times)]

    def judged(self, backbone: str, parts: Parts) -> tuple[list[CurvePoint], list[Way]]:
        frames, references = (parts(self._names(of), "vectors") for of in ("frames", "references"))
        vectors = Vectors(frames, references, self.scene.truth, self.step)
        points = curves(backbone, vectors)
        if self.patches:
            names = self._names("patches")
            points += patch_curves(backbone, self.step, {array: parts(names, array) for array in PATCH_ARRAYS})
        return points, compare(vectors, {name: float(parts(["times"], name)[0]) for name in EMBED_TIMES})

    def _names(self, of: str) -> list[str]:
        counts = {**self.counts, "patches": min(self.patches, self.scene.frames)}
        return [f"{of}/{i}" for i in range(counts[of])]

    def _reference(self, i: int, backbone: Backbone) -> Arrays:
        return {"vectors": backbone.embed(self.scene.reference(i, HEADINGS))}

    def _frame(self, i: int, backbone: Backbone) -> Arrays:
        return {"vectors": backbone.embed(self._all_round(i))}

    def _patches(self, i: int, backbone: Backbone) -> Arrays:
        other = self.scene.frame((i + 1) % self.scene.frames, (0,))
        mine = _patch_tokens(backbone, self._all_round(i))
        return patch_figures(mine, _patch_tokens(backbone, other)[0], self.step)

    def _times(self, backbone: Backbone) -> Arrays:
        return embed_times(backbone, self.scene.frame(0, HEADINGS))

    def _all_round(self, i: int) -> UInt8:
        return self.scene.frame(i, range(0, 360, self.step))


def _patch_tokens(backbone: Backbone, images: UInt8) -> Float32:
    """float32 [B, G, G, D]; BackboneError for an encoder that has none."""
    tokens = getattr(backbone, "patch_tokens", None)
    if tokens is None:
        raise BackboneError(f"backbone {backbone.spec.backbone} has no patch tokens: leave them out with --patches 0")
    found: Float32 = tokens(images)
    return found


# --- the global token ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Vectors:
    """What one backbone made of the scene."""

    queries: Float32  # [Q, H, D]
    references: Float32  # [R, 8, D]
    truth: Truth  # right where the reference's footprint holds the frame's centre
    step: int


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
        hits, error = vectors.truth.of(scores.argmax(axis=2))
        margins = margin_over_wrong(scores, vectors.truth.right)
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

PLAIN, FOUR, EIGHT_REFERENCES = (
    "one heading, nothing known",
    "four headings in the index",
    "eight headings in the index",
)
EIGHT_QUERIES, KNOWN_YAW = "frame turned eight times", "yaw known"


def compare(vectors: Vectors, taken: Mapping[str, float]) -> list[Way]:
    """The ways on the same frames: recall, metres, headings, milliseconds, bytes; gains are over eight references.
    `taken`: the milliseconds of `EMBED_TIMES`."""
    ways = [
        _indexed(name, held, vectors, taken["embed_1"])
        for name, held in ((PLAIN, (0,)), (FOUR, HEADINGS[::2]), (EIGHT_REFERENCES, HEADINGS))
    ]
    north = np.einsum("qhd,rd->qhr", vectors.queries, vectors.references[:, 0])
    ways += [_turned(north, vectors, taken["embed_8"]), _yaw_known(north, vectors, taken["embed_1"])]
    return with_gains(ways, EIGHT_REFERENCES)


def _indexed(name: str, held: Sequence[int], vectors: Vectors, embed_ms: float) -> Tried:
    """An index of references at the headings `held`; of one alone the answer tells no heading."""
    index = vectors.references[:, [HEADINGS.index(heading) for heading in held]]
    q, h, dim = vectors.queries.shape
    scores = np.einsum("qhd,rad->qhra", vectors.queries, index).reshape(q, h, -1)
    found, angle = np.divmod(scores.argmax(axis=2), len(held))
    off = _off(np.array(held)[angle], vectors.step) if len(held) > 1 else None
    cost = search_ms(index.reshape(-1, dim), vectors.queries[0, :1])
    return tried(name, vectors.truth, found, embed_ms=embed_ms, search_ms=cost, index_bytes=index.nbytes, off_deg=off)


def _turned(north: Floats, vectors: Vectors, embed_ms: float) -> Tried:
    """Each frame is turned to eight headings, and the best of eight searches counts; `north` [Q, H, R]: scores
    against references at heading 0."""
    q, h, _ = north.shape
    step, single = vectors.step, vectors.references[:, 0]
    turned = np.stack([np.roll(north, -k * 45 // step, axis=1) for k in range(8)], axis=3)  # [Q, H, R, 8]
    found, k = np.divmod(turned.reshape(q, h, -1).argmax(axis=2), 8)
    return tried(
        EIGHT_QUERIES, vectors.truth, found, embed_ms=embed_ms,
        search_ms=search_ms(single, vectors.queries[0, :: 45 // step]), index_bytes=single.nbytes,
        off_deg=_off(-45 * k, step),
    )  # fmt: skip


def _yaw_known(north: Floats, vectors: Vectors, embed_ms: float) -> Tried:
    """Each frame is turned to north before it is searched."""
    single = vectors.references[:, 0]
    return tried(
        KNOWN_YAW, vectors.truth, north[:, :1].argmax(axis=2), embed_ms=embed_ms,
        search_ms=search_ms(single, vectors.queries[0, :1]), index_bytes=single.nbytes,
    )  # fmt: skip


def _off(told_deg: NDArray[np.int64], step: int) -> Floats:
    """[Q, H]: how far the headings told for each frame at each of its headings are off, in [0, 180]."""
    return np.abs(geo.short_way(np.arange(0, 360, step), told_deg))
