"""What a flight's files say that can hardly be so, or that is left unused: other cameras' pictures, kinds that are not
read, angles in radians."""

from __future__ import annotations

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from coarseloc.core import geo
from coarseloc.core.types import Doubt, LonLat, Pose
from coarseloc.imagery.course_doubts import course_notices
from coarseloc.imagery.decode import HEIF_SUFFIXES, SUFFIXES

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
_UNREAD_TRACKS = (
    ".kmz",
    ".mrk",
    ".srt",
    ".jsonl",
    ".ndjson",
    ".nmea",
    ".pos",
    ".tlog",
    ".bin",
    ".ulg",
    ".bag",
    ".mcap",
)
_UNREAD_LABELS = (".xlsx", ".xls", ".ods", ".geojson", ".gpx", ".kml", ".gpkg", ".shp")
_VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".mts", ".insv")
# DJI's visible, wide, zoom, spotlight, thermal, and multispectral; Parrot's; Autel's in front. The first that is there
# has the frames.
_CAMERAS = ("RGB", "VIS", "MAX", "V", "W", "D", "Z", "S", "T", "IR", "IRX", "TIR", "THM", "GRE", "RED", "REG", "NIR",
            "MS_G", "MS_R", "MS_RE", "MS_NIR")  # fmt: skip
_CAMERA_BEHIND = re.compile(rf".*_\d{{3,}}_({'|'.join(_CAMERAS)})", re.ASCII | re.IGNORECASE)
_CAMERA_BEFORE = re.compile(r"(RGB|VIS|MAX|IRX?|TIR|THM|NIR)_.*\d", re.ASCII | re.IGNORECASE)
_DERIVED = re.compile(
    r"(?P<original>.+)_(masks?|seg|segmentation|labels?|depth|normals?|overlay|thumb|thumbnail|preview)", re.IGNORECASE
)
_FEW_YAWS = 4
_FEW_PLACES = 4
_FAR_M, _FAR_TIMES = 5_000.0, 20.0  # from the flight's middle: at least, and times the median frame's distance
_EXIF_APART_M = 50.0  # labels may be corrected positions, a few metres off
_NADIR_DEG = 10.0  # beside straight down
_ONE_YAW_DEG = 5.0
_ROLLING_DEG = 60.0
_NAMED = 5
SAME_SIDE = 0.03  # of a picture: less is a pixel or two
_COUNTER_ENDS = (999, 9999)
_FEW_HEADINGS = 4
_NARROWEST, _WIDEST = 0.1, 10.0  # a picture's width on the ground to its altitude: fields of view of 6° and 157°
_FEW_DECIMALS = (2, 3, 4)  # of degrees: rounded to 1,100, 110, 11 m
_ROUNDED_DEG = 1e-9
_DEGREE_M = 111_000.0
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
    by_stem: dict[str, list[str]] = defaultdict(list)
    by_camera: dict[str, list[str]] = defaultdict(list)
    for name in frames:
        stem = Path(name).stem
        by_stem[stem.casefold()].append(name)
        if match := _CAMERA_BEHIND.fullmatch(stem) or _CAMERA_BEFORE.fullmatch(stem):
            by_camera[match[1].upper()].append(name)
    twins = [of_stem for of_stem in by_stem.values() if len(of_stem) > 1]
    if twins:
        notices.append(f"{len(twins)} names have several suffixes (first {', '.join(twins[0])}): all are frames")
    if len(by_camera) < 2:
        return frames, notices
    main = min(by_camera, key=_CAMERAS.index)
    left_out = {name for camera, of_camera in by_camera.items() if camera != main for name in of_camera}
    counts = ", ".join(f"{len(of_camera)} {camera}" for camera, of_camera in sorted(by_camera.items()))
    notices.append(
        f"the folder holds pictures of {len(by_camera)} cameras by their names ({counts}): those of {main} are taken "
        f"as frames, {len(left_out)} are left out. Put another camera's into a folder of their own to search them"
    )
    return [name for name in frames if name not in left_out], notices


def unread_kinds(folder: Path) -> list[str]:
    """Describe pictures and videos of kinds that are not read; a raw picture beside a JPEG of its name is none."""
    with os.scandir(folder) as entries:
        paths = sorted(Path(entry.name) for entry in entries if not entry.name.startswith("."))
    readable = {path.stem for path in paths if path.suffix.lower() in SUFFIXES}
    unread = [
        path
        for path in paths
        if (suffix := path.suffix.lower()) in _PICTURES + _VIDEOS
        and suffix not in SUFFIXES
        and path.stem not in readable
    ]
    if not unread:
        return []
    counts = Counter(path.suffix.lower() for path in unread)
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
    heif = " HEIC with the extra: pip install 'pillow-heif>=0.20'" if counts.keys() & set(HEIF_SUFFIXES) else ""
    return [
        f"{len(unread)} files of kinds that are not read are left out ({kinds}; first {unread[0]}): JPEG, PNG, TIFF "
        f"and WebP are read.{heif}"
    ]


def counter_notices(numbers: Sequence[int | None]) -> list[str]:
    """Say where a camera's counter seems to have passed its end, 999 or 9999, and begun again.

    numbers: of frames in the order of their names, which is the wrong one then.
    """
    rising = [number for number in numbers if number is not None]
    if len(rising) < _FEW_PLACES or rising[-1] not in _COUNTER_ENDS or rising[0] > 1:
        return []
    before, after = max(pairwise(rising), key=lambda pair: pair[1] - pair[0])
    if after - before < rising[-1] / 2:
        return []
    return [
        f"the frames' numbers are {rising[0]} to {before} and {after} to {rising[-1]}: did the camera's counter begin "
        "again? Frames are in the order of their names: give them times (labels), or rename those that came later"
    ]


def unread_label_notices(folder: Path, has_truth: bool) -> list[str]:
    """Name the files in a flight's folder that may hold positions and are of kinds that are not read as labels; where
    positions are known, without those that cameras and autopilots write anyway."""
    suffixes = _UNREAD_LABELS if has_truth else _UNREAD_LABELS + _UNREAD_TRACKS
    names = sorted(
        path.name for path in folder.iterdir() if path.suffix.lower() in suffixes and path.name[0] not in ".~"
    )
    if not names:
        return []
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [
        f"{', '.join(names[:_NAMED])}{rest}: not read as labels: save a CSV with filename, latitude and longitude if "
        "it holds any"
    ]


def size_notices(sizes: Mapping[str, tuple[int, int]], pictures: str) -> list[str]:
    """Say where pictures are of several sizes. sizes: (width, height) by name."""
    if not sizes:
        return []
    first_of: dict[tuple[int, int], str] = {}
    for name, size in sizes.items():
        first_of.setdefault(size, name)
    widths, aspects = zip(*((width, width / height) for width, height in first_of), strict=True)
    if max(max(values) / min(values) for values in (widths, aspects)) < 1 + SAME_SIDE:
        return []
    counts = Counter(sizes.values()).most_common()
    texts = [f"{count} of {width} x {height} px, first {first_of[width, height]}" for (width, height), count in counts]
    return [
        f"the {pictures} are of {len(counts)} sizes ({'; '.join(texts[:_NAMED])}): all are taken to be as wide on the "
        "ground. Put those of another camera, or turned on their side, into a folder of their own"
    ]


def coarse_notices(places: Mapping[str, LonLat]) -> list[str]:
    """Say where positions are rounded, or the same for many frames. places: by frame or tile."""
    if len(places) < _FEW_PLACES:
        return []
    degrees = np.array(list(places.values()))
    distinct = len(np.unique(degrees, axis=0))
    notices = []
    if 2 * distinct <= len(places):
        notices.append(f"the {len(places)} positions are only {distinct} different ones")
    for decimals in _FEW_DECIMALS:
        if np.abs(degrees - degrees.round(decimals)).max() < _ROUNDED_DEG:
            notices.append(
                f"all positions are rounded to {decimals} decimals of a degree, {0.1**decimals * _DEGREE_M:,.0f} m"
            )
            break
    return [f"{'; '.join(notices)}: errors come out no finer than that"] if notices else []


def radian_place_notices(places: Collection[LonLat]) -> list[str]:
    """Say where all positions lie within ±π/2 and ±π degrees, at sea off Africa: they may be radians."""
    if len(places) < _FEW_PLACES:
        return []
    lon, lat = np.abs(np.array(list(places))).max(axis=0)
    if lon > math.pi or lat > math.pi / 2:
        return []
    return [
        "all positions lie within ±π/2 of latitude and ±π of longitude, at sea off Africa: are they radians? They are "
        "taken as degrees: convert the labels to degrees if so"
    ]


def heading_notices(angles_of_tiles: Mapping[int, Collection[int]]) -> list[str]:
    """Say which headings a set lacks between those that it has, and how many tiles lack some.

    angles_of_tiles: by the tile's index.
    """
    angles = sorted({angle for angles in angles_of_tiles.values() for angle in angles})
    notices = []
    if len(angles) >= _FEW_HEADINGS:
        step = min((b - a) % 360 for a, b in zip(angles, [*angles[1:], angles[0]], strict=True))
        circle = range(angles[0] % step, 360, step)
        if 360 % step == 0 and set(angles) < set(circle) and 2 * len(angles) > len(circle):
            absent = ", ".join(f"{angle:03d}" for angle in circle if angle not in angles)
            notices.append(f"of headings every {step}° there is none at {absent}")
    partial = {index: missing for index, of in angles_of_tiles.items() if (missing := sorted({*angles} - {*of}))}
    if partial:
        first = min(partial)
        notices.append(
            f"{len(partial)} of {len(angles_of_tiles)} tiles lack some of the headings (first tile {first}: "
            f"{', '.join(f'{angle:03d}' for angle in partial[first])})"
        )
    return notices


def footprint_notices(footprint_m: float, altitude_m: float) -> list[str]:
    """Say where a picture is far too small or too large for its altitude."""
    ratio = footprint_m / altitude_m if altitude_m > 0 else 1.0
    if _NARROWEST <= ratio <= _WIDEST:
        return []
    return [
        f"pictures taken from {altitude_m:g} m come out {footprint_m:.4g} m wide on the ground, by the spacing of "
        "their labels and the overlap: are the labels degrees, and the altitude metres? --footprint-m says the width"
    ]


def place_notices(places: Mapping[str, LonLat]) -> list[str]:
    """Say which frames' positions lie farther from the others than a flight could.

    places: by frame.
    """
    if len(places) < _FEW_PLACES:
        return []
    lon, lat = (np.array(column) for column in zip(*places.values(), strict=True))
    middle = LonLat(float(np.median(lon)), float(np.median(lat)))
    apart_m = geo.distance_m(lon, lat, *middle)
    limit_m = max(_FAR_M, _FAR_TIMES * float(np.median(apart_m)))
    far = [name for name, distance in zip(places, apart_m.tolist(), strict=True) if distance > limit_m]
    if not far:
        return []
    place = places[far[0]]
    exchanged = abs(place.lon) <= 90 and geo.distance_m(place.lat, place.lon, *middle) <= limit_m
    hint = ": its latitude and longitude seem to be exchanged" if exchanged else ""
    distance_km = float(geo.distance_m(*place, *middle)) / 1000
    return [
        f"the positions of {len(far)} of {len(places)} frames lie more than {limit_m / 1000:.0f} km from the flight's "
        f"middle (first {far[0]}, at {place.lat:.5f}, {place.lon:.5f}, {distance_km:,.0f} km away{hint}): they "
        "are taken as they are"
    ]


def truth_notices(
    poses: Mapping[str, Pose], exif_places: Mapping[str, LonLat], accepted: Collection[Doubt]
) -> list[str]:
    """Say what is doubtful about a flight's truth, but for the doubts that its user has answered.

    poses: by frame. exif_places: positions of EXIF by frame, where the truth is not EXIF's own.
    """
    places = {name: pose.location for name, pose in poses.items() if pose.location}
    doubts: dict[Doubt, list[str]] = {
        "radians": radian_notices(list(poses.values())) + radian_place_notices(places.values()),
        "roll": roll_notices(list(poses.values())),
        "far": place_notices(places),
        "exif": exif_notices(places, exif_places),
        "coarse": coarse_notices(places),
        "course": course_notices(poses.values()),
    }
    return unanswered(doubts, accepted)


def unanswered(doubts: Mapping[Doubt, Sequence[str]], accepted: Collection[Doubt]) -> list[str]:
    """Notices of doubts, but for those that the user has answered, with the option that does."""
    return [
        f"{notice}. If it is so: --accept {doubt}"
        for doubt, notices in doubts.items()
        if doubt not in accepted
        for notice in notices
    ]


def exif_notices(labelled: Mapping[str, LonLat], of_exif: Mapping[str, LonLat]) -> list[str]:
    """Say where labels place frames elsewhere than their pictures' EXIF does. Both by frame."""
    shared = [name for name in labelled if name in of_exif]
    if not shared:
        return []
    label, exif = (np.array([places[name] for name in shared]) for places in (labelled, of_exif))
    apart_m = geo.distance_m(*label.T, *exif.T)
    far = np.flatnonzero(apart_m > _EXIF_APART_M)
    if not len(far):
        return []
    exchanged = (np.abs(label[:, 0]) <= 90) & (geo.distance_m(label[:, 1], label[:, 0], *exif.T) <= _EXIF_APART_M)
    hint = ": the labels' latitude and longitude seem to be exchanged" if exchanged[far].mean() > 0.5 else ""
    return [
        f"the labels of {len(far)} of {len(shared)} frames lie more than {_EXIF_APART_M:.0f} m from the "
        f"position in the picture's EXIF (first {shared[far[0]]}, {apart_m[far[0]]:,.0f} m; "
        f"median {np.median(apart_m[far]):,.0f} m)"
        f"{hint}: the labels' positions are taken"
    ]


def order_notices(centres: Mapping[int, LonLat]) -> list[str]:
    """Say where tiles do not follow each other from west to east, and then from north to south, as captures' do.

    centres: by the tile's index.
    """
    pairs = [(centres[index], centres[index + 1]) for index in sorted(centres) if index + 1 in centres]
    if len(pairs) < _FEW_PLACES:
        return []
    first, second = np.array(pairs).transpose(1, 2, 0)  # each [2, N]: lon, lat
    east, north = (second - first) * np.array([[np.cos(np.radians(first[1].mean()))], [1.0]])
    side = np.argmax(np.abs([east, north]), axis=0)
    counts = {
        "east": int(((side == 0) & (east > 0)).sum()),
        "west": int(((side == 0) & (east < 0)).sum()),
        "north": int(((side == 1) & (north > 0)).sum()),
        "south": int(((side == 1) & (north < 0)).sum()),
    }
    commonest = max(counts, key=lambda direction: counts[direction])
    if commonest == "east":
        return []
    causes = {"west": "the sign of their longitudes", "north": "exchanged latitudes and longitudes"}
    cause = causes.get(commonest, "another order, or exchanged axes")
    return [
        f"the next tile lies {commonest} of the one before in {counts[commonest]} of {len(pairs)} labels, and is "
        f"expected east of it (rows from west to east, from north to south): look for {cause}. Positions are taken as "
        "they are"
    ]


def roll_notices(poses: Sequence[Pose]) -> list[str]:
    """Say where a camera that looks straight down by its pitch keeps one yaw and rolls all round: its heading hides in
    the roll."""
    nadir = [
        (pose.yaw_deg, pose.roll_deg)
        for pose in poses
        if pose.yaw_deg is not None
        and pose.roll_deg is not None
        and abs(abs(pose.pitch_deg or 0.0) - 90.0) < _NADIR_DEG
    ]
    if len(nadir) < _FEW_YAWS:
        return []
    yaws, rolls = zip(*nadir, strict=True)
    turn_deg = max(geo.heading_difference(yaws[0], yaw) for yaw in yaws)
    if turn_deg > _ONE_YAW_DEG or max(rolls) - min(rolls) < _ROLLING_DEG:
        return []
    return [
        f"the {len(nadir)} labels that look straight down (pitch ±90) say one yaw ({yaws[0]:g}) and rolls of "
        f"{min(rolls):g} to {max(rolls):g}: does the heading hide in the roll? Yaw is taken as it is; "
        "write yaw + roll as yaw if so"
    ]


def radian_notices(poses: Sequence[Pose]) -> list[str]:
    """Say where all yaws of a flight that turns lie within ±π, or within 0 and 2π: they may be radians."""
    headings = [pose.yaw_deg for pose in poses if pose.yaw_deg is not None]
    signed = [float(geo.signed_difference_deg(0.0, heading)) for heading in headings]
    if len(headings) < _FEW_YAWS:
        return []
    for yaws, lowest, highest, turned_rad, limits in (
        (signed, -math.pi, math.pi, _STEADY_RAD, "±π"),
        (headings, 0.0, math.tau, math.pi, "0 … 2π"),
    ):
        low, high = min(yaws), max(yaws)
        if low >= lowest - 0.01 and high <= highest + 0.01 and high - low >= turned_rad:
            return [
                f"every yaw of the {len(yaws)} labelled frames lies within {limits} ({low:.2f} to {high:.2f}): "
                "are they radians? They are taken as degrees: convert the labels to degrees if so"
            ]
    return []
