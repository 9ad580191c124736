"""What an image file says of how and when it was taken: its EXIF data and its XMP packet, read in one opening."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from coarseloc.core.types import Pose
from coarseloc.imagery.decode import open_picture, upright_size
from coarseloc.imagery.exif import PositionDoubt, exif_pose, exif_time, gps_time, position_doubt
from coarseloc.imagery.xmp import XmpFacts, read_xmp

T = TypeVar("T")


class ImageFacts(NamedTuple):
    """What an image's metadata say; a damaged part, or a file that is no image, says nothing."""

    exif_pose: Pose = Pose()  # position and height
    exif_time: datetime | None = None  # by the camera's clock, with a zone where it gives one
    utc: datetime | None = None  # by GPS
    xmp: XmpFacts = XmpFacts()
    position_doubt: PositionDoubt | None = None  # of the position in EXIF
    size_px: tuple[int, int] | None = None  # width and height, upright


def read_image_facts(path: Path) -> ImageFacts:
    """Read an image's metadata; nothing is decoded but where the format keeps them behind its pixels (PNG)."""
    try:
        with open_picture(path) as image:
            exif = image.getexif()
            packet = image.info.get("xmp")
            xmp = read_xmp(packet) if isinstance(packet, bytes) else XmpFacts()
            pose = _readable(lambda: exif_pose(exif), Pose())
            time = _readable(lambda: exif_time(exif), None)
            doubt = _readable(lambda: position_doubt(exif), None)
            utc = xmp.utc or _readable(lambda: gps_time(exif), None)
            return ImageFacts(pose, time, utc, xmp, doubt, upright_size(image))
    except Exception:  # decoding it names the damage
        return ImageFacts()


def _readable(read: Callable[[], T], absent: T) -> T:
    try:
        return read()
    except Exception:  # what Pillow raises for a damaged tag is of many kinds
        return absent
