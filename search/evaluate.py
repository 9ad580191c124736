"""From recorded runs to scores: hits merged by place, held against the truth, each figure with its interval and n."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coarseloc import geo, where
from coarseloc.errors import InputError, StoreError
from coarseloc.scoring import scores
from coarseloc.scoring.bootstrap import Estimate
from coarseloc.scoring.judged import Judged
from coarseloc.store import Database, references, runs
from coarseloc.store.runs import FrameResult, StoredRun
from coarseloc.types import BBox, LonLat, Near, Tile, TileFacts, Where
from search import localize
from search.localize import Candidate

CURVE_KS = (1, 5, 10)  # of the hit curves
_CHUNK = 256  # frames held against all tiles at a time


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a run's frames: of `frames`, those left after the rest are judged."""

    frames: int
    failed: int  # could not be read or searched
    without_truth: int
    judged: int
    off_map: int  # judged, but no reference shows where they were: for rejection only


@dataclass(frozen=True)
class Evaluation:
    """A run with its scores."""

    run: StoredRun
    results: Sequence[FrameResult]
    judged: Judged
    counts: Counts
    scores: Mapping[str, Estimate]
    hit_curves: Mapping[int, Mapping[int, Estimate]]  # {k: {metres: share}}
    ceiling: Mapping[int, float]  # {metres: share that the grid allows}
    agreement_m: float

    @property
    def backbone(self) -> str:
        return self.run.spec.spec.backbone

    @property
    def label(self) -> str:
        """The backbone, and the heading where the run searched only one."""
        angle = self.run.parameters.get("angle_deg")
        return self.backbone if angle is None else f"{self.backbone} at {angle:03d}°"


def find_runs(db: Database, names: Sequence[str], reference_set: str | None = None) -> list[StoredRun]:
    """Runs by number, or a flight's newest finished ones by its id. Raises StoreError saying what there is."""
    with db.read() as session:
        flights = set(runs.flight_ids(session))
        every = {str(run.id): run for run in runs.runs(session)}
        found: dict[int, StoredRun] = {}
        for name in names:
            if name in every and name not in flights:
                found[every[name].id] = every[name]
                continue
            runs.find_flight(session, name)  # raises for an unknown one
            newest = runs.latest_runs(session, name, reference_set)
            if not newest:
                raise StoreError(f"flight {name!r} has no finished run: search it with `coarseloc search` first")
            found |= {run.id: run for run in newest}
    return list(found.values())


def evaluate(db: Database, chosen: Sequence[StoredRun]) -> list[Evaluation]:
    """Judge runs, those of one flight beside each other, so that their agreement can be told.

    Raises InputError where there is none, StoreError where a run is not finished.
    """
    if not chosen:
        raise InputError("no run to evaluate: name a flight or the number of a run")
    if unfinished := [run.id for run in chosen if run.finished_at is None]:
        raise StoreError(f"run {unfinished[0]} is not finished: run the same `coarseloc search` again, it goes on")
    with db.read() as session:
        read = {run.id: runs.results(session, run.id) for run in chosen}
        maps = {run.id: _map(references.tiles(session, run.reference_set.id), run) for run in chosen}
    places = {run_id: {r.frame.index: localize.candidates(r.hits) for r in read[run_id]} for run_id in read}
    done = []
    for run in chosen:
        group = [other.id for other in chosen if other.flight_id == run.flight_id]
        within_m = localize.stride_m(
            run.reference_set.reference_set.footprint_m, run.reference_set.reference_set.overlap
        )
        votes = _votes({other: places[other] for other in group}, run.id, within_m)
        done.append(_evaluated(run, read[run.id], places[run.id], maps[run.id], votes, within_m))
    return done


def judge(
    results: Sequence[FrameResult],
    places: Mapping[int, Sequence[Candidate]],
    tiles: Sequence[Tile],
    stride_m: float,
    votes: Mapping[int, float],
) -> Judged:
    """The frames that have truth and hits. `votes`: {frame: share of the other backbones that answer the same}."""
    known = [r for r in results if r.hits and r.frame.truth.location]
    truth = [r.frame.truth.location for r in known if r.frame.truth.location]
    ranked = localize.ranked([(r.frame.truth, places[r.frame.index]) for r in known])
    on_map, nearest_m = _against(truth, tiles)
    return Judged(
        ranked=ranked,
        frame=np.array([r.frame.index for r in known], np.int64),
        on_map=on_map,
        nearest_m=nearest_m,
        least_margin=np.array([_least_margin(r) for r in known], float),
        agreement=np.array([votes.get(r.frame.index, math.nan) for r in known], float),
        stride_m=stride_m,
    )


def _evaluated(
    run: StoredRun,
    results: Sequence[FrameResult],
    places: Mapping[int, Sequence[Candidate]],
    tiles: Sequence[Tile],
    votes: Mapping[int, float],
    within_m: float,
) -> Evaluation:
    facts = run.reference_set.reference_set
    stride = math.nan if facts.footprint_m is None else facts.footprint_m * (1 - facts.overlap)
    judged = judge(results, places, tiles, stride, votes)
    failed = sum(not r.hits for r in results)
    without = sum(bool(r.hits) and r.frame.truth.location is None for r in results)
    return Evaluation(
        run=run,
        results=results,
        judged=judged,
        counts=Counts(len(results), failed, without, len(judged), int((~judged.on_map).sum())),
        scores={score.key: score.of(judged) for score in scores.SCORES},
        hit_curves={k: scores.hit_curve(judged, k) for k in CURVE_KS},
        ceiling=scores.ceiling(judged),
        agreement_m=within_m,
    )


def _votes(places: Mapping[int, Mapping[int, Sequence[Candidate]]], mine: int, within_m: float) -> dict[int, float]:
    """{frame: share of the other runs whose best place lies within `within_m` of this run's}."""
    others = [run for run in places if run != mine]
    found = {}
    for frame, ranked in places[mine].items():
        estimates = [localize.estimate(ranked)]
        estimates += [localize.estimate(places[other][frame]) for other in others if places[other].get(frame)]
        if len(estimates) > 1 and estimates[0]:
            found[frame] = (localize.agreement(estimates, within_m)[0] - 1) / (len(estimates) - 1)
    return found


def _least_margin(result: FrameResult) -> float:
    return result.hits[0].score - result.hits[-1].score if len(result.hits) > 1 else math.nan


# --- the map ------------------------------------------------------------------------------------


def _map(tiles: Sequence[Tile], run: StoredRun) -> list[Tile]:
    """The tiles that the run searched: all of its set, or those its filters let through."""
    asked = run.parameters.get("where") or {}
    wanted = Where(
        tile_id=asked.get("tile_id"),
        altitude_m=tuple(asked["altitude_m"]) if asked.get("altitude_m") else None,
        overlap_pct=asked.get("overlap_pct"),
        touches=BBox(*asked["bbox"]) if asked.get("bbox") else None,
        near=Near(**asked["near"]) if asked.get("near") else None,
    )
    if wanted == Where():
        return list(tiles)
    facts = run.reference_set.reference_set
    rows = [
        TileFacts(
            "", facts.name, f"{facts.name}/{t.index:05d}", "", 0, facts.altitude_m, facts.overlap, t.center, t.bbox
        )
        for t in tiles
    ]
    return [tile for tile, kept in zip(tiles, where.mask(where.columns(rows), wanted), strict=True) if kept]


def _against(truth: Sequence[LonLat], tiles: Sequence[Tile]) -> tuple[np.ndarray, np.ndarray]:
    """(bool [F], float64 [F]): whether some tile holds each truth, and how far the nearest centre is."""
    centres = np.array([tile.center for tile in tiles], float).reshape(-1, 2)
    footprints = np.array([tile.bbox for tile in tiles], float).reshape(-1, 4)
    inside, nearest = [], []
    for i in range(0, len(truth), _CHUNK):
        lon, lat = np.array(truth[i : i + _CHUNK], float).reshape(-1, 2).T[:, :, None]
        inside.append(geo.inside(lon, lat, footprints).any(axis=1))
        nearest.append(geo.distance_m(lon, lat, centres[:, 0], centres[:, 1]).min(axis=1, initial=np.inf))
    if not inside:
        return np.zeros(0, bool), np.zeros(0)
    return np.concatenate(inside), np.concatenate(nearest)
