"""Reference tiles out of users' capture trees, already turned to their headings."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

import numpy as np

from coarseloc.core import geo, ids, tiling
from coarseloc.core.errors import ImageryError
from coarseloc.core.types import Doubt, Failure, LonLat, ReferenceSet, Tile, View
from coarseloc.imagery.decode import MIN_SEEN, content_digest, picture_size, read_with_ground, seen_ground
from coarseloc.imagery.doubts import (
    SAME_SIDE,
    coarse_notices,
    footprint_notices,
    heading_notices,
    order_notices,
    radian_place_notices,
    size_notices,
    unanswered,
)
from coarseloc.imagery.file_names import (
    Capture,
    Files,
    find_captures,
    image_names,
    list_files,
    printable,
    resolve,
    tile_key,
)
from coarseloc.imagery.label_files import Label, stated_labels
from coarseloc.imagery.labels import Labels, discover_json, open_labels
from coarseloc.imagery.stated_labels import StatedLabels

Located = dict[int, dict[int, LonLat]]
"""Tile index → angle → the position its label gives."""

_TILES_COMPARED = 200  # of a set, to hold labels' yaws against the folders' angles
_TURN_LIMIT_DEG = 22.5  # half of what two headings differ by
_PICTURES_TRIED = 20  # whose size may not be told by their headers
_PICTURES_SIZED = 4  # of each heading
_SAME_STRIDE = 0.05


class CaptureSource:
    """A TileSource over captures of one altitude and overlap. Each view is an image file."""

    def __init__(
        self,
        reference_set: ReferenceSet,
        tiles: Sequence[Tile],
        files: Files,
        failures: Sequence[Failure],
        notices: Sequence[str],
        stays_in_root: bool,
    ) -> None:
        """stays_in_root: nothing outside the tree was looked for, but the label file that the user named."""
        self.reference_set = reference_set
        self.tiles = tiles
        self.failures = failures
        self.notices = notices
        self.stays_in_root = stays_in_root
        self._files = files

    def angles_of(self, tile: Tile) -> tuple[int, ...]:
        return tuple(sorted(self._files[tile.index]))

    def source_fingerprint(self, tile: Tile, angle_deg: int) -> str:
        """File size and modification time; "missing" where the file has gone since it was listed."""
        try:
            status = self._files[tile.index][angle_deg].stat()
        except OSError:
            return "missing"
        return f"{status.st_size}:{status.st_mtime_ns}"

    def views(self, tile: Tile, angles: Sequence[int]) -> Iterator[View | Failure]:
        for angle in angles:
            path = self._files[tile.index].get(angle)
            if path is None:
                yield Failure(f"tile {tile.index} at {angle:03d}", "read", "missing-file", "no capture has it")
                continue
            try:
                pixels, ground = read_with_ground(path)
            except ImageryError as error:
                yield Failure(str(path), "read", error.kind, str(error))
                continue
            seen, reason = seen_ground(pixels)  # too little in a render that was not ready
            if reason is None and ground < MIN_SEEN:
                reason = f"{1 - ground:.0%} of it is transparent: less than half shows ground"
            if reason is not None:
                yield Failure(
                    str(path), "read", "one-colour" if reason.startswith("it is one colour") else "no-ground", reason
                )
                continue
            yield View(angle, pixels, content_digest(pixels), min(ground, seen), path)


def open_captures(
    root: Path,
    *,
    name: str | None = None,
    labels: Path | StatedLabels | None = None,
    footprint_m: float | None = None,
    turned: str = "cw",
) -> list[CaptureSource]:
    """Open the capture tree at `root`, or one capture folder, as sources: one per altitude and overlap.

    Centres come from `labels`, else from every label JSON in `root` and in its captures; the footprint from
    `footprint_m`, else from the grid's own spacing and overlap. Captures of one altitude and overlap whose tiles of the
    same numbers lie elsewhere are another grid, and a source of its own. `turned` is "cw" where the folders' angles are
    headings, "ccw" where the set was turned the other way. Sets are named `<root>-<altitude>m-<overlap>`, or `name`; a
    further grid's with its first capture's time. No image is decoded. What cannot be used is in the sources' `failures`
    (what concerns the whole tree in the first one's); InputError where nothing can be used.
    """
    root = resolve(root)
    captures, failures = find_captures(root, turned)
    stated = stated_labels(labels)
    tile_labels = (
        open_labels(stated.path, stated) if stated.path else discover_json(_label_folders(root, captures), stated)
    )
    failures += [
        Failure(printable(path), "list", error.kind, printable(str(error)))
        for path, error in tile_labels.broken.items()
    ]
    groups, unplaced = _group_captures(captures, tile_labels, footprint_m)
    failures += unplaced
    sources = []
    for suffix, group in groups.items():
        set_name = name if name is not None and len(groups) == 1 else f"{name or ids.set_name(root.name)}-{suffix}"
        try:
            sources.append(_build_source(root, set_name, group, tile_labels, footprint_m, turned, stated))
        except ImageryError as error:
            refusal = error
            failures.append(Failure(f"{root} ({suffix})", "list", error.kind, str(error)))
    if not sources:
        raise refusal
    failures += [
        Failure(
            str(group[0].path),
            "list",
            "another-grid",
            f"its tiles lie elsewhere than those of the same numbers in other captures: a set of its own, …-{suffix}",
        )
        for suffix, group in groups.items()
        if suffix.count("-") > 1
    ]
    sources[0].failures = [*failures, *sources[0].failures]
    return sources


def _group_captures(
    captures: Sequence[Capture], labels: Labels, footprint_m: float | None
) -> tuple[dict[str, list[Capture]], list[Failure]]:
    """Group captures by altitude and overlap, and by grid where these have several.

    Returns ({suffix of the set's name: its captures}, a Failure for each capture in no group). The first grid has no
    time in its suffix: one that is added later does not rename it.
    """
    by_level: dict[tuple[float, float], list[Capture]] = defaultdict(list)
    for capture in captures:
        by_level[capture.altitude_m, capture.overlap].append(capture)
    groups: dict[str, list[Capture]] = {}
    failures: list[Failure] = []
    for (altitude_m, overlap), group in sorted(by_level.items()):
        suffix = f"{altitude_m:g}m-{round(overlap * 100, 3):g}"
        grids, unplaced = _split_grids(group, labels, footprint_m)
        failures += unplaced
        for grid in grids:
            timed = f"{suffix}-{grid[0].time}"
            names = chain([suffix, timed], (f"{timed}-{number}" for number in count(2)))
            groups[next(name for name in names if name not in groups)] = grid
    return groups, failures


@dataclass(slots=True)
class _Grid:
    """Captures whose tiles of the same numbers lie at the same places."""

    captures: list[Capture]
    places: dict[int, LonLat]
    _stride_m: float | None = None  # of these places, where it was asked for

    def add(self, capture: Capture, places: Mapping[int, LonLat]) -> None:
        self.captures.append(capture)
        if new := {index: place for index, place in places.items() if index not in self.places}:
            self.places.update(new)
            self._stride_m = None

    def stride_m(self, overlap: float, footprint_m: float | None) -> float:
        """Metres from a place to the next; infinite where there is only one and nobody says."""
        if footprint_m is not None:
            return footprint_m * (1 - overlap)
        if self._stride_m is None:
            places = set(self.places.values())
            self._stride_m = tiling.spacing(list(places)) if len(places) > 1 else math.inf
        return self._stride_m

    def holds(self, places: Mapping[int, LonLat], overlap: float, footprint_m: float | None) -> bool:
        """Tell whether tiles of the same numbers lie less than half a stride apart (median)."""
        shared = sorted(self.places.keys() & places.keys())
        here, there = (np.array([of_grid[index] for index in shared]) for of_grid in (self.places, places))
        apart_m = geo.distance_m(here[:, 0], here[:, 1], there[:, 0], there[:, 1])
        return bool(np.median(apart_m) <= self.stride_m(overlap, footprint_m) / 2)


def _split_grids(
    captures: Sequence[Capture], labels: Labels, footprint_m: float | None
) -> tuple[list[list[Capture]], list[Failure]]:
    """Split captures by grid; returns (captures of each grid, by name; a Failure for each capture of unknown grid).

    A capture's own labels say which grid it is of. One without joins that of its time of capture, or the only one if
    this lacks its heading: another picture of a tile that is there may be of another area.
    """
    places = {capture.path: _labelled_places(capture, labels) for capture in captures}
    grids: list[_Grid] = []
    undecided: list[Capture] = []
    for capture in sorted(
        captures, key=lambda capture: not places[capture.path]
    ):  # stable: by name, those with labels first
        shared = [grid for grid in grids if grid.places.keys() & places[capture.path].keys()]
        matching = [grid for grid in shared if grid.holds(places[capture.path], capture.overlap, footprint_m)]
        if matching:
            best = max(matching, key=lambda grid: len(grid.places.keys() & places[capture.path].keys()))
            best.add(capture, places[capture.path])
        elif shared or (places[capture.path] and not grids):
            grids.append(_Grid([capture], dict(places[capture.path])))
        else:
            undecided.append(capture)
    failures = _join_undecided(undecided, grids, places)
    if not grids:
        return [list(captures)], []  # none of them has a label: to be said of their tiles
    order = {capture.path: number for number, capture in enumerate(captures)}
    by_name = [sorted(grid.captures, key=lambda capture: order[capture.path]) for grid in grids]
    return sorted(by_name, key=lambda grid: order[grid[0].path]), failures


def _join_undecided(
    undecided: Sequence[Capture], grids: Sequence[_Grid], places: Mapping[Path, Mapping[int, LonLat]]
) -> list[Failure]:
    """Add captures that share no labelled tile with a grid to the grid of their time; a Failure for each left out."""
    by_time: dict[str, list[Capture]] = defaultdict(list)
    for capture in undecided:
        by_time[capture.time].append(capture)
    failures = []
    for time, group in by_time.items():
        same_time = [grid for grid in grids if any(capture.time == time for capture in grid.captures)]
        if not same_time and len(grids) == 1:
            angles = {capture.angle_deg for capture in grids[0].captures}
            labelled = all(places[capture.path] for capture in group)  # other tiles of the same grid
            same_time = [] if angles & {capture.angle_deg for capture in group} and not labelled else list(grids)
        if len(same_time) == 1:
            for capture in group:
                same_time[0].add(capture, places[capture.path])
        elif grids:
            failures += [_unplaced_failure(capture, grids) for capture in group]
    return failures


def _unplaced_failure(capture: Capture, grids: Sequence[_Grid]) -> Failure:
    grid_names = ", ".join(grid.captures[0].path.name for grid in grids)
    return Failure(
        str(capture.path),
        "list",
        "unplaced-capture",
        f"no label says where its tiles lie, and it was taken at another time than {grid_names}: left out. "
        "Give it a label JSON, or ingest it as a root of its own with --labels.",
    )


def _labelled_places(capture: Capture, labels: Labels) -> dict[int, LonLat]:
    """Return {tile index: position by the capture's own label}."""
    places = {}
    for name in image_names(capture.path):
        key, label = tile_key(name), labels.find(capture.path / name)
        if key is not None and label is not None and label.pose.location is not None:
            places[key[1]] = label.pose.location
    return places


def _label_folders(root: Path, captures: Sequence[Capture]) -> list[Path]:
    """Return the folders to search for label JSON: the captures and those they lie in."""
    return sorted({folder for capture in captures for folder in (capture.path, capture.path.parent)} | {root})


def _build_source(
    root: Path,
    name: str,
    captures: Sequence[Capture],
    labels: Labels,
    footprint_m: float | None,
    turned: str,
    stated: StatedLabels,
) -> CaptureSource:
    """Build the source of one altitude and overlap: list its files, locate its tiles, set its footprint."""
    overlap = captures[0].overlap
    files, failures = list_files(captures)
    located, unlabelled = _locate_tiles(files, labels)
    if not located:
        raise _no_position_error(root, files, unlabelled)
    centres = {index: by_angle[min(by_angle)] for index, by_angle in located.items()}  # the 000 capture's, if there
    width_px, height_px = _picture_size(files)
    notices: list[str] = []
    if footprint_m is None:
        footprint_m, notices = _footprint(list(centres.values()), overlap, height_px / width_px)
        notices += footprint_notices(footprint_m, captures[0].altitude_m)
    tiling.check_footprint(footprint_m)
    height_m = footprint_m * height_px / width_px
    doubts: dict[Doubt, list[str]] = {
        "turned": _turn_notices(files, labels, turned),
        "order": order_notices(centres),
        "radians": radian_place_notices(list(centres.values())),
        "coarse": coarse_notices({str(index): place for index, place in centres.items()}),
    }
    notices += [*_label_notes(files, labels), *unanswered(doubts, stated.accepted)]
    notices += [*heading_notices({index: files[index] for index in centres}), *_size_notices(files)]
    conflicts = _find_conflicts(located, centres, files, min(footprint_m, height_m) * (1 - overlap) / 2)
    for index, angle, _ in conflicts:
        del files[index][angle]
    tiles = [
        Tile(index, center, geo.rectangle(center, footprint_m, height_m)) for index, center in sorted(centres.items())
    ]
    reference_set = ReferenceSet(
        name,
        "captures",
        str(root),
        captures[0].altitude_m,
        overlap,
        footprint_m,
        tuple(sorted({angle for index in centres for angle in files[index]})),
        {
            "turned": turned,
            "captures": [c.path.name for c in captures],
            "labels": [printable(p) for p in labels.files],
            "picture_px": [width_px, height_px],
            **({"label_crs": stated.crs} if stated.crs else {}),
            **({"accepted": sorted(stated.accepted)} if stated.accepted else {}),
        },
    )
    left_out = [*failures, *unlabelled, *(failure for *_, failure in conflicts)]
    return CaptureSource(reference_set, tiles, files, left_out, notices, labels.stay_in(root))


def _label_notes(files: Files, labels: Labels) -> list[str]:
    """What was taken for granted to read the labels of a set, by file."""
    used = (labels.find(path) for by_angle in files.values() for path in by_angle.values())
    return list(dict.fromkeys(printable(f"{label.source}: {note}") for label in used if label for note in label.notes))


def _turn_notices(files: Files, labels: Labels, turned: str) -> list[str]:
    """Say where the labels' yaws contradict the folders' angles; labels that all say one yaw tell nothing."""
    by_angle: dict[int, list[float]] = defaultdict(list)
    for of_tile in islice((files[index] for index in sorted(files)), _TILES_COMPARED):
        for angle, path in of_tile.items():
            label = labels.find(path)
            if label and label.pose.yaw_deg is not None:
                by_angle[angle].append(label.pose.yaw_deg)
    pairs = [(angle, yaw) for angle, yaws in by_angle.items() for yaw in yaws]
    if len({round(yaw) for _, yaw in pairs}) < 2:
        return []
    apart = [
        (geo.heading_difference(angle, yaw), geo.heading_difference(-angle, yaw), angle, yaw) for angle, yaw in pairs
    ]
    off = [pair for pair in apart if pair[0] > _TURN_LIMIT_DEG]
    if len(off) <= len(pairs) / 10:
        return []
    _, _, angle, yaw = off[0]
    mirrored = sum(pair[1] <= _TURN_LIMIT_DEG for pair in apart) > 0.9 * len(pairs)
    reverse = "cw" if turned == "ccw" else "ccw"
    advice = f"they fit captures turned the other way: give --turned {reverse}" if mirrored else "see which is right"
    return [
        f"the yaw of {len(off)} of {len(pairs)} labels contradicts the folders' angles (a capture at {angle:03d} says "
        f"yaw {yaw:g}): the folders' are taken; {advice}"
    ]


def _picture_size(files: Files) -> tuple[int, int]:
    """(width, height) in pixels of the first picture that can be opened; square where none can."""
    paths = (by_angle[angle] for _, by_angle in sorted(files.items()) for angle in sorted(by_angle))
    return next((size for path in islice(paths, _PICTURES_TRIED) if (size := picture_size(path))), (1, 1))


def _size_notices(files: Files) -> list[str]:
    """Say where captures' pictures are of several sizes, by the first few of each heading."""
    paths: dict[int, list[Path]] = defaultdict(list)
    for _, by_angle in sorted(files.items()):
        for angle, path in by_angle.items():
            if len(paths[angle]) < _PICTURES_SIZED:
                paths[angle].append(path)
    sizes = {path.name: size for of in paths.values() for path in of if (size := picture_size(path))}
    return size_notices(sizes, f"captures' pictures (of {len(sizes)} that were looked at)")


def _footprint(centres: Sequence[LonLat], overlap: float, aspect: float) -> tuple[float, list[str]]:
    """(width in metres on the ground of pictures that are `aspect` times as high as wide, notices), by the grid."""
    if abs(aspect - 1) <= SAME_SIDE:
        return tiling.footprint_from_spacing(centres, overlap), []
    tiling.spacing(centres)  # refuses too few
    east_m, north_m = (stride and stride / (1 - tiling.check_overlap(overlap)) for stride in tiling.strides(centres))
    by_height = north_m and north_m / aspect
    if not east_m or not by_height:
        return east_m or by_height or tiling.footprint_from_spacing(centres, overlap), []
    notices = []
    if abs(east_m / by_height - 1) > _SAME_STRIDE:
        notices.append(
            f"the grid's strides and its overlap of {overlap:.0%} make pictures {east_m:.0f} m wide by those from west "
            f"to east, and {by_height:.0f} m by those from north to south (they are {aspect:.3g} times as high as "
            f"wide): {east_m:.0f} m is taken. --footprint-m says it"
        )
    return east_m, notices


def _locate_tiles(files: Files, labels: Labels) -> tuple[Located, list[Failure]]:
    """Locate each tile by its labels, by angle.

    A Failure for each tile that no heading's label places, and for each image whose labels contradict each other: it
    may show another place, so it is removed from `files`.
    """
    located: Located = {}
    failures: list[Failure] = []
    for index, by_angle in sorted(files.items()):
        label_by_angle = {angle: labels.find(path) for angle, path in by_angle.items()}
        places = {a: label.pose.location for a, label in label_by_angle.items() if label and label.pose.location}
        if places:
            located[index] = places
            for angle, label in label_by_angle.items():
                if label and label.problem and label.problem.kind == "label-conflict":
                    path = by_angle.pop(angle)
                    failures.append(Failure(str(path), "list", label.problem.kind, printable(str(label.problem))))
        else:
            failures.append(
                _unlabelled_failure(index, by_angle, [label for label in label_by_angle.values() if label], labels)
            )
    return located, failures


def _unlabelled_failure(
    index: int, by_angle: Mapping[int, Path], tile_labels: Sequence[Label], labels: Labels
) -> Failure:
    first = str(by_angle[min(by_angle)])
    for label in tile_labels:
        if label.problem is not None:
            return Failure(first, "list", label.problem.kind, printable(f"tile {index}: {label.problem}"))
    files = ", ".join(map(printable, labels.files)) or "no label JSON, as there is none inside or beside it"
    return Failure(first, "list", "missing-label", f"tile {index}: no heading has a label (looked in {files})")


def _no_position_error(root: Path, files: Files, unlabelled: Sequence[Failure]) -> ImageryError:
    if not files:
        return ImageryError("empty", f"the captures in {root} hold no images named <capture>_<index>.jpg")
    kinds = [failure.kind for failure in unlabelled]
    failure = unlabelled[kinds.index("wrong-crs") if "wrong-crs" in kinds else 0]
    return ImageryError(
        failure.kind,
        f"none of the {len(files)} tiles in {root} has a position; the first: {failure.message}. Expected a label JSON "
        'of the form {"images": [{"imageref": …, "position": {"latitude": …, "longitude": …}}]} in the folder, '
        "beside it, or named by --labels.",
    )


def _find_conflicts(
    located: Located, centres: Mapping[int, LonLat], files: Files, limit_m: float
) -> list[tuple[int, int, Failure]]:
    """Find headings whose own label lies elsewhere than their tile: such an image may show another place.

    Returns (tile index, angle, Failure) of each.
    """
    pairs = [(index, angle) for index, by_angle in located.items() for angle in by_angle]
    labelled = np.array([located[index][angle] for index, angle in pairs])
    center = np.array([centres[index] for index, _ in pairs])
    apart_m = geo.distance_m(labelled[:, 0], labelled[:, 1], center[:, 0], center[:, 1])
    return [
        (
            index,
            angle,
            Failure(
                str(files[index][angle]),
                "list",
                "label-conflict",
                f"its label lies {metres:.0f} m from that of tile {index} at {min(located[index]):03d}: expected one "
                f"place, at most half a stride ({limit_m:.0f} m) apart; left out",
            ),
        )
        for (index, angle), metres in zip(pairs, apart_m.tolist(), strict=True)
        if metres > limit_m
    ]
