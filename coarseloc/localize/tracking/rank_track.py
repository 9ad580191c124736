"""A flight's track out of motion and the ranks of its frames' hits, causal and smoothed. Pure numpy.

The rank filter of `rank_grid` needs no imagery: what a search stored is enough. The place that is read out is the disc
of max(stride, 100 m) with most mass; it is claimed from a probability of 0.6 and dropped below 0.55 (0.3 tripled false
claims). A frame that does not register with the one before is no evidence, and not claimed: cloud matches cloud.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from coarseloc.core import geo
from coarseloc.core.tracks import AlternativePlace, MotionSource, TrackEstimate, TrackMode
from coarseloc.core.types import Floats, LonLat
from coarseloc.localize.tracking import rank_grid
from coarseloc.localize.tracking.motion import Displacement, guessed_displacement, registers
from coarseloc.localize.tracking.rank_grid import (
    BLIND,
    SEEING,
    GridMass,
    GridMotion,
    GridStep,
    RankedHits,
    RankEvidence,
    RankSettings,
    ReferenceGrid,
)
from coarseloc.localize.tracking.tracker import LocalPlane, located_estimate, seconds_between, speed_mps, track_state


@dataclass(frozen=True, slots=True)
class RankedFrame:
    """One frame of a flight. `hits`: its Top-K of each backbone, in metres of the track's plane. `motion`: from the
    frame before, None where that is not known, and of the first one. `heading_deg`, `heading_sd_deg`: a label's yaw.
    `length_bounds_m`: see `TrackedFrame`."""

    index: int
    footprint_m: float
    hits: tuple[RankedHits, ...] = ()
    motion: Displacement | None = None
    motion_source: MotionSource = "frames"
    time_s: float | None = None
    heading_deg: float | None = None
    heading_sd_deg: float = 5.0
    length_bounds_m: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class RankTrackSettings:
    """What decides a track beside its frames."""

    claimed: float = 0.6  # probability from which a place is claimed
    dropped: float = 0.55  # below which it no longer is
    least_mode_m: float = 100.0
    ellipse_factor: float = 1.0  # of the ellipse's axes: `virtual_flights` learns it
    least_alternative: float = 0.02
    most_alternatives: int = 3
    filter: RankSettings = field(default_factory=RankSettings)
    keeps_mass: bool = True  # for smoothing; some 20 kilobytes a frame


DEFAULTS = RankTrackSettings()


@dataclass(frozen=True, slots=True, eq=False)
class SparseMass:
    """What of a `GridMass` is worth keeping: positions and values of its largest cells."""

    shape: tuple[int, ...]
    cells: NDArray[np.int32]
    values: NDArray[np.float32]

    def windows(self) -> Floats:
        dense = np.zeros(math.prod(self.shape))
        dense[self.cells] = self.values
        return dense.reshape(self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class RankStep:
    """A frame's causal estimate, and what smoothing needs beside it: how its mass came from the frame before, its
    evidence, and the mass itself, `mass` without windows of which `sparse` has the largest cells."""

    estimate: TrackEstimate
    frame: RankedFrame
    registers: bool  # with the frame before; its hits are evidence
    grid_step: GridStep = field(repr=False)
    evidence: RankEvidence = field(repr=False)
    mass: GridMass = field(repr=False)
    sparse: SparseMass | None = field(repr=False)


def track_ranks(
    frames: Iterable[RankedFrame], grid: ReferenceGrid, plane: LocalPlane, settings: RankTrackSettings = DEFAULTS
) -> Iterator[RankStep]:
    """One causal estimate a frame, as the frame comes. Deterministic."""
    tracker = _RankTracker(grid, plane, settings)
    for frame in frames:
        yield tracker.step(frame)


def smoothed_ranks(
    steps: Sequence[RankStep], grid: ReferenceGrid, plane: LocalPlane, settings: RankTrackSettings = DEFAULTS
) -> list[TrackEstimate]:
    """The same frames' estimates by all of the flight: forward and backward passes multiplied.

    A frame that registers with neither of its neighbours is not claimed. Raises ValueError where steps kept no mass.
    """
    masses: list[_PlacedMass] = []
    message: tuple[Floats, float] | None = None
    for step in reversed(steps):
        if step.sparse is None:
            raise ValueError("steps without their mass: expected a track whose settings keep it")
        forward = replace(step.mass, windows=step.sparse.windows())
        if message is None:
            message = np.ones_like(forward.windows), 1.0
        product = _normalised(
            replace(forward, windows=forward.windows * message[0], elsewhere=forward.elsewhere * message[1])
        )
        masses.append(_placed(product, grid, settings))
        weighted = _weighted(message[0], step.frame, step.evidence, forward, step.grid_step, grid, settings)
        windows, elsewhere = rank_grid.pulled_back(weighted, message[1], step.grid_step, settings.filter)
        largest = max(float(windows.max(initial=0.0)), elsewhere)
        message = windows / largest, elsewhere / largest
    estimates: list[TrackEstimate] = []
    for number, (step, mass) in enumerate(zip(steps, reversed(masses), strict=True)):
        follows = number + 1 < len(steps) and steps[number + 1].registers
        before = (estimates[-1], steps[number - 1].frame) if estimates else None
        registers = step.registers or follows
        estimates.append(_estimate(step.frame, "smoothed", mass, registers, step.evidence, before, plane, settings))
    return estimates


def searched_places(estimate: TrackEstimate, frame: RankedFrame, plane: LocalPlane, count: int = 10) -> list[LonLat]:
    """Where to register a frame of a map too large to look at whole: where its track has it, then its hits' places."""
    tracked = [estimate.ground, *(place.location for place in estimate.alternatives)]
    rows = sorted((row for hits in frame.hits for row in hits.rows.tolist()), key=lambda row: row[3])
    places = [place for place in tracked if place is not None]
    places += [plane.location(east, north) for east, north in dict.fromkeys((row[0], row[1]) for row in rows)]
    return places[:count]


class _RankTracker:
    """What a track remembers from one frame to the next."""

    def __init__(self, grid: ReferenceGrid, plane: LocalPlane, settings: RankTrackSettings) -> None:
        self._grid, self._plane, self._settings = grid, plane, settings
        self._mass = rank_grid.no_mass(settings.filter)
        self._motion: Displacement | None = None  # the latest that is known
        self._hits: Sequence[RankedHits] = ()  # the latest that were evidence
        self._before: tuple[TrackEstimate, RankedFrame] | None = None

    def step(self, frame: RankedFrame) -> RankStep:
        settings, before = self._settings.filter, self._mass
        motion: GridMotion | None = None
        is_evidence = registers(frame.motion, frame.motion_source, is_first=self._before is None)
        if self._before is not None:
            headings_deg = self._before[1].heading_deg, frame.heading_deg
            displacement = frame.motion or guessed_displacement(
                self._motion, frame.footprint_m, headings_deg, frame.length_bounds_m
            )
            motion = rank_grid.grid_motion(displacement, before.carry, before.turned_deg, self._grid.cell_m, settings)
        evidence = RankEvidence()
        if is_evidence:
            evidence = rank_grid.rank_evidence(frame.hits, self._hits, settings)
            self._hits = frame.hits
        moved = rank_grid.spread(before.windows, motion, settings)
        grid_step, mass = self._pushed(moved, motion, evidence)
        weighted = _weighted(mass.windows, frame, evidence, mass, grid_step, self._grid, self._settings)
        self._mass = _normalised(replace(mass, windows=weighted))
        placed = _placed(self._mass, self._grid, self._settings)
        estimate = _estimate(frame, "causal", placed, is_evidence, evidence, self._before, self._plane, self._settings)
        self._motion = frame.motion or self._motion
        self._before = estimate, frame
        bare = replace(self._mass, windows=np.zeros((0, *self._mass.windows.shape[1:])))
        sparse = _sparse(self._mass.windows, settings.least_cell) if self._settings.keeps_mass else None
        return RankStep(estimate, frame, is_evidence, grid_step, evidence, bare, sparse)

    def _pushed(self, moved: Floats, motion: GridMotion | None, evidence: RankEvidence) -> tuple[GridStep, GridMass]:
        """The next frame's windows, and the mass in them before its evidence."""
        settings, before = self._settings.filter, self._mass
        settled = self._before is not None and self._before[0].probability >= settings.settled
        moves, corners = rank_grid.next_windows(moved, before.corners, settled, settings)
        if not settled:
            corners = rank_grid.with_hits(corners, evidence, self._grid, settings)
        carry, turned_deg = (before.carry, before.turned_deg) if motion is None else (motion.carry, motion.turned_deg)
        bins, side = settings.heading_bins, settings.window_cells
        mass = GridMass(np.zeros((len(corners), 2, bins, side, side)), corners, 0.0, carry, turned_deg)
        covered = rank_grid.covered_cells(mass, self._grid)
        entries = covered.sum((1, 2, 3)) / (bins * self._grid.cells)
        share = settings.begins if self._before is None else settings.enters
        entries *= share * min(1.0, 1.0 / max(float(entries.sum()), 1e-12))
        grid_step = GridStep(motion, moves, entries, covered)
        windows, elsewhere = rank_grid.pushed(before, moved, grid_step, settings)
        return grid_step, replace(mass, windows=windows, elsewhere=elsewhere)


def _weighted(
    windows: Floats,
    frame: RankedFrame,
    evidence: RankEvidence,
    mass: GridMass,
    step: GridStep,
    grid: ReferenceGrid,
    settings: RankTrackSettings,
) -> Floats:
    """Windows times their frame's evidence; `mass` tells where they lie."""
    weighted = windows.copy()
    if evidence.hits and len(windows):
        weighted[:, SEEING] *= rank_grid.likelihoods(evidence, mass, step.covered, grid, settings.filter)
    if frame.heading_deg is not None:
        bins = settings.filter.heading_bins
        headings = 360.0 / bins * np.arange(bins) + mass.turned_deg
        sd_deg = math.hypot(frame.heading_sd_deg, 360.0 / bins / math.sqrt(12))
        away = geo.signed_difference_deg(frame.heading_deg, headings)
        ratio = np.exp(-0.5 * (away / sd_deg) ** 2)
        weighted *= (ratio / ratio.mean())[:, None, None]
    return weighted


def _normalised(mass: GridMass) -> GridMass:
    total = mass.total
    return replace(mass, windows=mass.windows / total, elsewhere=mass.elsewhere / total)


def _sparse(windows: Floats, least_share: float) -> SparseMass:
    flat = windows.ravel()
    cells = np.flatnonzero(flat > least_share * flat.max(initial=0.0))
    return SparseMass(windows.shape, cells.astype(np.int32), flat[cells].astype(np.float32))


# --- the answer ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Mode:
    """A disc of much mass: its mean (east, north) and covariance in metres, its headings, and the share that sees."""

    probability: float
    mean: Floats
    covariance: Floats
    heading_deg: float
    heading_sd_deg: float


@dataclass(frozen=True, slots=True, eq=False)
class _PlacedMass:
    """A mass read out: its modes, heaviest first."""

    modes: tuple[_Mode, ...]
    p_off_map: float
    p_blind: float


def _placed(mass: GridMass, grid: ReferenceGrid, settings: RankTrackSettings) -> _PlacedMass:
    """Of a mass whose sum is 1."""
    covered = rank_grid.covered_cells(mass, grid)
    return _PlacedMass(
        tuple(_modes(mass, grid, settings)),
        float((mass.windows.sum(1) * ~covered).sum()),
        float(mass.windows[:, BLIND].sum()),
    )


def _modes(mass: GridMass, grid: ReferenceGrid, settings: RankTrackSettings) -> Iterator[_Mode]:
    """The heaviest disc, and lighter ones apart from it."""
    radius = max(grid.stride_m, settings.least_mode_m) / grid.cell_m
    cells = mass.windows.sum(1)  # [W, H, n, n]
    for _ in range(1 + settings.most_alternatives):
        sums = _disc_sums(cells.sum(1), radius)
        if not sums.size:
            return
        window, row, column = np.unravel_index(int(sums.argmax()), sums.shape)
        number = int(window)
        axes = rank_grid.window_axes(mass, number)
        middle = np.array([column, row], float) + mass.corners[number]
        inside, weights, positions = np.zeros(cells.shape[1:], np.bool_), np.zeros(0), np.zeros((0, 2))
        for _ in range(3):  # the lattice of a heading lies up to half a cell beside the window's
            away2 = np.square(axes - middle[:, None])
            inside = away2[:, 0, None, :] + away2[:, 1, :, None] <= radius**2
            heading, north, east = np.nonzero(inside)
            weights = cells[number][inside]
            if not float(weights.sum()) > 0:
                return
            positions = np.stack([axes[heading, 0, east], axes[heading, 1, north]], -1)
            middle = np.average(positions, axis=0, weights=weights)
        probability = float(weights.sum())
        if probability < settings.least_alternative:
            return
        away = (positions - middle) * grid.cell_m
        covariance = (away * weights[:, None]).T @ away / probability + grid.cell_m**2 / 12 * np.eye(2)
        per_heading = (cells[number] * inside).sum((1, 2))
        heading_deg, heading_sd_deg = _mean_heading(per_heading, mass.turned_deg)
        mean = np.asarray(grid.origin) + middle * grid.cell_m
        yield _Mode(probability, mean, covariance * settings.ellipse_factor**2, heading_deg, heading_sd_deg)
        cells[number] = np.where(inside, 0.0, cells[number])


def _disc_sums(cells: Floats, radius: float) -> Floats:
    """float64 [W, n, n]: the sum of the cells within a radius of each."""
    reach = math.floor(radius)
    padded = np.pad(cells, ((0, 0), (reach, reach), (reach, reach)))
    side = cells.shape[-1]
    sums = np.zeros_like(cells)
    for north, east in itertools.product(range(-reach, reach + 1), repeat=2):
        if math.hypot(north, east) <= radius:
            sums += padded[:, reach + north : reach + north + side, reach + east : reach + east + side]
    return sums


def _mean_heading(weights: Floats, turned_deg: float) -> tuple[float, float]:
    """(mean, standard deviation) of headings in bins, in degrees."""
    bins = len(weights)
    angles = 2 * math.pi * np.arange(bins) / bins
    vector = complex(np.exp(1j * angles) @ weights / weights.sum())
    length = min(max(abs(vector), 1e-9), 1.0)
    spread_deg = math.degrees(math.sqrt(-2.0 * math.log(length)))
    mean_deg = (math.degrees(math.atan2(vector.imag, vector.real)) + turned_deg) % 360.0
    return mean_deg, math.hypot(spread_deg, 360.0 / bins / math.sqrt(12))


def _estimate(
    frame: RankedFrame,
    mode: TrackMode,
    placed: _PlacedMass,
    registers: bool,
    evidence: RankEvidence,
    previous: tuple[TrackEstimate, RankedFrame] | None,
    plane: LocalPlane,
    settings: RankTrackSettings,
) -> TrackEstimate:
    best = placed.modes[0] if placed.modes else None
    before = None if previous is None else previous[0]
    was_claimed = before is not None and before.claimed
    ever_claimed = before is not None and (before.claimed or before.state == "lost")
    probability = best.probability if best is not None else 0.0
    claims = best is not None and registers and probability >= (settings.dropped if was_claimed else settings.claimed)
    resets = 0 if before is None else before.reset_counter
    estimate = TrackEstimate(
        frame.index, mode, track_state(claims, was_claimed, ever_claimed), None, None, None, None, None, None,
        probability, placed.p_off_map, placed.p_blind, frame.motion_source, resets,
        bool(evidence.hits) and placed.p_blind < 0.5, None,
        tuple(
            AlternativePlace(plane.location(*mode.mean.tolist()), mode.heading_deg, mode.probability)
            for mode in placed.modes[1 if claims else 0 :]
        ),
    )  # fmt: skip
    if not claims or best is None:
        return estimate
    covariance = np.zeros((4, 4))
    covariance[:2, :2] = best.covariance
    covariance[2, 2] = best.heading_sd_deg**2
    mean = np.array([*best.mean, best.heading_deg, 0.0])
    estimate = replace(located_estimate(estimate, mean, covariance, plane, 0.0), scale=None)
    if previous is None:
        return replace(estimate, reset_counter=resets + 1)
    speed = speed_mps(previous[0], estimate, seconds_between(previous[1].time_s, frame.time_s))
    jumps = not was_claimed or _jumped(previous[0], estimate, frame.motion, plane)
    return replace(estimate, speed_mps=speed, reset_counter=resets + (1 if jumps else 0))


def _jumped(before: TrackEstimate, after: TrackEstimate, motion: Displacement | None, plane: LocalPlane) -> bool:
    """Whether a place is farther than its step and 3σ from the one before."""
    if before.ground is None or after.ground is None or motion is None or after.ground_covariance_m2 is None:
        return False
    apart_m = math.dist(plane.metres(before.ground), plane.metres(after.ground))
    return apart_m - motion.length_m > 3.0 * math.sqrt(float(np.trace(after.ground_covariance_m2.matrix())))
