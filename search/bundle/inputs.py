"""Whether the frames and references here are those that a bundle names: by digests, without searching anything."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coarseloc.core.errors import InputError
from coarseloc.core.types import Frame, LonLat, Pose, Progress
from coarseloc.imagery.flights import relative_path
from coarseloc.store import Database
from coarseloc.store.embeddings import StoredSpec
from coarseloc.store.references import StoredReferenceSet
from coarseloc.store.view_digests import ViewDigests, view_digests
from search.bundle.archive import BundleFile
from search.bundle.contents import AS_SEARCHED, file_sha256, vector_column
from search.bundle.records import BundleFlight, BundleFrame, BundleRun

InputKind = Literal["frame", "reference", "vector"]
_SAME_PLACE_DEG = 1e-7  # about a centimetre


@dataclass(frozen=True, slots=True)
class InputDifference:
    """The first of an input's parts that is another one here, and how many are."""

    kind: InputKind
    first: str
    bundle: str
    here: str
    count: int

    @property
    def decides(self) -> bool:
        """Whether it is another question then; vectors are made here, of the same pictures."""
        return self.kind != "vector"

    def __str__(self) -> str:
        rest = "" if self.count == 1 else f" (and {self.count - 1} more)"
        return f"{self.first}: {self.here} here, {self.bundle} in the bundle{rest}"


class _Tally:
    """Keeps the first difference of a kind and counts them."""

    def __init__(self, kind: InputKind) -> None:
        self._kind, self._count = kind, 0
        self._texts = ("", "", "")

    def add(self, first: str, bundle: str, here: str) -> None:
        self._texts = self._texts if self._count else (first, bundle, here)
        self._count += 1

    def differences(self) -> list[InputDifference]:
        return [InputDifference(self._kind, *self._texts, self._count)] if self._count else []


# --- frames ---------------------------------------------------------------------------------------


def frames_here(flight: BundleFlight, folder: Path) -> dict[int, Frame]:
    """{frame index: the bundle's frame with its truth, at its file below a folder here}, in the bundle's order."""
    paths = {frame.relative_path: folder / frame.relative_path for frame in flight.frames}
    if not all(path.exists() for path in paths.values()):  # names in another normal form of Unicode, or missing
        listed = {relative_path(path.relative_to(folder).as_posix()): path for path in _files(folder)}
        paths |= {name: listed[name] for name in paths.keys() & listed.keys()}
    if not any(path.exists() for path in paths.values()):
        raise InputError(
            f"{folder} holds none of the {len(paths)} frames of flight {flight.flight_id}: say with --flight where "
            "they are here"
        )
    return {frame.frame_index: _frame(frame, paths[frame.relative_path]) for frame in flight.frames}


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root) / name for name in names)


def _frame(frame: BundleFrame, path: Path) -> Frame:
    truth = frame.truth
    location = None if truth.location is None else LonLat(truth.location.lon, truth.location.lat)
    pose = Pose(location, truth.altitude_label_m, truth.yaw_deg, truth.pitch_deg, truth.roll_deg, truth.altitude_datum)
    return Frame(frame.frame_index, path, frame.relative_path, pose)


def frame_differences(
    flight: BundleFlight, frames: Mapping[int, Frame], progress: Progress | None = None
) -> list[InputDifference]:
    """Hold each frame's file against its digest in the bundle; frames that have none there are passed over."""
    tally = _Tally("frame")
    for count, frame in enumerate(flight.frames, 1):
        if frame.sha256 is not None:
            try:
                digest = file_sha256(frames[frame.frame_index].path)[0]
            except InputError:
                digest = "no file"
            if digest != frame.sha256:
                tally.add(f"frame {frame.frame_index} ({frame.relative_path})", _short(frame.sha256), _short(digest))
        if progress:
            progress(count, len(flight.frames), "frames")
    return tally.differences()


def _short(digest: str) -> str:
    return f"{digest[:12]}…" if len(digest) > 12 else digest


# --- references -----------------------------------------------------------------------------------


def reference_differences(
    db: Database,
    bundle: BundleFile,
    runs: Sequence[BundleRun],
    number: int,
    stored: StoredReferenceSet,
    specs: Mapping[str, StoredSpec],
) -> list[InputDifference]:
    """Hold each view of a set here against its row in the bundle. specs: {digest: spec here}, of the set's runs.

    Nothing where the set had changed when the bundle was written: its rows are not those that were searched then.
    """
    name, searching = f"references/{number}.csv", [run for run in runs if any(s.number == number for s in run.sets)]
    if name not in bundle.stated or not any(run.references_state == AS_SEARCHED for run in searching):
        return []
    views, vectors = _Tally("reference"), _Tally("vector")
    rows = {_key(row, name): row for row in bundle.rows(name)}
    digests = list(specs)
    with db.read() as session:
        for view in view_digests(session, stored.id, [specs[digest].id for digest in digests]):
            row = rows.pop((view.tile_index, view.angle_deg), None)
            what = f"tile {view.tile_index} at {view.angle_deg:03d} of {stored.name}"
            if row is None:
                views.add(what, "no such view", "a view")
            elif row.get("content_sha256") != view.content_digest:
                views.add(what, _short(row.get("content_sha256") or "none"), _short(view.content_digest))
            elif _moved(row, view, name):
                views.add(what, f"{row['lat']}, {row['lon']}", f"{view.center.lat}, {view.center.lon}")
            elif off := [
                d for d, v in zip(digests, view.vectors, strict=True) if row.get(vector_column(d)) != (v or "")
            ]:
                vectors.add(f"vector of {what}", _short(row.get(vector_column(off[0])) or "none"), "another")
    for tile_index, angle_deg in sorted(rows):
        views.add(f"tile {tile_index} at {angle_deg:03d} of {stored.name}", "a view", "no such view")
    return [*views.differences(), *vectors.differences()]


def _key(row: Mapping[str, Any], name: str) -> tuple[int, int]:
    try:
        return int(row["tile_index"]), int(row["angle_deg"])
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{name} of the bundle cannot be used: a row has {error!r}") from None


def _moved(row: Mapping[str, Any], view: ViewDigests, name: str) -> bool:
    try:
        return abs(float(row["lon"]) - view.center.lon) + abs(float(row["lat"]) - view.center.lat) > _SAME_PLACE_DEG
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{name} of the bundle cannot be used: a row has {error!r}") from None
