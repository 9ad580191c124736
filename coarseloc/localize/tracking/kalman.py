"""Where a frame may be: a few normal distributions, and the mass of "none of them". Pure numpy.

State: east and north of the frame's middle in local metres, heading in degrees clockwise from north, logarithm of the
frame's width on the ground over its expected one. A mixture's weights and its null mass sum to 1.

Each hypothesis is seeing or blind (over ground that does not register: another season's fields, water, cloud). With a
measurement z of likelihood ratio L (its picture's own: right place against wrong), innovation covariance S and clutter
uniform over a volume V, a hypothesis that was searched is worth

    blind · 1 + seeing · (miss + Σ min(L · V · N(z; x, S), cap)),

one that was not, and the null, 1. On a whole map the null bears a hypothesis of L times its mass at each measurement.
Blackman and Popoli, "Design and Analysis of Modern Tracking Systems", 1999, §6 (multiple hypotheses); merging by the
Bhattacharyya distance, moments kept (Salmond, "Mixture Reduction Algorithms for Target Tracking in Clutter", 1990).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from coarseloc.core import geo
from coarseloc.core.types import Floats
from coarseloc.localize.tracking.motion import Displacement

EAST, NORTH, HEADING, LOG_SCALE = range(4)

_SCALES_OF_MEAN = 10  # measurements, at least


@dataclass(frozen=True, slots=True)
class FilterSettings:
    """What decides a filter's numbers beside its measurements."""

    log_ratio_bounds: tuple[float, float] = (-6.0, 9.0)  # of a measurement; the lower one is a miss too
    most_gain: float = 50.0  # of a hypothesis by one measurement: frames that overlap repeat their errors
    gate_sigmas: float = 4.0  # half the extent of the volume that a window's clutter is spread over
    gate_mahalanobis2: float = 25.0  # farther measurements are not of this hypothesis
    accepted: float = 0.9  # posterior from which a measurement is a hypothesis's without a doubt
    coincidence_log_ratio: float = 0.0  # from which a measurement out of all the map confirms a hypothesis
    goes_blind: float = 0.05  # from one frame to the next
    sees_again: float = 0.25
    leaves: float = 0.002  # of a hypothesis's mass to the null, from one frame to the next
    merged_distance: float = 0.1  # Bhattacharyya
    most_hypotheses: int = 6
    least_weight: float = 1e-4


DEFAULTS = FilterSettings()


@dataclass(frozen=True, slots=True, eq=False)
class PredictedState:
    """What a frame's state was expected to be, and its slope float64 [4, 4] by the state before."""

    mean: Floats
    covariance: Floats
    slope: Floats


@dataclass(frozen=True, slots=True, eq=False)
class FilteredStep:
    """One frame of a hypothesis's lineage: before and after its measurement. `prediction` is None at its birth."""

    frame: int
    mean: Floats
    covariance: Floats
    prediction: PredictedState | None
    previous: FilteredStep | None
    measured: bool
    moved: bool  # by a displacement that was measured


@dataclass(frozen=True, slots=True, eq=False)
class PoseHypothesis:
    """One place a frame may be: mean float64 [4], covariance float64 [4, 4], and what its lineage met."""

    weight: float
    mean: Floats
    covariance: Floats
    blind: float  # probability
    strong: bool = False  # its lineage holds a measurement that nothing but the right place gives
    misses: int = 0  # frames in a row that were searched in vain
    coasted: int = 0  # displacements guessed since its latest measurement
    measured: bool = False  # this frame
    moved: bool = False  # into this frame by a displacement that was measured
    log_scales: tuple[float, int] = (0.0, 0)  # their sum over its measurements, and how many
    prediction: PredictedState | None = None
    lineage: FilteredStep | None = None


@dataclass(frozen=True, slots=True)
class PoseMixture:
    """Hypotheses, heaviest first, and the mass of none of them."""

    hypotheses: tuple[PoseHypothesis, ...] = ()
    null: float = 1.0

    @property
    def total(self) -> float:
        return self.null + math.fsum(hypothesis.weight for hypothesis in self.hypotheses)


@dataclass(frozen=True, slots=True, eq=False)
class PoseMeasurement:
    """A frame laid on the map: mean float64 [4] and covariance float64 [4, 4], the map's own error left out.

    `log_ratio`: of the picture's likelihood at the right place and at a wrong one. `strong`: nothing but the right
    place is known to give it.
    """

    mean: Floats
    covariance: Floats
    log_ratio: float
    strong: bool = False


@dataclass(frozen=True, slots=True)
class FrameEvidence:
    """What a frame's search gave. `searched`: numbers of the hypotheses whose ground was looked at. `volume`: that
    clutter is spread over, in m² · degrees · 1, None for each hypothesis's own gate. `births`: the null was searched
    too."""

    measurements: Sequence[PoseMeasurement] = ()
    searched: frozenset[int] = field(default_factory=frozenset)
    volume: float | None = None
    births: bool = False


def predict(
    mixture: PoseMixture, motion: Displacement, *, measured: bool = True, settings: FilterSettings = DEFAULTS
) -> PoseMixture:
    """The mixture of the next frame. `measured`: the motion is; otherwise it is a guess, and hypotheses coast."""
    stays = 1.0 - settings.leaves
    hypotheses = tuple(_moved(hypothesis, motion, measured, settings) for hypothesis in mixture.hypotheses)
    hypotheses = tuple(replace(hypothesis, weight=stays * hypothesis.weight) for hypothesis in hypotheses)
    lost = settings.leaves * math.fsum(hypothesis.weight for hypothesis in mixture.hypotheses)
    return PoseMixture(hypotheses, mixture.null + lost)


def tethered(mixture: PoseMixture, sd: float) -> PoseMixture:
    """Scales drawn to their lineages' mean, once measurements tell one: a drift of the odometry's is held to what
    scales differ by, sd over the root of the frames it lasts."""
    return replace(mixture, hypotheses=tuple(_tethered(hypothesis, sd) for hypothesis in mixture.hypotheses))


def update(mixture: PoseMixture, evidence: FrameEvidence, settings: FilterSettings = DEFAULTS) -> PoseMixture:
    """The mixture after a frame's search, normalised, merged and pruned."""
    after: list[PoseHypothesis] = []
    for number, hypothesis in enumerate(mixture.hypotheses):
        if number in evidence.searched:
            after += _searched(hypothesis, evidence, settings)
        else:
            after.append(hypothesis)
    if evidence.births:
        for measurement in evidence.measurements:
            weight = mixture.null * (1.0 - settings.goes_blind) * math.exp(_clipped(measurement.log_ratio, settings))
            after.append(
                PoseHypothesis(
                    weight,
                    corrected(measurement.mean, np.eye(4), np.zeros(4)),
                    measurement.covariance,
                    0.0,
                    measurement.strong,
                    measured=True,
                )
            )
    total = mixture.null + math.fsum(hypothesis.weight for hypothesis in after)
    normalised = [replace(hypothesis, weight=hypothesis.weight / total) for hypothesis in after]
    return reduced(normalised, mixture.null / total, settings)


def reduced(hypotheses: Iterable[PoseHypothesis], null: float, settings: FilterSettings = DEFAULTS) -> PoseMixture:
    """Like hypotheses merged, the heaviest left; the mass of those that are dropped is the null's."""
    separate: list[PoseHypothesis] = []
    for hypothesis in sorted(hypotheses, key=lambda hypothesis: -hypothesis.weight):
        for number, heavier in enumerate(separate):
            if _distance(heavier, hypothesis) < settings.merged_distance:
                separate[number] = _merged(heavier, hypothesis)
                break
        else:
            separate.append(hypothesis)
    separate.sort(key=lambda hypothesis: -hypothesis.weight)
    remaining = [
        hypothesis for hypothesis in separate[: settings.most_hypotheses] if hypothesis.weight >= settings.least_weight
    ]
    dropped = math.fsum(hypothesis.weight for hypothesis in separate) - math.fsum(
        hypothesis.weight for hypothesis in remaining
    )
    return PoseMixture(tuple(remaining), null + max(dropped, 0.0))


def residual(measured: Floats, expected: Floats) -> Floats:
    """float64 [4] between two states, headings the short way round."""
    difference = np.asarray(measured - expected)
    difference[HEADING] = geo.signed_difference_deg(expected[HEADING], measured[HEADING])
    return difference


def corrected(mean: Floats, gain: Floats, innovation: Floats) -> Floats:
    """float64 [4]: a state moved by gain · innovation, its heading in [0, 360)."""
    state = np.asarray(mean + gain @ innovation)
    state[HEADING] %= 360.0
    return state


def mahalanobis2(innovation: Floats, covariance: Floats) -> float:
    return float(innovation @ np.linalg.solve(covariance, innovation))


def within_gate(hypothesis: PoseHypothesis, measurement: PoseMeasurement, settings: FilterSettings = DEFAULTS) -> bool:
    """Whether a measurement may be of a hypothesis."""
    innovation = residual(measurement.mean, hypothesis.mean)
    distance2 = mahalanobis2(innovation, hypothesis.covariance + measurement.covariance)
    return distance2 <= settings.gate_mahalanobis2


def moved_state(mean: Floats, covariance: Floats, motion: Displacement) -> PredictedState:
    """A state after a displacement, to first order."""
    heading, scale = math.radians(mean[HEADING]), math.exp(mean[LOG_SCALE])
    cos, sin = math.cos(heading), math.sin(heading)
    slope, noise = np.eye(4), np.eye(4)
    if motion.axes == "ground":
        east, north = motion.across_m, motion.along_m
    else:
        turn = scale * np.array([[cos, sin], [-sin, cos]])
        east, north = (turn @ (motion.across_m, motion.along_m)).tolist()
        slope[:2, HEADING] = math.radians(north), -math.radians(east)
        slope[:2, LOG_SCALE] = east, north
        noise[:2, :2] = turn
    moved = corrected(mean, np.eye(4), np.array([east, north, motion.turn_deg, motion.log_scale]))
    spread = slope @ covariance @ slope.T + noise @ motion.covariance @ noise.T
    return PredictedState(moved, (spread + spread.T) / 2, slope)


def _moved(
    hypothesis: PoseHypothesis, motion: Displacement, measured: bool, settings: FilterSettings
) -> PoseHypothesis:
    prediction = moved_state(hypothesis.mean, hypothesis.covariance, motion)
    blind = hypothesis.blind * (1.0 - settings.sees_again) + (1.0 - hypothesis.blind) * settings.goes_blind
    return replace(
        hypothesis,
        mean=prediction.mean,
        covariance=prediction.covariance,
        blind=blind,
        coasted=hypothesis.coasted + (0 if measured else 1),
        measured=False,
        moved=measured,
        prediction=prediction,
    )


def _tethered(hypothesis: PoseHypothesis, sd: float) -> PoseHypothesis:
    total, count = hypothesis.log_scales
    if count < _SCALES_OF_MEAN:
        return hypothesis
    column = hypothesis.covariance[:, LOG_SCALE]
    gain = column / (column[LOG_SCALE] + sd**2)
    mean = corrected(hypothesis.mean, gain[:, None], np.array([total / count - hypothesis.mean[LOG_SCALE]]))
    covariance = hypothesis.covariance - np.outer(gain, column)
    return replace(hypothesis, mean=mean, covariance=(covariance + covariance.T) / 2)


def _searched(hypothesis: PoseHypothesis, evidence: FrameEvidence, settings: FilterSettings) -> list[PoseHypothesis]:
    """What becomes of a hypothesis whose ground was looked at, weights not normalised."""
    seeing = 1.0 - hypothesis.blind
    miss = seeing * math.exp(settings.log_ratio_bounds[0])
    unmeasured = hypothesis.blind + miss
    children, masses = [], []
    for measurement in evidence.measurements:
        if evidence.births and measurement.log_ratio < settings.coincidence_log_ratio:
            continue
        child, gain = _measured(hypothesis, measurement, evidence.volume, settings)
        if child is None:
            continue
        mass = seeing * gain
        if gain >= 1.0 and mass >= settings.accepted * (mass + unmeasured):
            # Beyond doubt: what is left of the prediction would only widen it.
            return [replace(child, weight=hypothesis.weight * (mass + unmeasured))]
        children.append(child)
        masses.append(mass)
    after = [replace(child, weight=hypothesis.weight * mass) for child, mass in zip(children, masses, strict=True)]
    blind = hypothesis.blind / unmeasured if unmeasured > 0 else 0.0
    rest = replace(hypothesis, weight=hypothesis.weight * unmeasured, blind=blind, misses=hypothesis.misses + 1)
    return [rest, *after]


def _measured(
    hypothesis: PoseHypothesis, measurement: PoseMeasurement, volume: float | None, settings: FilterSettings
) -> tuple[PoseHypothesis | None, float]:
    """(the hypothesis with a measurement, what that is worth); None beyond its gate."""
    if not within_gate(hypothesis, measurement, settings):
        return None, 0.0
    innovation = residual(measurement.mean, hypothesis.mean)
    covariance = hypothesis.covariance + measurement.covariance
    distance2 = mahalanobis2(innovation, covariance)
    log_root = np.linalg.slogdet(covariance)[1] / 2
    # The ball of four dimensions: π²/2 · r⁴.
    gate = math.log(math.pi**2 / 2 * settings.gate_sigmas**4) + log_root
    log_volume = gate if volume is None else math.log(volume)
    log_density = -distance2 / 2 - 2 * math.log(2 * math.pi) - log_root
    log_gain = _clipped(measurement.log_ratio, settings) + log_volume + log_density
    gain = math.exp(min(log_gain, math.log(settings.most_gain)))
    kalman = np.asarray(np.linalg.solve(covariance, hypothesis.covariance).T, np.float64)
    rest = np.eye(4) - kalman
    # Joseph's form stays symmetric and positive.
    spread = rest @ hypothesis.covariance @ rest.T + kalman @ measurement.covariance @ kalman.T
    child = replace(
        hypothesis,
        mean=corrected(hypothesis.mean, kalman, innovation),
        covariance=(spread + spread.T) / 2,
        blind=0.0,
        strong=hypothesis.strong or measurement.strong,
        misses=0,
        coasted=0,
        measured=True,
        log_scales=(hypothesis.log_scales[0] + float(measurement.mean[LOG_SCALE]), hypothesis.log_scales[1] + 1),
    )
    return child, gain


def _clipped(log_ratio: float, settings: FilterSettings) -> float:
    low, high = settings.log_ratio_bounds
    return min(max(log_ratio, low), high)


def _distance(first: PoseHypothesis, second: PoseHypothesis) -> float:
    """Bhattacharyya's, of two normal distributions."""
    mean = (first.covariance + second.covariance) / 2
    logarithms = [np.linalg.slogdet(matrix)[1] for matrix in (mean, first.covariance, second.covariance)]
    apart = mahalanobis2(residual(second.mean, first.mean), mean)
    return float(apart / 8 + (logarithms[0] - (logarithms[1] + logarithms[2]) / 2) / 2)


def _merged(heavier: PoseHypothesis, lighter: PoseHypothesis) -> PoseHypothesis:
    """One distribution of the same mean and covariance; its lineage is the heavier one's."""
    weight = heavier.weight + lighter.weight
    share = lighter.weight / weight if weight > 0 else 0.0
    between = residual(lighter.mean, heavier.mean)
    covariance = (1 - share) * heavier.covariance + share * lighter.covariance
    covariance = covariance + share * (1 - share) * np.outer(between, between)
    blind = (1 - share) * heavier.blind + share * lighter.blind
    mean = corrected(heavier.mean, np.diag([share] * 4), between)
    return replace(heavier, weight=weight, mean=mean, covariance=covariance, blind=blind)
