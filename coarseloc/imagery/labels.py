"""What is written down about images: finding label files, and looking an image up in them.

A label that cannot be used does not spoil its neighbours: it keeps its reason, and its image becomes a row of
the failures table.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from coarseloc.errors import ImageryError
from coarseloc.imagery.label import Label, NotLabelsError
from coarseloc.imagery.label_csv import read_csv
from coarseloc.imagery.label_json import read_json
from coarseloc.types import Pose

TABLES = (".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels by image file name, capitals ignored; of two for one name the first is kept."""

    by_name: Mapping[str, Label] = field(default_factory=dict)
    files: tuple[Path, ...] = ()  # where they came from
    broken: Mapping[Path, ImageryError] = field(default_factory=dict)  # files that should hold labels, unreadable

    def find(self, filename: str) -> Label | None:
        return self.by_name.get(filename.casefold())


def read_labels(path: Path) -> dict[str, Pose]:
    """The poses of a label file (JSON, CSV or TSV) by image file name.

    Raises ImageryError where the file cannot be read ("missing-file", "unreadable-label"), or a position in it
    is not in degrees ("wrong-crs").
    """
    labels = open_labels(path).by_name.values()
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
    by_name: dict[str, Label] = {}
    for labels in found.values():
        for label in labels:
            by_name.setdefault(label.filename.casefold(), label)
    return Labels(by_name, tuple(found), broken or {})
