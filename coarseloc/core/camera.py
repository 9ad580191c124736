"""A flight's camera: how wide a frame is on the ground, how high the camera, how it is mounted. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from coarseloc.core.errors import InputError

LABEL_SD_DEG = 1.0  # of an aircraft's pitch and roll as labels give them

GIVEN = "given"
REFERENCE_FOOTPRINT = "the reference set's footprint"
ALTITUDE_AND_FOV = "altitude label and field of view"


class FootprintWidth(NamedTuple):
    """A frame's width on the ground, and where that is known from."""

    metres: float
    source: str


@dataclass(frozen=True, slots=True)
class CameraAttitude:
    """A camera's attitude as a label or a boresight says; pitch nose up, roll right wing down."""

    pitch_deg: float
    roll_deg: float
    sd_deg: float
    source: Literal["label", "boresight"]


@dataclass(frozen=True, slots=True)
class Camera:
    """What is known of a flight's camera; None where it is not."""

    footprint_m: float | None = None  # width of a frame on the ground
    fov_deg: float | None = None  # across a frame's width
    stabilised: bool = False  # a gimbal holds it: the aircraft's pitch and roll are not the camera's

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
        missing = "no label gives its altitude" if self.half_fov_tan is not None else "no field of view is given"
        raise InputError(
            f"the width of {filename} on the ground is unknown: {missing}. Give it in metres with --footprint-m, "
            "or the camera's --fov-deg where labels give the altitude above ground"
        )

    def attitude(self, pitch_deg: float | None, roll_deg: float | None) -> CameraAttitude | None:
        """The camera's attitude from the aircraft's; None where that or the field of view is unknown, or a gimbal holds
        the camera."""
        if self.fov_deg is None or self.stabilised or pitch_deg is None or roll_deg is None:
            return None
        return CameraAttitude(pitch_deg, roll_deg, LABEL_SD_DEG, "label")
