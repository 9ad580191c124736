"""Frames of a track registered on a map: in one window about where they are expected, or on all of it. Imports torch.

About an expected place one scale is correlated, the expected one, and headings counted from the expected one: half as
many are as good, so are two rounds at the finest resolution, and a second round of places in doubt is left to the
filter. The window reaches as far as a search's candidates do, so that the probability fitted for those holds: what else
is in it is what a place has to stand out from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from coarseloc.core.camera import Camera, CameraAttitude
from coarseloc.core.types import Floats, LonLat, UInt8
from coarseloc.core.windows import WindowSource
from coarseloc.localize.registration.coarse import CandidateWindow, candidates_around, whole_map
from coarseloc.localize.registration.fix import FITTED, Logistic, ground_covariance, heading_sd_deg
from coarseloc.localize.registration.frame import FrameRaster
from coarseloc.localize.registration.geometry import FrameGeometry, attitude_perspective, frame_geometry
from coarseloc.localize.registration.registrar import Registration, register
from coarseloc.localize.registration.settings import DEFAULTS, RegistrationSettings
from coarseloc.localize.registration.spectra import Hypotheses
from coarseloc.localize.tracking.kalman import EAST, HEADING, LOG_SCALE, NORTH, PoseMeasurement
from coarseloc.localize.tracking.stored_fixes import PlacedFrame, share_inside
from coarseloc.localize.tracking.tracker import LocalPlane

NEARBY = replace(
    DEFAULTS, hypotheses=Hypotheses(scales=(1.0,), headings=24), refined=2, doubtful_score=0.0, finest_rounds=2
)

STRONG_NEARBY, STRONG_ON_MAP = 20 / 21, 0.9  # probabilities that nothing but the right place is known to have

_GATE_SIGMAS = 4.0
_MOST_REACH = 1.0  # footprints of a window's reach

MapWindows = Callable[[FrameGeometry, RegistrationSettings], Iterable[CandidateWindow]]
"""A map's windows for frames of a geometry: `whole_map`, or the same from a cache."""


@dataclass(frozen=True, slots=True)
class MapFrameSearch:
    """A `FrameSearch` of one picture on a map. pixels: RGB uint8 [H, W, 3]. attitude: the camera's, where labels tell
    it. windows: the whole map's, `whole_map` of the source by default. places: where a search says that the frame may
    be; all that is looked at of a map too large to be looked at whole."""

    pixels: UInt8
    footprint_m: float
    camera: Camera
    source: WindowSource
    plane: LocalPlane
    attitude: CameraAttitude | None = None
    windows: MapWindows | None = None
    device: str = "cpu"
    places: Sequence[LonLat] | None = None

    def coverage(self, state: Floats) -> float:
        """See `FrameSearch`: by the map's box."""
        return share_inside(
            self.source.bounds, self.plane, state, self.footprint_m, self.pixels.shape[0] / self.pixels.shape[1]
        )

    def around(self, state: Floats, covariance: Floats) -> Sequence[PoseMeasurement]:
        """See `FrameSearch`: the best place of one window."""
        scale = math.exp(float(state[LOG_SCALE]))
        frame = self._raster(self.footprint_m * scale)
        reach_m = _GATE_SIGMAS * math.sqrt(float(np.linalg.eigvalsh(covariance[:2, :2])[-1]))
        width_m = frame.geometry.footprint_m
        reach_m = min(max(reach_m, NEARBY.reach_footprints * width_m), _MOST_REACH * width_m)
        center = self.plane.location(state[EAST], state[NORTH])
        hypotheses = replace(NEARBY.hypotheses, first_deg=float(state[HEADING]))
        settings = replace(NEARBY, hypotheses=hypotheses)
        candidates = candidates_around(self.source, frame.geometry, [center], reach_m, settings)
        registration = self._registered(frame, candidates, settings, settings.refined)
        return self._measurements(registration, scale, FITTED.candidates, STRONG_NEARBY)

    def everywhere(self) -> Sequence[PoseMeasurement]:
        """See `FrameSearch`: the best place of the whole map, or about its `places`."""
        frame = self._raster(self.footprint_m)
        if self.places is not None:
            reach_m = DEFAULTS.reach_footprints * frame.geometry.footprint_m
            around = candidates_around(self.source, frame.geometry, self.places, reach_m)
            registration = self._registered(frame, around, DEFAULTS, DEFAULTS.refined)
            return self._measurements(registration, 1.0, FITTED.candidates, STRONG_NEARBY)
        if self.windows is not None:
            candidates: Iterable[CandidateWindow] = self.windows(frame.geometry, DEFAULTS)
        else:
            candidates = whole_map(self.source, frame.geometry)
        registration = self._registered(frame, candidates, DEFAULTS, DEFAULTS.map_refined)
        return self._measurements(registration, 1.0, FITTED.whole_map, STRONG_ON_MAP)

    def _raster(self, width_m: float) -> FrameRaster:
        height_px, width_px = self.pixels.shape[:2]
        return FrameRaster(self.pixels, frame_geometry(self.camera, width_px, height_px, width_m), self.device)

    def _registered(
        self, frame: FrameRaster, candidates: Iterable[CandidateWindow], settings: RegistrationSettings, refined: int
    ) -> Registration:
        perspective = attitude_perspective(self.attitude, frame.geometry)
        source = self.source
        return register(frame, candidates, source.window, source.gsd_m, settings, perspective, refined)

    def _measurements(
        self, registration: Registration, scale: float, logistic: Logistic, strong: float
    ) -> Sequence[PoseMeasurement]:
        """The best pose; scale: of the width it was registered at, over the expected one."""
        best, score, margin = registration.best, registration.score, registration.margin
        if best is None or score is None or margin is None:
            return ()
        covariance_m2 = ground_covariance(best, self.source.gsd_m, 0.0)
        placed = PlacedFrame(
            best.location, covariance_m2, best.heading_deg, heading_sd_deg(best), best.pose.scale * scale
        )
        return (placed.measured(self.plane, logistic(score, margin), strong),)
