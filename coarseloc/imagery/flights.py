"""Flights: a folder of frames, and what is known of where each was taken."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path

from coarseloc import ids
from coarseloc.errors import InputError
from coarseloc.imagery.capture_tree import image_names
from coarseloc.imagery.exif import exif_pose
from coarseloc.imagery.labels import TABLES, Labels, discover_json, discover_tables, open_labels
from coarseloc.types import Flight, Frame, Pose

_GENERIC = ("images", "frames", "photos")  # such a folder is named after the one it lies in


def open_flight(path: Path, *, labels: Path | None = None) -> Flight:
    """The flight in a folder: its frames in order, each with what is known of its pose.

    Frames are `<flight>_<frame>.jpg`; in a folder named otherwise the index is the number at the end of each
    name where those differ, else the order. Truth comes from `labels` (JSON, CSV), else from label JSON, CSV or
    EXIF GPS, the first of them that places any frame; files are looked for inside the folder and beside it.
    No image is decoded. Raises InputError for a missing or empty folder, and for labels that name none of the
    frames or give metres for degrees.
    """
    path = path.resolve()
    names = _frame_names(path)
    flight_id = path.parent.name if path.name.lower() in _GENERIC and path.parent.name else path.name
    poses, source = _truth(path, names, labels)
    frames = [
        Frame(index, path / name, ids.label(name), poses[name])
        for index, name in sorted(zip(_indexes(flight_id, names), names, strict=True))
    ]
    return Flight(flight_id, path, tuple(frames), _started_at(flight_id), source)


def _frame_names(path: Path) -> list[str]:
    """The image files' names in natural order."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise InputError(f"{path} {what}: expected the folder of a flight's frames")
    names = sorted(image_names(path), key=_natural)
    if not names:
        deeper = [folder.name for folder in sorted(path.iterdir()) if folder.is_dir() and any(image_names(folder))]
        hint = f"; images are in its folder(s) {', '.join(deeper[:5])}: give one of these" if deeper else ""
        raise InputError(f"{path} holds no images (JPEG, PNG, TIFF, WebP){hint}")
    return names


def _indexes(flight_id: str, names: Sequence[str]) -> list[int]:
    """A distinct frame index for each name."""
    stems = [Path(name).stem for name in names]
    for pattern in (re.escape(flight_id) + r"_(\d{1,9})", r".*?(\d{1,9})"):
        matches = [re.fullmatch(pattern, stem, re.ASCII) for stem in stems]
        found = [int(match[1]) for match in matches if match]
        if len(set(found)) == len(names):
            return found
    return list(range(1, len(names) + 1))


def _started_at(flight_id: str) -> datetime | None:
    """The local start time in an id YYMMDDhhmmss; ids of other forms tell none."""
    if not re.fullmatch(r"\d{12}", flight_id, re.ASCII):
        return None
    try:
        return datetime.strptime(flight_id, "%y%m%d%H%M%S")
    except ValueError:
        return None


# --- truth --------------------------------------------------------------------------------------


def _truth(path: Path, names: Sequence[str], given: Path | None) -> tuple[dict[str, Pose], str]:
    """A pose for every name, and what the locations among them come from."""
    if given is not None:
        poses = _given(given, names)
        return poses, ("csv" if given.suffix.lower() in TABLES else "labels") if _placed(poses) else "none"
    folders = [path, path.parent]
    poses = _poses(discover_json(folders), path, names)
    if _placed(poses):
        return poses, "labels"
    readers: dict[str, Callable[[], dict[str, Pose]]] = {
        "csv": lambda: _poses(discover_tables(folders), path, names),
        "exif": lambda: {name: exif_pose(path / name) for name in names},
    }
    for source, read in readers.items():
        found = read()
        if _placed(found):
            return {name: _completed(found[name], poses[name]) for name in names}, source
    return poses, "none"


def _given(given: Path, names: Sequence[str]) -> dict[str, Pose]:
    labels = open_labels(given)
    if not any(labels.find(name) for name in names):
        raise InputError(
            f"{given} labels {len(labels.by_name)} image(s), none of them in this flight (its first is {names[0]}): "
            "give the flight's own labels"
        )
    return _poses(labels, given.parent, names)


def _poses(labels: Labels, path: Path, names: Sequence[str]) -> dict[str, Pose]:
    """A pose for every name, empty where there is no label. Raises where the flight's own file is broken, or
    where positions are given, but none in degrees."""
    for file, error in labels.broken.items():
        if file.parent == path:  # one beside may belong to another flight
            raise error
    found = {name: labels.find(name) for name in names}
    poses = {name: label.pose if label else Pose() for name, label in found.items()}
    wrong = [label.problem for label in found.values() if label and label.problem and label.problem.kind == "wrong-crs"]
    if wrong and not _placed(poses):
        raise wrong[0]
    return poses


def _placed(poses: Mapping[str, Pose]) -> bool:
    return any(pose.location for pose in poses.values())


def _completed(pose: Pose, other: Pose) -> Pose:
    """`pose`, with what it does not know taken from `other`: a position from EXIF, the yaw from a label."""
    known = {field.name: getattr(pose, field.name) for field in fields(Pose)}
    return Pose(**{name: getattr(other, name) if value is None else value for name, value in known.items()})


def _natural(name: str) -> list[tuple[int, str]]:
    """DJI_9 before DJI_10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name.casefold())]
