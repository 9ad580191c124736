"""The rank filter: its step and adjoint against a brute-force hidden Markov model, and what its track claims."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coarseloc.core.types import LonLat
from coarseloc.localize.tracking.motion import Displacement, displacement_covariance
from coarseloc.localize.tracking.rank_grid import (
    GridMass,
    GridStep,
    RankedHits,
    RankSettings,
    WindowMove,
    covered_cells,
    discrete_normal,
    grid_motion,
    likelihoods,
    pulled_back,
    pushed,
    rank_evidence,
    reference_grid,
    spread,
)
from coarseloc.localize.tracking.rank_track import (
    DEFAULTS,
    RankedFrame,
    RankStep,
    searched_places,
    smoothed_ranks,
    track_ranks,
)
from coarseloc.localize.tracking.tracker import LocalPlane

PLANE = LocalPlane(LonLat(127.0, 37.5))
STRIDE_M = 200.0
HEADINGS = np.arange(0.0, 360.0, 45.0)
SIDE, BINS = 6, 4
TOY = RankSettings(heading_bins=BINS, window_cells=SIDE)
FAST = replace(DEFAULTS, filter=RankSettings(heading_bins=24))


def lattice(side: int = 12) -> np.ndarray:
    """float64 [side², 2]: places a stride apart about the plane's origin."""
    axis = STRIDE_M * (np.arange(side) - (side - 1) / 2)
    return np.array(list(itertools.product(axis, axis)))


GRID = reference_grid(lattice(), STRIDE_M, 45.0)


def hits_at(east: float, north: float, heading: float, k: int = 10, worst: int = 0) -> RankedHits:
    """The k tiles nearest to a pose, as an encoder that sees would rank them, from rank `worst` + 1 on."""
    rows = [(*place, angle) for place in lattice().tolist() for angle in HEADINGS.tolist()]
    turned = [abs((angle - heading + 180) % 360 - 180) for *_, angle in rows]
    apart = [
        math.dist((e, n), (east, north)) / STRIDE_M + turn / 45 for (e, n, _), turn in zip(rows, turned, strict=True)
    ]
    best = np.argsort(apart, kind="stable")[:k]
    return RankedHits(np.array([(*rows[index], rank + worst) for rank, index in enumerate(best, 1)]), len(rows))


def motion(along_m: float = 80.0, turn_deg: float = 8.0, sd_m: float = 8.0) -> Displacement:
    return Displacement(0.0, along_m, turn_deg, 0.0, displacement_covariance(sd_m, 0.5, 0.007))


def path(frames: int, east: float = -500.0, north: float = 0.0, heading: float = 7.0) -> list[tuple[float, ...]]:
    poses = []
    for _ in range(frames):
        poses.append((east, north, heading))
        east += 80.0 * math.sin(math.radians(heading))
        north += 80.0 * math.cos(math.radians(heading))
        heading = (heading + 8.0) % 360
    return poses


def flight(poses: Sequence[tuple[float, ...]]) -> list[RankedFrame]:
    return [
        RankedFrame(number, 400.0, (hits_at(*pose),), motion() if number else None, time_s=float(number))
        for number, pose in enumerate(poses)
    ]


def errors_m(steps: Sequence[RankStep], poses: Sequence[tuple[float, ...]]) -> list[float]:
    """Of what is claimed."""
    return [
        math.dist(PLANE.metres(step.estimate.ground), pose[:2])
        for step, pose in zip(steps, poses, strict=True)
        if step.estimate.ground is not None
    ]


# --- against brute force --------------------------------------------------------------------------


def toy_step(rng: np.random.Generator, windows: int) -> tuple[GridMass, GridStep]:
    """A mass in 6 x 6 x 4 windows and a step of it: windows that move, become one, or are given up."""
    mass = rng.random((windows, 2, BINS, SIDE, SIDE))
    elsewhere = float(rng.uniform(0.1, 1.0 + mass.sum()))
    total = mass.sum() + elsewhere
    before = GridMass(
        mass / total, rng.integers(0, 8, (windows, 2)), elsewhere / total,
        rng.uniform(-0.5, 0.5, (BINS, 2)), float(rng.uniform(0, 360)),
    )  # fmt: skip
    displacement = Displacement(
        *rng.uniform(-120, 120, 2).tolist(), 20.0, 0.0, displacement_covariance(float(rng.uniform(1, 120)), 25.0, 0.01)
    )
    moved = grid_motion(displacement, before.carry, before.turned_deg, 100.0, TOY)
    count = 2
    moves = tuple(
        WindowMove(None)
        if rng.random() < 0.2
        else WindowMove(int(rng.integers(count)), (int(rng.integers(-2, 3)), int(rng.integers(-7, 8))))
        for _ in range(windows)
    )
    return before, GridStep(moved, moves, rng.uniform(0, 0.4, count), rng.random((count, BINS, SIDE, SIDE)) < 0.7)


def bessel_tap(variance: float, n: int) -> float:
    """exp(−v) I_n(v) by its series."""
    return math.exp(-variance) * math.fsum(
        (variance / 2) ** (2 * m + n) / (math.factorial(m) * math.factorial(m + n)) for m in range(60)
    )


def transition_matrix(before: GridMass, step: GridStep) -> np.ndarray:
    """The same step by loops over all pairs of states; the last state is elsewhere."""
    windows, count = len(before.windows), len(step.entries)
    shape = (2, BINS, SIDE, SIDE)
    states = list(itertools.product(*map(range, shape)))
    matrix = np.zeros((count * len(states) + 1, windows * len(states) + 1))
    sight = {(0, 0): 1 - TOY.goes_blind, (1, 0): TOY.goes_blind, (0, 1): TOY.sees_again, (1, 1): 1 - TOY.sees_again}
    motion_ = step.motion
    assert motion_ is not None
    turns = [
        math.fsum(bessel_tap(motion_.turn_variance, abs(bins + BINS * wrap)) for wrap in range(-9, 10))
        for bins in range(BINS)
    ]
    taps = [[[bessel_tap(v, n) for n in range(SIDE)] for v in pair] for pair in motion_.variances.tolist()]
    for window, move in enumerate(step.moves):
        if move.target is None:
            continue
        for column, (b, h, y, x) in enumerate(states):
            for b2, h2 in itertools.product(range(2), range(BINS)):
                # The turn comes first: a cell moves with its new heading.
                east, north = motion_.rolls[h2].tolist()
                y1, x1 = y + north, x + east
                if not (0 <= y1 < SIDE and 0 <= x1 < SIDE):
                    continue
                share = (1 - TOY.leaves) * sight[b2, b] * turns[(h2 - h) % BINS]
                for y2, x2 in itertools.product(range(SIDE), repeat=2):
                    y3, x3 = y2 - move.shift[1], x2 - move.shift[0]
                    if 0 <= y3 < SIDE and 0 <= x3 < SIDE:
                        row = move.target * len(states) + states.index((b2, h2, y3, x3))
                        matrix[row, window * len(states) + column] += (
                            share * taps[h2][0][abs(x2 - x1)] * taps[h2][1][abs(y2 - y1)]
                        )
    matrix[-1] = 1.0 - matrix[:-1].sum(0)
    entering = np.eye(len(matrix))
    for window, share in enumerate(step.entries.tolist()):
        covered = step.covered[window]
        for number, (b, h, y, x) in enumerate(states):
            part = share * covered[h, y, x] / covered.sum() * (TOY.goes_blind if b else 1 - TOY.goes_blind)
            entering[window * len(states) + number, -1] += part
            entering[-1, -1] -= part
    return entering @ matrix


@pytest.mark.parametrize("seed", range(2))
def test_a_step_and_its_adjoint_are_those_of_a_hidden_markov_model_by_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before, step = toy_step(rng, 1 + seed)
    matrix = transition_matrix(before, step)
    windows, elsewhere = pushed(before, spread(before.windows, step.motion, TOY), step, TOY)
    expected = matrix @ np.append(before.windows.ravel(), before.elsewhere)
    assert np.append(windows.ravel(), elsewhere) == pytest.approx(expected, abs=1e-12)
    messages = rng.random(len(matrix))
    back, outside = pulled_back(messages[:-1].reshape(windows.shape), float(messages[-1]), step, TOY)
    assert np.append(back.ravel(), outside) == pytest.approx(matrix.T @ messages, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), windows=st.integers(0, 3))
def test_a_step_conserves_mass_and_its_adjoint_keeps_inner_products(seed: int, windows: int) -> None:
    rng = np.random.default_rng(seed)
    before, step = toy_step(rng, windows)
    after, elsewhere = pushed(before, spread(before.windows, step.motion, TOY), step, TOY)
    assert after.min(initial=0.0) >= 0
    assert after.sum() + elsewhere == pytest.approx(1.0)
    message, outside = rng.random(after.shape), float(rng.random())
    back, back_outside = pulled_back(message, outside, step, TOY)
    forward = (after * message).sum() + elsewhere * outside
    assert (before.windows * back).sum() + before.elsewhere * back_outside == pytest.approx(forward)


@given(variance=st.floats(0, 30))
def test_the_kernel_of_a_motion_has_its_variance_exactly(variance: float) -> None:
    taps = discrete_normal(np.array(variance), 64)
    whole = np.concatenate([taps[:0:-1], taps])
    assert whole.sum() == pytest.approx(1.0)
    assert (whole * np.arange(-63, 64) ** 2).sum() == pytest.approx(variance, abs=1e-9)


def test_smoothing_is_forward_and_backward_of_the_same_model() -> None:
    """The posterior of any frame, multiplied out, has the same evidence: the total never depends on the frame."""
    poses = path(9)
    steps = list(track_ranks(flight(poses), GRID, PLANE, replace(FAST, filter=replace(FAST.filter, least_cell=0.0))))
    smooth = smoothed_ranks(steps, GRID, PLANE, FAST)
    last = steps[-1].estimate
    assert smooth[-1].probability == pytest.approx(last.probability, rel=1e-4)
    assert smooth[-1].p_blind == pytest.approx(last.p_blind, rel=1e-3)
    assert smooth[4].probability > steps[4].estimate.probability


# --- evidence ------------------------------------------------------------------------------------


def test_the_ratio_of_ranks_drawn_at_random_is_one_on_average() -> None:
    """Of a reference whose rank is uniform: what makes a threshold for "no match" needless."""
    ranks = np.arange(1, 20_001)
    for temper in (1.0, 0.6, 0.1):
        power = FAST.filter.exponent * temper
        ratio = FAST.filter.floor + (1 - FAST.filter.floor) * (1 - power) * (ranks / 20_001) ** -power
        assert ratio.mean() == pytest.approx(1.0, abs=0.02)


def mass_about(heading: float) -> GridMass:
    cells = FAST.filter.window_cells
    corner = np.rint(GRID.in_cells(np.zeros(2))).astype(np.int64) - cells // 2
    bins = FAST.filter.heading_bins
    return GridMass(np.zeros((1, 2, bins, cells, cells)), corner[None], 1.0, np.zeros((bins, 2)), heading)


def test_evidence_is_largest_at_the_best_hit_and_one_off_the_coverage() -> None:
    mass = mass_about(0.0)
    hit = RankedHits(np.array([[100.0, -100.0, 90.0, 1.0]]), 1151)
    evidence = rank_evidence([hit], [], FAST.filter)
    covered = covered_cells(mass, GRID)
    ratios = likelihoods(evidence, mass, covered, GRID, FAST.filter)
    heading, north, east = np.unravel_index(int(ratios[0].argmax()), ratios.shape[1:])
    assert heading == 6  # 90° of 15° bins
    position = (mass.corners[0] + (east, north)) * GRID.cell_m + GRID.origin
    assert position == pytest.approx([100.0, -100.0])
    assert ratios.max() == pytest.approx(0.2 + 0.8 * 0.5 * math.sqrt(1152))
    far = replace(mass, corners=mass.corners + 400)
    assert (likelihoods(evidence, far, covered_cells(far, GRID), GRID, FAST.filter) == 1.0).all()


def test_hits_that_repeat_count_less_and_the_very_same_not_at_all() -> None:
    first, near, far = hits_at(0, 0, 0), hits_at(60, 0, 0), hits_at(900, 500, 180)
    tempers = [rank_evidence([hits], [first], FAST.filter).tempers[0] for hits in (first, near, far)]
    assert tempers[0] == pytest.approx(0.0, abs=1e-6)
    assert tempers[0] < tempers[1] < tempers[2] <= 1.0


def test_backbones_that_agree_count_as_one_and_unrelated_ones_in_full() -> None:
    hits, unrelated = hits_at(0, 0, 0), hits_at(900, 500, 180)
    assert rank_evidence([hits, hits], [], FAST.filter).share == pytest.approx(0.5)
    assert rank_evidence([hits, unrelated], [], FAST.filter).share == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("shape", "references"), [((3, 3), 10), ((4, 4), 3)])
def test_hits_of_another_shape_or_more_than_references_are_refused(shape: tuple[int, int], references: int) -> None:
    with pytest.raises(ValueError, match=r"expected \[K, 4\]"):
        RankedHits(np.ones(shape), references)


def test_a_place_covers_its_ground_and_no_more() -> None:
    grid = reference_grid(np.array([[1000.0, -500.0]]), STRIDE_M, 45.0)
    east, north = np.moveaxis(
        grid.in_cells(np.array([[1000.0, -500.0], [1140, -500], [1160, -500], [1000, -660]])), -1, 0
    )
    assert grid.covers(east, north).tolist() == [True, True, False, False]
    with pytest.raises(ValueError, match="at least one"):
        reference_grid(np.zeros((0, 2)), STRIDE_M, 45.0)


# --- the track -----------------------------------------------------------------------------------


def test_a_flight_is_acquired_within_a_few_frames_and_followed_by_ranks_alone() -> None:
    poses = path(30)
    steps = list(track_ranks(flight(poses), GRID, PLANE, FAST))
    states = [step.estimate.state for step in steps]
    assert states[0] == "acquiring"
    assert states[8:] == ["tracking"] * 22
    assert max(errors_m(steps, poses)) < 120.0
    assert np.median(errors_m(steps[15:], poses[15:])) < 50.0
    last = steps[-1].estimate
    assert abs((last.heading_deg or 0) - poses[-1][2]) < 10.0  # of references 45° apart
    assert last.speed_mps == pytest.approx(80.0, abs=40.0)
    smooth = smoothed_ranks(steps, GRID, PLANE, FAST)
    assert all(estimate.claimed and estimate.mode == "smoothed" for estimate in smooth[1:])


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_hits_that_say_nothing_are_never_claimed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(25):
        places = lattice()[rng.integers(0, 144, 10)]
        rows = np.column_stack([places, rng.choice(HEADINGS, 10), np.arange(1, 11)])
        frames.append(RankedFrame(number, 400.0, (RankedHits(rows, 1152),), motion() if number else None))
    steps = list(track_ranks(frames, GRID, PLANE, FAST))
    assert not any(step.estimate.claimed for step in steps)
    assert not any(estimate.claimed for estimate in smoothed_ranks(steps, GRID, PLANE, FAST))


def test_frames_without_hits_are_never_claimed() -> None:
    frames = [RankedFrame(number, 400.0, (), motion() if number else None) for number in range(10)]
    steps = list(track_ranks(frames, GRID, PLANE, FAST))
    assert {step.estimate.state for step in steps} == {"acquiring"}
    assert steps[-1].estimate.probability == 0.0
    assert not any(estimate.claimed for estimate in smoothed_ranks(steps, GRID, PLANE, FAST))


def test_off_the_map_the_track_is_carried_on_and_comes_back() -> None:
    poses = path(45, 300.0, 300.0, 350.0)
    outside = [not GRID.covers(*GRID.in_cells(np.array(pose[:2]))) for pose in poses]
    assert 8 < sum(outside) < 40
    steps = list(track_ranks(flight(poses), GRID, PLANE, FAST))
    claimed = [step.estimate.claimed for step in steps]
    assert all(claimed[8:])
    assert max(errors_m(steps, poses)) < 350.0  # by bins of 15° dead reckoning is no better
    first = outside.index(True)
    assert max(step.estimate.p_off_map for step in steps[first : first + 6]) > 0.8


def test_cloud_is_no_evidence_and_nothing_is_claimed_across_it() -> None:
    poses = path(36)
    frames = flight(poses)
    cloudy = [
        replace(frame, motion=None, hits=(hits_at(900.0, 900.0, 0.0),)) if 14 <= frame.index < 22 else frame
        for frame in frames
    ]
    cloudy[22] = replace(cloudy[22], motion=None)
    steps = list(track_ranks(cloudy, GRID, PLANE, FAST))
    assert not any(step.estimate.claimed for step in steps[14:23])
    smooth = smoothed_ranks(steps, GRID, PLANE, FAST)
    assert not any(estimate.claimed for estimate in smooth[14:22])
    assert all(estimate.claimed for estimate in smooth[26:34])
    assert smooth[-1].reset_counter == 2


def test_a_yaw_label_decides_between_headings() -> None:
    poses = path(6)
    frames = [replace(frame, heading_deg=pose[2]) for frame, pose in zip(flight(poses), poses, strict=True)]
    labelled = list(track_ranks(frames, GRID, PLANE, FAST))
    plain = list(track_ranks(flight(poses), GRID, PLANE, FAST))
    assert labelled[2].estimate.probability > plain[2].estimate.probability
    assert (labelled[-1].estimate.heading_sd_deg or 99) < (plain[-1].estimate.heading_sd_deg or 0)


def test_places_to_register_a_frame_at_are_the_track_s_and_then_the_hits() -> None:
    poses = path(12)
    steps = list(track_ranks(flight(poses), GRID, PLANE, FAST))
    last = steps[-1]
    places = searched_places(last.estimate, last.frame, PLANE)
    assert places[0] == last.estimate.ground
    assert PLANE.metres(places[1]) == pytest.approx(last.frame.hits[0].rows[0][:2])
    assert len(set(places)) == len(places) <= 10
    unknown = searched_places(steps[0].estimate, steps[0].frame, PLANE, count=2)
    assert len(unknown) == 2


def test_a_track_is_causal_deterministic_and_costs_a_few_windows() -> None:
    frames = flight(path(16))
    steps, again = list(track_ranks(frames, GRID, PLANE, FAST)), list(track_ranks(iter(frames), GRID, PLANE, FAST))
    prefix = [step.estimate for step in track_ranks(frames[:9], GRID, PLANE, FAST)]
    assert [step.estimate for step in steps] == [step.estimate for step in again]
    assert [step.estimate for step in steps[:9]] == prefix
    assert len(steps[-1].mass.corners) == 1
    online = list(track_ranks(frames, GRID, PLANE, replace(FAST, keeps_mass=False)))
    assert [step.estimate for step in online] == [step.estimate for step in steps]
    with pytest.raises(ValueError, match="keep it"):
        smoothed_ranks(online, GRID, PLANE, FAST)
