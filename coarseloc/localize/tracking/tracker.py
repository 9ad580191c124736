"""A flight's track out of motion and fixes, one estimate a frame, causal; and the smoothed one after it. Pure numpy.

Where to look: around the heaviest hypothesis while its probability is at least a half; on the whole map below that,
after three misses in a row, after a first one once several displacements were guessed, after a strong measurement that
is none of it, or once nobody knows within 0.6 footprints; nowhere off the map, and for a frame that does not register
with the one before: cloud registers with nothing, and costs no search and no false match.

What is claimed: a probability of 0.9, kept down to 0.7, of a lineage that holds a strong measurement (frames that
overlap repeat their errors: weak ones add up to certainty over a lake), after at most one guessed displacement, and up
to a standard deviation of 0.15 footprints; no frame that neither its fix nor its own motion tells: a cloud's first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from coarseloc.core import geo
from coarseloc.core.tracks import AlternativePlace, MotionSource, TrackEstimate, TrackSearch, TrackState
from coarseloc.core.types import Covariance, Floats, LonLat
from coarseloc.localize.tracking import kalman
from coarseloc.localize.tracking.kalman import (
    EAST,
    HEADING,
    LOG_SCALE,
    NORTH,
    FilteredStep,
    FilterSettings,
    FrameEvidence,
    PoseHypothesis,
    PoseMeasurement,
    PoseMixture,
)
from coarseloc.localize.tracking.motion import Displacement, guessed_displacement, registers


@dataclass(frozen=True, slots=True)
class LocalPlane:
    """Metres east and north of a position, on the plane that touches the Earth there."""

    origin: LonLat

    def metres(self, location: LonLat) -> tuple[float, float]:
        return geo.offset_m(self.origin, location)

    def location(self, east_m: float, north_m: float) -> LonLat:
        return geo.offset(self.origin, float(east_m), float(north_m))


class PlaceSearch(Protocol):
    """One frame, to be laid on the map. States are float64 [4] of `kalman`, in metres of the track's plane."""

    def around(self, state: Floats, covariance: Floats) -> Sequence[PoseMeasurement]:
        """Where the frame lies about an expected state, if anywhere."""
        ...

    def everywhere(self) -> Sequence[PoseMeasurement]:
        """Where the frame lies on the whole map, if anywhere: its best places, with what tells each from the rest."""
        ...


class FrameSearch(PlaceSearch, Protocol):
    """The same, that tells where the map is too."""

    def coverage(self, state: Floats) -> float:
        """The share of the frame that would lie on the map."""
        ...


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """One frame of a flight. `motion`: from the frame before, None where that is not known, and of the first one.
    `time_s`: of the flight's own clock, None where nobody knows. `heading_deg`: a label's, where these are taken.
    `length_bounds_m`: (least, most) of its displacement, where a speed tells them."""

    index: int
    footprint_m: float
    search: FrameSearch
    motion: Displacement | None = None
    motion_source: MotionSource = "frames"
    time_s: float | None = None
    heading_deg: float | None = None
    length_bounds_m: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class TrackerSettings:
    """What decides a track beside its frames."""

    claimed: float = 0.9  # probability from which a place is claimed
    dropped: float = 0.7  # below which it no longer is
    searched_nearby: float = 0.5  # below it the whole map is searched
    most_misses: int = 3  # in a row, before the whole map is searched
    most_guessed: int = 1  # displacements, after more of which one miss is enough
    most_sd_footprints: float = 0.6  # of a place that is looked for nearby
    least_coverage: float = 0.6  # of a frame on the map that is looked for
    most_coasted: int = 1
    most_claimed_sd_footprints: float = 0.15  # along the ellipse's longer axis: dead reckoning ends here
    scale_tether_sd: float = 0.25  # of one frame's scale about its lineage's mean: holds a drift, not a change
    mode_footprints: float = 0.25  # hypotheses nearer than this are one place
    map_sd_m: float = 1.0  # the map's own registration error, per axis; added at read-out, never averaged away
    least_alternative: float = 0.02
    filter: FilterSettings = field(default_factory=FilterSettings)
    keeps_lineage: bool = True  # for smoothing; memory grows by a kilobyte a frame


DEFAULTS = TrackerSettings()


@dataclass(frozen=True, slots=True, eq=False)
class CausalStep:
    """A frame's causal estimate, and what smoothing needs beside it. `lineage`: of the hypothesis it is of."""

    estimate: TrackEstimate
    time_s: float | None
    lineage: FilteredStep | None = field(default=None, repr=False)


def track(
    frames: Iterable[TrackedFrame], plane: LocalPlane, settings: TrackerSettings = DEFAULTS
) -> Iterator[CausalStep]:
    """One causal estimate a frame, as the frame comes. Deterministic."""
    tracker = _Tracker(plane, settings)
    for frame in frames:
        yield tracker.step(frame)


class _Tracker:
    """What a track remembers from one frame to the next."""

    def __init__(self, plane: LocalPlane, settings: TrackerSettings) -> None:
        self._plane, self._settings = plane, settings
        self._mixture = PoseMixture()
        self._previous: TrackedFrame | None = None
        self._motion: Displacement | None = None  # the latest that is known, in its own axes
        self._latest: CausalStep | None = None
        self._ever_claimed = False

    def step(self, frame: TrackedFrame) -> CausalStep:
        motion: Displacement | None = None
        if self._previous is not None:
            headings_deg = self._previous.heading_deg, frame.heading_deg
            motion = frame.motion or guessed_displacement(
                self._motion, frame.footprint_m, headings_deg, frame.length_bounds_m
            )
            measured = frame.motion is not None
            mixture = kalman.predict(self._mixture, motion, measured=measured, settings=self._settings.filter)
            self._mixture = kalman.tethered(mixture, self._settings.scale_tether_sd)
        searched, evidence = self._look(frame)
        mixture = kalman.update(self._mixture, evidence, self._settings.filter)
        self._mixture = replace(
            mixture, hypotheses=tuple(self._stepped(hypothesis, frame) for hypothesis in mixture.hypotheses)
        )
        step = self._read_out(frame, motion, searched)
        if frame.motion is not None:
            self._motion = frame.motion
        elif frame.motion_source == "none":
            self._motion = self._claimed_motion(step.estimate) or self._motion
        self._ever_claimed = self._ever_claimed or step.estimate.claimed
        self._previous, self._latest = frame, step
        return step

    def _look(self, frame: TrackedFrame) -> tuple[TrackSearch | None, FrameEvidence]:
        """The frame looked for where its hypotheses say."""
        settings, hypotheses = self._settings, self._mixture.hypotheses
        if not registers(frame.motion, frame.motion_source, is_first=self._previous is None):
            return None, FrameEvidence()
        on_map = [frame.search.coverage(hypothesis.mean) >= settings.least_coverage for hypothesis in hypotheses]
        most_m = settings.most_sd_footprints * frame.footprint_m
        wide = [self._sd_m(hypothesis) > most_m for hypothesis in hypotheses]
        if hypotheses and self._mode_mass(hypotheses[0], frame) >= settings.searched_nearby:
            best = hypotheses[0]
            if not wide[0]:
                if not on_map[0]:
                    return None, FrameEvidence()
                if best.misses < settings.most_misses:
                    measurements = frame.search.around(best.mean, best.covariance)
                    contradicted = any(self._contradicts(best, measurement) for measurement in measurements)
                    if not contradicted and (
                        best.coasted <= settings.most_guessed or self._confirmed(best, measurements)
                    ):
                        return "nearby", FrameEvidence(measurements, frozenset([0]))
        measurements = frame.search.everywhere()
        # The middle of a wide one may lie off the map where the frame does not.
        searched = frozenset(number for number in range(len(hypotheses)) if on_map[number] or wide[number])
        # Clutter over any map is so thin that the cap on a gain decides.
        return "map", FrameEvidence(measurements, searched, math.inf, births=True)

    def _claimed_motion(self, estimate: TrackEstimate) -> Displacement | None:
        """Between the last two claims, where nothing else tells it."""
        if self._latest is None or self._latest.estimate.ground is None or estimate.ground is None:
            return None
        start, end = self._plane.metres(self._latest.estimate.ground), self._plane.metres(estimate.ground)
        return Displacement(end[0] - start[0], end[1] - start[1], 0.0, 0.0, np.zeros((4, 4)), axes="ground")

    def _stepped(self, hypothesis: PoseHypothesis, frame: TrackedFrame) -> PoseHypothesis:
        """A hypothesis with this frame added to its lineage."""
        previous = hypothesis.lineage if self._settings.keeps_lineage else None
        step = FilteredStep(
            frame.index, hypothesis.mean, hypothesis.covariance, hypothesis.prediction, previous,
            hypothesis.measured, hypothesis.moved,
        )  # fmt: skip
        return replace(hypothesis, lineage=step)

    def _contradicts(self, hypothesis: PoseHypothesis, measurement: PoseMeasurement) -> bool:
        """Whether a place that nothing but the right one gives is none of a hypothesis: its odometry was wrong."""
        return measurement.strong and not kalman.within_gate(hypothesis, measurement, self._settings.filter)

    def _confirmed(self, hypothesis: PoseHypothesis, measurements: Sequence[PoseMeasurement]) -> bool:
        """Whether a place that is more likely right than wrong may be a hypothesis's: after guesses it need not be."""
        return any(
            measurement.log_ratio > 0.0 and kalman.within_gate(hypothesis, measurement, self._settings.filter)
            for measurement in measurements
        )

    def _sd_m(self, hypothesis: PoseHypothesis) -> float:
        """Along the longer axis of its place's ellipse."""
        return math.sqrt(float(np.linalg.eigvalsh(hypothesis.covariance[:2, :2])[-1]))

    def _mode_mass(self, best: PoseHypothesis, frame: TrackedFrame) -> float:
        """The mass of all hypotheses that are the same place."""
        radius_m = self._settings.mode_footprints * frame.footprint_m
        return math.fsum(
            hypothesis.weight
            for hypothesis in self._mixture.hypotheses
            if math.dist(hypothesis.mean[:2], best.mean[:2]) <= radius_m
        )

    def _read_out(self, frame: TrackedFrame, motion: Displacement | None, searched: TrackSearch | None) -> CausalStep:
        settings, hypotheses = self._settings, self._mixture.hypotheses
        before = None if self._latest is None else self._latest.estimate
        coverages = [frame.search.coverage(hypothesis.mean) for hypothesis in hypotheses]
        best = hypotheses[0] if hypotheses else None
        probability = 0.0 if best is None else self._mode_mass(best, frame)
        was_claimed = before is not None and before.claimed
        claims = (
            best is not None
            and best.strong
            and best.coasted <= settings.most_coasted
            and self._sd_m(best) <= settings.most_claimed_sd_footprints * frame.footprint_m
            and (best.measured or best.moved or frame.motion_source != "frames")
            and probability >= (settings.dropped if was_claimed else settings.claimed)
        )
        resets = 0 if before is None else before.reset_counter
        if claims and best is not None and (not was_claimed or self._jumped(best, motion)):
            resets += 1
        estimate = TrackEstimate(
            frame.index, "causal", track_state(claims, was_claimed, self._ever_claimed), None, None, None, None, None,
            None, probability,
            math.fsum(
                hypothesis.weight
                for hypothesis, coverage in zip(hypotheses, coverages, strict=True)
                if coverage < settings.least_coverage
            ),
            math.fsum(hypothesis.weight * hypothesis.blind for hypothesis in hypotheses),
            frame.motion_source, resets, best is not None and best.measured, searched,
            self._alternatives(frame, claims),
        )  # fmt: skip
        if claims and best is not None:
            estimate = located_estimate(estimate, best.mean, best.covariance, self._plane, settings.map_sd_m)
            if self._latest is not None:
                apart_s = seconds_between(self._latest.time_s, frame.time_s)
                estimate = replace(estimate, speed_mps=speed_mps(self._latest.estimate, estimate, apart_s))
        return CausalStep(estimate, frame.time_s, None if best is None else best.lineage)

    def _jumped(self, best: PoseHypothesis, motion: Displacement | None) -> bool:
        """Whether the place is more than 3σ from what the frame before let expect."""
        before = None if self._latest is None else self._latest.lineage
        if before is None or motion is None:
            return False
        expected = kalman.moved_state(before.mean, before.covariance, motion)
        apart = np.asarray(best.mean[:2] - expected.mean[:2])
        covariance = expected.covariance[:2, :2] + self._settings.map_sd_m**2 * np.eye(2)
        return kalman.mahalanobis2(apart, covariance) > 9.0

    def _alternatives(self, frame: TrackedFrame, claims: bool) -> tuple[AlternativePlace, ...]:
        """Hypotheses beside the claimed one, or all where none is."""
        hypotheses = self._mixture.hypotheses
        radius_m = self._settings.mode_footprints * frame.footprint_m
        return tuple(
            AlternativePlace(
                self._plane.location(*hypothesis.mean[:2].tolist()), float(hypothesis.mean[HEADING]), hypothesis.weight
            )
            for hypothesis in hypotheses
            if hypothesis.weight >= self._settings.least_alternative
            and not (claims and math.dist(hypothesis.mean[:2], hypotheses[0].mean[:2]) <= radius_m)
        )


def track_state(claims: bool, was_claimed: bool, ever_claimed: bool) -> TrackState:
    """The state of a frame, of what is claimed of it, of the one before, and of any before."""
    if claims:
        return "recovered" if ever_claimed and not was_claimed else "tracking"
    return "lost" if ever_claimed else "acquiring"


def located_estimate(
    estimate: TrackEstimate, mean: Floats, covariance: Floats, plane: LocalPlane, map_sd_m: float
) -> TrackEstimate:
    """An estimate with the place that a state says, and the map's own error."""
    ground = covariance[:2, :2] + map_sd_m**2 * np.eye(2)
    return replace(
        estimate,
        ground=plane.location(mean[EAST], mean[NORTH]),
        ground_covariance_m2=Covariance(float(ground[0, 0]), float(ground[0, 1]), float(ground[1, 1])),
        heading_deg=float(mean[HEADING]),
        heading_sd_deg=math.sqrt(float(covariance[HEADING, HEADING])),
        scale=math.exp(float(mean[LOG_SCALE])),
    )


def seconds_between(first_s: float | None, second_s: float | None) -> float | None:
    """None where either is unknown, or no time passed."""
    return second_s - first_s if first_s is not None and second_s is not None and second_s > first_s else None


def speed_mps(before: TrackEstimate, after: TrackEstimate, apart_s: float | None) -> float | None:
    """Over ground between two estimates in a row; None where either has no place, or no time is known."""
    if before.ground is None or after.ground is None or apart_s is None:
        return None
    return float(geo.ellipsoid_distance_m(*before.ground, *after.ground)) / apart_s
