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
from coarseloc.imagery.file_names import parse_capture

_LABELS = ".json"
_PIECE = 1 << 20
_FileState = tuple[str, int, int, int, int]  # name, size, times of modification and of change in ns, inode


@dataclass(frozen=True, slots=True)
class TreeState:
    """Of a tree's files."""

    digest: str  # xxh3_128, hexadecimal
    newest_ns: int  # the latest time of any file: what changes in the same tick of its clock keeps its times


def tree_state(root: Path, labels: Path | None) -> TreeState | None:
    """Look at every name in `root` and in its folders, and at the sizes, times and inodes of pictures and label files.

    labels: the file that the user names, with the names of pictures beside it. None where there is no telling: `root`
    is a capture itself, beside which others may lie, or something cannot be looked at.
    """
    if parse_capture(root, "cw") is not None:
        return None
    state, newest_ns = xxhash.xxh3_128(), 0
    try:
        for part, file_states in _parts(root, labels):
            state.update(repr((part, file_states)).encode())
            newest_ns = max(newest_ns, *(max(modified, changed) for _, _, modified, changed, _ in file_states), 0)
    except OSError:
        return None
    return TreeState(state.hexdigest(), newest_ns)


def _parts(root: Path, labels: Path | None) -> Iterator[tuple[object, list[_FileState]]]:
    """What is looked at of the label file and of each folder: names and digests of bytes, states of files."""
    if labels is not None:
        beside = sorted(name for name in os.listdir(labels.parent) if name.lower().endswith(SUFFIXES))  # noqa: PTH208
        yield (str(labels), beside, _bytes_digest(labels)), [_file_state(labels.name, labels.stat())]
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    for folder in (root, *(root / name for name in folders)):
        is_read = folder is root or parse_capture(folder, "cw") is not None
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=attrgetter("name"))
        read = [entry for entry in entries if is_read and entry.name.lower().endswith((*SUFFIXES, _LABELS))]
        digests = [_bytes_digest(folder / e.name) for e in read if e.name.lower().endswith(_LABELS) and e.is_file()]
        names = [(entry.name, entry.is_dir()) for entry in entries]
        yield (folder.name, names, digests), [_file_state(entry.name, entry.stat()) for entry in read]


def _file_state(name: str, status: os.stat_result) -> _FileState:
    return name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _bytes_digest(path: Path) -> str:
    files.refuse_special(path)
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            state.update(piece)
    return state.hexdigest()
