"""Write reference tiles as a capture tree in the users' own layout."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from coarseloc.core import files
from coarseloc.core.errors import InputError
from coarseloc.core.types import Failure, Pose, Progress, TileSource
from coarseloc.simulate.flight import write_labels


def write_captures(
    source: TileSource,
    out_root: Path,
    *,
    stamp: str = "251210182149",
    altitude_m: float | None = None,
    quality: int = 92,
    progress: Progress | None = None,
) -> list[Path]:
    """Write every view of `source` as `<capture>/<capture>_<index>.jpg` under `out_root`, with a label JSON
    `<capture>.json` beside each capture; returns the capture folders, by angle.

    `stamp` is the captures' time, YYMMDDhhmmss. Raises InputError for another form, for an unknown altitude,
    and for the first view that cannot be read: a tree with holes would pass for a whole one.
    """
    if not re.fullmatch(r"\d{12}", stamp):
        raise InputError(f"capture stamp {stamp!r}: expected twelve digits, YYMMDDhhmmss")
    reference_set = source.reference_set
    height = altitude_m if altitude_m is not None else reference_set.altitude_m
    if height is None:
        raise InputError(f"{reference_set.name} does not say its altitude, which capture names hold: give altitude_m")
    poses: dict[int, list[tuple[str, Pose]]] = {}
    folders: dict[int, Path] = {}
    for completed, tile in enumerate(source.tiles, 1):
        for view in source.views(tile, source.angles_of(tile)):
            if isinstance(view, Failure):
                raise InputError(f"{view.item} cannot be written as a capture: {view.message}")
            angle = view.angle_deg
            capture = f"{stamp}_{height:g}_{reference_set.overlap * 100:g}_0_{angle:03d}"
            if angle not in folders:
                folders[angle] = out_root / capture
                folders[angle].mkdir(parents=True, exist_ok=True)
            file = folders[angle] / f"{capture}_{tile.index:05d}.jpg"
            with files.replacing(file) as partial:
                Image.fromarray(view.pixels).save(partial, "JPEG", quality=quality)
            pose = Pose(tile.center, height, float(angle), 0.0, 0.0)
            poses.setdefault(angle, []).append((file.name, pose))
        if progress is not None:
            progress(completed, len(source.tiles), reference_set.name)
    for angle, folder in folders.items():
        write_labels(out_root / f"{folder.name}.json", poses[angle])
    return [folders[angle] for angle in sorted(folders)]
