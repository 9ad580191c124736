"""Flights: a folder of frames, and the true pose of each as labels or EXIF give it."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from coarseloc.core import files, geo, ids
from coarseloc.core.camera import Camera
from coarseloc.core.clock import TimeSource
from coarseloc.core.errors import InputError
from coarseloc.core.types import GPS_SD_M, Flight, Frame, Pose
from coarseloc.imagery.doubts import (
    counter_notices,
    frames_of_one_camera,
    size_notices,
    truth_notices,
    unread_kinds,
    unread_label_notices,
)
from coarseloc.imagery.exif import exif_position_notices
from coarseloc.imagery.file_names import folders_with_images, image_names, is_utf8, natural_order, printable, resolve
from coarseloc.imagery.flight_toml import FlightConditions, find_flight_toml, read_flight_toml
from coarseloc.imagery.frame_times import FrameTimes, StatedTime, Times, tell_times
from coarseloc.imagery.gimbal import MAX_TILT_DEG
from coarseloc.imagery.image_facts import ImageFacts, read_image_facts
from coarseloc.imagery.label_files import TABLES, Label, stated_labels
from coarseloc.imagery.labels import Labels, discover_json, discover_tables, open_labels
from coarseloc.imagery.midnight import NameOrder, order_over_midnight
from coarseloc.imagery.name_times import name_times
from coarseloc.imagery.stated_labels import StatedLabels

_OTHER_PLACE_M = 10.0  # of a table's and a label JSON's position: less is GPS
_OTHER_HEADING_DEG = 20.0  # of a label's and a gimbal's: less is wind, which turns the aircraft alone
_END_BYTES = 4096  # of a file, for its fingerprint
_LAST_DIGITS = re.compile(r"(?<!\d)(?<!\d\.)\d{1,9}$", re.ASCII)
_GENERIC = ("images", "frames", "photos")  # such a folder is named after the one it lies in


def open_flight(
    path: Path,
    *,
    labels: Path | StatedLabels | None = None,
    camera: Camera | None = None,
    time: StatedTime | None = None,
) -> Flight:
    """Open the flight in a folder: its frames in order, each with its pose and time where these are known.

    Frames come in the order of their times where every one has one (see `frame_times`); frames of one moment, and all
    where some have no time, in the natural order of their relative paths. A frame named `<flight>_<n>.jpg` has the
    number n; in a folder named otherwise the number at the end of each name, where these rise in order; others are
    numbered on. Truth comes from `labels` (JSON, CSV), else from label JSON, CSV or EXIF GPS, the first of them that
    places any frame; files are looked for inside the folder and beside it. Attitude and altitude that these lack are
    the gimbal's, where an image's XMP tells them. The camera, the truth's error and what the times lack come from a
    `flight.toml`; what `labels`, `camera` and `time` say comes before it. A true yaw is what the frame's upper edge
    faces: the aircraft's, and the camera's mounting. What was guessed, left unused or contradicts itself is in the
    flight's `notices`. No image is decoded. Raises InputError for a missing or empty folder, for labels that name none
    of the frames or give metres for degrees, and for a flight.toml with a key or a value that it cannot have.
    """
    path = resolve(path)
    names, notices = _frame_names(path)
    conditions, file_notices = read_conditions(path, camera)
    flight_id = folder_flight_id(path)
    facts = {name: read_image_facts(path / name) for name in names}
    stated = stated_labels(stated_labels(labels).over(conditions.labels))
    truth = read_truth(path, names, stated, facts, conditions.camera)
    frame_times = _told_times(names, flight_id, facts, truth.times, (time or StatedTime()).over(conditions.time))
    frames = [
        Frame(
            index,
            path / name,
            relative_path(name),
            truth.poses[name],
            frame_times.times[name],
            fingerprint(path / name),
        )
        for index, name in zip(_frame_indexes(flight_id, frame_times.names), frame_times.names, strict=True)
    ]
    if frame_times.clock.source == "index":
        notices += counter_notices(numbers_in_names(flight_id, frame_times.names))
    sizes = {name: image.size_px for name, image in facts.items() if image.size_px}
    notices += [*file_notices, *size_notices(sizes, "frames"), *frame_times.notices, *truth.notices]
    return Flight(
        ids.label(flight_id),
        path,
        tuple(frames),
        started_at(flight_id),
        truth.source,
        tuple(map(printable, notices)),
        conditions.camera,
        GPS_SD_M if conditions.truth_sd_m is None else conditions.truth_sd_m,
        frame_times.clock,
    )


def open_image(path: Path, *, camera: Camera | None = None, time: StatedTime | None = None) -> Flight:
    """Open one image as a flight of its own, with the camera of its folder and no truth."""
    conditions, notices = read_conditions(path.parent, camera)
    facts = {path.name: read_image_facts(path)}
    stated = StatedTime(None, (time or StatedTime()).over(conditions.time).utc_offset_s)  # an interval is between two
    frame_times = _told_times([path.name], path.parent.name, facts, {}, stated)
    return Flight(
        path.stem,
        path.parent,
        (Frame(1, path, path.name, time=frame_times.times[path.name]),),
        notices=tuple(map(printable, [*notices, *frame_times.notices])),
        camera=conditions.camera,
        clock=frame_times.clock,
    )


def _told_times(
    names: Sequence[str],
    flight_id: str,
    facts: Mapping[str, ImageFacts],
    label_times: Mapping[TimeSource, Times],
    stated: StatedTime,
) -> FrameTimes:
    in_names = name_times(names, flight_id)
    sources: dict[TimeSource, Times] = {
        **label_times,
        "exif": {name: image.exif_time for name, image in facts.items()},
        "xmp": {name: image.xmp.time for name, image in facts.items()},
        "name": in_names.times,
    }
    by_gps = {name: image.utc for name, image in facts.items()}
    number = partial(_frame_indexes, flight_id)
    timed = [times for times in (*sources.values(), by_gps) if any(times.values())]
    order = NameOrder(list(names))
    if not any(all(times.get(name) for name in names) for times in sources.values()):
        order = order_over_midnight(names, [times.get for times in timed], started_at(flight_id))
    frame_times = tell_times(order.names, sources, by_gps, stated, started_at(flight_id), number)
    notices = [*in_names.notices, *order.notices, *frame_times.notices]
    if frame_times.clock.source == "name":
        name = next(name for name in frame_times.names if frame_times.times[name])
        first = frame_times.times[name]
        notices.append(f"frames' times are those of their names ({in_names.form}): {name} was taken {first}")
    return frame_times._replace(notices=notices)


def read_conditions(folder: Path, camera: Camera | None) -> tuple[FlightConditions, list[str]]:
    """(what the flight.toml of a folder says below what its user says of the camera, notices)."""
    file, notices = find_flight_toml(folder)
    conditions = FlightConditions(Camera()) if file is None else read_flight_toml(file)
    return conditions._replace(camera=(camera or Camera()).over(conditions.camera)), notices


def _of_frame(pose: Pose, camera: Camera) -> Pose:
    """An aircraft's pose with the yaw of its frame; pitch and roll stay the aircraft's (`Camera.attitude`)."""
    return replace(pose, yaw_deg=camera.frame_heading_deg(pose.yaw_deg, pose.pitch_deg, pose.roll_deg))


def fingerprint(path: Path) -> str:
    """Return a file's size and the BLAKE2b of its first and last 4 KiB, which change with its content; "" where it
    cannot be read."""
    try:
        files.refuse_special(path)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            ends = file.read(_END_BYTES)
            file.seek(max(0, size - _END_BYTES))
            ends += file.read(_END_BYTES)
    except OSError:
        return ""
    return f"{size}-{hashlib.blake2b(ends, digest_size=16).hexdigest()}"


def relative_path(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # not stripped: of two files that differ in a space each is a frame


def _frame_names(path: Path) -> tuple[list[str], list[str]]:
    """List the image files' names in natural order; returns (names, notices of files left out)."""
    if not path.is_dir():
        state = "is a file" if path.exists() else "does not exist"
        raise InputError(f"{path} {state}: expected the folder of a flight's frames")
    names: dict[str, str] = {}
    notices = []
    for name in sorted(image_names(path), key=natural_order):
        if not is_utf8(name):
            notices.append(f"{printable(name)} is left out: its name is not UTF-8. Rename the file.")
        elif (first := names.setdefault(relative_path(name), name)) is not name:
            notices.append(f"{name} is there twice, in two spellings of Unicode: {first!a} is taken, {name!a} left out")
    deeper = ", ".join(folder.name for folder in folders_with_images(path)[:5])
    if not names:
        hint = f"; images are in its folder(s) {deeper}: give one of these" if deeper else ""
        unread = "".join(f"; {text}" for text in unread_kinds(path))
        raise InputError(f"{path} holds no images (JPEG, PNG, TIFF, WebP){hint}{unread}")
    if deeper:
        notices.append(f"the images in its folder(s) {deeper} are no frames of this flight: give one of these for them")
    frames, left_out_notices = frames_of_one_camera(list(names.values()))
    return frames, [*notices, *left_out_notices, *unread_kinds(path)]


def _frame_indexes(flight_id: str, names: Sequence[str]) -> list[int]:
    """Assign a distinct frame index to each name, in order: its own number, or the next free one."""
    numbers = numbers_in_names(flight_id, names)
    free_numbers = count(max((number for number in numbers if number is not None), default=0) + 1)
    return [next(free_numbers) if number is None else number for number in numbers]


def numbers_in_names(flight_id: str, names: Sequence[str]) -> list[int | None]:
    """Parse the number in each name; None where there is none, or where an earlier name has it.

    `<flight>_<n>` wherever there is such a name. Else the last digits of the commonest kind of name (`DJI_0001`,
    whatever its other digits), if these rise in order; the fraction of a time stamp is no number.
    """
    stems = [ids.label(Path(name).stem) for name in names]
    of_flight = re.compile(re.escape(ids.label(flight_id)) + r"_(\d{1,9})", re.ASCII)
    numbers = [int(match[1]) if (match := of_flight.fullmatch(stem)) else None for stem in stems]
    if any(number is not None for number in numbers):
        return _drop_repeats(numbers)
    ends = [_LAST_DIGITS.search(stem) for stem in stems]
    kinds = [end and re.sub(r"\d+", "#", end.string[: end.start()].casefold()) for end in ends]
    commonest = Counter(kind for kind in kinds if kind is not None).most_common(1)
    numbers = [
        int(end[0]) if end and commonest and kind == commonest[0][0] else None
        for end, kind in zip(ends, kinds, strict=True)
    ]
    numbers = _drop_repeats(numbers)
    rising = all(a < b for a, b in pairwise(number for number in numbers if number is not None))
    return numbers if rising else [None] * len(names)


def _drop_repeats(numbers: Sequence[int | None]) -> list[int | None]:
    positions: dict[int | None, int] = {}
    for position, number in enumerate(numbers):
        positions.setdefault(number, position)
    return [number if positions[number] == position else None for position, number in enumerate(numbers)]


def folder_flight_id(folder: Path) -> str:
    """Name the flight of a folder: as it is called, or as the folder around "frames" is."""
    return folder.parent.name if folder.name.lower() in _GENERIC and folder.parent.name else folder.name


def started_at(flight_id: str) -> datetime | None:
    """Parse the local start time in an id YYMMDDhhmmss; None for ids of other forms."""
    if not re.fullmatch(r"\d{12}", flight_id, re.ASCII):
        return None
    try:
        return datetime.strptime(flight_id, "%y%m%d%H%M%S")
    except ValueError:
        return None


# --- truth --------------------------------------------------------------------------------------


Poses = dict[str, Pose]
FrameLabels = Mapping[str, Label | None]
"""A frame's name → its label."""


class LabelFiles(NamedTuple):
    """The labels that a flight's poses come from, JSON and tables."""

    labels: Labels
    tables: Labels


class FlightTruth(NamedTuple):
    poses: Poses  # of every name
    source: str  # of their locations: "labels", "csv", "exif" or "none"
    times: dict[TimeSource, Times]  # that labels give
    notices: list[str]
    gimbals: Poses = {}  # noqa: RUF012  (never changed) of the names whose table tells a gimbal's attitude


def read_truth(
    path: Path,
    names: Sequence[str],
    stated: StatedLabels,
    facts: Mapping[str, ImageFacts],
    camera: Camera,
    files: LabelFiles | None = None,
) -> FlightTruth:
    """Read each frame's pose and time from the labels given, else from label JSON, tables or EXIF; then what these lack
    from its XMP. files: in place of those that are looked for."""
    truth = _positioned_truth(path, names, stated, facts, files)
    gimbals = {name: _or_table_gimbal(image.xmp.pose, truth.gimbals.get(name)) for name, image in facts.items()}
    notices = [
        *truth.notices,
        *_gimbal_notices(truth.poses, facts),
        *truth_notices(
            truth.poses,
            {} if truth.source == "exif" else {name: at for name, of in facts.items() if (at := of.exif_pose.location)},
            stated.accepted,
        ),
        *unread_label_notices(path, has_truth=truth.source != "none"),
    ]
    if truth.source in ("exif", "none"):
        notices += exif_position_notices(
            {name: image.position_doubt for name, image in facts.items()},
            [name for name, image in facts.items() if image.exif_pose.location is None],
        )
    poses = {name: _with_gimbal(_of_frame(pose, camera), gimbals[name]) for name, pose in truth.poses.items()}
    return truth._replace(poses=poses, notices=notices)


def _or_table_gimbal(of_xmp: Pose, of_table: Pose | None) -> Pose:
    """What XMP tells of a gimbal, with the attitude that a table tells where XMP has none."""
    if of_table is None or of_xmp.yaw_deg is not None:
        return of_xmp
    return replace(of_table, altitude_label_m=of_xmp.altitude_label_m, altitude_datum=of_xmp.altitude_datum)


def _table_gimbals(frame_labels: FrameLabels) -> Poses:
    return {name: label.gimbal for name, label in frame_labels.items() if label and label.gimbal}


def label_files(path: Path, stated: StatedLabels) -> LabelFiles:
    """Read the labels inside a flight's folder and beside it."""
    folders = [path, path.parent]
    return LabelFiles(discover_json(folders, stated), discover_tables(folders, stated))


def _positioned_truth(
    path: Path,
    names: Sequence[str],
    stated: StatedLabels,
    facts: Mapping[str, ImageFacts],
    files: LabelFiles | None,
) -> FlightTruth:
    if stated.path is not None:
        return _truth_from_file(path, names, stated.path, stated)
    labels, tables = files or label_files(path, stated)
    frame_labels, frame_rows = _labels_by_frame(labels, path, names), _labels_by_frame(tables, path, names)
    poses = _frame_poses(frame_labels, labels, path)
    notices = [*_notices(labels, frame_labels, path), *_tables_not_understood(tables, path)]
    gimbals = _table_gimbals(frame_rows)
    times: dict[TimeSource, Times] = {"labels": _label_times(frame_labels), "csv": _label_times(frame_rows)}
    if _has_location(poses):
        return FlightTruth(poses, "labels", times, notices + _contradiction_notices(frame_labels, frame_rows), gimbals)
    readers: dict[str, Callable[[], Poses]] = {
        "csv": lambda: _frame_poses(frame_rows, tables, path),
        "exif": lambda: {name: facts[name].exif_pose for name in names},
    }
    notices += _notices(tables, frame_rows, path)
    for source, read in readers.items():
        positions = read()
        if _has_location(positions):
            completed = {name: _fill_unknown(positions[name], poses[name]) for name in names}
            return FlightTruth(completed, source, times, notices, gimbals)
    notices += _tables_not_understood(labels, path)  # no label JSON, which is as well where others say the positions
    return FlightTruth(poses, "none", times, notices, gimbals)


def _truth_from_file(path: Path, names: Sequence[str], labels_path: Path, stated: StatedLabels) -> FlightTruth:
    labels = open_labels(labels_path, stated)
    frame_labels = _labels_by_frame(labels, path, names)
    if not any(frame_labels.values()):
        raise InputError(
            f"{labels_path} labels {len(labels.entries)} image(s), none of them in this flight (its first is "
            f"{names[0]}): give the flight's own labels"
        )
    poses = _frame_poses(frame_labels, labels, path)
    source: Literal["labels", "csv"] = "csv" if labels_path.suffix.lower() in TABLES else "labels"
    return FlightTruth(
        poses,
        source if _has_location(poses) else "none",
        {source: _label_times(frame_labels)},
        _notices(labels, frame_labels, path),
        _table_gimbals(frame_labels),
    )


def _tables_not_understood(tables: Labels, path: Path) -> list[str]:
    return [f"not used: {error}" for file, error in tables.not_understood.items() if file.parent == path]


def _with_gimbal(pose: Pose, gimbal: Pose) -> Pose:
    """Fill what a pose lacks from XMP: the attitude where it has no angle, the altitude where it has none, or one that
    is further from the ground below than one above take-off."""
    if gimbal.yaw_deg is not None and (pose.yaw_deg, pose.pitch_deg, pose.roll_deg) == (None, None, None):
        pose = replace(pose, yaw_deg=gimbal.yaw_deg, pitch_deg=gimbal.pitch_deg, roll_deg=gimbal.roll_deg)
    nearer = gimbal.altitude_datum == "takeoff" and pose.altitude_datum in ("sea", "ellipsoid")
    if gimbal.altitude_label_m is not None and (pose.altitude_label_m is None or nearer):
        pose = replace(pose, altitude_label_m=gimbal.altitude_label_m, altitude_datum=gimbal.altitude_datum)
    return pose


def _gimbal_notices(poses: Mapping[str, Pose], facts: Mapping[str, ImageFacts]) -> list[str]:
    """Describe gimbals that do not look down, and headings that contradict the labels'."""
    oblique = [name for name, image in facts.items() if image.xmp.is_oblique]
    notices = []
    if oblique:
        notices.append(
            f"the gimbal of {len(oblique)} frames looks more than {MAX_TILT_DEG:g}° from straight down (XMP; first "
            f"{oblique[0]}): its attitude is not used"
        )
    apart_deg = [
        float(geo.heading_difference(pose.yaw_deg, yaw))
        for name, pose in poses.items()
        if pose.yaw_deg is not None and (yaw := facts[name].xmp.pose.yaw_deg) is not None
    ]
    differing = sum(degrees > _OTHER_HEADING_DEG for degrees in apart_deg)
    if differing:
        notices.append(
            f"the headings of {differing} of {len(apart_deg)} frames are not those of their gimbal (XMP; median "
            f"{np.median(apart_deg):.0f}° apart): the labels' are taken"
        )
    return notices


def _labels_by_frame(labels: Labels, path: Path, names: Sequence[str]) -> FrameLabels:
    return {name: labels.find(path / name) for name in names}


def _frame_poses(frame_labels: FrameLabels, labels: Labels, path: Path) -> Poses:
    """Return a pose for every name, empty where there is no label. Raises where the flight's own file is broken, or
    where positions are given, but none in degrees."""
    for file, error in labels.broken.items():
        if file.parent == path:  # one beside may belong to another flight
            raise error
    poses = {name: label.pose if label else Pose() for name, label in frame_labels.items()}
    crs_errors = [
        label.problem
        for label in frame_labels.values()
        if label and label.problem and label.problem.kind == "wrong-crs"
    ]
    if crs_errors and not _has_location(poses):
        raise crs_errors[0]
    return poses


def _label_times(frame_labels: FrameLabels) -> Times:
    return {name: label.time for name, label in frame_labels.items() if label and label.time}


def _notices(labels: Labels, frame_labels: FrameLabels, path: Path) -> list[str]:
    """Describe labels that contradict each other, were matched by file name alone, or were left unused."""
    conflicts = [
        label.problem
        for label in frame_labels.values()
        if label and label.problem and label.problem.kind == "label-conflict"
    ]
    rest = f" So have {len(conflicts) - 1} more frame(s)." if len(conflicts) > 1 else ""
    notices = [f"{conflicts[0]}{rest}"] if conflicts else []
    problems = [label.problem for label in frame_labels.values() if label and label.problem]
    unplaced = [problem for problem in problems if problem.kind != "label-conflict"]
    has_place = any(label and label.pose.location for label in frame_labels.values())
    if unplaced and (has_place or any("it gives: nothing" not in str(problem) for problem in unplaced)):
        notices.append(f"{len(unplaced)} of {len(frame_labels)} frames have a label without a position: {unplaced[0]}")
    labelled = [name for name, label in frame_labels.items() if label]
    own_files = [file for file in labels.files if labels.chosen_by_user or file.parent == path]
    if not labelled:
        return notices + _unused_notices(labels, own_files, frame_labels, path)
    notes = {f"{label.source}: {note}": None for label in frame_labels.values() if label for note in label.notes}
    notices += notes
    if len(labelled) < len(frame_labels):
        first = next(name for name in frame_labels if name not in labelled)
        files = ", ".join(str(file) for file in dict.fromkeys(label.source for label in frame_labels.values() if label))
        notices.append(
            f"{len(frame_labels) - len(labelled)} of {len(frame_labels)} frames have no label in {files}: first {first}"
        )
    unused = labels.unused_by((path / name for name in frame_labels), own_files)
    if unused:
        notices.append(
            f"{len(unused)} of the labels in {unused[0].source} name no frame of this flight: "
            f"first {unused[0].reference}"
        )
    elsewhere = [
        label for name, label in frame_labels.items() if label and labels.names_another_folder(label, path / name)
    ]
    if elsewhere:
        notices.append(
            f"{elsewhere[0].source} names its images in another folder (first {elsewhere[0].reference}): labels are "
            f"taken by file name for {len(elsewhere)} frames in {path}"
        )
    return notices


def _unused_notices(labels: Labels, files: Sequence[Path], frame_labels: FrameLabels, path: Path) -> list[str]:
    """Describe label files none of whose labels is used."""
    if files:
        references = [label.reference for label in labels.entries if label.source in files]
        first_frame, first_reference = next(iter(frame_labels)), references[0] if references else "none"
        return [
            f"{', '.join(map(str, files))}: {len(references)} label(s), none of them for a frame of this flight (its "
            f"first is {first_frame}, the first label's is {first_reference}): not used"
        ]
    same_named = [label for name in frame_labels for label in labels.with_name(path / name)]
    if not same_named:
        return []  # beside the flight, and not of it
    return [
        f"{same_named[0].source} has labels for images of these names, but in other folders or not saying in which "
        f"(first {same_named[0].reference}): not used. Name the folders in it, or give the flight's own with --labels"
    ]


def _contradiction_notices(frame_labels: FrameLabels, frame_rows: FrameLabels) -> list[str]:
    """Describe a table whose positions differ from those of the label JSON, which is used."""
    pairs = [
        (label, row)
        for name, label in frame_labels.items()
        if label and label.pose.location and (row := frame_rows[name]) and row.pose.location
    ]
    apart_m = [
        float(geo.distance_m(*a.pose.location, *b.pose.location))
        for a, b in pairs
        if a.pose.location and b.pose.location
    ]
    count_apart = sum(distance > _OTHER_PLACE_M for distance in apart_m)
    if not count_apart:
        return []
    label, row = pairs[0]
    return [
        f"{row.source} and {label.source} contradict each other about {count_apart} of {len(pairs)} frames (median of "
        f"all {np.median(apart_m):.0f} m apart): {label.source} is taken"
    ]


def _has_location(poses: Mapping[str, Pose]) -> bool:
    return any(pose.location for pose in poses.values())


def _fill_unknown(pose: Pose, fallback: Pose) -> Pose:
    """Fill the unknown fields of `pose` from `fallback`: a position from EXIF, the yaw from a label."""
    values = {field.name: getattr(pose, field.name) for field in fields(Pose)}
    filled = Pose(**{name: getattr(fallback, name) if value is None else value for name, value in values.items()})
    return replace(filled, altitude_datum=(fallback if pose.altitude_label_m is None else pose).altitude_datum)
