"""Frames localized on a whole map at once, without any embedding: orientation correlation over all of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from coarseloc.core import geo
from coarseloc.core.camera import BoresightLeg, Camera, CameraAttitude, FootprintRule, FootprintWidth
from coarseloc.core.errors import ImageryError, InputError
from coarseloc.core.fixes import FixAnswer, FixConditions, FrameFix, NotVerified, map_error
from coarseloc.core.types import BBox, Frame, LonLat, Near, UInt8
from coarseloc.core.windows import MapWindow, WindowSource
from coarseloc.imagery.decode import read_frame
from coarseloc.localize.flight_scale import FrameWidths
from coarseloc.localize.localizer import ms_since
from coarseloc.localize.registration.coarse import CandidateWindow, whole_map
from coarseloc.localize.registration.frame_fix import SearchedMap, fix_frame
from coarseloc.localize.registration.geometry import FrameGeometry
from coarseloc.localize.registration.settings import RegistrationSettings

_CACHED_PX = 80_000_000  # of a map's windows kept between frames, 240 MB
_FIELDS_PX = 8_000_000  # of those whose fields and transforms are kept too, 256 MB


@dataclass(frozen=True, slots=True)
class MapFacts:
    """The map that frames are localized on."""

    name: str  # a GeoTIFF's path, or "reference set NAME"
    gsd_m: float
    bounds: BBox  # of what is looked at
    registration_sd_m: float  # the map's own registration error, per axis
    registration_sd_source: str  # "given", or "half a ground sample distance"


@dataclass(frozen=True, slots=True)
class MapLocalization:
    """One frame on the map: its fix, or no match and why; or why it could not be looked for at all."""

    frame: Frame
    fix: FrameFix | None
    footprint_m: float | None
    footprint_source: str | None
    decode_ms: float | None  # None where the answer was stored before
    register_ms: float
    error: str | None = None

    @classmethod
    def of_fix(cls, frame: Frame, fix: FrameFix) -> MapLocalization:
        """An answer that was stored before."""
        conditions = fix.conditions
        if conditions is None or fix.match is None:
            return cls(frame, None, None, None, None, 0.0, fix.reason)
        return cls(frame, fix, conditions.footprint_m, conditions.footprint_source, None, conditions.verify_ms)


class MapLocalizer:
    """A map opened for frames to be found on."""

    def __init__(
        self,
        source: WindowSource,
        name: str,
        camera: Camera,
        *,
        reference_footprint_m: float | None = None,
        near: Near | None = None,
        map_sd_m: float | None = None,
        boresights: Mapping[str, BoresightLeg] = MappingProxyType({}),
        device: str = "cpu",
        read: Callable[[Frame], UInt8] | None = None,
    ) -> None:
        """source: the map's windows. name: of the map, for the records. reference_footprint_m: the width to expect of
        a frame where nothing else says. near: look for frames around here alone. boresights: by frames' relative paths.
        read: gives a frame's pixels, RGB uint8 [H, W, 3]; by default its file's.

        Raises InputError where the map does not reach there.
        """
        self.source: WindowSource = source if near is None else _MapPart(source, near)
        self.camera = camera
        self._widths = FrameWidths(FootprintRule(camera, reference_footprint_m), self._localize, _answer)
        self._boresights = boresights
        self.device = device
        self._read = read or read_frame
        self.map = MapFacts(name, source.gsd_m, self.source.bounds, *map_error(source.gsd_m, map_sd_m))
        self._windows_of: tuple[FrameGeometry, RegistrationSettings] | None = None  # whose windows of the map are kept
        self._windows: list[CandidateWindow] = []

    def fit_widths(self, frames: Sequence[Frame]) -> list[str]:
        """Try the width of frames on a flight's first ones, scan its scale where it does not fit; returns notices.

        Raises InputError where nothing says the width of any frame.
        """
        return self._widths.fit(frames)

    def footprint(self, frame: Frame) -> FootprintWidth:
        """The width of a frame on the ground. Raises InputError where nothing says."""
        return self._widths.width(frame)

    def expects(self, frame: Frame, footprint_m: float | None) -> bool:
        """Whether this is the width of a frame; False where nothing says it."""
        try:
            return self.footprint(frame).metres == footprint_m
        except InputError:
            return False

    def attitude(self, frame: Frame) -> CameraAttitude | None:
        """The camera's, where labels, a boresight or its mounting tell it."""
        return self.camera.attitude(
            frame.truth.pitch_deg, frame.truth.roll_deg, self._boresights.get(frame.relative_path)
        )

    def localize(self, frame: Frame) -> MapLocalization:
        """Find one frame; an image that cannot be read, or whose width nothing says, is an error of its own."""
        try:
            width = self.footprint(frame)
        except InputError as error:
            return MapLocalization(frame, None, None, None, 0.0, 0.0, str(error))
        return self._widths.localize(frame, width)

    def _localize(self, frame: Frame, width: FootprintWidth, settings: RegistrationSettings) -> MapLocalization:
        started = time.perf_counter()
        try:
            pixels = self._read(frame)
        except ImageryError as error:
            return MapLocalization(frame, None, *width, ms_since(started), 0.0, str(error))
        decode_ms, started = ms_since(started), time.perf_counter()
        searched = SearchedMap(self.source, self.map.registration_sd_m, self.windows)
        _, answer = fix_frame(
            pixels, width.metres, self.camera, frame.truth, [searched],
            whole_map=True, boresight=self._boresights.get(frame.relative_path), settings=settings, device=self.device,
        )  # fmt: skip
        verify_ms = ms_since(started)
        facts = self.map
        conditions = FixConditions(
            *width, facts.name, facts.gsd_m, facts.registration_sd_m, facts.registration_sd_source, verify_ms
        )
        return MapLocalization(frame, FrameFix(answer, conditions), *width, decode_ms, verify_ms)

    def windows(self, geometry: FrameGeometry, settings: RegistrationSettings) -> Iterator[CandidateWindow]:
        """All of the map's windows for frames of a geometry, kept for the next one where they are few enough."""
        if (geometry, settings) == self._windows_of:
            yield from self._windows
            return
        self._windows_of, self._windows = None, []
        pixels = 0
        for candidate in whole_map(self.source, geometry, settings):
            pixels += candidate.window.pixels.size // 3
            candidate = replace(candidate, keeps_field=pixels <= _FIELDS_PX)
            if pixels <= _CACHED_PX:
                self._windows.append(candidate)
            else:
                self._windows.clear()
            yield candidate
        if pixels <= _CACHED_PX:
            self._windows_of = geometry, settings


def _answer(localization: MapLocalization) -> FixAnswer:
    return NotVerified(str(localization.error)) if localization.fix is None else localization.fix.answer


class _MapPart:
    """A `WindowSource` whose bounds are a box around a position."""

    def __init__(self, source: WindowSource, near: Near) -> None:
        west, south, east, north = source.bounds
        clipped = _clipped(source.bounds, near)
        if clipped is None:
            raise InputError(
                f"the map does not reach {near.lat:.5f}, {near.lon:.5f} within {near.radius_m:g} m: it "
                f"covers longitudes {west:.5f} to {east:.5f} and latitudes {south:.5f} to {north:.5f}"
            )
        self._source, self.gsd_m, self.bounds = source, source.gsd_m, clipped

    def window(self, center: LonLat, side_m: float, gsd_m: float) -> MapWindow:
        """See `WindowSource`."""
        return self._source.window(center, side_m, gsd_m)


def _clipped(bounds: BBox, near: Near) -> BBox | None:
    """The part of a box within the square around a position, either across the antimeridian; None where there is none.

    Where both ends of a box that nearly goes around the globe are in the square, its wider part is taken.
    """
    per_lon, per_lat = geo.metres_per_degree(near.lat)
    half_lon, half_lat = min(near.radius_m / per_lon, 180.0), near.radius_m / per_lat
    south, north = max(bounds.south, near.lat - half_lat), min(bounds.north, near.lat + half_lat)
    begin = float(geo.signed_difference_deg(near.lon, bounds.west))  # all longitudes from the position's
    parts = [
        (max(first, -half_lon), min(first + geo.box_width_deg(bounds), half_lon)) for first in (begin, begin - 360.0)
    ]
    low, high = max(parts, key=lambda part: part[1] - part[0])
    if low >= high or south >= north:
        return None
    west, east = ((near.lon + offset + 180.0) % 360.0 - 180.0 for offset in (low, high))
    return BBox(west, south, east, north)
