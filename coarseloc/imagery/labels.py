"""What is written down about images: finding label files, and looking an image up in them.

A label that cannot be used does not spoil its neighbours: it keeps its reason, and its image becomes a row of
the failures table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from coarseloc import geo, ids
from coarseloc.errors import ImageryError
from coarseloc.imagery.label import Label, NotLabelsError
from coarseloc.imagery.label_csv import read_csv
from coarseloc.imagery.label_json import read_json
from coarseloc.types import Pose

TABLES = (".csv", ".tsv")
_SAME_PLACE_M = 1.0  # two labels of one image: less is rounding
_SAME_HEADING_DEG = 0.5


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of images, to be looked up by an image's path; capitals are ignored."""

    every: tuple[Label, ...] = ()  # in the order of their files, then of their rows
    files: tuple[Path, ...] = ()  # where they came from
    broken: Mapping[Path, ImageryError] = field(default_factory=dict)  # files that should hold labels, unreadable
    _by_name: dict[str, list[Label]] = field(default_factory=dict)
    _by_number: dict[tuple[str, int], list[Label]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for label in self.every:
            self._by_name.setdefault(label.filename.casefold(), []).append(label)
            if key := _number_key(label.filename):
                self._by_number.setdefault(key, []).append(label)

    def find(self, image: Path) -> Label | None:
        """The label of an image, None where it has none.

        Labels that lie in its folder come before those beside it. By its file name; where no label has that, by name
        and number whatever the suffix and the padding. A label that names folders and means another file, which is
        there, is not this image's; of labels that name different folders, none of them this one's, none is taken.
        Labels that contradict each other come as one without a position, whose problem says so.
        """
        name = ids.label(image.name).casefold()
        key = _number_key(name)
        named = self._by_name.get(name) or (self._by_number.get(key, []) if key else [])
        own = [label for label in named if not _means_another(label, image)]
        own = [label for label in own if label.source and label.source.parent == image.parent] or own
        here = [label for label in own if _names_folder(label, image)]
        if not here and len({label.reference.casefold() for label in named if "/" in label.reference}) > 1:
            return None
        return _agreed(here or own, image)


def _number_key(name: str) -> tuple[str, int] | None:
    """(beginning, number) of a name that ends in a number, whatever its suffix and the number's padding."""
    match = re.fullmatch(r"(.*?)(\d{1,9})(\.[a-z]+)?", name.casefold(), re.ASCII)
    return (match[1], int(match[2])) if match else None


def _names_folder(label: Label, image: Path) -> bool:
    """Whether the label names the image's folders, as far as it names any; a bare name is anybody's."""
    folders = [part.casefold() for part in label.reference.split("/")[:-1] if part not in ("", ".", "..")]
    own = [ids.label(part).casefold() for part in image.parent.parts]
    return bool(folders) and own[-len(folders) :] == folders


def _means_another(label: Label, image: Path) -> bool:
    """Whether the label, read from where it lies, names a file that is there and is not this image."""
    if "/" not in label.reference or label.source is None:
        return False
    named = label.source.parent / label.reference
    return named.parent != image.parent and named.is_file() and not named.samefile(image)


def _agreed(labels: Sequence[Label], image: Path) -> Label | None:
    """The one label, or the first of several that say the same."""
    placed = [label for label in labels if label.pose.location] or list(labels)
    if len(placed) < 2:
        return placed[0] if placed else None
    first = placed[0]
    for other in placed[1:]:
        apart_m = _apart_m(first, other)
        if apart_m > _SAME_PLACE_M or _headings_differ(first, other):
            problem = ImageryError(
                "label-conflict",
                f"{image.name} has two labels that contradict each other: {_said(first)} in {first.source}, and "
                f"{_said(other)} in {other.source}, {apart_m:.0f} m apart; neither is used. Remove the wrong one.",
            )
            return replace(first, pose=Pose(), problem=problem)
    return first


def _apart_m(a: Label, b: Label) -> float:
    if a.pose.location is None or b.pose.location is None:
        return 0.0
    return float(geo.distance_m(*a.pose.location, *b.pose.location))


def _headings_differ(a: Label, b: Label) -> bool:
    yaws = a.pose.yaw_deg, b.pose.yaw_deg
    return yaws[0] is not None and yaws[1] is not None and geo.heading_difference(yaws[0], yaws[1]) > _SAME_HEADING_DEG


def _said(label: Label) -> str:
    location, yaw = label.pose.location, label.pose.yaw_deg
    place = "no position" if location is None else f"{location.lat:.6f}, {location.lon:.6f}"
    return place if yaw is None else f"{place}, yaw {yaw:g}°"


def read_labels(path: Path) -> dict[str, Pose]:
    """The poses of a label file (JSON, CSV or TSV) by image file name.

    Raises ImageryError where the file cannot be read ("missing-file", "unreadable-label"), or a position in it
    is not in degrees ("wrong-crs").
    """
    labels = open_labels(path).every
    for label in labels:
        if label.problem is not None and label.problem.kind == "wrong-crs":
            raise label.problem
    return {label.filename: label.pose for label in labels}


def open_labels(path: Path) -> Labels:
    """One label file named by the user; ImageryError where it cannot be read."""
    return _collect({path: _read(path)})


def discover_json(folders: Iterable[Path]) -> Labels:
    """Every label JSON directly inside the folders; JSON of another form is passed over."""
    return _discover(folders, (".json",))


def discover_tables(folders: Iterable[Path]) -> Labels:
    """Every CSV or TSV with a file name and a position directly inside the folders; others are passed over."""
    return _discover(folders, TABLES)


def _discover(folders: Iterable[Path], suffixes: tuple[str, ...]) -> Labels:
    found: dict[Path, list[Label]] = {}
    broken: dict[Path, ImageryError] = {}
    for path in (folder / name for folder in folders for name in _names(folder, suffixes)):
        try:
            found[path] = _read(path)
        except NotLabelsError:
            continue
        except ImageryError as error:
            broken[path] = error
    return _collect(found, broken)


def _names(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """The files of these kinds, by name; filtered before sorting, as thousands of images may lie beside them."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.name.lower().endswith(suffixes) and e.name[0] != "." and e.is_file())


def _read(path: Path) -> list[Label]:
    return read_csv(path) if path.suffix.lower() in TABLES else read_json(path)


def _collect(found: Mapping[Path, list[Label]], broken: Mapping[Path, ImageryError] | None = None) -> Labels:
    every = tuple(replace(label, source=path) for path, labels in found.items() for label in labels)
    return Labels(every, tuple(found), broken or {})
