"""A gimbal's angles as the attitude of the picture that it holds."""

from __future__ import annotations

from coarseloc.core.camera import Camera
from coarseloc.core.types import Pose

MAX_TILT_DEG = 45.0  # a picture that looks further from straight down is none of the ground below

_GIMBAL = Camera(mount_pitch_deg=90.0)  # a gimbal's nose is the line of sight


def picture_attitude(yaw_deg: float, pitch_deg: float, roll_deg: float) -> Pose | None:
    """The attitude of a gimbal's picture, as of a camera that looks straight down at pitch and roll 0; None where it
    looks more than `MAX_TILT_DEG` from straight down. pitch_deg: -90 is straight down."""
    picture = _GIMBAL.in_aircraft(pitch_deg, roll_deg)
    if max(abs(picture.pitch_deg), abs(picture.roll_deg)) > MAX_TILT_DEG:
        return None
    heading = (yaw_deg + picture.yaw_deg) % 360.0 % 360.0
    return Pose(None, None, heading, picture.pitch_deg, picture.roll_deg)
