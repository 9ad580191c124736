"""The altitude laboratory: how stable are embeddings when the aircraft climbs, and what a pyramid of references buys.

Frames are cut at random places, all facing north, so that scale alone differs: a frame from twice the references'
altitude sees twice as far. Each level of the pyramid is a grid of its own, with footprints in proportion.
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
from coarseloc.imagery.orthophoto import open_orthophoto
from coarseloc.scoring.bootstrap import estimate, mean, median
from coarseloc.store import Database, studies
from coarseloc.store.studies import CurvePoint
from coarseloc.types import Backbone, Bools, EmbeddingSpec, Float32, Floats, LonLat, Progress, UInt8
from search import ground as grounds
from search.ground import Ortho
from search.laboratory import (
    Answer,
    Arrays,
    Load,
    Step,
    Way,
    answer_of,
    collected,
    gather,
    plain,
    point,
    search_ms,
    times,
    with_gains,
)

ALTITUDES_M = (200, 250, 300, 350, 400, 450, 500, 550, 600)
PYRAMID_M = (300, 600)
SINGLE, PYRAMID = "one altitude in the index", "pyramid in the index"
NEAREST, CROPPED = "altitude known: nearest level", "altitude known: frame cropped"
CURVES = {SINGLE: "single", PYRAMID: "pyramid", NEAREST: "nearest", CROPPED: "cropped"}
_VERSION = 3  # raise it when the same question would be answered otherwise


@dataclass(frozen=True, slots=True)
class Vectors:
    """What one backbone made of it all: A altitudes, R references over all levels."""

    frames: Float32  # [Q, A, D]
    cropped: Float32  # [Q, A, D], the part of a frame that a reference would show
    references: Float32  # [R, D]
    level: NDArray[np.int64]  # [R], index of the reference's level
    right: Bools  # [Q, R]: the frame's centre lies within half a footprint of the references' altitude
    error_m: Floats  # [Q, R]


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
    """Answer, or go on answering, or look up what was answered before. `ground.footprint_m` is seen from `reference_m`.

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
        "references": most,
        "frames": frames,
        "seed": seed,
        "backbones": {spec.backbone: spec.digest for spec in specs},
    }
    with db.write() as session:
        study = studies.start_study(session, "altitude", parameters, environment)
    if study.finished_at is None:
        scene = _Scene(ground, frames_from or ground, reference_m, altitudes_m, pyramid_m, overlap, most, frames, seed)
        gather(db, study, specs, scene.steps(), load, progress)
        points: list[CurvePoint] = []
        ways: dict[str, list[Way]] = {}
        for spec in specs:
            named = partial(collected, db, study, spec)
            vectors = scene.vectors(named)
            answers = answers_of(vectors, scene.reference, scene.nearest)
            points += curves(spec.backbone, vectors, scene, answers)
            ways[spec.backbone] = compare(vectors, scene, answers, float(named(["times"], "embed_1")[0]))
        counts = [len(level.centres) for level in scene.levels]
        found = {"ways": plain(ways), "frames": len(scene.places), "references": sum(counts), "levels": counts}
        with db.write() as session:
            studies.finish_study(session, study.id, points, found)
    return answer_of(db, study.id)


class _Scene:
    """Levels of references, frames' places and altitudes, and the steps that embed them."""

    def __init__(
        self,
        ground: Ortho,
        eyes: Ortho,
        reference_m: float,
        altitudes_m: Sequence[float],
        pyramid_m: Sequence[float],
        overlap: float,
        most: int,
        frames: int,
        seed: int,
    ) -> None:
        self._ground, self._eyes, self._reference_m = ground, eyes, reference_m
        self.altitudes_m, self.pyramid_m = list(altitudes_m), list(pyramid_m)
        self.reference = self.pyramid_m.index(reference_m)
        # Frames face north only: `anywhere` leaves room for turning, which is not needed here.
        furthest = ground.footprint_m * max(altitudes_m) / reference_m / math.sqrt(2)
        self.places = [p for p in grounds.anywhere(ground, frames, furthest, seed) if eyes.holds(p, furthest)]
        if not self.places:
            raise InputError(f"{eyes.path} shows none of the {frames} places: expected the same area")
        self.levels = [self._level(altitude, overlap, most) for altitude in pyramid_m]

    def _level(self, altitude_m: float, overlap: float, most: int) -> Ortho:
        if altitude_m == self._reference_m:
            return self._ground
        side_m = self._ground.footprint_m * altitude_m / self._reference_m
        laid = open_orthophoto(self._ground.path, footprint_m=side_m, overlap=overlap, angles=[0])
        centres = [tile.center for tile in laid.tiles]
        return grounds.ortho(self._ground.path, side_m, overlap, self._ground.side_px, centres, most)

    @property
    def nearest(self) -> list[int]:
        """[A]: the level whose altitude is nearest in proportion."""
        return [
            min(range(len(self.pyramid_m)), key=lambda i: abs(math.log(altitude / self.pyramid_m[i])))
            for altitude in self.altitudes_m
        ]

    def steps(self) -> list[Step]:
        made = [Step(f"frames/{i}", partial(self._frame, i)) for i in range(len(self.places))]
        for number, level in enumerate(self.levels):
            for first in range(0, len(level.centres), 8):
                made.append(Step(f"level/{number}/{first}", partial(self._references, level, first)))
        return [*made, Step("times", lambda backbone: times(backbone, self._see(0)))]

    def vectors(self, named: Any) -> Vectors:
        names = [f"frames/{i}" for i in range(len(self.places))]
        references, level, right, error_m = [], [], [], []
        for number, ortho in enumerate(self.levels):
            firsts = range(0, len(ortho.centres), 8)
            parts = [named([f"level/{number}/{first}"], "vectors")[0] for first in firsts]
            references.append(np.concatenate(parts))
            level += [number] * len(ortho.centres)
            right.append(_near(ortho, self.places, self._ground.footprint_m / 2))
            error_m.append(_distances(self.places, ortho.centres))
        return Vectors(
            named(names, "vectors"),
            named(names, "cropped"),
            np.concatenate(references),
            np.array(level),
            np.concatenate(right, axis=1),
            np.concatenate(error_m, axis=1),
        )

    def _see(self, i: int) -> UInt8:
        """uint8 [A, S, S, 3]: frame i from every altitude."""
        sides = [self._ground.footprint_m * altitude / self._reference_m for altitude in self.altitudes_m]
        return np.stack([self._eyes.view(self.places[i], 0.0, side) for side in sides])

    def _frame(self, i: int, backbone: Backbone) -> Arrays:
        seen = self._see(i)
        crops = [self._crop(view, altitude) for view, altitude in zip(seen, self.altitudes_m, strict=True)]
        return {"vectors": backbone.embed(seen), "cropped": backbone.embed_many(crops)}

    def _crop(self, view: UInt8, altitude_m: float) -> UInt8:
        """The middle of a frame from above the references that shows as much ground as they do; a frame from below
        cannot show more than it does."""
        side = max(1, round(view.shape[0] * min(1.0, self._reference_m / altitude_m)))
        first = (view.shape[0] - side) // 2
        return np.ascontiguousarray(view[first : first + side, first : first + side])

    def _references(self, level: Ortho, first: int, backbone: Backbone) -> Arrays:
        views = [level.view(centre, 0.0) for centre in level.centres[first : first + 8]]
        return {"vectors": backbone.embed(np.stack(views))}


def _near(level: Ortho, places: Sequence[LonLat], half_m: float) -> Bools:
    """[Q, R]: each place lies within the square of 2 `half_m` around a reference's centre. One size for all levels: by
    their own footprints, high levels would be right four times as often by chance."""
    centres, rows = np.array(level.centres), []
    for place in places:
        away = np.abs(centres - np.array(place)) * geo.metres_per_degree(place.lat)
        rows.append(away.max(axis=1) <= half_m)
    return np.array(rows)


def _distances(a: Sequence[LonLat], b: Sequence[LonLat]) -> Floats:
    first, second = np.array(a, float), np.array(b, float)
    return geo.distance_m(first[:, :1], first[:, 1:], second[:, 0], second[:, 1])


# --- answers ------------------------------------------------------------------------------------


def answers_of(vectors: Vectors, reference: int, nearest: Sequence[int]) -> dict[str, NDArray[np.int64]]:
    """{way: int64 [Q, A], the reference it answers}."""
    scores = np.einsum("qad,rd->qar", vectors.frames, vectors.references)
    cropped = np.einsum("qad,rd->qar", vectors.cropped, vectors.references)
    single = vectors.level == reference
    near = vectors.level == np.array(nearest)[:, None]  # [A, R]
    return {
        SINGLE: np.where(single, scores, -np.inf).argmax(axis=2),
        PYRAMID: scores.argmax(axis=2),
        NEAREST: np.where(near, scores, -np.inf).argmax(axis=2),
        CROPPED: np.where(single, cropped, -np.inf).argmax(axis=2),
    }


def curves(
    backbone: str, vectors: Vectors, scene: _Scene, answers: Mapping[str, NDArray[np.int64]]
) -> list[CurvePoint]:
    """Against the altitude: cosine with the same place at the references' altitude, and with other places; right
    place and error of each way; how often the pyramid answers from the nearest level."""
    at = scene.altitudes_m.index(scene.pyramid_m[scene.reference])
    base = vectors.frames[:, at]
    same = np.einsum("qad,qd->qa", vectors.frames, base)
    others = (np.einsum("qad,d->qa", vectors.frames, base.sum(axis=0)) - same) / max(1, len(base) - 1)
    points = []
    for i, altitude in enumerate(scene.altitudes_m):
        points.append(point(backbone, "cosine", altitude, same[:, i]))
        points.append(point(backbone, "cosine_other", altitude, others[:, i]))
        for way, found in answers.items():
            right = np.take_along_axis(vectors.right, found, 1)[:, i]
            error = np.take_along_axis(vectors.error_m, found, 1)[:, i]
            points.append(point(backbone, f"recall@{CURVES[way]}", altitude, right.astype(float)))
            points.append(point(backbone, f"error@{CURVES[way]}", altitude, error, median))
        level = vectors.level[answers[PYRAMID][:, i]] == scene.nearest[i]
        points.append(point(backbone, "level@pyramid", altitude, level.astype(float)))
    return points


def compare(vectors: Vectors, scene: _Scene, answers: Mapping[str, NDArray[np.int64]], embed_ms: float) -> list[Way]:
    """The ways over all altitudes: recall, metres, milliseconds, bytes; gains are over a single altitude."""
    single = vectors.references[vectors.level == scene.reference]
    query = vectors.frames[0, :1]
    cost = {SINGLE: single, PYRAMID: vectors.references, NEAREST: vectors.references, CROPPED: single}
    searched = {SINGLE: single, PYRAMID: vectors.references, NEAREST: single, CROPPED: single}
    ways, shares = [], {}
    for name, found in answers.items():
        shares[name] = np.take_along_axis(vectors.right, found, 1).mean(axis=1)  # places are drawn, not altitudes
        error = np.take_along_axis(vectors.error_m, found, 1)
        recall = estimate(shares[name], mean)
        ms = search_ms(searched[name], query)
        ways.append(
            Way(name, recall.value, recall.low, recall.high, float(np.median(error)), math.nan, embed_ms, ms,
                cost[name].nbytes, recall.n)
        )  # fmt: skip
    return with_gains(ways, shares, SINGLE)
