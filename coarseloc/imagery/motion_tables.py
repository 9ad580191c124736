"""Motion from frame to frame by another instrument: a table of displacements or speeds, whose columns say its axes."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from coarseloc.core import ids
from coarseloc.core.errors import InputError
from coarseloc.core.types import Frame
from coarseloc.imagery.label_tables import decode_text, read_table

_COLUMNS: dict[tuple[str, str], tuple[Literal["frame", "ground"], bool]] = {
    ("right_m", "forward_m"): ("frame", False),
    ("east_m", "north_m"): ("ground", False),
    ("right_mps", "forward_mps"): ("frame", True),
    ("east_mps", "north_mps"): ("ground", True),
}
_FORMS = "; ".join(" and ".join(pair) for pair in _COLUMNS)


@dataclass(frozen=True, slots=True)
class TabledMotion:
    """A frame's motion from the frame before: to the right and up of that frame's picture, or east and north; in metres
    or metres a second. `sd`: of each, None where the table does not say."""

    across: float
    along: float
    turn_deg: float | None
    sd: float | None


@dataclass(frozen=True, slots=True)
class MotionTable:
    """A file's motions by the frames' file names, without suffix and case."""

    path: Path
    axes: Literal["frame", "ground"]
    per_second: bool
    motions: Mapping[str, TabledMotion]
    digest: str

    def motion(self, frame: Frame) -> TabledMotion | None:
        return self.motions.get(_key(frame.filename))


def read_motion_table(path: Path) -> MotionTable:
    """Read a table with a file name and two columns of motion.

    Raises InputError where the file cannot be read, or its columns do not say what moves in which axes.
    """
    try:
        table = read_table(decode_text(path.read_bytes()).text)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except csv.Error as error:
        raise InputError(f"{path} is not a valid CSV: {error}") from None
    pairs = [pair for pair in _COLUMNS if set(pair) <= set(table.header)]
    name = table.column("filename")
    if name is None or len(pairs) != 1:
        raise InputError(
            f"{path} has the columns {', '.join(table.header[:40]) or '(none)'}: expected a file name, and one of the "
            f"pairs {_FORMS} (frame: right and up of the picture before; ground: from true north), each frame's motion "
            "from the frame before it. turn_deg (clockwise) and sd_m or sd_mps may stand beside them"
        )
    (pair,) = pairs
    axes, per_second = _COLUMNS[pair]
    sd_column = "sd_mps" if per_second else "sd_m"
    motions: dict[str, TabledMotion] = {}
    for number, row in enumerate(table.rows, start=2):
        across, along, turn_deg, sd = (_number(row.get(column)) for column in (*pair, "turn_deg", sd_column))
        key = _key(row.get(name, ""))
        if not key or across is None or along is None:
            continue  # the first frame has no motion
        if sd is not None and not sd > 0:
            raise InputError(f"{path}, line {number}: {sd_column} is {sd:g}, expected above 0")
        if key in motions:
            raise InputError(f"{path} has two rows of {row[name]!r}, line {number} the second: expected one a frame")
        motions[key] = TabledMotion(across, along, turn_deg, sd)
    if not motions:
        raise InputError(f"{path} has no row with numbers in {pair[0]} and {pair[1]}")
    facts = {key: [motion.across, motion.along, motion.turn_deg, motion.sd] for key, motion in motions.items()}
    return MotionTable(path, axes, per_second, motions, ids.digest({"axes": axes, "rate": per_second, "rows": facts}))


def _key(name: str) -> str:
    return Path(name.strip().replace("\\", "/")).stem.casefold()


def _number(cell: str | None) -> float | None:
    try:
        value = float((cell or "").strip().replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
