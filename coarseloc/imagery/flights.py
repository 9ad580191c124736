"""Flights: a folder of frames, and what is known of where each was taken."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from itertools import count, pairwise
from pathlib import Path

from coarseloc import ids
from coarseloc.errors import InputError
from coarseloc.imagery.capture_tree import image_names
from coarseloc.imagery.exif import exif_pose, exif_time
from coarseloc.imagery.labels import TABLES, Labels, discover_json, discover_tables, open_labels
from coarseloc.types import Flight, Frame, Pose

_END_BYTES = 4096  # of a file, for its fingerprint
_GENERIC = ("images", "frames", "photos")  # such a folder is named after the one it lies in


def open_flight(path: Path, *, labels: Path | None = None) -> Flight:
    """The flight in a folder: its frames in order, each with what is known of its pose.

    Frames come in the order of the times that all their EXIF data give, else in the natural order of their names. A
    frame named `<flight>_<n>.jpg` has the number n; in a folder named otherwise the number at the end of each name,
    where these rise in order; others are numbered on. Truth comes from `labels` (JSON, CSV), else from label JSON, CSV
    or EXIF GPS, the first of them that places any frame; files are looked for inside the folder and beside it.
    What was guessed, left unused or contradicts itself is in the flight's `notices`. No image is decoded. Raises
    InputError for a missing or empty folder, and for labels that name none of the frames or give metres for degrees.
    """
    path = path.resolve()
    names = _frame_names(path)
    flight_id = path.parent.name if path.name.lower() in _GENERIC and path.parent.name else path.name
    poses, source, notices = _truth(path, names, labels)
    times = {name: exif_time(path / name) for name in names}
    ordered, said = _in_order(names, times)
    frames = [
        Frame(index, path / name, ids.label(name), poses[name], times[name], fingerprint(path / name))
        for index, name in zip(_indexes(flight_id, ordered), ordered, strict=True)
    ]
    return Flight(ids.label(flight_id), path, tuple(frames), _started_at(flight_id), source, (*said, *notices))


def fingerprint(path: Path) -> str:
    """Changes when a file's content does: its size, and BLAKE2b of its first and last 4 KiB; "" where it cannot be
    read."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            ends = file.read(_END_BYTES)
            file.seek(max(0, size - _END_BYTES))
            ends += file.read(_END_BYTES)
    except OSError:
        return ""
    return f"{size}-{hashlib.blake2b(ends, digest_size=16).hexdigest()}"


def _in_order(names: Sequence[str], times: Mapping[str, datetime | None]) -> tuple[list[str], list[str]]:
    """(names by time where all have one of their own, else as they are, in natural order; what to say of it)."""
    known = {time for time in times.values() if time is not None}
    timed = sum(time is not None for time in times.values())
    if timed < len(names):
        said = f"{timed} of {len(names)} frames say when they were taken: all are ordered by name"
        return list(names), [said] if timed else []
    if len(known) < len(names):
        return list(names), []  # seconds are too coarse for them
    by_time = sorted(names, key=lambda name: times[name] or datetime.min)
    said = "the frames are in the order of their EXIF times, which is not that of their names"
    return by_time, [] if by_time == list(names) else [said]


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
    """A distinct frame index for each name, in order: a name's own number, or the next free one."""
    stems = [ids.label(Path(name).stem) for name in names]
    numbered = re.compile(re.escape(ids.label(flight_id)) + r"_(\d{1,9})", re.ASCII)
    own = [int(match[1]) if (match := numbered.fullmatch(stem)) else None for stem in stems]
    if not any(number is not None for number in own):
        ends = [int(match[1]) for stem in stems if (match := re.fullmatch(r".*?(\d{1,9})", stem, re.ASCII))]
        rising = len(ends) == len(names) and all(a < b for a, b in pairwise(ends))
        own = list(ends) if rising else [None] * len(names)
    beyond = count(max((number for number in own if number is not None), default=0) + 1)
    indexes: list[int] = []
    for number in own:
        indexes.append(next(beyond) if number is None or number in indexes else number)
    return indexes


def _started_at(flight_id: str) -> datetime | None:
    """The local start time in an id YYMMDDhhmmss; ids of other forms tell none."""
    if not re.fullmatch(r"\d{12}", flight_id, re.ASCII):
        return None
    try:
        return datetime.strptime(flight_id, "%y%m%d%H%M%S")
    except ValueError:
        return None


# --- truth --------------------------------------------------------------------------------------


Poses = dict[str, Pose]


def _truth(path: Path, names: Sequence[str], given: Path | None) -> tuple[Poses, str, list[str]]:
    """A pose for every name, what the locations among them come from, and what to say of the labels."""
    if given is not None:
        labels = open_labels(given)
        poses = _given(labels, given, path, names)
        source = ("csv" if given.suffix.lower() in TABLES else "labels") if _placed(poses) else "none"
        return poses, source, _said(labels, path, names, [given])
    folders = [path, path.parent]
    labels = discover_json(folders)
    poses = _poses(labels, path, names)
    said = _said(labels, path, names, [file for file in labels.files if file.parent == path])
    if _placed(poses):
        return poses, "labels", said
    tables = discover_tables(folders)
    of_tables = _poses(tables, path, names)
    said += _said(tables, path, names, [file for file in tables.files if file.parent == path])
    readers: dict[str, Callable[[], Poses]] = {
        "csv": lambda: of_tables,
        "exif": lambda: {name: exif_pose(path / name) for name in names},
    }
    for source, read in readers.items():
        found = read()
        if _placed(found):
            return {name: _completed(found[name], poses[name]) for name in names}, source, said
    return poses, "none", said


def _said(labels: Labels, path: Path, names: Sequence[str], own: Sequence[Path]) -> list[str]:
    """What labels contradict each other, and what of the flight's own label files was left unused."""
    found = {name: labels.find(path / name) for name in names}
    notices = [
        str(label.problem)
        for label in found.values()
        if label and label.problem and label.problem.kind == "label-conflict"
    ]
    if own and not any(found.values()):
        notices.append(f"{own[0]} labels {len(labels.every)} image(s), none of them in this flight: it is not used")
    elif own and (without := sum(label is None for label in found.values())):
        notices.append(f"{without} of {len(names)} frames have no label in {own[0]}")
    elsewhere = [label for label in labels.every if label.filename.casefold() in _names_of(names)]
    if not own and elsewhere and not any(found.values()):
        notices.append(
            f"{elsewhere[0].source} has labels of images of these names in other folders "
            f"({elsewhere[0].reference}): none of them is this flight's"
        )
    return notices


def _names_of(names: Sequence[str]) -> set[str]:
    return {ids.label(name).casefold() for name in names}


def _given(labels: Labels, given: Path, path: Path, names: Sequence[str]) -> Poses:
    if not any(labels.find(path / name) for name in names):
        raise InputError(
            f"{given} labels {len(labels.every)} image(s), none of them in this flight (its first is {names[0]}): "
            "give the flight's own labels"
        )
    return _poses(labels, path, names, broken_in=given.parent)


def _poses(labels: Labels, path: Path, names: Sequence[str], broken_in: Path | None = None) -> Poses:
    """A pose for every name, empty where there is no label. Raises where the flight's own file is broken, or
    where positions are given, but none in degrees."""
    for file, error in labels.broken.items():
        if file.parent == (broken_in or path):  # one beside may belong to another flight
            raise error
    found = {name: labels.find(path / name) for name in names}
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
