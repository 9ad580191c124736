"""The altitude laboratory: how stable are embeddings when the aircraft climbs, and what a pyramid of references buys.

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
from search.evaluation.studies import truth
from search.evaluation.studies.ground import Ortho, anywhere, ortho, shared_pixels
from search.evaluation.studies.study import Answer, Load, Parts, Step, curve_point, run_study
from search.evaluation.studies.timing import embed_times, search_ms
from search.evaluation.studies.truth import Truth
from search.evaluation.studies.ways import Way, tried, with_gains

ALTITUDES_M = (200, 250, 300, 350, 400, 450, 500, 550, 600)
PYRAMID_M = (300, 600)
SINGLE, PYRAMID = "one altitude in the index", "pyramid in the index"
NEAREST, CROPPED = "altitude known: nearest level", "altitude known: frame cropped"
CURVES = {SINGLE: "single", PYRAMID: "pyramid", NEAREST: "nearest", CROPPED: "cropped"}
_BATCH = 8  # references embedded in one step
_VERSION = 4  # raise it when the same question would be answered otherwise


def run_altitude(
    db: Database,
    ground: Ortho,
    specs: Sequence[EmbeddingSpec],
    load: Load,
    environment: Mapping[str, Any],
    *,
    frames_from: Ortho | None = None,
    reference_m: float = 300.0,
    altitudes_m: Sequence[float] = ALTITUDES_M,
    pyramid_m: Sequence[float] = PYRAMID_M,
    overlap: float = 0.5,
    most: int = 200,
    frames: int = 40,
    seed: int = 1,
    progress: Progress | None = None,
) -> Answer:
    """Answer, or go on answering, or look up what was answered before. `ground.footprint_m` is seen from `reference_m`,
    and its places need be ground facing north alone (`open_ground(..., turned=False)`).

    Raises InputError where the reference altitude is not among the altitudes and the pyramid's levels.
    """
    if reference_m not in altitudes_m or reference_m not in pyramid_m:
        raise InputError(
            f"the references' altitude {reference_m:g} m is not among the frames' altitudes "
            f"({', '.join(f'{a:g}' for a in altitudes_m)}) and the pyramid's ({', '.join(f'{a:g}' for a in pyramid_m)})"
        )
    asked = {
        "version": _VERSION,
        "ground": ground.facts,
        "frames_from": frames_from and frames_from.facts,
        "reference_m": reference_m,
        "altitudes_m": list(altitudes_m),
        "pyramid_m": list(pyramid_m),
        "overlap": overlap,
        "references": most,
        "frames": frames,
        "seed": seed,
    }

    def set_up() -> Altitude:
        climb = Climb(tuple(altitudes_m), tuple(pyramid_m), reference_m, ground.footprint_m)
        eyes = frames_from or ground
        places = anywhere(ground, eyes, frames, climb.side_m(max(climb.altitudes_m)), seed)
        levels = [_level(ground, climb, altitude, overlap, most) for altitude in pyramid_m]
        return Altitude(climb, ground, eyes, places, levels)

    return run_study(db, "altitude", asked, environment, specs, load, set_up, progress)


# --- what is looked at --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Climb:
    """Altitudes of frames and of the pyramid's levels, and how much ground is seen from each."""

    altitudes_m: tuple[float, ...]  # [A]
    pyramid_m: tuple[float, ...]
    reference_m: float  # is one of both
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


def _level(ground: Ortho, climb: Climb, altitude_m: float, overlap: float, most: int) -> Ortho:
    """The references of one altitude: a grid of their own."""
    if altitude_m == climb.reference_m:
        return ground
    side_m = climb.side_m(altitude_m)
    laid = open_orthophoto(ground.path, footprint_m=side_m, overlap=overlap, angles=[0])
    centres = [tile.center for tile in laid.tiles]
    return ortho(ground.path, side_m, overlap, ground.side_px, centres, most, turned=False)


@dataclass(frozen=True, slots=True)
class Altitude:
    """The experiment: the same places from every altitude, against the references of every level."""

    climb: Climb
    ground: Ortho  # what references are cut from
    eyes: Ortho  # what frames are cut from
    places: Sequence[LonLat]  # [Q]
    levels: Sequence[Ortho]

    @property
    def counts(self) -> Mapping[str, Any]:
        levels = [len(level.centres) for level in self.levels]
        return {"frames": len(self.places), "references": sum(levels), "levels": levels}

    def limits(self) -> Mapping[str, Any]:
        held = self._truth()
        each = self._level_of_references() == np.arange(len(self.levels))[:, None]  # [L, R]
        base = each[self.climb.base]
        return {
            **shared_pixels(self._pictures(held.nearest(base))),
            "floor_m": float(np.median(held.nearest_m(each.any(axis=0)))),
            "ceilings": held.reachable(each).mean(axis=0).tolist(),  # of each level
            "floors_m": [float(np.median(held.nearest_m(level))) for level in each],
        }

    def steps(self) -> list[Step]:
        made = [Step(name, partial(self._frame, i)) for i, name in enumerate(self._frame_names())]
        made += [Step(name, partial(self._references, level, first)) for name, level, first in self._batches()]
        return [*made, Step("times", lambda backbone: embed_times(backbone, self._see(0)))]

    def judged(self, backbone: str, parts: Parts) -> tuple[list[CurvePoint], list[Way]]:
        vectors = self._vectors(parts)
        answers = answers_of(vectors, self.climb)
        embed_ms = float(parts(["times"], "embed_1")[0])
        return curves(backbone, vectors, self.climb, answers), compare(vectors, self.climb, answers, embed_ms)

    def _vectors(self, parts: Parts) -> Vectors:
        names = self._frame_names()
        references = [parts([name], "vectors")[0] for name, _, _ in self._batches()]  # the last of a level is shorter
        return Vectors(
            parts(names, "vectors"),
            parts(names, "cropped"),
            np.concatenate(references),
            self._level_of_references(),
            self._truth(),
        )

    def _level_of_references(self) -> NDArray[np.int64]:
        """[R]: the number of each reference's level."""
        return np.repeat(np.arange(len(self.levels)), [len(level.centres) for level in self.levels])

    def _truth(self) -> Truth:
        # One size for all levels: by their own footprints, high levels would be right four times as often by chance.
        centres = [centre for level in self.levels for centre in level.centres]
        return truth.of_places(self.places, centres, self.climb.footprint_m / 2)

    def _pictures(self, nearest: NDArray[np.int64]) -> Iterator[tuple[UInt8, UInt8, UInt8]]:
        """As `shared_pixels` compares them, from the references' altitude; `nearest` [Q]: a reference of that."""
        centres = [centre for level in self.levels for centre in level.centres]
        for place, reference in zip(self.places, nearest, strict=True):
            source = self.ground.view(place, 0.0)
            yield self.eyes.view(place, 0.0), source, self.ground.view(centres[reference], 0.0)

    def _frame_names(self) -> list[str]:
        return [f"frames/{i}" for i in range(len(self.places))]

    def _batches(self) -> Iterator[tuple[str, Ortho, int]]:
        """(name of the step, level, its first reference) of every few references."""
        for number, level in enumerate(self.levels):
            for first in range(0, len(level.centres), _BATCH):
                yield f"level/{number}/{first}", level, first

    def _see(self, i: int) -> UInt8:
        """uint8 [A, S, S, 3]: frame i from every altitude."""
        sides = map(self.climb.side_m, self.climb.altitudes_m)
        return np.stack([self.eyes.view(self.places[i], 0.0, side) for side in sides])

    def _frame(self, i: int, backbone: Backbone) -> Arrays:
        seen = self._see(i)
        crops = [self._crop(view, altitude) for view, altitude in zip(seen, self.climb.altitudes_m, strict=True)]
        return {"vectors": backbone.embed(seen), "cropped": backbone.embed_many(crops)}

    def _crop(self, view: UInt8, altitude_m: float) -> UInt8:
        """The middle of a frame from above the references that shows as much ground as they do; a frame from below
        cannot show more than it does."""
        side = max(1, round(view.shape[0] * min(1.0, self.climb.reference_m / altitude_m)))
        first = (view.shape[0] - side) // 2
        return np.ascontiguousarray(view[first : first + side, first : first + side])

    def _references(self, level: Ortho, first: int, backbone: Backbone) -> Arrays:
        views = [level.view(centre, 0.0) for centre in level.centres[first : first + _BATCH]]
        return {"vectors": backbone.embed(np.stack(views))}


def levels(found: Answer) -> list[tuple[float, int]]:
    """(altitude, number of references) of each level of a study."""
    return list(zip(found.study.parameters["pyramid_m"], found.study.findings["levels"], strict=True))


# --- answers ------------------------------------------------------------------------------------

Answers = Mapping[str, NDArray[np.int64]]
"""{way: int64 [Q, A], the reference it answers for each frame from each altitude}."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """What one backbone made of it all: A altitudes, R references over all levels."""

    frames: Float32  # [Q, A, D]
    cropped: Float32  # [Q, A, D], the part of a frame that a reference would show
    references: Float32  # [R, D]
    level: NDArray[np.int64]  # [R], index of the reference's level
    truth: Truth  # right where the frame's centre lies within half a footprint of the references' altitude


def searched_of(level: NDArray[np.int64], climb: Climb) -> Mapping[str, Bools]:
    """{way: bool [A, R], the references it searches for a frame from each altitude}; `level` [R]: of each reference."""
    single = np.broadcast_to(level == climb.base, (len(climb.altitudes_m), len(level)))
    nearest = level == np.array(climb.nearest)[:, None]
    return {SINGLE: single, PYRAMID: np.ones_like(single), NEAREST: nearest, CROPPED: single}


def answers_of(vectors: Vectors, climb: Climb) -> Answers:
    scores = np.einsum("qad,rd->qar", vectors.frames, vectors.references)
    cropped = np.einsum("qad,rd->qar", vectors.cropped, vectors.references)
    return {
        way: np.where(searched, cropped if way == CROPPED else scores, -np.inf).argmax(axis=2)
        for way, searched in searched_of(vectors.level, climb).items()
    }


def curves(backbone: str, vectors: Vectors, climb: Climb, answers: Answers) -> list[CurvePoint]:
    """Against the altitude: cosine with the same place at the references' altitude, and with other places; right
    place, its ceiling and the error of each way; how often the pyramid answers from the nearest level."""
    base = vectors.frames[:, climb.altitudes_m.index(climb.reference_m)]
    same = np.einsum("qad,qd->qa", vectors.frames, base)
    others = (np.einsum("qad,d->qa", vectors.frames, base.sum(axis=0)) - same) / max(1, len(base) - 1)
    nearest = vectors.level[answers[PYRAMID]] == climb.nearest
    ceilings = {
        way: vectors.truth.reachable(searched).astype(float)
        for way, searched in searched_of(vectors.level, climb).items()
    }
    points = []
    for i, altitude in enumerate(climb.altitudes_m):
        points.append(curve_point(backbone, "cosine", altitude, same[:, i]))
        points.append(curve_point(backbone, "cosine_other", altitude, others[:, i]))
        for way, found in answers.items():
            right, error_m = vectors.truth.of(found)
            points.append(curve_point(backbone, f"recall@{CURVES[way]}", altitude, right[:, i], share))
            points.append(curve_point(backbone, f"ceiling@{CURVES[way]}", altitude, ceilings[way][:, i], share))
            points.append(curve_point(backbone, f"error@{CURVES[way]}", altitude, error_m[:, i], median))
        points.append(curve_point(backbone, "level@pyramid", altitude, nearest[:, i], share))
    return points


def compare(vectors: Vectors, climb: Climb, answers: Answers, embed_ms: float) -> list[Way]:
    """The ways over all altitudes: recall, metres, milliseconds, bytes; gains are over a single altitude."""
    single = vectors.references[vectors.level == climb.base]
    held = {SINGLE: single, PYRAMID: vectors.references, NEAREST: vectors.references, CROPPED: single}
    at_once = held | {NEAREST: single}  # one level at a time
    searched = searched_of(vectors.level, climb)
    query = vectors.frames[0, :1]
    ways = [
        tried(
            name, vectors.truth, found, embed_ms=embed_ms, search_ms=search_ms(at_once[name], query),
            index_bytes=held[name].nbytes, searched=searched[name],
        )
        for name, found in answers.items()
    ]  # fmt: skip
    return with_gains(ways, SINGLE)
