"""How well the ground of a reference set tells where it is: each view as a query against all the others.

A view's own place would always answer itself, so what lies too near may not answer (`EXCLUSIONS`). Of the rest the best
answer is right where its centre lies within a footprint: its tile shows some of the same ground. The best answer beyond
is the view's twin: ground that looks alike and lies elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from coarseloc.core import geo, tiling
from coarseloc.core.errors import InputError
from coarseloc.core.filters import TileColumns
from coarseloc.core.types import Bools, Float32, Floats, LonLat, Progress, ReferenceSet
from coarseloc.store import Database, embeddings, references
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from search.exact_index import ExactIndex
from search.mirror import open_mirror
from search.neighbors import Rows

Places = NDArray[np.complex128]  # longitude and latitude as one number, which sorts and compares as one
GainKind = Literal["heading", "backbone", "altitude"]
GAIN_KINDS = get_args(GainKind)
Exclusion = Literal["view", "place", "neighbours"]
EXCLUSIONS: Mapping[Exclusion, str] = {
    "view": "the view itself",
    "place": "all headings of its place: a frame is seldom taken over a tile's middle",
    "neighbours": "the view itself and overlapping neighbours: its place at other headings may answer",
}
WITHIN_FOOTPRINTS = 0.999  # of centres: tiles a footprint apart touch, and share no ground
BLOCK = 512  # queries searched at once, which bounds memory
MOST_QUERIES = 4000  # of another set or heading: a share of them is known to a percent and a half
TWIN_PLACES = 12  # pairs listed


@dataclass(frozen=True, slots=True)
class ViewSet:
    """N views: their vectors, and where each was taken."""

    index: ExactIndex
    lon: Floats  # [N], of the tile's centre
    lat: Floats  # [N]
    angle_deg: NDArray[np.int64]  # [N]
    footprint_m: float

    @classmethod
    def of_mirror(cls, index: ExactIndex, columns: TileColumns, footprint_m: float | None) -> ViewSet:
        """footprint_m: of the set; by default as wide as its tiles."""
        if footprint_m is None:
            across = (columns.east - columns.west) * geo.degree_lengths(columns.lat)[0]
            footprint_m = float(np.median(across))
        return cls(index, columns.lon, columns.lat, np.asarray(columns.angle_deg, np.int64), footprint_m)

    def __len__(self) -> int:
        return len(self.lon)

    def at_headings(self, angles: Sequence[int]) -> ViewSet:
        """The views at some headings alone."""
        chosen = np.isin(self.angle_deg, angles)
        return self if chosen.all() else self.select(np.flatnonzero(chosen))

    def select(self, rows: Rows) -> ViewSet:
        """Some of the views, in their order."""
        return replace(
            self,
            index=self.index.subset(rows),
            lon=self.lon[rows],
            lat=self.lat[rows],
            angle_deg=self.angle_deg[rows],
        )

    def places(self) -> tuple[Rows, Rows]:
        """(the first row of each of P places, the place of each row [N])."""
        _, first, place = np.unique(self.lon + 1j * self.lat, return_index=True, return_inverse=True)
        return first, place


@dataclass(frozen=True, slots=True)
class Recognition:
    """Q queries under one exclusion: their best answer, and how clearly it stands before the best wrong one."""

    right: Bools  # [Q]
    error_m: Floats  # [Q], from the query's centre to its best answer's; nan where nothing answers
    twin: Rows  # [Q], row of the best answer beyond a footprint; -1 where there is none
    twin_score: Floats  # [Q], its cosine; nan where there is none
    margin: Floats  # [Q], the best right answer's cosine less the twin's; nan where either is missing

    @property
    def share(self) -> float:
        """Of queries whose best answer is right."""
        return float(self.right.mean()) if len(self.right) else float("nan")


class Queries(NamedTuple):
    """Q views that are looked for."""

    vectors: Float32  # [Q, D]
    lon: Floats  # [Q]
    lat: Floats  # [Q]
    angle_deg: NDArray[np.int64]  # [Q]


def queries_of(views: ViewSet, rows: Rows | None = None) -> Queries:
    """Views as queries, all or some rows [Q] of them."""
    chosen: Any = slice(None) if rows is None else rows  # all of them stay mapped
    return Queries(views.index.vectors[chosen], views.lon[chosen], views.lat[chosen], views.angle_deg[chosen])


def recognise(
    queries: Queries, references: ViewSet, footprint_m: float | None = None, progress: Progress | None = None
) -> dict[Exclusion, Recognition]:
    """Search each query among the references, exactly, and judge its answers under every exclusion.

    footprint_m: within which an answer is right, the references' own by default. As many answers are read as views lie
    within a footprint of any query and one more: a twin is among them, whatever looks better. Memory: BLOCK queries
    with their answers.
    """
    reach_m = WITHIN_FOOTPRINTS * (footprint_m or references.footprint_m)
    k = min(_most_near(queries, references, reach_m) + 1, len(references))
    parts: dict[Exclusion, list[Recognition]] = {exclusion: [] for exclusion in EXCLUSIONS}
    for start in range(0, len(queries.lon), BLOCK):
        block = _part(queries, slice(start, start + BLOCK))
        scores, rows = references.index.search(block.vectors, k)
        distance_m = geo.distance_m(block.lon[:, None], block.lat[:, None], references.lon[rows], references.lat[rows])
        same_place = (references.lon[rows] == block.lon[:, None]) & (references.lat[rows] == block.lat[:, None])
        own = same_place & (references.angle_deg[rows] == block.angle_deg[:, None])
        near = distance_m <= reach_m
        answering: dict[Exclusion, Bools] = {
            "view": ~own,
            "place": ~same_place,
            "neighbours": ~own & (same_place | ~near),
        }
        for exclusion, answers in answering.items():
            parts[exclusion].append(_judge(scores, rows, distance_m, near, answers))
        if progress:
            progress(min(start + BLOCK, len(queries.lon)), len(queries.lon), "views")
    return {exclusion: _joined(of_blocks) for exclusion, of_blocks in parts.items()}


def _part(queries: Queries, part: slice) -> Queries:
    return Queries(queries.vectors[part], queries.lon[part], queries.lat[part], queries.angle_deg[part])


def _judge(scores: Float32, rows: Rows, distance_m: Floats, near: Bools, answers: Bools) -> Recognition:
    """All [Q, K], best first; answers: which of them may answer."""
    order = np.arange(len(rows))
    first, has_answer = answers.argmax(axis=1), answers.any(axis=1)
    beyond, within = answers & ~near, answers & near
    twin, has_twin = beyond.argmax(axis=1), beyond.any(axis=1)
    best, has_best = within.argmax(axis=1), within.any(axis=1)
    twin_score = np.where(has_twin, scores[order, twin], np.nan)
    return Recognition(
        right=has_answer & near[order, first],
        error_m=np.where(has_answer, distance_m[order, first], np.nan),
        twin=np.where(has_twin, rows[order, twin], -1),
        twin_score=twin_score,
        # What is right and not among the answers read scores no more than the last of them.
        margin=np.where(has_best, scores[order, best], scores[:, -1]) - twin_score,
    )


def _joined(parts: Sequence[Recognition]) -> Recognition:
    names = ("right", "error_m", "twin", "twin_score", "margin")
    return Recognition(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _most_near(queries: Queries, references: ViewSet, reach_m: float) -> int:
    """The most views within reach of any query's place."""
    place, count = np.unique(references.lon + 1j * references.lat, return_counts=True)
    spots = np.unique(queries.lon + 1j * queries.lat)
    return max((int((near * count).sum(axis=1).max()) for near in _near(spots, place, reach_m)), default=0)


def _near(spots: Places, places: Places, reach_m: float) -> Iterator[Bools]:
    """For spots a block at a time: bool [B, P], which places lie within reach."""
    for start in range(0, len(spots), BLOCK):
        block = spots[start : start + BLOCK, None]
        yield geo.distance_m(block.real, block.imag, places.real, places.imag) <= reach_m


# --- of a whole set -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlaceFigures:
    """What P places of a set come to, each over its headings."""

    lon: Floats  # [P]
    lat: Floats  # [P]
    views: NDArray[np.int64]  # [P]
    right_share: Floats  # [P], of its views
    error_m: Floats  # [P], mean: what is to be expected of a frame there
    margin: Floats  # [P], least of its views: below 0 a twin looks more alike than the place itself
    twin: Rows  # [P], place of that view's twin; -1 where there is none
    twin_m: Floats  # [P], how far that lies
    twin_score: Floats  # [P], its cosine


@dataclass(frozen=True, slots=True)
class TwinPair:
    """Two places that look alike and lie far from each other."""

    place: int  # number among a set's places
    twin: int
    location: LonLat
    twin_location: LonLat
    distance_m: float
    score: float
    margin: float


@dataclass(frozen=True, slots=True)
class Gain:
    """What one more thing buys, measured: the share of right answers without it and with it, of the same queries."""

    kind: GainKind
    name: str
    queries: int
    share_without: float
    share_with: float


@dataclass(frozen=True, slots=True)
class BackboneLocalizability:
    """One backbone's recognition of a set's ground."""

    backbone: str
    how: str  # input size and precision
    views: int
    shares: Mapping[str, float]  # of views that are right, by exclusion
    share_by_heading: Mapping[int, float]  # {query's heading: share}, under the exclusion asked for
    median_error_m: float
    p90_error_m: float
    search_s: float  # of all views
    places: PlaceFigures
    recognition: Recognition  # of all views, under the exclusion asked for

    @property
    def ground_share(self) -> float:
        """Of the ground, place by place, that is recognised."""
        return float(self.places.right_share.mean())


@dataclass(frozen=True, slots=True)
class Localizability:
    """A reference set's ground under each backbone that it is embedded with."""

    reference_set: str
    footprint_m: float
    stride_m: float
    headings: tuple[int, ...]
    exclusion: Exclusion
    backbones: tuple[BackboneLocalizability, ...]
    gains: tuple[Gain, ...]
    not_measured: tuple[str, ...]  # what a gain would need that is not stored

    def best(self) -> BackboneLocalizability:
        """The backbone that recognises most of the ground."""
        return max(self.backbones, key=lambda measured: measured.ground_share)


def place_figures(views: ViewSet, recognition: Recognition) -> PlaceFigures:
    """Gather the recognition of all views by place."""
    first, place = views.places()
    count = np.bincount(place)
    error = np.where(np.isnan(recognition.error_m), 0.0, recognition.error_m)
    answered = np.bincount(place, ~np.isnan(recognition.error_m))
    # The view of each place that its twin comes nearest to; without a twin it sorts behind.
    order = np.lexsort((np.where(np.isnan(recognition.margin), np.inf, recognition.margin), place))
    closest = order[np.searchsorted(place[order], np.arange(len(first)))]
    twin = np.where(recognition.twin[closest] >= 0, place[recognition.twin[closest]], -1)
    lon, lat = views.lon[first], views.lat[first]
    apart_m = geo.distance_m(lon, lat, lon[twin], lat[twin])
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_error = np.bincount(place, error) / answered
    return PlaceFigures(
        lon=lon,
        lat=lat,
        views=count,
        right_share=np.bincount(place, recognition.right) / count,
        error_m=mean_error,
        margin=recognition.margin[closest],
        twin=twin,
        twin_m=np.where(twin >= 0, apart_m, np.nan),
        twin_score=recognition.twin_score[closest],
    )


def twin_pairs(places: PlaceFigures, most: int = TWIN_PLACES) -> list[TwinPair]:
    """The pairs of places whose twin comes nearest to looking like the place itself, each pair and each place once."""
    pairs: list[TwinPair] = []
    used: set[int] = set()
    for number in np.argsort(np.where(np.isnan(places.margin), np.inf, places.margin)).tolist():
        twin = int(places.twin[number])
        if twin < 0 or number in used or twin in used:
            continue
        used |= {number, twin}
        pairs.append(
            TwinPair(
                number,
                twin,
                LonLat(float(places.lon[number]), float(places.lat[number])),
                LonLat(float(places.lon[twin]), float(places.lat[twin])),
                float(places.twin_m[number]),
                float(places.twin_score[number]),
                float(places.margin[number]),
            )
        )
        if len(pairs) == most:
            break
    return pairs


def shares_by_heading(views: ViewSet, recognition: Recognition) -> dict[int, float]:
    """{heading of the query: share of right answers}."""
    return {
        angle: float(recognition.right[views.angle_deg == angle].mean())
        for angle in np.unique(views.angle_deg).tolist()
    }


# --- what more of it buys -------------------------------------------------------------------------


def heading_gains(name: str, views: ViewSet, exclusion: Exclusion) -> Iterator[Gain]:
    """What twice as many headings buy for frames between those of half of them, down to one heading. name: of the
    backbone."""
    headings = np.unique(views.angle_deg).tolist()
    while len(headings) >= 2 and len(headings) % 2 == 0:
        coarser = headings[::2]
        between = np.flatnonzero(np.isin(views.angle_deg, headings[1::2]))
        queries = queries_of(views, sample(between, MOST_QUERIES))
        without = recognise(queries, views.at_headings(coarser))[exclusion]
        finer = recognise(queries, views.at_headings(headings))[exclusion]
        title = f"{name}: {len(headings)} headings instead of {len(coarser)}"
        yield Gain("heading", title, len(queries.lon), without.share, finer.share)
        headings = coarser


def backbone_gains(backbones: Sequence[BackboneLocalizability]) -> Iterator[Gain]:
    """What a second backbone recognises of the views that the first does not: the most that both together can gain."""
    for first, second in permutations(backbones, 2):
        if len(first.recognition.right) == len(second.recognition.right):
            either = first.recognition.right | second.recognition.right
            title = f"{second.backbone} beside {first.backbone}, at most"
            yield Gain("backbone", title, len(either), first.recognition.share, float(either.mean()))


def altitude_gain(name: str, views: ViewSet, altitude: ViewSet, exclusion: Exclusion) -> Gain | None:
    """What the views of another altitude buy for frames taken there, which the set's own views alone would answer.

    name: of both. None where the other set shows none of this one's ground.
    """
    spots, spot = np.unique(altitude.lon + 1j * altitude.lat, return_inverse=True)
    places = np.unique(views.lon + 1j * views.lat)
    over_map = np.concatenate([near.any(axis=1) for near in _near(spots, places, views.footprint_m / 2)])
    rows = np.flatnonzero(over_map[spot])
    if not len(rows):
        return None
    queries = queries_of(altitude, sample(rows, MOST_QUERIES))
    widest = max(views.footprint_m, altitude.footprint_m)
    without = recognise(queries, views, widest)[exclusion]
    combined = recognise(queries, joined(views, altitude), widest)[exclusion]
    return Gain("altitude", name, len(queries.lon), without.share, combined.share)


def joined(*sets: ViewSet) -> ViewSet:
    """Views of several sets as one, as wide as the widest."""
    vectors = [views.index.vectors for views in sets]
    if len({part.shape[1] for part in vectors}) > 1:
        raise InputError("views of different backbones were to be joined: their vectors do not compare")
    count = sum(map(len, sets))
    return ViewSet(
        ExactIndex.from_parts(count, vectors[0].shape[1], (np.ascontiguousarray(part) for part in vectors)),
        np.concatenate([views.lon for views in sets]),
        np.concatenate([views.lat for views in sets]),
        np.concatenate([views.angle_deg for views in sets]),
        max(views.footprint_m for views in sets),
    )


def sample(rows: Rows, most: int) -> Rows:
    """At most so many rows, evenly out of all."""
    return rows[tiling.spread_rows(len(rows), most)]


# --- of stored sets -------------------------------------------------------------------------------


def measure_localizability(
    db: Database,
    mirrors: Path,
    stored: StoredReferenceSet,
    specs: Sequence[StoredSpec],
    exclusion: Exclusion = "place",
    progress: Progress | None = None,
) -> Localizability:
    """Measure a stored set under each spec, and what its headings, backbones and other sets of its ground buy.

    mirrors: folder of the exact mirrors, which are built where they are missing. Other sets serve that are embedded
    under a spec, show some of this one's ground, and are of another altitude or footprint.
    """
    facts = stored.reference_set
    opened = {spec.id: _views(db, mirrors, stored, spec) for spec in specs}
    backbones = []
    for spec in specs:
        backbones.append(_measure(spec, opened[spec.id], exclusion, progress))
    first = opened[specs[0].id]
    gains: list[Gain] = []
    for spec in specs:
        gains += heading_gains(spec.backbone, opened[spec.id], exclusion)
        gains += _altitude_gains(db, mirrors, stored, spec, opened[spec.id], exclusion)
    gains += backbone_gains(backbones)
    return Localizability(
        reference_set=stored.name,
        footprint_m=first.footprint_m,
        stride_m=first.footprint_m * (1 - facts.overlap),
        headings=facts.angles,
        exclusion=exclusion,
        backbones=tuple(backbones),
        gains=tuple(gains),
        not_measured=tuple(kind for kind in GAIN_KINDS if kind not in {gain.kind for gain in gains}),
    )


def _views(db: Database, mirrors: Path, stored: StoredReferenceSet, spec: StoredSpec) -> ViewSet:
    mirror = open_mirror(db, mirrors, stored, spec)
    return ViewSet.of_mirror(mirror.index, mirror.columns, stored.reference_set.footprint_m)


def _measure(
    spec: StoredSpec, views: ViewSet, exclusion: Exclusion, progress: Progress | None
) -> BackboneLocalizability:
    started = time.perf_counter()
    recognitions = recognise(queries_of(views), views, progress=progress)
    search_s = time.perf_counter() - started
    chosen = recognitions[exclusion]
    errors = chosen.error_m[~np.isnan(chosen.error_m)]
    median_m, p90_m = np.quantile(errors, [0.5, 0.9]) if len(errors) else (np.nan, np.nan)
    return BackboneLocalizability(
        backbone=spec.backbone,
        how=spec.how,
        views=len(views),
        shares={name: recognition.share for name, recognition in recognitions.items()},
        share_by_heading=shares_by_heading(views, chosen),
        median_error_m=float(median_m),
        p90_error_m=float(p90_m),
        search_s=search_s,
        places=place_figures(views, chosen),
        recognition=chosen,
    )


def _altitude_gains(
    db: Database,
    mirrors: Path,
    stored: StoredReferenceSet,
    spec: StoredSpec,
    views: ViewSet,
    exclusion: Exclusion,
) -> Iterator[Gain]:
    with db.read() as session:
        candidates = [
            candidate
            for candidate in references.reference_sets(session)
            if candidate.id != stored.id
            and _level(candidate.reference_set) != _level(stored.reference_set)
            and any(embedded.id == spec.id for embedded in embeddings.specs(session, candidate.id))
        ]
    for candidate in candidates:
        title = f"{spec.backbone}: {candidate.name} beside {stored.name}, for frames of {candidate.name}"
        gain = altitude_gain(title, views, _views(db, mirrors, candidate, spec), exclusion)
        if gain is not None:
            yield gain


def _level(facts: ReferenceSet) -> tuple[float | None, float | None]:
    return facts.altitude_m, None if facts.footprint_m is None else round(facts.footprint_m)
