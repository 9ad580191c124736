"""A flight's camera: how wide a frame is on the ground, how high the camera, how it is mounted, what its lens does.

Attitudes are those of aircraft: yaw clockwise from true north, pitch nose up, roll right wing down, applied in this
order. The camera's own are the same angles of an aircraft whose floor it looks through: at pitch and roll 0 it looks
straight down, its frame's upper edge forward. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coarseloc.core.errors import InputError

ATTITUDE_SD_DEG = 1.0  # of pitch and roll as labels or a gimbal's mounting state them, where nobody says

GIVEN = "given"
REFERENCE_FOOTPRINT = "the reference set's footprint"
ALTITUDE_AND_FOV = "altitude label and field of view"


class FootprintWidth(NamedTuple):
    """A frame's width on the ground, and where that is known from."""

    metres: float
    source: str


@dataclass(frozen=True, slots=True)
class CameraAttitude:
    """A camera's pitch and roll, as a label, a boresight or its stated mounting says."""

    pitch_deg: float
    roll_deg: float
    sd_deg: float
    source: Literal["label", "boresight", "mounting"]


class Attitude(NamedTuple):
    """Degrees; `yaw_deg` is clockwise from the aircraft's heading."""

    yaw_deg: float
    pitch_deg: float
    roll_deg: float


@dataclass(frozen=True, slots=True)
class Distortion:
    """A lens's distortion, in the order and with the signs of OpenCV's first five coefficients.

    Brown's model (D. C. Brown, "Close-range camera calibration", Photogrammetric Engineering 37, 1971), as in OpenCV's
    "Camera Calibration and 3D Reconstruction": a ray (x, y, 1) of the pinhole camera is pictured where that camera
    would picture (x'', y'', 1), with r² = x² + y²,

        x'' = x (1 + k1 r² + k2 r⁴ + k3 r⁶) + 2 p1 x y + p2 (r² + 2 x²)
        y'' = y (1 + k1 r² + k2 r⁴ + k3 r⁶) + p1 (r² + 2 y²) + 2 p2 x y.

    The principal point is taken to be the picture's middle.
    """

    k1: float
    k2: float
    p1: float
    p2: float
    k3: float = 0.0


@dataclass(frozen=True, slots=True)
class BoresightLeg:
    """A constant offset of the line of sight beyond the camera's stated attitude, for the frames from `first` to `last`
    in the flight's order. `sd_deg`, per axis, is what single frames scatter about it."""

    first: str  # relative paths
    last: str
    pitch_deg: float
    roll_deg: float
    sd_deg: float


@dataclass(frozen=True, slots=True)
class Camera:
    """What is known of a flight's camera; None where it is not."""

    footprint_m: float | None = None  # width of a frame on the ground
    fov_deg: float | None = None  # across a frame's width, of the pinhole camera without distortion
    stabilised: bool | None = None  # a gimbal holds it: the aircraft's pitch and roll are not the camera's
    distortion: Distortion | None = None
    mount_yaw_deg: float | None = None  # that a frame's upper edge faces clockwise of the aircraft's nose
    mount_pitch_deg: float | None = None  # of the camera in the aircraft; against the horizon where it is stabilised
    mount_roll_deg: float | None = None
    boresights: tuple[BoresightLeg, ...] | None = None
    attitude_sd_deg: float | None = None  # of stated pitch and roll, each

    def over(self, table: Camera) -> Camera:
        """This camera, with what it does not know taken from another one."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(table, **{name: value for name, value in values.items() if value is not None})

    @property
    def half_fov_tan(self) -> float | None:
        return None if self.fov_deg is None else math.tan(math.radians(self.fov_deg) / 2)

    def footprint(
        self, filename: str, altitude_m: float | None, reference_footprint_m: float | None = None
    ) -> FootprintWidth:
        """A frame's width on the ground: as given, else altitude by field of view, else the references' own.

        Raises InputError where nothing says.
        """
        if self.footprint_m is not None:
            return FootprintWidth(self.footprint_m, GIVEN)
        if self.half_fov_tan is not None and altitude_m is not None and altitude_m > 0:
            return FootprintWidth(2 * altitude_m * self.half_fov_tan, ALTITUDE_AND_FOV)
        if reference_footprint_m is not None:
            return FootprintWidth(reference_footprint_m, REFERENCE_FOOTPRINT)
        no_altitude = "no label gives its altitude above ground (one above sea or ellipsoid does not tell it)"
        missing = no_altitude if self.half_fov_tan is not None else "no field of view is given"
        raise InputError(
            f"the width of {filename} on the ground is unknown: {missing}. Give it in metres with --footprint-m, "
            "or the camera's --fov-deg where labels give the altitude above ground"
        )

    def attitude(
        self, pitch_deg: float | None, roll_deg: float | None, boresight: BoresightLeg | None = None
    ) -> CameraAttitude | None:
        """The camera's attitude, from the aircraft's and the mounting; of a stabilised camera the mounting's alone,
        where that is stated; turned by the boresight of the frame's leg. None where it or the field of view is
        unknown."""
        if self.fov_deg is None:
            return None
        stated = self._stated_attitude(pitch_deg, roll_deg)
        if boresight is None:
            return stated
        pitch, roll = (0.0, 0.0) if stated is None else map(math.radians, (stated.pitch_deg, stated.roll_deg))
        # Tangents add: the model that a boresight is estimated by, see `localize.boresight`.
        right = -math.tan(roll) - math.tan(math.radians(boresight.roll_deg))
        forward = math.tan(pitch) / math.cos(roll) + math.tan(math.radians(boresight.pitch_deg))
        roll = math.atan(-right)
        pitch = math.atan(forward * math.cos(roll))
        return CameraAttitude(math.degrees(pitch), math.degrees(roll), boresight.sd_deg, "boresight")

    def boresights_by_path(self, relative_paths: Sequence[str]) -> dict[str, BoresightLeg]:
        """The leg of each frame that is on one. relative_paths: of a flight's frames in order.

        Raises InputError where a leg names a frame that is not among them.
        """
        places = {path: number for number, path in enumerate(relative_paths)}
        legs: dict[str, BoresightLeg] = {}
        for leg in self.boresights or ():
            absent = [path for path in (leg.first, leg.last) if path not in places]
            if absent:
                raise InputError(
                    f"a boresight leg names frame {absent[0]!r}, which the flight does not hold: estimate it anew with "
                    "`coarseloc boresight`, or take it out of flight.toml"
                )
            legs |= dict.fromkeys(relative_paths[places[leg.first] : places[leg.last] + 1], leg)
        return legs

    def _stated_attitude(self, pitch_deg: float | None, roll_deg: float | None) -> CameraAttitude | None:
        sd_deg = ATTITUDE_SD_DEG if self.attitude_sd_deg is None else self.attitude_sd_deg
        if self.stabilised:
            if self.mount_pitch_deg is None and self.mount_roll_deg is None:
                return None
            return CameraAttitude(self.mount_pitch_deg or 0.0, self.mount_roll_deg or 0.0, sd_deg, "mounting")
        if pitch_deg is None or roll_deg is None:
            return None
        _, pitch_deg, roll_deg = self.in_aircraft(pitch_deg, roll_deg)
        return CameraAttitude(pitch_deg, roll_deg, sd_deg, "label")

    def frame_heading_deg(self, yaw_deg: float | None, pitch_deg: float | None, roll_deg: float | None) -> float | None:
        """What a frame's upper edge faces, from the aircraft's attitude. Its pitch and roll, 0 where they are unknown,
        move the heading only where a mounting is turned."""
        if yaw_deg is None or self._mounting == (0.0, 0.0, 0.0):
            return yaw_deg
        level = self.stabilised or pitch_deg is None or roll_deg is None
        turn = self.in_aircraft(0.0, 0.0) if level else self.in_aircraft(pitch_deg or 0.0, roll_deg or 0.0)
        return (yaw_deg + turn.yaw_deg) % 360.0

    def in_aircraft(self, pitch_deg: float, roll_deg: float) -> Attitude:
        """The camera's attitude from the heading of an aircraft of this pitch and roll: its rotation after the
        mounting's. Exact for any angles short of looking at the horizon."""
        mounting = self._mounting
        if mounting == (0.0, 0.0, 0.0):
            return Attitude(0.0, pitch_deg, roll_deg)
        turned = _rotation(0.0, pitch_deg, roll_deg) @ _rotation(*mounting)
        yaw = math.degrees(math.atan2(turned[0, 1], turned[1, 1]))
        pitch = math.degrees(math.asin(max(-1.0, min(1.0, -turned[2, 1]))))
        return Attitude(yaw, pitch, math.degrees(math.atan2(turned[2, 0], turned[2, 2])))

    @property
    def _mounting(self) -> tuple[float, float, float]:
        return self.mount_yaw_deg or 0.0, self.mount_pitch_deg or 0.0, self.mount_roll_deg or 0.0


@dataclass(frozen=True, slots=True)
class FootprintRule:
    """How wide a flight's frames are on the ground: by its camera, else as the references are; times a scale that was
    scanned on its first frames, where the width of that basis did not fit them."""

    camera: Camera
    reference_footprint_m: float | None = None
    scanned_basis: str | None = None  # `ALTITUDE_AND_FOV` or `REFERENCE_FOOTPRINT`
    scanned_scale: float = 1.0

    def width(self, filename: str, altitude_m: float | None) -> FootprintWidth:
        """Of one frame. Raises InputError where nothing says."""
        if self.scanned_basis == REFERENCE_FOOTPRINT and self.reference_footprint_m is not None:
            nominal = FootprintWidth(self.reference_footprint_m, REFERENCE_FOOTPRINT)
        else:
            nominal = self.camera.footprint(filename, altitude_m, self.reference_footprint_m)
        if self.scanned_basis != nominal.source:
            return nominal
        source = f"scale scanned on the first frames: {self.scanned_scale:.2f} of {self.scanned_basis}"
        return FootprintWidth(nominal.metres * self.scanned_scale, source)


def fov_deg_of(focal_length: float, width: float) -> float:
    """The field of view across a width, both in one unit: of the sensor in millimetres, of its pictures in pixels."""
    return math.degrees(2 * math.atan(width / 2 / focal_length))


def _rotation(yaw_deg: float, pitch_deg: float, roll_deg: float) -> NDArray[np.float64]:
    """float64 [3, 3]: axes (right, forward, down) of a camera to those before it was turned by roll about forward, by
    pitch about right, then by yaw about down."""
    (cy, cp, cr), (sy, sp, sr) = (
        [turn(math.radians(angle)) for angle in (yaw_deg, pitch_deg, roll_deg)] for turn in (math.cos, math.sin)
    )
    yaw = np.array([[cy, sy, 0.0], [-sy, cy, 0.0], [0.0, 0.0, 1.0]])
    pitch = np.array([[1.0, 0.0, 0.0], [0.0, cp, sp], [0.0, -sp, cp]])
    roll = np.array([[cr, 0.0, -sr], [0.0, 1.0, 0.0], [sr, 0.0, cr]])
    return np.asarray(yaw @ pitch @ roll)


def sight_offset_m(pitch_deg: float, roll_deg: float, height_m: float) -> tuple[float, float]:
    """(right, forward) of the aircraft, in metres: where the sight of a camera fixed under it meets flat ground.

    The middle of `simulate.camera.ground_homography`: the ray straight down, turned by roll, then by pitch.
    """
    pitch, roll = math.radians(pitch_deg), math.radians(roll_deg)
    return -height_m * math.tan(roll) / math.cos(pitch), height_m * math.tan(pitch)


def tilt_lever_m(height_m: float, tilt_sd_deg: float) -> float:
    """What an error of the line of sight's tilt moves its point on flat ground by, in metres."""
    return height_m * math.tan(math.radians(tilt_sd_deg))


def camera_from_json(facts: Mapping[str, Any]) -> Camera:
    """Of `dataclasses.asdict(camera)`, as stored beside what was looked for with it."""
    distortion, legs = facts.get("distortion"), facts.get("boresights")
    return Camera(
        **dict(facts)
        | {
            "distortion": None if distortion is None else Distortion(**distortion),
            "boresights": None if legs is None else tuple(BoresightLeg(**leg) for leg in legs),
        }
    )
