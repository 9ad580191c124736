"""The map that a reference set was made from. It needs no torch, so that pages show it without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from coarseloc.core import geo
from coarseloc.core.errors import InputError
from coarseloc.core.types import ReferenceSet, UInt8
from coarseloc.core.windows import WindowSource
from coarseloc.imagery.decode import read_image
from coarseloc.imagery.mosaics import CaptureWindows, PlacedPicture
from coarseloc.imagery.windows import OrthophotoWindows
from coarseloc.store.references import StoredCapture


def reference_map(
    reference_set: ReferenceSet, captures: Sequence[StoredCapture], read: Callable[[Path], UInt8] = read_image
) -> WindowSource:
    """The map that a reference set was made from: its orthophoto, or its captures laid together. read: of a capture.

    Raises InputError where the source files are gone: thumbnails are no substitute.
    """
    if reference_set.kind == "orthophoto":
        return OrthophotoWindows(
            Path(reference_set.source),
            reference_set.parameters.get("crs"),
            bool(reference_set.parameters.get("border_is_ground")),
        )
    missing = [capture.path for capture in captures if not Path(capture.path).is_file()]
    if missing or not captures:
        raise InputError(
            f"reference set {reference_set.name!r} cannot be a map: {len(missing)} of its {len(captures)} captures are "
            f"not where they were{f', such as {missing[0]}' if missing else ''}. Bring them back, or give --map"
        )
    pictures = [
        PlacedPicture(
            Path(capture.path),
            capture.tile.center,
            float(capture.angle_deg),
            reference_set.footprint_m or geo.box_size_m(capture.tile.bbox)[0],
        )
        for capture in captures
    ]
    width_px = read_image(pictures[0].path).shape[1]
    return CaptureWindows(pictures, pictures[0].width_m / width_px, read)
