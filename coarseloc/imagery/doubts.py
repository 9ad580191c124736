"""What a flight's files say that can hardly be so, or that is left unused: other cameras' pictures, kinds that are not
read, angles in radians."""

from __future__ import annotations

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from coarseloc.core import geo
from coarseloc.core.types import Pose
from coarseloc.imagery.decode import SUFFIXES

_PICTURES = (
    ".heic",
    ".heif",
    ".avif",
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".orf",
    ".rw2",
    ".raf",
    ".bmp",
    ".gif",
    ".jp2",
)
_VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".mts", ".insv")
_CAMERA = re.compile(r".*_\d{3,}_(?P<camera>[VWZTS]|IR)", re.ASCII)  # DJI's visible, wide, zoom, thermal, spotlight
_CAMERAS = "VWZSTIR"  # the first of these that is there has the frames
_DERIVED = re.compile(r"(?P<original>.+)_(mask|thumb|thumbnail|preview)", re.IGNORECASE)
_FEW_YAWS = 4
_STEADY_RAD = 1.0  # yaws in radians that differ by less may be degrees of one straight leg


def frames_of_one_camera(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the names without masks, thumbnails and other cameras' pictures of the same moments, notices)."""
    stems = {Path(name).stem.casefold() for name in names}
    derived = [
        name
        for name in names
        if (match := _DERIVED.fullmatch(Path(name).stem)) and match["original"].casefold() in stems
    ]
    notices = [f"{len(derived)} masks or thumbnails of frames are left out (first {derived[0]})"] if derived else []
    frames = [name for name in names if name not in set(derived)]
    by_camera: dict[str, list[str]] = defaultdict(list)
    for name in frames:
        if match := _CAMERA.fullmatch(Path(name).stem):
            by_camera[match["camera"]].append(name)
    if len(by_camera) < 2:
        return frames, notices
    main = min(by_camera, key=_CAMERAS.index)
    left_out = {name for camera, of_camera in by_camera.items() if camera != main for name in of_camera}
    counts = ", ".join(f"{len(of_camera)} _{camera}" for camera, of_camera in sorted(by_camera.items()))
    notices.append(
        f"the folder holds pictures of {len(by_camera)} cameras by their names ({counts}): those of _{main} are taken "
        f"as frames, {len(left_out)} are left out. Put another camera's into a folder of their own to search them"
    )
    return [name for name in frames if name not in left_out], notices


def unread_kinds(folder: Path) -> list[str]:
    """Describe pictures and videos of kinds that are not read; a raw picture beside a JPEG of its name is none."""
    with os.scandir(folder) as entries:
        paths = sorted(Path(entry.name) for entry in entries if not entry.name.startswith("."))
    readable = {path.stem for path in paths if path.suffix.lower() in SUFFIXES}
    unread = [path for path in paths if path.suffix.lower() in _PICTURES + _VIDEOS and path.stem not in readable]
    if not unread:
        return []
    counts = Counter(path.suffix.lower() for path in unread)
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
    return [
        f"{len(unread)} files of kinds that are not read are left out ({kinds}; first {unread[0]}): JPEG, PNG, TIFF "
        "and WebP are read"
    ]


def radian_notices(poses: Sequence[Pose]) -> list[str]:
    """Say where all yaws of a flight that turns lie within ±π: they may be radians."""
    yaws = [float(geo.signed_difference_deg(0.0, pose.yaw_deg)) for pose in poses if pose.yaw_deg is not None]
    yaw_range = max(yaws) - min(yaws) if yaws else 0.0
    if len(yaws) < _FEW_YAWS or max(abs(yaw) for yaw in yaws) > math.pi + 0.01 or yaw_range < _STEADY_RAD:
        return []
    return [
        f"every yaw of the {len(yaws)} labelled frames lies within ±π ({min(yaws):.2f} to {max(yaws):.2f}): "
        "are they radians? They are taken as degrees: convert the labels to degrees if so"
    ]
