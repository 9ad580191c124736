"""A flight's track: for each frame a state, where it lies if that is known, and how sure that is. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from coarseloc.core.types import Covariance, LonLat

TrackState = Literal["acquiring", "tracking", "lost", "recovered"]
MotionSource = Literal["frames", "file", "none"]
TrackMode = Literal["causal", "smoothed"]
TrackSearch = Literal["nearby", "map"]
TrackEvidence = Literal["ranks", "fixes", "both"]


@dataclass(frozen=True, slots=True)
class AlternativePlace:
    """Where else a frame may be."""

    location: LonLat
    heading_deg: float
    probability: float


@dataclass(frozen=True, slots=True)
class TrackEstimate:
    """Where a frame lies, by all frames so far ("causal") or all of the flight ("smoothed").

    Places, their covariances (the map's own error included), heading, scale and speed are None unless the state is
    tracking or recovered. `reset_counter` goes up where the position jumps: acquired, recovered, or moved more than 3σ
    from what was expected.
    """

    index: int
    mode: TrackMode
    state: TrackState
    ground: LonLat | None  # under the frame's middle
    ground_covariance_m2: Covariance | None
    heading_deg: float | None  # that the frame's upper edge faces, from true north
    heading_sd_deg: float | None
    scale: float | None  # of the frame's width on the ground over its expected one
    speed_mps: float | None
    probability: float
    p_off_map: float
    p_blind: float  # that the ground does not register: cloud, water, another season's fields
    odometry: MotionSource
    reset_counter: int
    measured: bool  # the map told this frame's place
    searched: TrackSearch | None = None
    alternatives: tuple[AlternativePlace, ...] = ()
    aircraft: LonLat | None = None  # where the line of sight's tilt is known
    aircraft_covariance_m2: Covariance | None = None

    @property
    def claimed(self) -> bool:
        return self.state in ("tracking", "recovered")

    @property
    def position(self) -> LonLat | None:
        """The aircraft's where that is known, else the ground's under the frame's middle."""
        return self.aircraft or self.ground

    @property
    def position_covariance_m2(self) -> Covariance | None:
        """Of `position`."""
        return self.aircraft_covariance_m2 or self.ground_covariance_m2


def continues(before: TrackEstimate, after: TrackEstimate) -> bool:
    """Whether a line may join the positions of two frames in a row: both are claimed, of the same point, without a
    jump between them."""
    return (
        before.claimed
        and after.claimed
        and before.reset_counter == after.reset_counter
        and (before.aircraft is None) == (after.aircraft is None)
    )
