"""One picture looked for on one map or several, from its pixels to the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from coarseloc.core.camera import BoresightLeg, Camera
from coarseloc.core.fixes import NoMatch, Pose2D
from coarseloc.core.types import Pose, UInt8
from coarseloc.core.windows import WindowSource
from coarseloc.localize.registration.coarse import CandidateWindow
from coarseloc.localize.registration.fix import fix_of
from coarseloc.localize.registration.frame import FrameRaster
from coarseloc.localize.registration.geometry import FrameGeometry, attitude_perspective, frame_geometry
from coarseloc.localize.registration.registrar import best_of_maps, register
from coarseloc.localize.registration.settings import DEFAULTS, RegistrationSettings


@dataclass(frozen=True, slots=True)
class SearchedMap:
    """A map, its own registration error per axis, and the windows of it to look in."""

    source: WindowSource
    sd_m: float
    candidates: Callable[[FrameGeometry, RegistrationSettings], Iterable[CandidateWindow]]


def fix_frame(
    pixels: UInt8,
    footprint_m: float,
    camera: Camera,
    pose: Pose,
    maps: Sequence[SearchedMap],
    *,
    whole_map: bool,
    boresight: BoresightLeg | None = None,
    settings: RegistrationSettings = DEFAULTS,
    device: str = "cpu",
) -> tuple[int, Pose2D | NoMatch]:
    """(index of the map that it lies on best, the answer there). pixels: RGB uint8 [H, W, 3].

    pose: what labels say of the aircraft; only its pitch and roll are used, where the camera is fixed under it.
    boresight: of the frame's leg. whole_map: all of each map is looked at, not the places of a search.
    """
    height_px, width_px = pixels.shape[:2]
    geometry = frame_geometry(camera, width_px, height_px, footprint_m)
    attitude = camera.attitude(pose.pitch_deg, pose.roll_deg, boresight)
    frame = FrameRaster(pixels, geometry, device)
    registrations = [
        register(
            frame,
            searched.candidates(geometry, settings),
            searched.source.window,
            searched.source.gsd_m,
            settings,
            perspective=attitude_perspective(attitude, geometry),
            refined=settings.map_refined if whole_map else settings.refined,
        )
        for searched in maps
    ]
    index, registration = best_of_maps(registrations, settings.apart_footprints * footprint_m)
    answer = fix_of(
        registration,
        geometry,
        map_gsd_m=maps[index].source.gsd_m,
        map_sd_m=maps[index].sd_m,
        whole_map=whole_map,
        attitude=attitude,
    )
    return index, answer
