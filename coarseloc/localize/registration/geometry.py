"""A frame's pose on a map window, and the homography between the two. Pure numpy, float64.

Window metres: x right, y down, from the window's upper left *corner*; a pixel's centre is half a pixel from its corner.
Frame coordinates: u right, v down from the frame's middle, in half widths of the frame (both axes: pixels are square),
so that u spans [-1, 1] and v spans ±height/width.

A flat ground seen by a pinhole camera tilted by τ towards the unit vector û of the frame: with q = (u, v) and
k = û · tan τ · tan(fov/2), the ground offset from the frame's middle is (Hartley & Zisserman, "Multiple View Geometry",
§8.1.1, for a plane)

    scale · footprint/2 · R(heading) · K q / (1 − k·q),      K = I + (sec τ − 1) û ûᵀ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from coarseloc.core.camera import Camera, CameraAttitude, Distortion
from coarseloc.core.types import Floats


@dataclass(frozen=True, slots=True)
class WindowPose:
    """Where a frame lies on a window. `heading_deg` is clockwise from the window's up; `scale` is the frame's width on
    the ground, at its middle, over its nominal footprint; `perspective` is k above, in frame axes (right, down)."""

    x_m: float
    y_m: float
    heading_deg: float
    scale: float = 1.0
    perspective: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    """A frame's size: pixels, its nominal width on the ground, and tan(fov/2) across its width where it is known; and
    its lens's distortion, which frame coordinates are free of."""

    width_px: int
    height_px: int
    footprint_m: float
    half_fov_tan: float | None = None
    distortion: Distortion | None = None

    def __post_init__(self) -> None:
        if self.width_px < 1 or self.height_px < 1 or not 0 < self.footprint_m < math.inf:
            raise ValueError(
                f"a frame of {self.width_px} x {self.height_px} px on {self.footprint_m} m: expected above 0"
            )
        if self.half_fov_tan is not None and not 0 < self.half_fov_tan < math.inf:
            raise ValueError(f"tan(fov / 2) is {self.half_fov_tan}: expected above 0, or None where it is unknown")
        if self.distortion is not None and self.half_fov_tan is None:
            raise ValueError("a lens's distortion without tan(fov / 2): its radii are unknown")

    @property
    def aspect(self) -> float:
        """Height over width."""
        return self.height_px / self.width_px

    @property
    def diagonal_m(self) -> float:
        """Of the nominal footprint."""
        return self.footprint_m * math.hypot(1.0, self.aspect)

    @property
    def height_m(self) -> float | None:
        """The camera's height above ground at scale 1 without tilt."""
        return None if self.half_fov_tan is None else self.footprint_m / 2 / self.half_fov_tan


def frame_geometry(camera: Camera, width_px: int, height_px: int, footprint_m: float) -> FrameGeometry:
    """The geometry of a camera's frame of this size and expected width on the ground."""
    return FrameGeometry(width_px, height_px, footprint_m, camera.half_fov_tan, camera.distortion)


def rotation(heading_deg: float) -> Floats:
    """float64 [2, 2]: frame axes (right, down) to window axes (right, down)."""
    heading = math.radians(heading_deg)
    cos, sin = math.cos(heading), math.sin(heading)
    return np.array([[cos, -sin], [sin, cos]])


def to_ground(pose: WindowPose, geometry: FrameGeometry) -> Floats:
    """float64 [3, 3]: homogeneous frame coordinates (u, v, 1) to window metres."""
    linear = pose.scale * geometry.footprint_m / 2 * rotation(pose.heading_deg) @ _stretch(pose, geometry)
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[2, :2] = -np.asarray(pose.perspective)
    shift = np.array([[1.0, 0.0, pose.x_m], [0.0, 1.0, pose.y_m], [0.0, 0.0, 1.0]])
    return shift @ matrix


def tilt_deg(pose: WindowPose, geometry: FrameGeometry) -> float | None:
    """The camera's angle from the vertical; None where its field of view is unknown."""
    if geometry.half_fov_tan is None:
        return None
    return math.degrees(math.atan(math.hypot(*pose.perspective) / geometry.half_fov_tan))


def nadir_offset_m(pose: WindowPose, geometry: FrameGeometry) -> Floats | None:
    """float64 [2]: from the frame's middle on the ground to the point under the camera, window axes (right, down).

    At tilt τ the middle lies h · tan τ ahead of the camera, with h = scale · nominal height · cos τ.
    """
    if geometry.half_fov_tan is None or geometry.height_m is None:
        return None
    tangent = np.asarray(pose.perspective) / geometry.half_fov_tan
    cosine = 1.0 / math.sqrt(1.0 + float(tangent @ tangent))
    return -pose.scale * geometry.height_m * cosine * (rotation(pose.heading_deg) @ tangent)


def perspective_of(pitch_deg: float, roll_deg: float, half_fov_tan: float) -> tuple[float, float]:
    """k of a camera fixed under an aircraft: pitch nose up, roll right wing down, both 0 in level flight.

    The lowest row of pitch · roll, as in `simulate.camera.ground_homography`: -tan(fov/2) · (tan r, tan p / cos r).
    """
    pitch, roll = math.radians(pitch_deg), math.radians(roll_deg)
    return -half_fov_tan * math.tan(roll), -half_fov_tan * math.tan(pitch) / math.cos(roll)


def attitude_perspective(attitude: CameraAttitude | None, geometry: FrameGeometry) -> tuple[float, float] | None:
    """k of a frame whose camera's attitude is known; None where that or its field of view is not."""
    if attitude is None or geometry.half_fov_tan is None:
        return None
    return perspective_of(attitude.pitch_deg, attitude.roll_deg, geometry.half_fov_tan)


def attitude_of(perspective: tuple[float, float], half_fov_tan: float) -> tuple[float, float, float]:
    """(pitch, roll, yaw) in degrees of a camera fixed under an aircraft: the inverse of `perspective_of`; yaw is what
    the frame's heading lies clockwise of the aircraft's, of second order in the tilt."""
    right, down = perspective[0] / half_fov_tan, perspective[1] / half_fov_tan
    roll = math.atan(-right)
    pitch = math.atan(-down * math.cos(roll))
    in_aircraft = math.atan2(-math.tan(roll) / math.cos(pitch), math.tan(pitch))
    in_frame = math.atan2(right, -down)
    yaw = (in_aircraft - in_frame + math.pi) % (2 * math.pi) - math.pi if right or down else 0.0
    return math.degrees(pitch), math.degrees(roll), math.degrees(yaw)


def _stretch(pose: WindowPose, geometry: FrameGeometry) -> Floats:
    """K above; the identity where the field of view is unknown."""
    length = math.hypot(*pose.perspective)
    if geometry.half_fov_tan is None or length == 0.0:
        return np.eye(2)
    unit = np.asarray(pose.perspective) / length
    secant = math.sqrt(1.0 + (length / geometry.half_fov_tan) ** 2)
    return np.eye(2) + (secant - 1.0) * np.outer(unit, unit)
