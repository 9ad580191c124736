"""The mixture filter: against a filter by brute force on a grid, and properties that hold of any evidence."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coarseloc.localize.tracking.kalman import (
    DEFAULTS,
    FrameEvidence,
    PoseHypothesis,
    PoseMeasurement,
    PoseMixture,
    moved_state,
    predict,
    residual,
    tethered,
    update,
)
from coarseloc.localize.tracking.motion import Displacement, displacement_covariance

UNTOLD_SD = 1e5  # of a heading and a scale that a toy measurement does not tell


def hypothesis(east: float, north: float, sd_m: float = 5.0, weight: float = 0.9, heading: float = 0.0):
    covariance = np.diag(np.square([sd_m, sd_m, 1.0, 0.01]))
    return PoseHypothesis(weight, np.array([east, north, heading, 0.0]), covariance, 0.05, strong=True)


def measurement(east: float, north: float, log_ratio: float, sd_m: float = 3.0, heading: float = 0.0):
    covariance = np.diag(np.square([sd_m, sd_m, 0.5, 0.01]))
    return PoseMeasurement(np.array([east, north, heading, 0.0]), covariance, log_ratio)


def step(across: float, along: float, turn: float = 0.0, sd_m: float = 3.0) -> Displacement:
    return Displacement(across, along, turn, 0.0, displacement_covariance(sd_m, 0.4, 0.007))


# --- against brute force -------------------------------------------------------------------------


class Grid:
    """Mass over cells of 2 m x {seeing, blind}, and the null: the filter's model by plain sums."""

    def __init__(self, side_m: float = 240.0) -> None:
        self.axis = np.arange(-side_m / 2 + 1, side_m / 2, 2.0)
        self.area = side_m**2
        self.mass = np.zeros((2, len(self.axis), len(self.axis)))  # seeing or blind, north, east
        self.null = 1.0

    def density(self, east: float, north: float, sd_m: float) -> np.ndarray:
        """Of a normal distribution, per cell; sums to 1."""
        across, down = (np.exp(-0.5 * ((self.axis - value) / sd_m) ** 2) for value in (east, north))
        return np.outer(down, across) * 4.0 / (2 * math.pi * sd_m**2)

    def predict(self, east: float, north: float, sd_m: float) -> None:
        gone = DEFAULTS.leaves * self.mass.sum()
        kernels = [
            np.exp(-0.5 * ((self.axis[:, None] - self.axis[None] - value) / sd_m) ** 2)
            * 2.0 / (math.sqrt(2 * math.pi) * sd_m)
            for value in (north, east)
        ]  # fmt: skip
        seeing, blind = ((1 - DEFAULTS.leaves) * (kernels[0] @ plane @ kernels[1].T) for plane in self.mass)
        self.mass[0] = seeing * (1 - DEFAULTS.goes_blind) + blind * DEFAULTS.sees_again
        self.mass[1] = blind * (1 - DEFAULTS.sees_again) + seeing * DEFAULTS.goes_blind
        self.null += gone

    def update(self, places: list[tuple[float, float, float]], sd_m: float) -> None:
        """places: (east, north, log ratio) of measurements over all of the map."""
        worth = np.full(self.mass.shape[1:], math.exp(DEFAULTS.log_ratio_bounds[0]))
        births = np.zeros_like(worth)
        for east, north, log_ratio in places:
            density = self.density(east, north, sd_m)
            worth += math.exp(log_ratio) * self.area * density / 4.0
            births += self.null * (1 - DEFAULTS.goes_blind) * math.exp(log_ratio) * density
        self.mass[0] = self.mass[0] * worth + births
        total = self.mass.sum() + self.null
        self.mass /= total
        self.null /= total

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        plane = self.mass.sum(0) / self.mass.sum()
        east, north = np.meshgrid(self.axis, self.axis)
        mean = np.array([(plane * east).sum(), (plane * north).sum()])
        away = np.stack([east - mean[0], north - mean[1]])
        return mean, np.einsum("ayx,byx,yx->ab", away, away, plane)


def flat(hypothesis: PoseHypothesis) -> PoseHypothesis:
    """Its heading and scale known: the grid has none."""
    covariance = hypothesis.covariance.copy()
    covariance[2:] = covariance[:, 2:] = 0.0
    covariance[2:, 2:] = np.eye(2) * 1e-6
    return replace(hypothesis, covariance=covariance, mean=np.array([*hypothesis.mean[:2], 0.0, 0.0]))


def mixture_moments(mixture: PoseMixture) -> tuple[np.ndarray, np.ndarray]:
    weights = np.array([hypothesis.weight for hypothesis in mixture.hypotheses])
    means = np.array([hypothesis.mean[:2] for hypothesis in mixture.hypotheses])
    covariances = np.array([hypothesis.covariance[:2, :2] for hypothesis in mixture.hypotheses])
    mean = weights @ means / weights.sum()
    away = means - mean
    spread = np.einsum("h,hab->ab", weights, covariances + away[:, :, None] * away[:, None])
    return mean, spread / weights.sum()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_mixture_is_what_a_filter_by_brute_force_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    exact = replace(
        DEFAULTS, most_gain=1e12, accepted=2.0, gate_mahalanobis2=1e6, merged_distance=-1.0,
        most_hypotheses=5000, least_weight=0.0, coincidence_log_ratio=-math.inf,
    )  # fmt: skip
    grid, mixture = Grid(), PoseMixture()
    volume = grid.area * 2 * math.pi * UNTOLD_SD**2  # so that what is not told cancels
    position = rng.uniform(-40, 40, 2)
    for _ in range(4):
        sd_m = float(rng.uniform(5, 9))
        places = [(*(position + rng.normal(0, sd_m, 2)).tolist(), float(rng.uniform(-2, 3)))]
        if rng.random() < 0.6:
            places.append((*rng.uniform(-60, 60, 2).tolist(), float(rng.uniform(-4, 1))))
        covariance = np.diag(np.square([sd_m, sd_m, UNTOLD_SD, UNTOLD_SD]))
        measurements = [
            PoseMeasurement(np.array([east, north, 0.0, 0.0]), covariance, ratio) for east, north, ratio in places
        ]
        searched = frozenset(range(len(mixture.hypotheses)))
        mixture = update(mixture, FrameEvidence(measurements, searched, volume, births=True), exact)
        mixture = replace(mixture, hypotheses=tuple(map(flat, mixture.hypotheses)))
        grid.update(places, sd_m)
        assert mixture.null == pytest.approx(grid.null, rel=0.01)
        for expected, computed in zip(grid.moments(), mixture_moments(mixture), strict=True):
            assert computed == pytest.approx(expected, abs=0.1, rel=0.01)
        east, north = rng.uniform(-8, 8, 2).tolist()
        moved = Displacement(east, north, 0.0, 0.0, displacement_covariance(5.0, 0.0, 0.0), axes="ground")
        mixture = predict(mixture, moved, settings=exact)
        grid.predict(east, north, 5.0)
        position += np.array([east, north])


def test_without_clutter_it_is_a_kalman_filter() -> None:
    before, fix = hypothesis(0.0, 0.0, 4.0, 1.0), measurement(3.0, 0.0, 9.0, 3.0)
    after = update(PoseMixture((before,), 0.0), FrameEvidence([fix], frozenset([0]))).hypotheses[0]
    assert after.mean[0] == pytest.approx(3.0 * 16 / 25)
    assert after.covariance[0, 0] == pytest.approx(16 * 9 / 25)
    assert after.measured
    assert after.weight == pytest.approx(1.0)


# --- motion -------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    heading=st.floats(0, 360), log_scale=st.floats(-0.3, 0.3), across=st.floats(-300, 300), along=st.floats(-300, 300)
)
def test_the_slope_of_a_motion_is_that_of_differences(
    heading: float, log_scale: float, across: float, along: float
) -> None:
    mean, motion = np.array([10.0, 20.0, heading, log_scale]), step(across, along, 5.0)
    predicted = moved_state(mean, np.zeros((4, 4)), motion)
    for axis in range(4):
        change = np.zeros(4)
        change[axis] = 1e-5
        difference = residual(moved_state(mean + change, np.zeros((4, 4)), motion).mean, predicted.mean) / 1e-5
        assert predicted.slope[:, axis] == pytest.approx(difference, abs=2e-2)


def test_a_frame_flies_to_where_its_upper_edge_faces() -> None:
    eastward = moved_state(np.array([0.0, 0.0, 90.0, 0.0]), np.eye(4), step(0.0, 100.0))
    assert eastward.mean[:2] == pytest.approx([100.0, 0.0])
    to_the_right = moved_state(np.array([0.0, 0.0, 90.0, math.log(2)]), np.eye(4), step(50.0, 0.0, 300.0))
    assert to_the_right.mean[:3] == pytest.approx([0.0, -100.0, 30.0])
    over_ground = moved_state(np.array([0.0, 0.0, 90.0, 0.3]), np.eye(4), replace(step(7.0, 5.0), axes="ground"))
    assert over_ground.mean[:2] == pytest.approx([7.0, 5.0])


# --- any evidence -------------------------------------------------------------------------------


mixtures = st.lists(
    st.tuples(st.floats(-500, 500), st.floats(-500, 500), st.floats(1, 200), st.floats(0.01, 1)), max_size=8
).map(
    lambda rows: PoseMixture(
        tuple(
            hypothesis(east, north, sd, weight / (1 + sum(row[3] for row in rows))) for east, north, sd, weight in rows
        ),
        1 / (1 + sum(row[3] for row in rows)),
    )
)
evidences = st.builds(
    lambda rows, searched, births: FrameEvidence(
        [measurement(east, north, ratio, heading=heading) for east, north, ratio, heading in rows],
        frozenset(searched), 1e9 if births else None, births,
    ),
    st.lists(st.tuples(st.floats(-500, 500), st.floats(-500, 500), st.floats(-20, 20), st.floats(0, 360)), max_size=4),
    st.sets(st.integers(0, 7)), st.booleans(),
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(mixture=mixtures, evidence=evidences)
def test_mass_is_conserved_and_the_same_evidence_gives_the_same_mixture(
    mixture: PoseMixture, evidence: FrameEvidence
) -> None:
    moved = predict(mixture, step(30.0, 40.0, 10.0))
    after, again = update(moved, evidence), update(predict(mixture, step(30.0, 40.0, 10.0)), evidence)
    assert mixture.total == pytest.approx(1.0)
    assert moved.total == pytest.approx(1.0)
    assert after.total == pytest.approx(1.0)
    assert len(after.hypotheses) <= DEFAULTS.most_hypotheses
    assert after.null == again.null
    for first, second in zip(after.hypotheses, again.hypotheses, strict=True):
        assert first.weight == second.weight
        assert np.array_equal(first.mean, second.mean)
        assert np.linalg.eigvalsh(first.covariance).min() > 0
        assert 0 <= first.blind <= 1
        assert 0 <= first.mean[2] < 360


@settings(max_examples=40, deadline=None)
@given(mixture=mixtures, frames=st.integers(1, 6), searched=st.booleans())
def test_without_evidence_the_null_never_shrinks(mixture: PoseMixture, frames: int, searched: bool) -> None:
    for _ in range(frames):
        null = mixture.null
        mixture = predict(mixture, step(0.0, 80.0))
        numbers = frozenset(range(len(mixture.hypotheses))) if searched else frozenset()
        mixture = update(mixture, FrameEvidence((), numbers, births=searched))
        assert mixture.null >= null - 1e-12


def test_a_weak_measurement_from_nowhere_is_no_claim_and_a_strong_one_is() -> None:
    weak = update(PoseMixture(), FrameEvidence([measurement(0, 0, 0.5)], volume=1e9, births=True))
    assert weak.hypotheses[0].weight < 0.7
    strong = update(PoseMixture(), FrameEvidence([measurement(0, 0, 4.0)], volume=1e9, births=True))
    assert strong.hypotheses[0].weight > 0.9


def test_one_measurement_raises_odds_no_more_than_its_cap() -> None:
    before = PoseMixture((hypothesis(0, 0, weight=0.1),), 0.9)
    after = update(before, FrameEvidence([measurement(0, 0, 9.0)], frozenset([0]), 1e12))
    odds = after.hypotheses[0].weight / after.null
    assert odds == pytest.approx((0.1 / 0.9) * (0.95 * DEFAULTS.most_gain + 0.05), rel=0.01)


def test_misses_turn_a_hypothesis_blind_before_it_dies() -> None:
    mixture = PoseMixture((hypothesis(0, 0, weight=0.99),), 0.01)
    weights, blind = [], []
    for _ in range(4):
        mixture = update(predict(mixture, step(0, 0)), FrameEvidence((), frozenset([0])))
        weights.append(mixture.hypotheses[0].weight)
        blind.append(mixture.hypotheses[0].blind)
    assert mixture.hypotheses[0].misses == 4
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] > 0.4
    assert min(blind) > 0.9


def test_hypotheses_that_say_the_same_are_one_and_the_heavier_one_s_lineage_stays() -> None:
    twins = PoseMixture((hypothesis(0, 0, weight=0.6), replace(hypothesis(0.5, 0, weight=0.3), strong=False)), 0.1)
    after = update(twins, FrameEvidence())
    assert len(after.hypotheses) == 1
    assert after.hypotheses[0].weight == pytest.approx(0.9)
    assert after.hypotheses[0].strong
    assert after.hypotheses[0].mean[0] == pytest.approx(0.5 / 3)
    apart = PoseMixture((hypothesis(0, 0, weight=0.6), hypothesis(60, 0, weight=0.3)), 0.1)
    assert len(update(apart, FrameEvidence()).hypotheses) == 2


def test_a_heading_is_averaged_across_north() -> None:
    before = replace(hypothesis(0, 0, weight=1.0, heading=359.5), covariance=np.diag([25.0, 25.0, 1.0, 1e-4]))
    fix = PoseMeasurement(np.array([0.0, 0.0, 0.5, 0.0]), np.diag([9.0, 9.0, 1.0, 1e-4]), 5.0)
    after = update(PoseMixture((before,), 0.0), FrameEvidence([fix], frozenset([0]))).hypotheses[0]
    assert residual(after.mean, np.zeros(4))[2] == pytest.approx(0.0, abs=1e-9)


def test_a_drifting_scale_is_held_to_its_lineages_mean_and_a_place_with_it() -> None:
    """Dead reckoning whose odometry lets the scale grow by 1 % a frame."""
    drifting = replace(step(0.0, 80.0), log_scale=0.01)
    start = replace(hypothesis(0, 0), log_scales=(10 * 0.05, 10))
    free, held = (PoseMixture((replace(start, mean=np.array([0.0, 0.0, 0.0, 0.05])),)) for _ in range(2))
    for _ in range(40):
        free, held = predict(free, drifting), tethered(predict(held, drifting), 0.25)
    true_m = 40 * 80.0 * math.exp(0.05)
    errors = [abs(mixture.hypotheses[0].mean[1] - true_m) for mixture in (free, held)]
    assert errors[1] < 0.6 * errors[0]
    assert held.hypotheses[0].covariance[1, 1] < free.hypotheses[0].covariance[1, 1]
    assert np.linalg.eigvalsh(held.hypotheses[0].covariance).min() > 0
    unmeasured = PoseMixture((hypothesis(0, 0),))
    assert tethered(unmeasured, 0.25) == PoseMixture(unmeasured.hypotheses)
