"""The state of a tree of captures: one digest of all that opening it would look at, by names, sizes and times.

Pictures are not opened; of label files the bytes are digested too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import xxhash

from coarseloc.core import files
from coarseloc.imagery.decode import SUFFIXES
from coarseloc.imagery.file_names import image_names, is_folder, parse_capture

_LABELS = ".json"
_PIECE = 1 << 20
_FileState = tuple[str, int, int, int, int, int]  # name, mode, size, times of modification and change in ns, inode


@dataclass(frozen=True, slots=True)
class TreeState:
    """Of a tree's files."""

    digest: str  # xxh3_128, hexadecimal
    newest_ns: int  # the latest time of any file: what changes in the same tick of its clock keeps its times


def tree_state(root: Path, labels: Path | None) -> TreeState | None:
    """Look at every name in `root` and in its folders, at pictures' names in the folders there, and at the sizes, times
    and inodes of captures' pictures and label files.

    labels: the file that the user names, with the names of pictures beside it. None where there is no telling: `root`
    is a capture itself, beside which others may lie, or something cannot be looked at.
    """
    if parse_capture(root, "cw") is not None:
        return None
    state, newest_ns = xxhash.xxh3_128(), 0
    try:
        for part, file_states in _parts(root, labels):
            state.update(repr((part, file_states)).encode())
            newest_ns = max(newest_ns, *(max(modified, changed) for _, _, _, modified, changed, _ in file_states), 0)
    except OSError:
        return None
    return TreeState(state.hexdigest(), newest_ns)


def _parts(root: Path, labels: Path | None) -> Iterator[tuple[object, list[_FileState]]]:
    """What is looked at of the label file and of each folder: names and digests of bytes, states of files."""
    if labels is not None:
        beside = sorted(name for name in os.listdir(labels.parent) if name.lower().endswith(SUFFIXES))  # noqa: PTH208
        yield (str(labels), beside, _bytes_digest(labels)), [_file_state(labels.name, labels.stat())]
    with os.scandir(root) as listing:
        folders = sorted(entry.name for entry in listing if is_folder(entry))
    for folder in (root, *(root / name for name in folders)):
        read, others = _entries(folder, is_read=folder is root or parse_capture(folder, "cw") is not None)
        digests = [_bytes_digest(folder / entry.name) for entry in read if entry.name.lower().endswith(_LABELS)]
        deeper = {
            name: list(image_names(folder / name))
            for name, is_dir in others
            if is_dir and folder is not root and name[0] != "."
        }
        yield (folder.name, others, digests, deeper), [_file_state(entry.name, entry.stat()) for entry in read]


def _entries(folder: Path, is_read: bool) -> tuple[list[os.DirEntry[str]], list[tuple[str, bool]]]:
    """(what a tree's reader would open in a folder, all else there as (name, whether it is a folder)), by name."""
    suffixes = (*SUFFIXES, _LABELS) if is_read else ()
    read, others = [], []
    with os.scandir(folder) as listing:
        for entry in listing:
            if entry.name.lower().endswith(suffixes) and not is_folder(entry):
                read.append(entry)
            else:
                others.append((entry.name, is_folder(entry)))
    return sorted(read, key=attrgetter("name")), sorted(others)


def _file_state(name: str, status: os.stat_result) -> _FileState:
    return name, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _bytes_digest(path: Path) -> str:
    files.refuse_special(path)
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            state.update(piece)
    return state.hexdigest()
