"""Records of live flights in the data folder, JSON lines a file each: what a session leaves and the page Live reads."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from pydantic import ValidationError

from coarseloc.core import ids
from search.export.records import LiveFrameInfo

_SUFFIX = ".jsonl"
_TIME_FORM = "%Y%m%dT%H%M%S%fZ"
_TAIL_BYTES = 6_000  # a record has some 2,000; alternatives make it longer
_LONGEST_BYTES = 1_000_000


class Recording(NamedTuple):
    """One session's file. `name` tells it from others."""

    path: Path
    started_at: datetime  # UTC

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(_SUFFIX)


class NumberedLine(NamedTuple):
    """A whole line of a recording, and the offset behind it."""

    content: bytes
    end: int


def new_recording(data_dir: Path, flight_id: str) -> Path:
    """Name the file of a session that begins now."""
    return data_dir / "live" / f"{datetime.now(UTC):{_TIME_FORM}}_{ids.file_name(flight_id)}{_SUFFIX}"


def recordings(data_dir: Path) -> list[Recording]:
    """List the sessions, oldest first."""
    found = []
    for path in sorted((data_dir / "live").glob(f"*{_SUFFIX}")):
        try:
            started_at = datetime.strptime(path.name.partition("_")[0], _TIME_FORM).replace(tzinfo=UTC)
        except ValueError:
            continue
        found.append(Recording(path, started_at))
    return found


def whole_lines(path: Path, offset: int) -> list[NumberedLine]:
    """Read the lines behind an offset that have been written to their end."""
    with path.open("rb") as file:
        file.seek(offset)
        *lines, _ = file.read().split(b"\n")
    numbered = []
    for line in lines:
        offset += len(line) + 1
        numbered.append(NumberedLine(line, offset))
    return numbered


class RecordingReader:
    """The latest records of a recording, read on as it grows; threads may share one."""

    def __init__(self, path: Path, most: int) -> None:
        self._path, self._lock = path, Lock()
        self._records: deque[LiveFrameInfo] = deque(maxlen=most)
        self._offset = line_start(path, max(0, path.stat().st_size - most * _TAIL_BYTES))

    def records(self) -> list[LiveFrameInfo]:
        """Oldest first. What is no record is passed over."""
        with self._lock:
            for line in whole_lines(self._path, self._offset):
                self._offset = line.end
                try:
                    self._records.append(LiveFrameInfo.model_validate_json(line.content))
                except ValidationError:
                    continue
            return list(self._records)


def whole_end(path: Path) -> int:
    """Where the last line that is whole ends."""
    size = path.stat().st_size
    tail_start = max(0, size - _LONGEST_BYTES)
    with path.open("rb") as file:
        file.seek(tail_start)
        return tail_start + file.read(_LONGEST_BYTES).rfind(b"\n") + 1


def line_start(path: Path, offset: int) -> int:
    """Where the first line begins that does so at an offset or behind it."""
    if offset == 0:
        return 0
    with path.open("rb") as file:
        file.seek(offset - 1)
        file.readline()
        return file.tell()
