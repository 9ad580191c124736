"""Metres of three witnesses on the same frames: the global token's best tile, patch tokens, orientation correlation.

The global token answers with places of its index; the other two look for the frame's middle around the best few of
them, or around the right one alone (their oracle). Both know the frame's width on the ground, and neither its heading:
patch tokens are correlated at `PATCH_HEADINGS`, as `localize.patch_correlation` does, orientation correlation is
`localize.registration.registrar.register`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from coarseloc.core import geo
from coarseloc.core.rotation import Affine, affine_view, rotate_affine
from coarseloc.core.types import Backbone, Bools, Float32, Floats, LonLat, UInt8, batches
from coarseloc.core.windows import WindowSource
from coarseloc.imagery.windows import OrthophotoWindows
from coarseloc.localize.patch_correlation import best_peak, correlate
from coarseloc.store.studies import Arrays, CurvePoint
from search.evaluation.intervals import median, share
from search.evaluation.studies.ground import OrthophotoGround
from search.evaluation.studies.patches import patch_tokens
from search.evaluation.studies.study import StudyResult, curve_point

if TYPE_CHECKING:
    from coarseloc.localize.registration.registrar import WindowAt

WITNESSES = {
    "global": "global token: its best tile",
    "global-oracle": "global token: the right tile",
    "patches": "patch tokens, among its best places",
    "patches-oracle": "patch tokens, at the right place",
    "orientation": "orientation correlation, among its best places",
    "orientation-oracle": "orientation correlation, at the right place",
}
"""The names of the three witnesses, and of their oracles, by the keys of their curves."""

COMPARED = {"patches": "global", "orientation": "patches"}
"""{witness: the one that it is compared with, frame by frame}"""

SEARCHED_PLACES = 5  # of the global token's, best first
POSITION_SHARE = 0.05  # of a footprint: a position nearer than this is right
PATCH_HEADINGS = tuple(11.25 * k for k in range(32))  # 16 and 8 find less: docs/metrics.md
REACH_FOOTPRINTS = 0.375  # of a frame's middle from a window's, on either axis: windows are 1.75 footprints wide
_BATCH = 8  # pictures embedded at a time
_SUBSAMPLES = 8  # of a patch's side, to measure how much of it a frame covers


class SearchedView(NamedTuple):
    """A frame from one heading or altitude, and where the global token would have it.

    `pixels`: uint8 [S, S, 3]. Views of one `footprint_m` whose headings are quarter turns apart are the same picture.
    """

    pixels: UInt8
    footprint_m: float
    heading_deg: int
    hits: tuple[LonLat, ...]  # the centres of the best `SEARCHED_PLACES`, best first
    nearest: LonLat  # the centre of the reference nearest to the frame


def place_frame(ground: OrthophotoGround, backbone: Backbone, place: LonLat, views: Sequence[SearchedView]) -> Arrays:
    """`offsets_m` float64 [V, W, 2], metres east and north of `place` that each of the `WITNESSES` has the frame's
    middle in each view. Where one has no answer, the best tile's centre stays its answer, or the right one's."""
    answers: dict[str, list[LonLat]] = {
        "global": [view.hits[0] for view in views],
        "global-oracle": [view.nearest for view in views],
        **_by_patches(ground, backbone, views),
        **_by_orientation(ground, backbone.device, place, views),
    }
    positions = np.array([answers[witness] for witness in WITNESSES]).transpose(1, 0, 2)  # [V, W, (lon, lat)]
    per_degree = geo.metres_per_degree(place.lat)
    east = geo.signed_difference_deg(place.lon, positions[..., 0]) * per_degree[0]
    return {"offsets_m": np.stack([east, (positions[..., 1] - place.lat) * per_degree[1]], axis=-1)}


def best_places(scores: Floats, centres: Sequence[LonLat]) -> tuple[LonLat, ...]:
    """The centres [R] of the best `SEARCHED_PLACES` by their scores [R], best first; none of them at -inf."""
    order = np.argsort(-scores, kind="stable")[:SEARCHED_PLACES]
    return tuple(centres[i] for i in order if scores[i] > -math.inf)


def position_curves(backbone: str, xs: Sequence[float], offsets_m: Floats, footprint_m: float) -> list[CurvePoint]:
    """`offsets_m` [Q, V, W, 2] of Q frames in views at `xs` [V]. For each witness, over x: `position@` (right within
    `POSITION_SHARE` of the footprint), `place@` (within half of it either way) and `metres@` (median); and the same of
    all views, `all_position@` … at x = 0, whose n are frames; with `all_nearer@`, how often a witness of `COMPARED` is
    nearer than the other."""
    metres = np.hypot(offsets_m[..., 0], offsets_m[..., 1])  # [Q, V, W]
    right_position = metres <= POSITION_SHARE * footprint_m
    right_place = np.abs(offsets_m).max(axis=-1) <= footprint_m / 2
    points = []
    for w, witness in enumerate(WITNESSES):
        for v, x in enumerate(xs):
            points.append(curve_point(backbone, f"position@{witness}", x, right_position[:, v, w], share))
            points.append(curve_point(backbone, f"place@{witness}", x, right_place[:, v, w], share))
            points.append(curve_point(backbone, f"metres@{witness}", x, metres[:, v, w], median))
        frames = right_position[..., w].mean(axis=1), right_place[..., w].mean(axis=1)
        points.append(curve_point(backbone, f"all_position@{witness}", 0.0, frames[0], share))
        points.append(curve_point(backbone, f"all_place@{witness}", 0.0, frames[1], share))
        points.append(curve_point(backbone, f"all_metres@{witness}", 0.0, np.median(metres[..., w], axis=1), median))
    keys = list(WITNESSES)
    for witness, base in COMPARED.items():
        nearer = (metres[..., keys.index(witness)] < metres[..., keys.index(base)]).mean(axis=1)
        points.append(curve_point(backbone, f"all_nearer@{witness}", 0.0, nearer, share))
    return points


class WitnessFigures(NamedTuple):
    """What a witness finds over all views; the points' n are frames."""

    position: CurvePoint
    place: CurvePoint
    metres: CurvePoint
    nearer: CurvePoint | None  # the share nearer than the one it is compared with


def position_figures(result: StudyResult, backbone: str) -> dict[str, WitnessFigures]:
    """{witness: its figures} of a backbone; empty where a study has not measured them."""
    points = {point.curve: point for point in result.points if point.backbone == backbone}
    return {
        witness: WitnessFigures(
            points[f"all_position@{witness}"],
            points[f"all_place@{witness}"],
            points[f"all_metres@{witness}"],
            points.get(f"all_nearer@{witness}"),
        )
        for witness in WITNESSES
        if f"all_position@{witness}" in points
    }


# --- patch tokens -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PatchWindow:
    """Patch tokens of a north-up piece of the map: float32 [P, P, D], and the share of each patch that is ground,
    float32 [P, P]."""

    tokens: Float32
    ground: Float32


def _by_patches(
    ground: OrthophotoGround, backbone: Backbone, views: Sequence[SearchedView]
) -> Mapping[str, list[LonLat]]:
    """The positions by patch tokens among each view's hits, and around its nearest reference alone."""
    window_at = OrthophotoWindows(ground.path).window
    tokens_at = functools.cache(functools.partial(patch_window, backbone, window_at, ground.side_px))
    positions = {"patches": [view.hits[0] for view in views], "patches-oracle": [view.nearest for view in views]}
    # A quarter turn moves a picture's pixels and changes none, and `PATCH_HEADINGS` are closed under it: of four such
    # views one is embedded, and what it scores on a window is the score of all.
    pictures: dict[tuple[float, int], list[int]] = {}
    for i, view in enumerate(views):
        pictures.setdefault((view.footprint_m, view.heading_deg % 90), []).append(i)
    for (footprint_m, _), indices in pictures.items():
        frames, masks = turned_tokens(backbone, views[indices[0]].pixels)
        side = frames.shape[1]
        centres = list(dict.fromkeys(c for i in indices for c in (*views[i].hits, views[i].nearest)))
        windows = [tokens_at(side, centre, footprint_m) for centre in centres]
        scores = correlate(
            frames, masks, np.stack([window.tokens for window in windows]), np.stack([w.ground for w in windows])
        )
        for i in indices:
            for name, searched in (("patches", views[i].hits), ("patches-oracle", (views[i].nearest,))):
                peak = best_peak(scores[:, [centres.index(centre) for centre in searched]], REACH_FOOTPRINTS * side)
                if peak.score > -1.0:
                    patch_m = footprint_m / side
                    center = searched[peak.window]
                    positions[name][i] = geo.offset(center, peak.right * patch_m, -peak.down * patch_m)
    return positions


def turned_tokens(backbone: Backbone, pixels: UInt8) -> tuple[Float32, Float32]:
    """(tokens float32 [H, S, S, D], masks float32 [H, S, S]) of a frame uint8 [n, n, 3] turned to `PATCH_HEADINGS`.

    The corners that a turn leaves empty are the frame's, reflected at its borders, and masked: black ones would be
    edges.
    """
    margin = math.ceil(pixels.shape[0] * (math.sqrt(2) - 1) / 2) + 2
    padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    to_padded = Affine(1.0, 0.0, margin, 0.0, 1.0, margin)
    pictures = [affine_view(padded, to_padded, pixels.shape[0], heading).pixels for heading in PATCH_HEADINGS]
    tokens = np.concatenate([patch_tokens(backbone, np.stack(batch)) for batch in batches(pictures, _BATCH)])
    return tokens, np.stack([_coverage(heading, tokens.shape[1]) for heading in PATCH_HEADINGS])


def patch_window(
    backbone: Backbone, window_at: WindowAt, side_px: int, side: int, center: LonLat, footprint_m: float
) -> PatchWindow:
    """The tokens around `center` at the metres a patch of a frame of `side` x `side` patches: 1.75 footprints and what
    a parabola needs. Four pictures of a footprint each are embedded, `side_px` pixels a side, as large as the encoder
    expects; a token is that of the picture in which it lies further from the border."""
    reach_m = _margin(side) * footprint_m / side
    windows = [
        window_at(geo.offset(center, right * reach_m, -down * reach_m), footprint_m, footprint_m / side_px)
        for down in (-1, 1)
        for right in (-1, 1)
    ]
    ground = [
        np.ones((side, side), np.float32) if window.valid is None else _patch_shares(window.valid, side)
        for window in windows
    ]
    tokens = patch_tokens(backbone, np.stack([window.pixels for window in windows]))
    return PatchWindow(_laid_together(tokens), _laid_together(np.stack(ground)))


def _margin(side: int) -> int:
    """Patches of a window beyond those of a frame, on each side: a frame's middle moves as far."""
    return min(math.floor(REACH_FOOTPRINTS * side) + 1, side // 2)


def _laid_together(quadrants: Float32) -> Float32:
    """[P, P, ...] of four overlapping grids [4, S, S, ...]: upper left, upper right, lower left, lower right."""
    side = quadrants.shape[1]
    width = side + 2 * _margin(side)
    first, last = width // 2, width - width // 2
    upper_left, upper_right, lower_left, lower_right = quadrants
    upper = np.concatenate([upper_left[:first, :first], upper_right[:first, -last:]], axis=1)
    lower = np.concatenate([lower_left[-last:, :first], lower_right[-last:, -last:]], axis=1)
    return np.concatenate([upper, lower])


@functools.lru_cache(maxsize=256)
def _coverage(heading_deg: float, side: int) -> Float32:
    """float32 [side, side]: the share of each patch that a frame covers once turned."""
    y, x = np.mgrid[: side * _SUBSAMPLES, : side * _SUBSAMPLES] / _SUBSAMPLES + 0.5 / _SUBSAMPLES
    source_x, source_y = rotate_affine(Affine(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), heading_deg, side)(x, y)
    inside = (np.minimum(source_x, source_y) >= 0) & (np.maximum(source_x, source_y) <= side)
    return _patch_means(inside, side)


def _patch_shares(valid: Bools, side: int) -> Float32:
    """float32 [side, side]: the share of True in each patch of bool [n, n]."""
    samples = (np.arange(side * _SUBSAMPLES) + 0.5) * len(valid) / (side * _SUBSAMPLES)
    indices = samples.astype(int)
    return _patch_means(valid[indices[:, None], indices], side)


def _patch_means(samples: Bools, side: int) -> Float32:
    return np.asarray(samples.reshape(side, _SUBSAMPLES, side, _SUBSAMPLES).mean(axis=(1, 3)), np.float32)


# --- orientation correlation --------------------------------------------------------------------


def _by_orientation(
    ground: OrthophotoGround, device: str, place: LonLat, views: Sequence[SearchedView]
) -> Mapping[str, list[LonLat]]:
    """The positions by orientation correlation among each view's hits, and around its nearest reference alone: asked
    for where the hits have led astray, since a right answer is the right window's own."""
    source = OrthophotoWindows(ground.path)
    positions: dict[str, list[LonLat]] = {"orientation": [], "orientation-oracle": []}
    for view in views:
        answer = _register(source, device, view, view.hits)
        oracle = answer
        if _apart_m(place, answer) > POSITION_SHARE * ground.footprint_m:
            oracle = _register(source, device, view, (view.nearest,))
        positions["orientation"].append(answer)
        positions["orientation-oracle"].append(oracle)
    return positions


def _register(source: WindowSource, device: str, view: SearchedView, centres: Sequence[LonLat]) -> LonLat:
    # torch comes with it: whoever reads a study's curves can do without
    from coarseloc.localize.registration.coarse import CandidateWindow
    from coarseloc.localize.registration.frame import FrameRaster
    from coarseloc.localize.registration.geometry import FrameGeometry
    from coarseloc.localize.registration.registrar import register
    from coarseloc.localize.registration.settings import DEFAULTS

    side = view.pixels.shape[0]
    frame = FrameRaster(view.pixels, FrameGeometry(side, side, view.footprint_m), device)
    pixel_m = view.footprint_m / DEFAULTS.coarse_px
    reach_m = REACH_FOOTPRINTS * view.footprint_m
    candidates = [
        CandidateWindow(source.window(center, view.footprint_m + 2 * reach_m, pixel_m), reach_m) for center in centres
    ]
    registration = register(frame, candidates, source.window, source.gsd_m)
    return centres[0] if registration.best is None else registration.best.location


def _apart_m(first: LonLat, second: LonLat) -> float:
    return float(geo.ellipsoid_distance_m(first.lon, first.lat, second.lon, second.lat))
