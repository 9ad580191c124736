"""Records of live flights in the data folder, JSON lines a file each: what a session leaves and the page Live reads."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from coarseloc.core import ids

_SUFFIX = ".jsonl"


def new_recording(data_dir: Path, flight_id: str) -> Path:
    """Name the file of a session that begins now."""
    return _folder(data_dir) / f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}_{ids.file_name(flight_id)}{_SUFFIX}"


def recordings(data_dir: Path) -> list[Path]:
    """List the files of sessions, oldest first."""
    folder = _folder(data_dir)
    return sorted(folder.glob(f"*{_SUFFIX}")) if folder.is_dir() else []


def _folder(data_dir: Path) -> Path:
    return data_dir / "live"
