"""Where a frame may be, by the ranks of its hits alone: mass on a grid. Pure numpy.

State: a cell of half a stride x the offset of the heading from the sum of all turns so far (unknown, constant but for
the turns' errors) x {seeing, blind}, in a few windows that follow the mass, and one state "elsewhere" beside them:
uniform over the map. A window costs the same on any map.

Evidence: a reference's rank within its own query is a p-value of "the frame is not here", p = (rank + 1) / (N + 1),
turned into a likelihood ratio by a calibrator whose mean is 1 under that hypothesis, so that no match needs no
threshold: L = ε + (1 − ε)(1 − aβ) p^(−aβ) (Vovk and Wang, "E-values: calibration, combination and applications", Annals
of Statistics 2021). β = sqrt(1 − ρ²) tempers a frame whose scores correlate with the former frame's by ρ. Between
references −ln p is interpolated; those out of the Top-K have a common one. Blind, off the coverage and elsewhere L is
1.

Motion: each heading's cells move with their frame (a lattice carried along: no mass is smeared by a shift that is no
whole number of cells), and spread by the discrete analogue of a normal distribution, exp(−v) I_n(v), of variance v
exactly at any v (Lindeberg, "Scale-space for discrete signals", IEEE TPAMI 1990). What leaves the windows is elsewhere.
A step is linear; `pulled_back` is its exact adjoint.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coarseloc.core import geo
from coarseloc.core.types import Bools, Floats
from coarseloc.localize.tracking.motion import Displacement

Ints = NDArray[np.int64]

SEEING, BLIND = 0, 1


@dataclass(frozen=True, slots=True)
class RankSettings:
    """What decides the filter's numbers beside its evidence."""

    exponent: float = 0.5  # a; above 0.6 ground that the encoder cannot see becomes confidently wrong
    floor: float = 0.2  # ε
    unranked: float = 0.7  # −ln p of references out of the Top-K
    heading_bins: int = 72  # 24 leave a bias of half a bin that a straight track adds up
    window_cells: int = 24  # a side
    most_windows: int = 6
    goes_blind: float = 0.05  # from one frame to the next
    sees_again: float = 0.25
    leaves: float = 0.002  # of a window's mass to elsewhere, from one frame to the next
    begins: float = 0.5  # of elsewhere, into the first frame's windows at most
    enters: float = 0.02  # of elsewhere, into later windows at most: a flight that begins off the map stays off it
    scale_sd: float = 0.04  # of a step's length: altitudes are not known better
    odometry_sd: float = 0.1  # of a step's length: what cells and bins round off
    settled: float = 0.6  # of the best place: no new windows from here on
    least_window: float = 1e-3  # mass, of one that is not the best, once settled
    least_cell: float = 1e-7  # of the largest one, that is kept for smoothing


DEFAULTS = RankSettings()


@dataclass(frozen=True, slots=True, eq=False)
class RankedHits:
    """The Top-K of one backbone for a frame. rows: float64 [K, 4], (east m, north m, heading °, rank from 1) of rotated
    tiles, best first; references: N, of how many."""

    rows: Floats
    references: int

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape[1] != 4 or len(self.rows) > self.references:
            raise ValueError(
                f"hits of shape {self.rows.shape} among {self.references} references: expected [K, 4], K at most that"
            )

    def informations(self) -> Floats:
        """float64 [K]: −ln p."""
        return np.asarray(np.log((self.references + 1) / self.rows[:, 3]))


def correlation(first: RankedHits, second: RankedHits, unranked: float) -> float:
    """Of two score fields −ln p over the same references, those out of the Top-K at a common one; 0 at least."""
    fields = [
        dict(zip(map(tuple, hits.rows[:, :3].tolist()), (hits.informations() - unranked).tolist(), strict=True))
        for hits in (first, second)
    ]
    count = max(first.references, second.references)
    sums = [math.fsum(scores.values()) for scores in fields]
    shared = math.fsum(value * fields[1].get(key, 0.0) for key, value in fields[0].items())
    variances = [
        math.fsum(value**2 for value in scores.values()) - total**2 / count
        for scores, total in zip(fields, sums, strict=True)
    ]
    if min(variances) <= 0:
        return 0.0
    return min(1.0, max(0.0, (shared - sums[0] * sums[1] / count) / math.sqrt(variances[0] * variances[1])))


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceGrid:
    """A reference set's ground: cells of half a stride, which of them a place covers, and how its tiles are turned.

    `covered`: bool [rows north, columns east]; the first one's middle is at `origin` (east, north) in metres.
    """

    stride_m: float
    heading_step_deg: float
    origin: tuple[float, float]
    covered: Bools

    @property
    def cell_m(self) -> float:
        return self.stride_m / 2

    @property
    def cells(self) -> int:
        """How many are covered."""
        return int(self.covered.sum())

    def covers(self, east: Floats, north: Floats) -> Bools:
        """Of positions in cells from the origin."""
        column, row = np.rint(east).astype(np.int64), np.rint(north).astype(np.int64)
        height, width = self.covered.shape
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        return np.asarray(inside & self.covered[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)])

    def in_cells(self, metres: Floats) -> Floats:
        """float64 [..., 2]: (east, north) in cells from the origin."""
        return np.asarray((metres - self.origin) / self.cell_m)


def reference_grid(places: Floats, stride_m: float, heading_step_deg: float) -> ReferenceGrid:
    """places: float64 [M, 2], (east, north) of the tiles' middles in metres; a place covers what is within ¾ stride."""
    if not len(places) or not stride_m > 0:
        raise ValueError(f"{len(places)} places {stride_m} m apart: expected at least one, and a distance above 0")
    cell_m = stride_m / 2
    origin = places.min(0) - cell_m
    middles = np.rint((places - origin) / cell_m).astype(np.int64)
    columns, rows = (middles.max(0) + 2).tolist()
    covered = np.zeros((rows, columns), np.bool_)
    for east, north in itertools.product((-1, 0, 1), repeat=2):
        covered[middles[:, 1] + north, middles[:, 0] + east] = True
    return ReferenceGrid(stride_m, heading_step_deg, (float(origin[0]), float(origin[1])), covered)


@dataclass(frozen=True, slots=True, eq=False)
class RankEvidence:
    """A frame's hits of one or more backbones, each with its temper β; `share`: the exponent of their product."""

    hits: tuple[RankedHits, ...] = ()
    tempers: tuple[float, ...] = ()
    share: float = 1.0


def rank_evidence(
    hits: Sequence[RankedHits], former: Sequence[RankedHits], settings: RankSettings = DEFAULTS
) -> RankEvidence:
    """Hits tempered by those of the frame that was used before; m backbones whose fields correlate by ρ̄ on average
    count with the exponent 1 / (1 + (m − 1) ρ̄)."""
    tempers = [1.0] * len(hits)
    for number, (latest, before) in enumerate(zip(hits, former, strict=False)):
        tempers[number] = math.sqrt(1.0 - correlation(latest, before, settings.unranked) ** 2)
    pairs = [correlation(a, b, settings.unranked) for a, b in itertools.combinations(hits, 2)]
    mean = sum(pairs) / len(pairs) if pairs else 0.0
    return RankEvidence(tuple(hits), tuple(tempers), 1.0 / (1.0 + (len(hits) - 1) * mean))


@dataclass(frozen=True, slots=True, eq=False)
class GridMotion:
    """One displacement on the grid, by heading bin: `rolls` int64 [H, 2] whole cells (east, north), `carry` float64
    [H, 2] where its lattice lies after it, in cells from the grid's; `variances` float64 [H, 2] in cells²,
    `turn_variance` in bins²; `turned_deg`: the sum of all turns after it."""

    rolls: Ints
    carry: Floats
    variances: Floats
    turn_variance: float
    turned_deg: float


def grid_motion(
    motion: Displacement, carry: Floats, turned_deg: float, cell_m: float, settings: RankSettings = DEFAULTS
) -> GridMotion:
    """carry float64 [H, 2] and turned_deg: before the displacement."""
    bins = settings.heading_bins
    width_deg = 360.0 / bins
    headings = width_deg * np.arange(bins) + turned_deg
    if motion.axes == "ground":
        moved = np.tile([motion.across_m, motion.along_m], (bins, 1))
        variances = np.tile(np.diag(motion.covariance)[:2], (bins, 1))
    else:
        cos, sin = np.cos(np.radians(headings)), np.sin(np.radians(headings))
        turns = np.stack([np.stack([cos, sin], 1), np.stack([-sin, cos], 1)], 1)  # [H, 2, 2]
        moved = turns @ (motion.across_m, motion.along_m)
        spread = turns @ motion.covariance[:2, :2] @ turns.transpose(0, 2, 1)
        # The arc that a bin's headings draw, and the scale along the step.
        arc = math.radians(width_deg) / math.sqrt(12)
        across = np.stack([moved[:, 1], -moved[:, 0]], 1)
        variances = spread[:, [0, 1], [0, 1]] + (arc * across) ** 2 + (settings.scale_sd * moved) ** 2
    variances = variances + (settings.odometry_sd * motion.length_m) ** 2
    position = carry + moved / cell_m
    rolls = np.rint(position).astype(np.int64)
    return GridMotion(
        rolls,
        position - rolls,
        variances / cell_m**2,
        float(motion.covariance[2, 2]) / width_deg**2,
        (turned_deg + motion.turn_deg) % 360.0,
    )


@dataclass(frozen=True, slots=True)
class WindowMove:
    """A window's mass goes to window `target` of the next frame, whose corner lies `shift` (east, north) cells from its
    own; elsewhere where that is None."""

    target: int | None
    shift: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class GridStep:
    """How one frame's mass becomes the next one's, before its evidence. `entries` float64 [W]: the share of elsewhere
    that enters each window; `covered` bool [W, H, n, n]: where it does, and where evidence counts."""

    motion: GridMotion | None
    moves: tuple[WindowMove, ...]
    entries: Floats
    covered: Bools


@dataclass(frozen=True, slots=True, eq=False)
class GridMass:
    """Mass in windows, float64 [W, 2, H, n, n] by (window, seeing or blind, heading, north, east), and elsewhere; sums
    to 1. `corners` int64 [W, 2]: (east, north) of each window's first cell. `carry`, `turned_deg`: see `GridMotion`."""

    windows: Floats
    corners: Ints
    elsewhere: float
    carry: Floats
    turned_deg: float

    @property
    def total(self) -> float:
        return self.elsewhere + float(self.windows.sum())


def no_mass(settings: RankSettings = DEFAULTS) -> GridMass:
    """All of it elsewhere."""
    bins, side = settings.heading_bins, settings.window_cells
    return GridMass(np.zeros((0, 2, bins, side, side)), np.zeros((0, 2), np.int64), 1.0, np.zeros((bins, 2)), 0.0)


# --- a step and its adjoint ---------------------------------------------------------------------


def spread(windows: Floats, motion: GridMotion | None, settings: RankSettings = DEFAULTS) -> Floats:
    """float64 [W, 2, H, n, n] after a displacement, in the same windows; what leaves them is missing."""
    if motion is None:
        return windows
    moved = (1.0 - settings.leaves) * _mixed(windows, _sight(settings))
    moved = _mixed_headings(moved, _turning(motion.turn_variance, settings.heading_bins))
    moved = _rolled(moved, motion.rolls)
    east, north = _kernels(motion.variances, settings.window_cells)
    return np.asarray(north @ moved @ east)


def gathered(windows: Floats, motion: GridMotion | None, settings: RankSettings = DEFAULTS) -> Floats:
    """The adjoint of `spread`. Kernels are symmetric."""
    if motion is None:
        return windows
    east, north = _kernels(motion.variances, settings.window_cells)
    moved = _rolled(np.asarray(north @ windows @ east), -motion.rolls)
    moved = _mixed_headings(moved, _turning(motion.turn_variance, settings.heading_bins))
    return (1.0 - settings.leaves) * _mixed(moved, _sight(settings).T)


def relocated(windows: Floats, moves: Sequence[WindowMove], count: int) -> Floats:
    """Mass of windows [W, …] in the next frame's [count, …]; what lies in none of them is missing."""
    placed = np.zeros((count, *windows.shape[1:]))
    for window, move in zip(windows, moves, strict=True):
        if move.target is not None:
            placed[move.target] += _shifted(window, move.shift[0], move.shift[1])
    return placed


def restored(windows: Floats, moves: Sequence[WindowMove]) -> Floats:
    """The adjoint of `relocated`."""
    placed = np.zeros((len(moves), *windows.shape[1:]))
    for number, move in enumerate(moves):
        if move.target is not None:
            placed[number] = _shifted(windows[move.target], -move.shift[0], -move.shift[1])
    return placed


def pushed(mass: GridMass, moved: Floats, step: GridStep, settings: RankSettings = DEFAULTS) -> tuple[Floats, float]:
    """(windows, elsewhere) of the next frame before its evidence: elsewhere's share of each window enters it, uniform
    over what is covered. moved: `spread` of the mass."""
    windows = relocated(moved, step.moves, len(step.entries))
    elsewhere = max(mass.total - float(windows.sum()), 0.0)
    return windows + elsewhere * _entries(step, settings), elsewhere * (1.0 - float(step.entries.sum()))


def pulled_back(
    windows: Floats, elsewhere: float, step: GridStep, settings: RankSettings = DEFAULTS
) -> tuple[Floats, float]:
    """The adjoint of `pushed`: of the next frame's messages, its evidence included, this frame's."""
    outside = elsewhere * (1.0 - float(step.entries.sum())) + float((_entries(step, settings) * windows).sum())
    # What leaves the windows arrives elsewhere, whose message that part gets.
    within = gathered(restored(windows - outside, step.moves), step.motion, settings)
    return within + outside, outside


def likelihoods(
    evidence: RankEvidence, mass: GridMass, covered: Bools, grid: ReferenceGrid, settings: RankSettings = DEFAULTS
) -> Floats:
    """float64 [W, H, n, n]: of the frame's hits where its middle lies there and it sees; 1 off the coverage."""
    logarithm = np.zeros(covered.shape)
    for hits, temper in zip(evidence.hits, evidence.tempers, strict=True):
        power = settings.exponent * temper
        information = _information(hits, mass, grid, settings)
        ratio = settings.floor + (1.0 - settings.floor) * (1.0 - power) * np.exp(power * information)
        logarithm += evidence.share * np.log(ratio)
    return np.where(covered, np.exp(logarithm), 1.0)


def window_axes(mass: GridMass, number: int) -> Floats:
    """float64 [H, 2, n]: where a window's columns lie east and its rows north, in cells from the grid's origin."""
    side = mass.windows.shape[-1]
    return np.asarray(mass.corners[number][:, None] + np.arange(side) + mass.carry[:, :, None])


def covered_cells(mass: GridMass, grid: ReferenceGrid) -> Bools:
    """bool [W, H, n, n]."""
    covered = np.zeros((len(mass.windows), *mass.windows.shape[2:]), np.bool_)
    for number in range(len(covered)):
        axes = window_axes(mass, number)
        covered[number] = grid.covers(axes[:, 0, None, :], axes[:, 1, :, None])
    return covered


def _information(hits: RankedHits, mass: GridMass, grid: ReferenceGrid, settings: RankSettings) -> Floats:
    """float64 [W, H, n, n]: −ln p, linear between neighbouring places and headings."""
    bins, side = settings.heading_bins, settings.window_cells
    values = hits.informations()
    middles = grid.in_cells(hits.rows[:, :2])  # [K, 2]
    axis = mass.corners[:, None, None, :, None] + mass.carry[None, :, None, :, None] + np.arange(side)
    # [W, H, K, 2, n]: a stride is two cells.
    near = np.maximum(0.0, 1.0 - np.abs(axis - middles[None, None, :, :, None]) / 2.0)
    headings = 360.0 / bins * np.arange(bins) + mass.turned_deg
    away = np.abs(geo.signed_difference_deg(hits.rows[None, :, 2], headings[:, None]))  # [H, K]
    turned = np.maximum(0.0, 1.0 - away / min(grid.heading_step_deg, 180.0))
    above = (values - settings.unranked) * turned
    east, north = near[..., 0, :], near[..., 1, :] * above[None, :, :, None]
    information = settings.unranked + np.swapaxes(north, -1, -2) @ east
    return np.asarray(np.minimum(information, values.max(initial=settings.unranked)))


def _entries(step: GridStep, settings: RankSettings) -> Floats:
    """float64 [W, 2, H, n, n]: the share of elsewhere that enters each cell."""
    covered = step.covered / np.maximum(step.covered.sum((1, 2, 3), keepdims=True), 1)
    uniform = covered * step.entries[:, None, None, None]
    return np.stack([(1.0 - settings.goes_blind) * uniform, settings.goes_blind * uniform], 1)


def _sight(settings: RankSettings) -> Floats:
    """float64 [2, 2]: to (row) seeing or blind from (column)."""
    blind, sees = settings.goes_blind, settings.sees_again
    return np.array([[1.0 - blind, sees], [blind, 1.0 - sees]])


def _mixed(windows: Floats, sight: Floats) -> Floats:
    mixed = [row[SEEING] * windows[:, SEEING] + row[BLIND] * windows[:, BLIND] for row in sight]
    return np.stack(mixed, 1)


def _mixed_headings(windows: Floats, turning: Floats) -> Floats:
    shape = windows.shape
    return np.asarray((turning @ windows.reshape(*shape[:3], math.prod(shape[3:]))).reshape(shape))


def _rolled(windows: Floats, rolls: Ints) -> Floats:
    """Each heading's cells moved by whole cells; those that leave are missing."""
    moved = np.zeros_like(windows)
    for heading, (east, north) in enumerate(rolls.tolist()):
        target, source = _overlap(windows.shape[-1], east, north)
        moved[:, :, heading][..., *target] = windows[:, :, heading][..., *source]
    return moved


def _shifted(window: Floats, east: int, north: int) -> Floats:
    """Cells of a window in that whose corner lies (east, north) cells from its own."""
    placed = np.zeros_like(window)
    target, source = _overlap(window.shape[-1], -east, -north)
    placed[..., *target] = window[..., *source]
    return placed


def _overlap(side: int, east: int, north: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """(target, source) slices (north, east) of cells moved by so many."""
    spans = [
        (slice(max(0, by), min(side, side + by)), slice(max(0, -by), min(side, side - by))) for by in (north, east)
    ]
    if max(abs(east), abs(north)) >= side:
        spans = [(slice(0, 0), slice(0, 0))] * 2
    return (spans[0][0], spans[1][0]), (spans[0][1], spans[1][1])


def discrete_normal(variances: Floats, length: int) -> Floats:
    """float64 [..., length]: exp(−v) I_n(v) at n = 0 … length − 1, by its transform exp(v (cos ω − 1))."""
    period = 4 * length
    frequencies = 2.0 * math.pi * np.arange(period // 2 + 1) / period
    spectrum = np.exp(variances[..., None] * (np.cos(frequencies) - 1.0))
    return np.maximum(np.fft.irfft(spectrum, n=period)[..., :length], 0.0)


def _kernels(variances: Floats, side: int) -> tuple[Floats, Floats]:
    """(east, north), each float64 [H, n, n], symmetric."""
    taps = discrete_normal(variances, side)  # [H, 2, n]
    kernels = taps[..., _apart(side)]
    return kernels[:, 0], kernels[:, 1]


@functools.cache
def _apart(side: int) -> Ints:
    return np.asarray(np.abs(np.arange(side)[:, None] - np.arange(side)[None]), np.int64)


def _turning(variance: float, bins: int) -> Floats:
    """float64 [H, H], a circle's; symmetric."""
    frequencies = 2.0 * math.pi * np.arange(bins // 2 + 1) / bins
    taps = np.fft.irfft(np.exp(variance * (np.cos(frequencies) - 1.0)), n=bins)
    taps = np.maximum(taps, 0.0) / np.maximum(taps, 0.0).sum()
    return np.asarray(taps[(np.arange(bins)[:, None] - np.arange(bins)[None]) % bins])


# --- windows ------------------------------------------------------------------------------------


def next_windows(
    moved: Floats, corners: Ints, settled: bool, settings: RankSettings = DEFAULTS
) -> tuple[tuple[WindowMove, ...], Ints]:
    """(where each window's mass goes, corners of the next frame's windows): each follows its mass, those of like places
    become one, and the lightest are given up."""
    side = settings.window_cells
    planes = moved.sum((1, 2))  # [W, n, n]
    order = np.argsort(-planes.max((1, 2), initial=0.0), kind="stable")
    limit = settings.most_windows if settled else settings.most_windows - 2  # leaving room for this frame's hits
    moves = [WindowMove(None)] * len(moved)
    chosen: list[Ints] = []
    for place, number in enumerate(order.tolist()):
        total = float(planes[number].sum())
        if not total > 0 or (settled and place and total < settings.least_window):
            continue
        corner = corners[number] + _drift(planes[number], side)
        near = [index for index, former in enumerate(chosen) if np.abs(corner - former).max() <= side // 3]
        if not near and len(chosen) >= limit:
            continue
        if not near:
            chosen.append(corner)
        target = near[0] if near else len(chosen) - 1
        shift = chosen[target] - corners[number]
        moves[number] = WindowMove(target, (int(shift[0]), int(shift[1])))
    return tuple(moves), np.array(chosen, np.int64).reshape(-1, 2)


def with_hits(corners: Ints, evidence: RankEvidence, grid: ReferenceGrid, settings: RankSettings = DEFAULTS) -> Ints:
    """Corners of windows, and of new ones about hits that lie in none, the best hits first."""
    side = settings.window_cells
    border = min(3, side // 4)
    rows = [row for hits in evidence.hits for row in hits.rows]
    chosen = list(corners)
    for row in sorted(rows, key=lambda row: float(row[3])):
        if len(chosen) == settings.most_windows:
            break
        cell = np.rint(grid.in_cells(row[:2])).astype(np.int64)
        if not any((cell >= corner + border).all() and (cell < corner + side - border).all() for corner in chosen):
            chosen.append(cell - side // 2)
    return np.array(chosen, np.int64).reshape(-1, 2)


def _drift(plane: Floats, side: int) -> Ints:
    """int64 [2]: how far (east, north) a window's mass lies from its middle; 0 where that is near."""
    cells = np.arange(side) - (side - 1) / 2
    total = plane.sum()
    drift = np.rint(np.array([plane.sum(0) @ cells, plane.sum(1) @ cells]) / total).astype(np.int64)
    return drift if np.abs(drift).max() > side // 8 else np.zeros(2, np.int64)
