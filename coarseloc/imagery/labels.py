"""Labels of a flight's or a capture's images: finding label files, and looking an image up in them.

A label that cannot be used does not spoil its neighbours: it keeps its reason, and its image becomes a row of
the failures table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from coarseloc.core import geo, ids
from coarseloc.core.errors import ImageryError
from coarseloc.core.types import Pose
from coarseloc.imagery.label_files import TABLES, Label, NotLabelsError, read_label_file
from coarseloc.imagery.stated_labels import StatedLabels

_SAME_PLACE_M = 1.0  # two labels of one image: less is rounding
_SAME_HEADING_DEG = 0.5
_HEAD_BYTES, _HEAD_LINES = 4096, 20
_NUMBERS = re.compile(r"(?<![\w.])[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])", re.IGNORECASE)


@dataclass(frozen=True)
class Labels:
    """Labels of images, to be looked up by an image's path; capitals are ignored where that is clear."""

    entries: tuple[Label, ...] = ()  # in the order of their files, then of their rows
    files: tuple[Path, ...] = ()  # where they came from
    broken: Mapping[Path, ImageryError] = field(default_factory=dict)  # files that should hold labels, unreadable
    chosen_by_user: bool = False  # for these images
    not_understood: Mapping[Path, ImageryError] = field(default_factory=dict)  # tables that hold no labels
    _subfolders: dict[Path, list[Path]] = field(default_factory=dict)  # folder → folders in it, listed once
    _by_image: dict[str, Label | None] = field(default_factory=dict)  # a set's images are asked of several times

    @cached_property
    def _by_name(self) -> dict[str, list[Label]]:
        by_name: dict[str, list[Label]] = {}
        for label in self.entries:
            by_name.setdefault(label.filename.casefold(), []).append(label)
        return by_name

    @cached_property
    def _by_number(self) -> dict[tuple[str, int], list[Label]]:
        by_number: dict[tuple[str, int], list[Label]] = {}
        for label in self.entries:
            if key := _number_key(label.filename):
                by_number.setdefault(key, []).append(label)
        return by_number

    @cached_property
    def _folders(self) -> dict[Path | None, set[str]]:
        """The folders that a file's labels name."""
        folders: dict[Path | None, set[str]] = {}
        for label in self.entries:
            folders.setdefault(label.source, set()).add(label.folder.casefold())
        return folders

    def find(self, image: Path) -> Label | None:
        """Find the label of an image; None where it has none.

        By its file name; where no label has that, by name and number whatever the suffix and the padding, unless the
        label's own file is there too. A label that names folders is of the image in these folders. Labels in the
        image's folder come before those beside it; a bare name in a file beside several folders that hold such a file
        is nobody's. A label of a folder that is not there (the images have moved) counts where its file names one
        folder and lies with the image, or was named by the user, or the image's name holds its folder's. Labels that
        contradict each other come as one without a position, whose problem says so.
        """
        key = str(image)
        if key not in self._by_image:
            self._by_image[key] = _reconcile(self._candidates(image), image)
        return self._by_image[key]

    def stay_in(self, root: Path) -> bool:
        """Whether files outside `root` and its folders say nothing about which image a label is of: labels name no
        folder, or in a file directly in `root` one of its folders."""
        heads = {(label.source, *label.reference.rpartition("/")[:2]) for label in self.entries}
        return all(
            not slash or (source is not None and source.parent == root and _is_folder_name(head))
            for source, head, slash in heads
        )

    def with_name(self, image: Path) -> list[Label]:
        """List the labels with an image's file name, or its name and number, in whatever folder."""
        name = ids.label(image.name)
        named = self._by_name.get(name.casefold(), [])
        if exactly := [label for label in named if label.filename == name]:
            return exactly
        candidates = named or ((key := _number_key(name)) and self._by_number.get(key)) or []
        return [label for label in candidates if not _is_another_file(_folder(image), label.filename, image)]

    def unused_by(self, images: Iterable[Path], files: Sequence[Path]) -> list[Label]:
        """List the labels of these files that belong to none of the images."""
        used = {id(label) for image in images for label in self._candidates(image)}
        return [label for label in self.entries if label.source in files and id(label) not in used]

    def names_another_folder(self, label: Label, image: Path) -> bool:
        """Tell whether an image's label names folders in which the image is not."""
        return _shared_folders(label, image) < len(label.folders) and not _is_named_for_folder(image)

    def _candidates(self, image: Path) -> list[Label]:
        labels = [label for label in self.with_name(image) if not _names_another_file(label, image)]
        labels = [label for label in labels if _lies_beside(label, image)] or labels
        in_folders = [
            label for label in labels if (named := label.folders) and _shared_folders(label, image) == len(named)
        ]
        if in_folders:
            return in_folders
        without_folders = [label for label in labels if not label.folders]
        if without_folders:
            return without_folders if any(self._is_unambiguous(label, image) for label in without_folders) else []
        return labels if _is_named_for_folder(image) else self._candidates_after_move(labels, image)

    def _is_unambiguous(self, label: Label, image: Path) -> bool:
        """Tell whether a label without folders can mean this image alone."""
        if self.chosen_by_user or label.source is None or _lies_beside(label, image) or _is_named_for_folder(image):
            return True
        root = label.source.parent
        if root not in self._subfolders:
            self._subfolders[root] = [entry for entry in root.iterdir() if entry.is_dir()]
        holders = [folder for folder in self._subfolders[root] if (folder / image.name).is_file()]
        return holders in ([], [image.parent])

    def _candidates_after_move(self, labels: Sequence[Label], image: Path) -> list[Label]:
        """Of labels whose folders are not there, those whose folders end as the image's do; else those of a file that
        names one folder."""
        absolute = [label for label in labels if label.is_absolute]
        best = max((_shared_folders(label, image) for label in absolute), default=0)
        nearest = [label for label in absolute if best and _shared_folders(label, image) == best]
        if len({label.folder.casefold() for label in nearest}) == 1:
            return nearest
        return [
            label
            for label in labels
            if len(self._folders[label.source]) == 1 and (self.chosen_by_user or _lies_beside(label, image))
        ]


def _number_key(name: str) -> tuple[str, int] | None:
    """Parse (beginning, number) of a name that ends in a number, whatever its suffix and the number's padding."""
    match = re.fullmatch(r"(.*?)(\d{1,9})(\.[a-z]+)?", name.casefold(), re.ASCII)
    return (match[1], int(match[2])) if match else None


def _is_folder_name(text: str) -> bool:
    return text not in ("", ".", "..") and not {"/", ":"} & {*text}


def _shared_folders(label: Label, image: Path) -> int:
    """Count the folders that label and image share, from the file upwards."""
    pairs = zip(reversed(label.folders), reversed(image.parent.parts), strict=False)
    count = 0
    for named, actual in pairs:
        if named.casefold() != ids.label(actual).casefold():
            break
        count += 1
    return count


def _is_named_for_folder(image: Path) -> bool:
    """Tell whether a file's name begins with its folder's: `<flight>_<n>.jpg`, `<capture>_<index>.jpg`."""
    return ids.label(image.name).startswith(f"{ids.label(image.parent.name)}_")


# Of each image of a set: as text, since a Path takes ten times as long.


def _lies_beside(label: Label, image: Path) -> bool:
    """Tell whether the label's own file lies in the image's folder."""
    return label.source is not None and _folder(label.source) == _folder(image)


def _names_another_file(label: Label, image: Path) -> bool:
    """Tell whether the label, relative to its own file, names another file that exists."""
    if label.source is None or (_lies_beside(label, image) and not label.folders):
        return False
    return _is_another_file(_folder(label.source), label.reference, image)


def _is_another_file(folder: str, reference: str, image: Path) -> bool:
    path = os.path.join(folder, reference)  # noqa: PTH118
    try:
        return os.path.isfile(path) and not image.samefile(path)  # noqa: PTH113
    except OSError:
        return False


def _folder(path: Path) -> str:
    """The path without its file's name, with the separator before that."""
    text = str(path)
    return text[: text.rfind(os.sep) + 1]


def _reconcile(labels: Sequence[Label], image: Path) -> Label | None:
    """Return the first of several labels of an image; one with a problem where they contradict each other."""
    located = [label for label in labels if label.pose.location] or list(labels)
    if len(located) < 2:
        return located[0] if located else None
    first = located[0]
    for label in located[1:]:
        apart_m = _apart_m(first, label)
        if apart_m > _SAME_PLACE_M or _headings_differ(first, label):
            problem = ImageryError(
                "label-conflict",
                f"{image.name} has two labels that contradict each other: {_describe(first)} in {first.source}, and "
                f"{_describe(label)} in {label.source}, {apart_m:.0f} m apart; neither is used. Remove the wrong one.",
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


def _describe(label: Label) -> str:
    location, yaw = label.pose.location, label.pose.yaw_deg
    place = "no position" if location is None else f"{location.lat:.6f}, {location.lon:.6f}"
    return place if yaw is None else f"{place}, yaw {yaw:g}°"


def read_labels(path: Path) -> dict[str, Pose]:
    """Read the poses of a label file (JSON, CSV or TSV) by image file name.

    Raises ImageryError where the file cannot be read ("missing-file", "unreadable-label"), or a position in it
    is not in degrees ("wrong-crs").
    """
    labels = open_labels(path).entries
    for label in labels:
        if label.problem is not None and label.problem.kind == "wrong-crs":
            raise label.problem
    return {label.filename: label.pose for label in labels}


def open_labels(path: Path, stated: StatedLabels | None = None) -> Labels:
    """Open one label file named by the user; ImageryError where it cannot be read."""
    return _collect({path: read_label_file(path, stated)}, {}, {}, chosen_by_user=True)


def discover_json(folders: Iterable[Path], stated: StatedLabels | None = None) -> Labels:
    """Read every label JSON directly inside the folders; JSON of another form is skipped."""
    return _discover(folders, (".json",), stated)


def discover_tables(folders: Iterable[Path], stated: StatedLabels | None = None) -> Labels:
    """Read every CSV or TSV with file names and positions directly inside the folders; others are skipped."""
    return _discover(folders, TABLES, stated)


def _discover(folders: Iterable[Path], suffixes: tuple[str, ...], stated: StatedLabels | None) -> Labels:
    labels_by_file: dict[Path, list[Label]] = {}
    broken: dict[Path, ImageryError] = {}
    not_understood: dict[Path, ImageryError] = {}
    for path in (folder / name for folder in folders for name in _file_names(folder, suffixes)):
        try:
            labels_by_file[path] = read_label_file(path, stated)
        except NotLabelsError as error:
            if path.suffix.lower() in (".json", ".csv", ".tsv") or _holds_numbers(path):
                not_understood[path] = error
        except ImageryError as error:
            broken[path] = error
    return _collect(labels_by_file, broken, not_understood)


def _holds_numbers(path: Path) -> bool:
    """Tell whether the first lines of a text hold three numbers each, as a table's do and a note's do not."""
    with path.open("rb") as file:
        lines = file.read(_HEAD_BYTES).decode("utf-8", "replace").splitlines()[:_HEAD_LINES]
    rows = [line for line in lines if not line.startswith("#")]
    return bool(rows) and sum(len(_NUMBERS.findall(line)) >= 3 for line in rows) > len(rows) / 2


def _file_names(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """List the files of these suffixes, by name; filtered before sorting, as thousands of images lie beside them."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.name.lower().endswith(suffixes) and e.name[0] != "." and e.is_file())


def _collect(
    labels_by_file: Mapping[Path, list[Label]],
    broken: Mapping[Path, ImageryError],
    not_understood: Mapping[Path, ImageryError],
    chosen_by_user: bool = False,
) -> Labels:
    entries = tuple(replace(label, source=path) for path, labels in labels_by_file.items() for label in labels)
    return Labels(entries, tuple(labels_by_file), broken, chosen_by_user, not_understood)
