"""Frames of a flight that is being flown: each as it comes, with its pose and time as far as they are known by then."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from coarseloc.core import ids
from coarseloc.core.camera import Camera
from coarseloc.core.clock import FlightClock, TimeSource
from coarseloc.core.errors import InputError
from coarseloc.core.types import Flight, Frame, Pose
from coarseloc.imagery.flight_toml import FlightConditions
from coarseloc.imagery.flights import (
    LabelFiles,
    folder_flight_id,
    label_files,
    numbers_in_names,
    read_conditions,
    read_truth,
    relative_path,
    started_at,
)
from coarseloc.imagery.frame_times import StatedTime, Times, tell_times
from coarseloc.imagery.image_facts import ImageFacts, read_image_facts
from coarseloc.imagery.label_files import TABLES, stated_labels
from coarseloc.imagery.labels import Labels, open_labels
from coarseloc.imagery.name_times import name_times
from coarseloc.imagery.stated_labels import StatedLabels

_NAMES_COMPARED = 16  # the latest, of which a stamp that differs is a time


class ArrivingFlight:
    """A flight whose frames come one by one.

    As `open_flight` reads a whole one, with what only a whole one tells left out: a stamp in names is a time from the
    second frame on, and the first source that gives a time gives them all. Frames come in the order of their arrival;
    a number in a name is the frame's where it is above those before it.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        flight_id: str | None = None,
        labels: Path | StatedLabels | None = None,
        camera: Camera | None = None,
        time: StatedTime | None = None,
    ) -> None:
        """folder: where a flight.toml and labels may be, None where frames come from anywhere. flight_id: by default
        the folder's. labels: a file that is taken in place of the folder's, and
        what is said of labels.

        Raises InputError and ImageryError where flight.toml or labels cannot be used.
        """
        if folder is None:
            conditions, notices = FlightConditions(camera or Camera()), list[str]()
        else:
            conditions, notices = read_conditions(folder, camera)
        if conditions.camera.boresights:
            notices.append("the boresights of flight.toml are of frames that were flown before: not used")
        flight_id = ids.label(flight_id or (folder_flight_id(folder) if folder else "live"))
        self._stated = (time or StatedTime()).over(conditions.time)
        self.flight = Flight(
            flight_id,
            folder or Path(),
            (),
            started_at(flight_id),
            notices=tuple(notices),
            camera=replace(conditions.camera, boresights=None),
        )
        stated = stated_labels(stated_labels(labels).over(conditions.labels))
        self._labels = _ChosenLabels(stated.path, stated) if stated.path else _FolderLabels(folder, stated)
        self._names: deque[str] = deque(maxlen=_NAMES_COMPARED)
        self._last_index = 0

    def file_frame(self, path: Path, pose: Pose | None = None, time: datetime | None = None) -> Frame:
        """The frame of an image file. pose, time: what came with it, before what its own and label files say.

        Nothing is decoded. A label that cannot be read says nothing.
        """
        name = path.name
        facts = {name: read_image_facts(path)}
        read = partial(read_truth, path.parent, [name], StatedLabels(), facts, self.flight.camera)
        try:
            truth = read(self._labels.read())
        except InputError:  # of a position that is not in degrees
            truth = read(LabelFiles(Labels(), Labels()))
        image = facts[name]
        sources: dict[TimeSource, Times] = {
            **truth.times,
            "exif": {name: image.exif_time},
            "xmp": {name: image.xmp.time},
            "name": self._name_times(name),
        }
        if time is not None:
            sources["labels"] = {name: time}
        stated = pose or Pose()
        if stated.location is None and truth.source != "none":
            self.flight = replace(self.flight, truth_source=truth.source)
        return self._frame(path, name, _over(stated, truth.poses[name]), sources, image)

    def moment_frame(self, path: Path, number: int, pose: Pose, time: datetime | None) -> Frame:
        """The frame of a video at a moment. number: of the video's own; pose: by its subtitle."""
        name = f"{path.name}#{number:06d}"
        return self._frame(path, name, pose, {"labels": {name: time}}, ImageFacts(), number)

    def _frame(
        self,
        path: Path,
        name: str,
        pose: Pose,
        sources: Mapping[TimeSource, Times],
        image: ImageFacts,
        number: int | None = None,
    ) -> Frame:
        if number is None:
            (number,) = numbers_in_names(self.flight.flight_id, [name])
        index = number if number is not None and number > self._last_index else self._last_index + 1
        self._last_index = index
        if pose.location is not None and self.flight.truth_source == "none":
            self.flight = replace(self.flight, truth_source="labels")
        return Frame(index, path, relative_path(name), pose, self._time(name, index, sources, image.utc))

    def _time(
        self, name: str, index: int, sources: Mapping[TimeSource, Times], utc: datetime | None
    ) -> datetime | None:
        """By the flight's clock, which the first frame with a time tells."""
        clock, stated = self.flight.clock, self._stated
        if clock.source is not None:
            sources = {source: times for source, times in sources.items() if source == clock.source}
            if clock.source != "interval":
                stated = replace(stated, interval_s=None)
        told = tell_times([name], sources, {name: utc}, stated, self.flight.started_at, lambda _: [index])
        time, offset_s = told.times[name], told.clock.utc_offset_s
        if clock.source is None and (time is not None or told.clock.interval_s is not None):
            source = told.clock.source if time is not None else None
            self.flight = replace(self.flight, clock=FlightClock(source, offset_s, self._stated.interval_s))
        elif time is not None and offset_s is not None:
            if clock.utc_offset_s is None:
                self.flight = replace(self.flight, clock=replace(clock, utc_offset_s=offset_s))
            else:
                time += timedelta(seconds=clock.utc_offset_s - offset_s)
        return time

    def _name_times(self, name: str) -> Times:
        self._names.append(name)
        return {} if len(self._names) < 2 else name_times(list(self._names), self.flight.flight_id).times


def _over(stated: Pose, base: Pose) -> Pose:
    """A pose with what it does not say taken from another."""
    has_altitude = stated.altitude_label_m is not None
    return Pose(
        stated.location or base.location,
        stated.altitude_label_m if has_altitude else base.altitude_label_m,
        base.yaw_deg if stated.yaw_deg is None else stated.yaw_deg,
        base.pitch_deg if stated.pitch_deg is None else stated.pitch_deg,
        base.roll_deg if stated.roll_deg is None else stated.roll_deg,
        stated.altitude_datum if has_altitude else base.altitude_datum,
    )


class _ChosenLabels:
    """A label file that the user named, read once."""

    def __init__(self, path: Path, stated: StatedLabels) -> None:
        labels = open_labels(path, stated)
        is_table = path.suffix.lower() in TABLES
        self._files = LabelFiles(Labels(), labels) if is_table else LabelFiles(labels, Labels())

    def read(self) -> LabelFiles:
        return self._files


class _FolderLabels:
    """The label files of a folder and of that around it, read again when one of them has changed; one that is just
    being written says what it said before."""

    def __init__(self, folder: Path | None, stated: StatedLabels) -> None:
        self._folder, self._stated = folder, stated
        self._state: list[tuple[str, int, int]] | None = None
        self._files = LabelFiles(Labels(), Labels())

    def read(self) -> LabelFiles:
        if self._folder is None:
            return self._files
        state = self._stats(self._folder)
        if state != self._state:
            files = label_files(self._folder, self._stated)
            if not any(path.parent == self._folder for labels in files for path in labels.broken):
                self._state, self._files = state, files
        return self._files

    def _stats(self, folder_of_frames: Path) -> list[tuple[str, int, int]]:
        stats = []
        for folder in (folder_of_frames, folder_of_frames.parent):
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.lower().endswith((".json", *TABLES)) and not entry.name.startswith("."):
                        facts = entry.stat()
                        stats.append((entry.path, facts.st_size, facts.st_mtime_ns))
        return sorted(stats)
