"""The altitude study: how stable are embeddings when the aircraft climbs, and what a pyramid of references gains.

Frames are cut at random places, all facing north, so that scale alone differs: a frame from twice the references'
altitude sees twice as far. Each level of the pyramid is a grid of its own, with footprints in proportion.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.errors import InputError
from coarseloc.core.types import Backbone, Bools, EmbeddingSpec, Float32, LonLat, Progress, UInt8
from coarseloc.imagery.orthophoto import open_orthophoto
from coarseloc.store import Database
from coarseloc.store.studies import Arrays, CurvePoint
from search.evaluation.intervals import median, share
from search.evaluation.studies.ground import OrthophotoGround, orthophoto_ground, random_places, shared_pixels
from search.evaluation.studies.ground_truth import GroundTruth
from search.evaluation.studies.positions import SearchedView, best_places, place_frame, position_curves
from search.evaluation.studies.strategies import Strategy, embed_times, evaluate_strategy, search_ms, with_gains
from search.evaluation.studies.study import LoadBackbone, StepArrays, StudyResult, StudyStep, curve_point, run_study

ALTITUDES_M = (200, 250, 300, 350, 400, 450, 500, 550, 600)
PYRAMID_M = (300, 600)
SINGLE, PYRAMID = "one altitude in the index", "pyramid in the index"
NEAREST, CROPPED = "altitude known: nearest level", "altitude known: frame cropped"
CURVES = {SINGLE: "single", PYRAMID: "pyramid", NEAREST: "nearest", CROPPED: "cropped"}
_REFERENCES_A_STEP = 8  # references embedded in one step
_VERSION = 4  # raise it when the same parameters would give another result


def run_altitude(
    db: Database,
    ground: OrthophotoGround,
    specs: Sequence[EmbeddingSpec],
    load: LoadBackbone,
    environment: Mapping[str, Any],
    *,
    frames_from: OrthophotoGround | None = None,
    reference_m: float = 300.0,
    altitudes_m: Sequence[float] = ALTITUDES_M,
    pyramid_m: Sequence[float] = PYRAMID_M,
    overlap: float = 0.5,
    max_references: int = 200,
    frames: int = 40,
    positions: int = 4,
    seed: int = 1,
    progress: Progress | None = None,
) -> StudyResult:
    """Run the study, resume it, or read its stored result. `ground.footprint_m` is seen from `reference_m`, and its
    places need be ground facing north alone (`open_ground(..., turned=False)`). `positions`: the frames that are placed
    in metres.

    Raises InputError where the reference altitude is not among the altitudes and the pyramid's levels.
    """
    if reference_m not in altitudes_m or reference_m not in pyramid_m:
        raise InputError(
            f"the references' altitude {reference_m:g} m is not among the frames' altitudes "
            f"({', '.join(f'{a:g}' for a in altitudes_m)}) and the pyramid's ({', '.join(f'{a:g}' for a in pyramid_m)})"
        )
    parameters = {
        "version": _VERSION,
        "ground": ground.facts,
        "frames_from": frames_from and frames_from.facts,
        "reference_m": reference_m,
        "altitudes_m": list(altitudes_m),
        "pyramid_m": list(pyramid_m),
        "overlap": overlap,
        "references": max_references,
        "frames": frames,
        "positions": positions,
        "seed": seed,
    }

    def make_experiment() -> AltitudeExperiment:
        plan = AltitudePlan(tuple(altitudes_m), tuple(pyramid_m), reference_m, ground.footprint_m)
        frame_ground = frames_from or ground
        places = random_places(ground, frame_ground, frames, plan.side_m(max(plan.altitudes_m)), seed)
        levels = [_level(ground, plan, altitude, overlap, max_references) for altitude in pyramid_m]
        return AltitudeExperiment(plan, ground, frame_ground, places, levels, positions)

    return run_study(db, "altitude", parameters, environment, specs, load, make_experiment, progress)


# --- experiment ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AltitudePlan:
    """Altitudes of frames and of the pyramid's levels, and how much ground is seen from each."""

    altitudes_m: tuple[float, ...]  # [A]
    pyramid_m: tuple[float, ...]
    reference_m: float  # among both
    footprint_m: float  # seen from `reference_m`

    def side_m(self, altitude_m: float) -> float:
        return self.footprint_m * altitude_m / self.reference_m

    @property
    def base(self) -> int:
        """The level of `reference_m`: the single altitude that the pyramid is compared with."""
        return self.pyramid_m.index(self.reference_m)

    @property
    def nearest(self) -> list[int]:
        """[A]: the level whose altitude is nearest in proportion."""
        return [
            min(range(len(self.pyramid_m)), key=lambda i: abs(math.log(altitude / self.pyramid_m[i])))
            for altitude in self.altitudes_m
        ]


def _level(
    ground: OrthophotoGround, plan: AltitudePlan, altitude_m: float, overlap: float, max_references: int
) -> OrthophotoGround:
    """The references of one altitude: a grid of their own."""
    if altitude_m == plan.reference_m:
        return ground
    side_m = plan.side_m(altitude_m)
    orthophoto = open_orthophoto(ground.path, footprint_m=side_m, overlap=overlap, angles=[0])
    centres = [tile.center for tile in orthophoto.tiles]
    return orthophoto_ground(ground.path, side_m, overlap, ground.side_px, centres, max_references, turned=False)


@dataclass(frozen=True, slots=True)
class AltitudeExperiment:
    """The same places from every altitude, against the references of every level."""

    plan: AltitudePlan
    ground: OrthophotoGround  # that references are cut from
    frame_ground: OrthophotoGround  # that frames are cut from
    places: Sequence[LonLat]  # [Q]
    levels: Sequence[OrthophotoGround]
    positions: int  # frames that are placed in metres

    @property
    def counts(self) -> Mapping[str, Any]:
        levels = [len(level.centres) for level in self.levels]
        frames = len(self.places)
        return {
            "frames": frames, "references": sum(levels), "levels": levels, "positions": min(self.positions, frames),
        }  # fmt: skip

    def limits(self) -> Mapping[str, Any]:
        truth = self._truth()
        level_masks = self._level_of_references() == np.arange(len(self.levels))[:, None]  # [L, R]
        base_mask = level_masks[self.plan.base]
        return {
            **shared_pixels(self._compared_views(truth.nearest(base_mask))),
            "floor_m": float(np.median(truth.nearest_m(level_masks.any(axis=0)))),
            "ceilings": truth.reachable(level_masks).mean(axis=0).tolist(),  # of each level
            "floors_m": [float(np.median(truth.nearest_m(mask))) for mask in level_masks],
        }

    def steps(self) -> list[StudyStep]:
        steps = [StudyStep(name, partial(self._embed_frame, i)) for i, name in enumerate(self._frame_names())]
        steps += [
            StudyStep(name, partial(self._embed_references, level, first)) for name, level, first in self._batches()
        ]
        steps += [StudyStep(name, partial(self._place_frame, i)) for i, name in enumerate(self._position_names())]
        return [*steps, StudyStep("times", lambda backbone, _: embed_times(backbone, self._views(0)))]

    def evaluate(self, backbone: str, arrays: StepArrays) -> tuple[list[CurvePoint], list[Strategy]]:
        vectors = self._vectors(arrays)
        answers = answer_frames(vectors, self.plan)
        embed_ms = float(arrays(["times"], "embed_1")[0])
        points = curves(backbone, vectors, self.plan, answers)
        if names := self._position_names():
            offsets_m = arrays(names, "offsets_m")
            points += position_curves(backbone, self.plan.altitudes_m, offsets_m, self.plan.footprint_m)
        return points, compare(vectors, self.plan, answers, embed_ms)

    def _vectors(self, arrays: StepArrays) -> AltitudeVectors:
        names = self._frame_names()
        return AltitudeVectors(
            arrays(names, "vectors"),
            arrays(names, "cropped"),
            self._reference_vectors(arrays),
            self._level_of_references(),
            self._truth(),
        )

    def _reference_vectors(self, arrays: StepArrays) -> Float32:
        """[R, D]."""
        return np.concatenate([arrays([name], "vectors")[0] for name, _, _ in self._batches()])  # the last are shorter

    def _centres(self) -> list[LonLat]:
        """[R], of the references."""
        return [centre for level in self.levels for centre in level.centres]

    def _level_of_references(self) -> NDArray[np.int64]:
        """[R]: the number of each reference's level."""
        return np.repeat(np.arange(len(self.levels)), [len(level.centres) for level in self.levels])

    def _truth(self) -> GroundTruth:
        # One size for all levels: by their own footprints, high levels would be right four times as often by chance.
        return GroundTruth.of_places(self.places, self._centres(), self.plan.footprint_m / 2)

    def _compared_views(self, nearest: NDArray[np.int64]) -> Iterator[tuple[UInt8, UInt8, UInt8]]:
        """As `shared_pixels` compares them, from the references' altitude; `nearest` [Q]: a reference of that."""
        centres = self._centres()
        for place, reference in zip(self.places, nearest, strict=True):
            source = self.ground.view(place, 0.0)
            yield self.frame_ground.view(place, 0.0), source, self.ground.view(centres[reference], 0.0)

    def _frame_names(self) -> list[str]:
        return [f"frames/{i}" for i in range(len(self.places))]

    def _position_names(self) -> list[str]:
        return [f"positions/{i}" for i in range(self.counts["positions"])]

    def _batches(self) -> Iterator[tuple[str, OrthophotoGround, int]]:
        """(name of the step, level, index of its first reference) of every few references."""
        for number, level in enumerate(self.levels):
            for first in range(0, len(level.centres), _REFERENCES_A_STEP):
                yield f"level/{number}/{first}", level, first

    def _views(self, i: int) -> UInt8:
        """uint8 [A, S, S, 3]: frame i from every altitude."""
        sides = map(self.plan.side_m, self.plan.altitudes_m)
        return np.stack([self.frame_ground.view(self.places[i], 0.0, side) for side in sides])

    def _embed_frame(self, i: int, backbone: Backbone, _: StepArrays) -> Arrays:
        views = self._views(i)
        crops = [self._crop(view, altitude) for view, altitude in zip(views, self.plan.altitudes_m, strict=True)]
        return {"vectors": backbone.embed(views), "cropped": backbone.embed_many(crops)}

    def _crop(self, view: UInt8, altitude_m: float) -> UInt8:
        """The middle of a frame from above the references that shows as much ground as they do; a frame from below
        cannot show more than it does."""
        side = max(1, round(view.shape[0] * min(1.0, self.plan.reference_m / altitude_m)))
        first = (view.shape[0] - side) // 2
        return np.ascontiguousarray(view[first : first + side, first : first + side])

    def _embed_references(self, level: OrthophotoGround, first: int, backbone: Backbone, _: StepArrays) -> Arrays:
        views = [level.view(centre, 0.0) for centre in level.centres[first : first + _REFERENCES_A_STEP]]
        return {"vectors": backbone.embed(np.stack(views))}

    def _place_frame(self, i: int, backbone: Backbone, arrays: StepArrays) -> Arrays:
        """With the altitude known: among the best references of its nearest level."""
        vectors = arrays([self._frame_names()[i]], "vectors")[0]  # [A, D]
        scores = np.einsum("ad,rd->ar", vectors, self._reference_vectors(arrays))
        searched = searched_references(self._level_of_references(), self.plan)[NEAREST]
        error_m, centres = self._truth().error_m[i], self._centres()
        views = []
        for a, (altitude, pixels) in enumerate(zip(self.plan.altitudes_m, self._views(i), strict=True)):
            hits = best_places(np.where(searched[a], scores[a], -np.inf), centres)
            nearest = centres[np.where(searched[a], error_m, np.inf).argmin()]
            views.append(SearchedView(pixels, self.plan.side_m(altitude), 0, hits, nearest))
        return place_frame(self.ground, backbone, self.places[i], views)


def levels(result: StudyResult) -> list[tuple[float, int]]:
    """(altitude, number of references) of each level of a study."""
    return list(zip(result.study.parameters["pyramid_m"], result.study.findings["levels"], strict=True))


# --- answers ------------------------------------------------------------------------------------

Answers = Mapping[str, NDArray[np.int64]]
"""{strategy: int64 [Q, A], the reference it answers for each frame from each altitude}."""


@dataclass(frozen=True, slots=True)
class AltitudeVectors:
    """The vectors of one backbone: Q frames from A altitudes, R references over all levels."""

    frames: Float32  # [Q, A, D]
    cropped: Float32  # [Q, A, D], the part of a frame that a reference would show
    references: Float32  # [R, D]
    level: NDArray[np.int64]  # [R], index of the reference's level in the pyramid
    truth: GroundTruth  # right where the frame's centre lies within half a footprint of the references' altitude


def searched_references(level: NDArray[np.int64], plan: AltitudePlan) -> Mapping[str, Bools]:
    """{strategy: bool [A, R], the references it searches for a frame from each altitude}; `level` [R]: of each one."""
    single = np.broadcast_to(level == plan.base, (len(plan.altitudes_m), len(level)))
    nearest = level == np.array(plan.nearest)[:, None]
    return {SINGLE: single, PYRAMID: np.ones_like(single), NEAREST: nearest, CROPPED: single}


def answer_frames(vectors: AltitudeVectors, plan: AltitudePlan) -> Answers:
    scores = np.einsum("qad,rd->qar", vectors.frames, vectors.references)
    cropped = np.einsum("qad,rd->qar", vectors.cropped, vectors.references)
    return {
        strategy: np.where(searched, cropped if strategy == CROPPED else scores, -np.inf).argmax(axis=2)
        for strategy, searched in searched_references(vectors.level, plan).items()
    }


def curves(backbone: str, vectors: AltitudeVectors, plan: AltitudePlan, answers: Answers) -> list[CurvePoint]:
    """Against the altitude: cosine with the same place at the references' altitude, and with other places; right
    place, its ceiling and the error of each strategy; how often the pyramid answers from the nearest level."""
    base = vectors.frames[:, plan.altitudes_m.index(plan.reference_m)]
    own = np.einsum("qad,qd->qa", vectors.frames, base)
    other_place = (np.einsum("qad,d->qa", vectors.frames, base.sum(axis=0)) - own) / max(1, len(base) - 1)
    nearest = vectors.level[answers[PYRAMID]] == plan.nearest
    ceilings = {
        strategy: vectors.truth.reachable(searched).astype(float)
        for strategy, searched in searched_references(vectors.level, plan).items()
    }
    points = []
    for i, altitude in enumerate(plan.altitudes_m):
        points.append(curve_point(backbone, "cosine", altitude, own[:, i]))
        points.append(curve_point(backbone, "cosine_other", altitude, other_place[:, i]))
        for strategy, indices in answers.items():
            right, error_m = vectors.truth.evaluate(indices)
            points.append(curve_point(backbone, f"recall@{CURVES[strategy]}", altitude, right[:, i], share))
            points.append(
                curve_point(backbone, f"ceiling@{CURVES[strategy]}", altitude, ceilings[strategy][:, i], share)
            )
            points.append(curve_point(backbone, f"error@{CURVES[strategy]}", altitude, error_m[:, i], median))
        points.append(curve_point(backbone, "level@pyramid", altitude, nearest[:, i], share))
    return points


def compare(vectors: AltitudeVectors, plan: AltitudePlan, answers: Answers, embed_ms: float) -> list[Strategy]:
    """Evaluate the strategies over all altitudes: recall, metres, milliseconds, bytes; gains over a single altitude."""
    single = vectors.references[vectors.level == plan.base]
    indexes = {SINGLE: single, PYRAMID: vectors.references, NEAREST: vectors.references, CROPPED: single}
    searched_vectors = indexes | {NEAREST: single}  # one level at a time
    searched = searched_references(vectors.level, plan)
    query = vectors.frames[0, :1]
    strategies = [
        evaluate_strategy(
            name, vectors.truth, indices, embed_ms=embed_ms, search_ms=search_ms(searched_vectors[name], query),
            index_bytes=indexes[name].nbytes, searched=searched[name],
        )
        for name, indices in answers.items()
    ]  # fmt: skip
    return with_gains(strategies, SINGLE)
