"""The track of a whole flight: each lineage that was claimed, smoothed backward. Pure numpy.

Rauch, Tung and Striebel, "Maximum likelihood estimates of linear dynamic systems", AIAA Journal 1965:
x̂ = x + C (x̂' − x⁻),
P̂ = P + C (P̂' − P⁻) Cᵀ, C = P Fᵀ (P⁻)⁻¹, of a frame's filtered state and the next one's predicted and smoothed ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from coarseloc.core.tracks import TrackEstimate
from coarseloc.core.types import Floats
from coarseloc.localize.tracking.kalman import FilteredStep, corrected, residual
from coarseloc.localize.tracking.tracker import (
    DEFAULTS,
    CausalStep,
    LocalPlane,
    TrackerSettings,
    located_estimate,
    seconds_between,
    speed_mps,
    track_state,
)


def smoothed(
    steps: Sequence[CausalStep], plane: LocalPlane, settings: TrackerSettings = DEFAULTS
) -> list[TrackEstimate]:
    """The same frames' estimates by all of the flight.

    From its last claim a lineage is followed back to its birth, so that frames before the first claim have places too.
    A frame without measurement and without measured displacement is claimed by none.
    """
    states = _lineage_states(steps)
    smooth: list[TrackEstimate] = []
    ever_claimed = False
    time_s: float | None = None
    for step in steps:
        causal, before = step.estimate, smooth[-1] if smooth else None
        smoothed_state = states.get(causal.index)
        claims, was_claimed = smoothed_state is not None, before is not None and before.claimed
        state = track_state(claims, was_claimed, ever_claimed)
        resets = (before.reset_counter if before else 0) + (1 if claims and not was_claimed else 0)
        estimate = replace(
            causal, mode="smoothed", state=state, reset_counter=resets, ground=None, ground_covariance_m2=None,
            heading_deg=None, heading_sd_deg=None, scale=None, speed_mps=None,
        )  # fmt: skip
        if smoothed_state is not None:
            mean, covariance, probability, measured = smoothed_state
            probability = max(probability, causal.probability if causal.claimed else 0.0)
            estimate = replace(estimate, probability=probability, measured=measured)
            estimate = located_estimate(estimate, mean, covariance, plane, settings.map_sd_m)
            if before is not None:
                apart_s = seconds_between(time_s, step.time_s)
                estimate = replace(estimate, speed_mps=speed_mps(before, estimate, apart_s))
        smooth.append(estimate)
        ever_claimed, time_s = ever_claimed or claims, step.time_s
    return smooth


def _lineage_states(steps: Sequence[CausalStep]) -> dict[int, tuple[Floats, Floats, float, bool]]:
    """{frame: (mean, covariance, probability of the claim it is followed back from, whether it was measured)} of what
    is claimed."""
    states: dict[int, tuple[Floats, Floats, float, bool]] = {}
    covered: set[int] = set()  # frames of lineages, claimed or not
    for last in reversed(steps):
        estimate = last.estimate
        if not estimate.claimed or last.lineage is None or estimate.index in covered:
            continue
        for step, mean, covariance in smoothed_lineage(last.lineage):
            if step.frame in covered:
                break
            covered.add(step.frame)
            if step.measured or step.moved:
                states[step.frame] = (mean, covariance, estimate.probability, step.measured)
    return states


def smoothed_lineage(last: FilteredStep) -> Iterator[tuple[FilteredStep, Floats, Floats]]:
    """(step, smoothed mean, smoothed covariance) from a lineage's last frame back to its birth."""
    mean, covariance = last.mean, last.covariance
    yield last, mean, covariance
    after, step = last, last.previous
    while step is not None and after.prediction is not None:
        prediction = after.prediction
        gain = np.asarray(np.linalg.solve(prediction.covariance, prediction.slope @ step.covariance).T, np.float64)
        mean = corrected(step.mean, gain, residual(mean, prediction.mean))
        spread = step.covariance + gain @ (covariance - prediction.covariance) @ gain.T
        covariance = (spread + spread.T) / 2
        yield step, mean, covariance
        after, step = step, step.previous
