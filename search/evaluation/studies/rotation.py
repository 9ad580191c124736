"""The rotation study: how stable are embeddings when the aircraft turns, and what makes a search robust to it.

Frames are cut at random places off the references' grid and turned to every heading; references lie on the grid at
eight headings. Everything below follows from these two sets of vectors: `queries` float32 [Q, H, D] and `references`
float32 [R, 8, D].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coarseloc.core import geo
from coarseloc.core.errors import InputError
from coarseloc.core.rotation import HEADINGS
from coarseloc.core.types import Backbone, Bools, EmbeddingSpec, Float32, Floats, LonLat, Progress, UInt8
from coarseloc.store import Database
from coarseloc.store.studies import Arrays, CurvePoint
from search.evaluation.intervals import median, share
from search.evaluation.studies.ground import (
    TURNING_ROOM,
    OrthophotoGround,
    PictureGround,
    random_places,
    shared_pixels,
)
from search.evaluation.studies.ground_truth import GroundTruth
from search.evaluation.studies.patches import PATCH_ARRAYS, patch_cosines, patch_curves, patch_tokens
from search.evaluation.studies.positions import SearchedView, best_places, place_frame, position_curves
from search.evaluation.studies.strategies import (
    EMBED_TIMES,
    EvaluatedStrategy,
    Strategy,
    embed_times,
    evaluate_strategy,
    search_ms,
    with_gains,
)
from search.evaluation.studies.study import LoadBackbone, StepArrays, StudyResult, StudyStep, curve_point, run_study

STEPS = (5, 9, 15, 45)  # degrees: so that the eight headings are among all
ONE_HEADING, FOUR_HEADINGS, EIGHT_HEADINGS = (
    "one heading, nothing known",
    "four headings in the index",
    "eight headings in the index",
)
EIGHT_QUERIES, KNOWN_YAW = "frame turned eight times", "yaw known"
_VERSION = 3  # raise it when the same parameters would give another result


def run_rotation(
    db: Database,
    ground: OrthophotoGround | PictureGround,
    specs: Sequence[EmbeddingSpec],
    load: LoadBackbone,
    environment: Mapping[str, Any],
    *,
    frames_from: OrthophotoGround | None = None,
    step: int = 15,
    frames: int = 40,
    patches: int = 6,
    positions: int = 4,
    seed: int = 1,
    progress: Progress | None = None,
) -> StudyResult:
    """Run the study, resume it, or read its stored result.

    `frames_from`: another orthophoto of the same place (another year, another season) that frames are cut from.
    `patches`: the frames whose patch tokens are followed; `positions`: those that are placed in metres, where there is
    an orthophoto. Raises InputError for a step that is not 5, 9, 15 or 45.
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
        "positions": positions,
        "seed": seed,
    }

    def make_experiment() -> RotationExperiment:
        if isinstance(ground, PictureGround):
            scene = _picture_scene(ground, frames)
        else:
            scene = _orthophoto_scene(ground, frames_from or ground, frames, seed)
        return RotationExperiment(scene, step, patches, positions)

    return run_study(db, "rotation", parameters, environment, specs, load, make_experiment, progress)


# --- scene and experiment -----------------------------------------------------------------------

ViewsAt = Callable[[int, Sequence[int]], UInt8]
"""(index of a frame or reference, H headings) → uint8 [H, S, S, 3]."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Reference places and frames, each seen from any heading."""

    references: int
    frames: int
    reference: ViewsAt
    frame: ViewsAt
    source: ViewsAt  # what the references' own image shows where a frame was cut
    truth: GroundTruth
    ground: OrthophotoGround | None = None  # that references are cut from; None where they are pictures
    places: Sequence[LonLat] = ()  # of the frames on it


def _orthophoto_scene(ground: OrthophotoGround, frame_ground: OrthophotoGround, count: int, seed: int) -> Scene:
    """References of one orthophoto, frames at random places in the same or another."""
    places = random_places(ground, frame_ground, count, ground.footprint_m * TURNING_ROOM, seed)

    def reference(i: int, headings: Sequence[int]) -> UInt8:
        return np.stack([ground.view(ground.centres[i], heading) for heading in headings])

    def frame(i: int, headings: Sequence[int]) -> UInt8:
        return np.stack([frame_ground.view(places[i], heading, ground.footprint_m) for heading in headings])

    def source(i: int, headings: Sequence[int]) -> UInt8:
        return np.stack([ground.view(places[i], heading) for heading in headings])

    truth = GroundTruth.of_places(places, ground.centres, ground.footprint_m / 2)
    return Scene(len(ground.centres), len(places), reference, frame, source, truth, ground, places)


def _picture_scene(ground: PictureGround, count: int) -> Scene:
    """Pictures are references and frames at once."""
    references = len(ground.paths)
    frames = min(count, references)

    def views(i: int, headings: Sequence[int]) -> UInt8:
        return np.stack([ground.view(i, heading) for heading in headings])

    truth = GroundTruth.of_pictures(frames, references, ground.centres)
    return Scene(references, frames, views, views, views, truth)


@dataclass(frozen=True, slots=True)
class RotationExperiment:
    """The scene at every `step` degrees, and of the first frames their patch tokens and positions."""

    scene: Scene
    step: int
    patches: int
    positions: int

    @property
    def counts(self) -> Mapping[str, int]:
        positions = min(self.positions, len(self.scene.places))
        return {"frames": self.scene.frames, "references": self.scene.references, "positions": positions}

    def limits(self) -> Mapping[str, Any]:
        all_references = np.ones(self.scene.references, np.bool_)
        nearest = self.scene.truth.nearest(all_references)
        floor_m = float(np.median(self.scene.truth.nearest_m(all_references)))
        return {
            **shared_pixels(self._compared_views(i, int(reference)) for i, reference in enumerate(nearest)),
            "floor_m": floor_m if math.isfinite(floor_m) else None,
        }

    def _compared_views(self, frame: int, reference: int) -> tuple[UInt8, UInt8, UInt8]:
        """As `shared_pixels` compares them, facing north."""
        scene = self.scene
        return scene.frame(frame, (0,))[0], scene.source(frame, (0,))[0], scene.reference(reference, (0,))[0]

    def steps(self) -> list[StudyStep]:
        steps = [StudyStep(name, partial(self._embed_reference, i)) for i, name in enumerate(self._names("references"))]
        steps += [StudyStep(name, partial(self._embed_frame, i)) for i, name in enumerate(self._names("frames"))]
        steps += [StudyStep(name, partial(self._embed_patches, i)) for i, name in enumerate(self._names("patches"))]
        steps += [StudyStep(name, partial(self._place_frame, i)) for i, name in enumerate(self._names("positions"))]
        return [*steps, StudyStep("times", lambda backbone, _: embed_times(backbone, self.scene.frame(0, HEADINGS)))]

    def evaluate(self, backbone: str, arrays: StepArrays) -> tuple[list[CurvePoint], list[Strategy]]:
        queries, references = (arrays(self._names(kind), "vectors") for kind in ("frames", "references"))
        vectors = RotationVectors(queries, references, self.scene.truth, self.step)
        points = curves(backbone, vectors)
        if self.patches:
            names = self._names("patches")
            points += patch_curves(backbone, self.step, {array: arrays(names, array) for array in PATCH_ARRAYS})
        if self.scene.ground and (names := self._names("positions")):
            offsets_m = arrays(names, "offsets_m")
            points += position_curves(backbone, range(0, 360, self.step), offsets_m, self.scene.ground.footprint_m)
        return points, compare(vectors, {name: float(arrays(["times"], name)[0]) for name in EMBED_TIMES})

    def _names(self, kind: str) -> list[str]:
        """The names of the steps of a kind, as they are stored."""
        counts = {**self.counts, "patches": min(self.patches, self.scene.frames)}
        return [f"{kind}/{i}" for i in range(counts[kind])]

    def _embed_reference(self, i: int, backbone: Backbone, _: StepArrays) -> Arrays:
        return {"vectors": backbone.embed(self.scene.reference(i, HEADINGS))}

    def _embed_frame(self, i: int, backbone: Backbone, _: StepArrays) -> Arrays:
        return {"vectors": backbone.embed(self._turned_frame(i))}

    def _embed_patches(self, i: int, backbone: Backbone, _: StepArrays) -> Arrays:
        next_frame = self.scene.frame((i + 1) % self.scene.frames, (0,))
        tokens = patch_tokens(backbone, self._turned_frame(i))
        return patch_cosines(tokens, patch_tokens(backbone, next_frame)[0], self.step)

    def _place_frame(self, i: int, backbone: Backbone, arrays: StepArrays) -> Arrays:
        ground, truth = self.scene.ground, self.scene.truth
        assert ground is not None  # noqa: S101 - pictures have no positions to place
        queries = arrays([self._names("frames")[i]], "vectors")
        vectors = RotationVectors(queries, arrays(self._names("references"), "vectors"), truth, self.step)
        nearest = ground.centres[truth.error_m[i].argmin()]
        views = [
            SearchedView(pixels, ground.footprint_m, heading, best_places(scores, ground.centres), nearest)
            for heading, pixels, scores in zip(
                range(0, 360, self.step), self._turned_frame(i), _scores(vectors, HEADINGS)[0], strict=True
            )
        ]
        return place_frame(ground, backbone, self.scene.places[i], views)

    def _turned_frame(self, i: int) -> UInt8:
        return self.scene.frame(i, range(0, 360, self.step))


# --- the global token ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RotationVectors:
    """The vectors of one backbone for the scene."""

    queries: Float32  # [Q, H, D]
    references: Float32  # [R, 8, D]
    truth: GroundTruth  # right where the reference's footprint holds the frame's centre
    step: int


def curves(backbone: str, vectors: RotationVectors) -> list[CurvePoint]:
    """Cosine of a place with itself, and with another, against the turn between them; margin and recall against the
    frame's heading for an index of one, four and eight headings."""
    turns = list(range(0, 360, vectors.step))
    own, other_place = own_cosine(vectors.queries), other_cosine(vectors.queries)
    point = partial(curve_point, backbone, correlation=vectors.truth.correlation)
    points = [point("cosine", turn, own[:, i]) for i, turn in enumerate(turns)]
    points += [point("cosine_other", turn, other_place[:, i]) for i, turn in enumerate(turns)]
    for count in (1, 4, 8):
        scores = _scores(vectors, HEADINGS[:: 8 // count])
        right, error_m = vectors.truth.evaluate(scores.argmax(axis=2))
        margins = margin_over_wrong(scores, vectors.truth.right)
        for i, turn in enumerate(turns):
            points.append(point(f"recall@{count}", turn, right[:, i], estimator=share))
            points.append(point(f"margin@{count}", turn, margins[:, i]))
            if not np.isnan(error_m).all():
                points.append(point(f"error@{count}", turn, error_m[:, i], estimator=median))
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
        margin = best_right - best_wrong
    return np.where(np.isfinite(margin), margin, np.nan)


def _scores(vectors: RotationVectors, headings: Sequence[int]) -> Floats:
    """[Q, H, R]: each frame against each place, by its best heading of those in the index."""
    indexed = vectors.references[:, [HEADINGS.index(heading) for heading in headings]]
    best = np.full((*vectors.queries.shape[:2], len(indexed)), -np.inf)
    for i in range(indexed.shape[1]):
        best = np.maximum(best, np.einsum("qhd,rd->qhr", vectors.queries, indexed[:, i]))
    return best


# --- strategies ---------------------------------------------------------------------------------


def compare(vectors: RotationVectors, embed_ms: Mapping[str, float]) -> list[Strategy]:
    """Evaluate the strategies on the same frames: recall, metres, headings, milliseconds, bytes; gains are over eight
    references. `embed_ms`: by `EMBED_TIMES`."""
    north = np.einsum("qhd,rd->qhr", vectors.queries, vectors.references[:, 0])  # [Q, H, R]
    strategies = [
        _indexed_headings(ONE_HEADING, (0,), vectors, embed_ms["embed_1"]),
        _indexed_headings(FOUR_HEADINGS, HEADINGS[::2], vectors, embed_ms["embed_1"]),
        _indexed_headings(EIGHT_HEADINGS, HEADINGS, vectors, embed_ms["embed_1"]),
        _turned_queries(north, vectors, embed_ms["embed_8"]),
        _known_yaw(north, vectors, embed_ms["embed_1"]),
    ]
    return with_gains(strategies, EIGHT_HEADINGS)


def _indexed_headings(
    name: str, headings: Sequence[int], vectors: RotationVectors, embed_ms: float
) -> EvaluatedStrategy:
    """An index of references at these headings; with a single one the answer has no heading."""
    index = vectors.references[:, [HEADINGS.index(heading) for heading in headings]]
    q, h, dim = vectors.queries.shape
    scores = np.einsum("qhd,rad->qhra", vectors.queries, index).reshape(q, h, -1)
    answers, angle = np.divmod(scores.argmax(axis=2), len(headings))
    heading_errors_deg = _heading_errors_deg(np.array(headings)[angle], vectors.step) if len(headings) > 1 else None
    return evaluate_strategy(
        name, vectors.truth, answers, embed_ms=embed_ms,
        search_ms=search_ms(index.reshape(-1, dim), vectors.queries[0, :1]), index_bytes=index.nbytes,
        heading_errors_deg=heading_errors_deg,
    )  # fmt: skip


def _turned_queries(north: Floats, vectors: RotationVectors, embed_ms: float) -> EvaluatedStrategy:
    """Each frame is turned to eight headings, and the best of eight searches counts; `north` [Q, H, R]: scores
    against references at heading 0."""
    q, h, _ = north.shape
    step, single = vectors.step, vectors.references[:, 0]
    turned = np.stack([np.roll(north, -k * 45 // step, axis=1) for k in range(8)], axis=3)  # [Q, H, R, 8]
    answers, k = np.divmod(turned.reshape(q, h, -1).argmax(axis=2), 8)
    return evaluate_strategy(
        EIGHT_QUERIES, vectors.truth, answers, embed_ms=embed_ms,
        search_ms=search_ms(single, vectors.queries[0, :: 45 // step]), index_bytes=single.nbytes,
        heading_errors_deg=_heading_errors_deg(-45 * k, step),
    )  # fmt: skip


def _known_yaw(north: Floats, vectors: RotationVectors, embed_ms: float) -> EvaluatedStrategy:
    """Each frame is turned to north before it is searched; `north` [Q, H, R] as above."""
    single = vectors.references[:, 0]
    return evaluate_strategy(
        KNOWN_YAW, vectors.truth, north[:, :1].argmax(axis=2), embed_ms=embed_ms,
        search_ms=search_ms(single, vectors.queries[0, :1]), index_bytes=single.nbytes,
    )  # fmt: skip


def _heading_errors_deg(headings_deg: NDArray[np.int64], step: int) -> Floats:
    """[Q, H]: how far the headings answered for each frame at each of its headings are off, in [0, 180]."""
    return np.abs(geo.signed_difference_deg(np.arange(0, 360, step), headings_deg))
