"""`coarseloc localize`: frames found on a whole map at once, without any embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import ValidationError

from coarseloc.cli.options import camera_options, label_options, map_options, time_options
from coarseloc.cli.terminal import answer, json_option, out, pass_workspace, table
from coarseloc.core import ids
from coarseloc.core.camera import Camera
from coarseloc.core.errors import InputError
from coarseloc.core.types import Flight
from coarseloc.imagery.frame_times import StatedTime
from coarseloc.map_use_cases import MapRequest
from coarseloc.workspace import Workspace

if TYPE_CHECKING:
    from coarseloc.imagery.stated_labels import StatedLabels
    from search.export.records import MapLocalizationInfo


@click.command()
@click.argument("source", metavar="IMAGE|FLIGHT_DIR", type=click.Path(path_type=Path))
@map_options(default_sd="as ingested, else half a pixel")
@camera_options
@time_options
@label_options
@click.option("--flight-id", help="The flight's name in the records. [the folder's]")
@click.option("--out", "out_dir", type=click.Path(path_type=Path), help="Folder for one JSON a frame.")
@click.option("--device", default=None, help="auto, cpu, cuda, cuda:1 … [COARSELOC_DEVICE]")
@json_option
@pass_workspace
def localize(
    workspace: Workspace,
    source: Path,
    map_request: MapRequest,
    camera: Camera,
    time: StatedTime,
    labels: StatedLabels | None,
    flight_id: str | None,
    out_dir: Path | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Where frames lie on a map: metres, heading and an ellipse, or "no match". Needs no backbone and no ingest.

    The width of a frame on the ground is --footprint-m, else its altitude label by --fov-deg, else the reference set's
    footprint; unless it is given, it is tried on the first frames, and scanned where it does not fit. These options
    come before --camera, that before the flight's flight.toml. Interrupted, the same command with --out goes on.

    A flight's answers on a --reference-set are stored as well: the same command goes on with them, and `coarseloc
    evaluate`, `report` and the page Compare show them as the row "no backbone".
    """
    flight = _flight(source, labels, flight_id, camera, time)
    records = []
    for record in workspace.localize_on_map(
        flight,
        map_request,
        device=device,
        previous=_written(out_dir, flight) if out_dir else None,
        store=not source.is_file(),
    ):
        if out_dir:
            _write(out_dir, record)
        records.append(record)
    answer(as_json, [record.model_dump(mode="json") for record in records], lambda: _show(records, out_dir))


def _flight(
    source: Path, labels: StatedLabels | None, flight_id: str | None, camera: Camera, time: StatedTime
) -> Flight:
    """The flight's folder, or one image as a flight of its own."""
    from coarseloc.imagery.flights import open_flight, open_image

    if source.is_file():
        flight = open_image(source, camera=camera, time=time)
    else:
        flight = open_flight(source, labels=labels, camera=camera, time=time)
    if not flight.frames:
        raise InputError(f"{source} holds no frames: expected images")
    return replace(flight, flight_id=flight_id) if flight_id else flight


def _path(out_dir: Path, flight_id: str, frame_index: int) -> Path:
    return out_dir / f"{ids.file_name(flight_id)}_{frame_index:05d}_map.json"


def _written(out_dir: Path, flight: Flight) -> dict[int, MapLocalizationInfo]:
    """The records that an interrupted run left; what is no record is written anew."""
    from search.export.records import MapLocalizationInfo

    records = {}
    for frame in flight.frames:
        path = _path(out_dir, flight.flight_id, frame.index)
        try:
            records[frame.index] = MapLocalizationInfo.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            continue
    return records


def _write(out_dir: Path, record: MapLocalizationInfo) -> None:
    from search.export.files import write_json

    out_dir.mkdir(parents=True, exist_ok=True)
    write_json(_path(out_dir, record.flight_id, record.frame_index), record.model_dump(mode="json"))


def _show(records: Sequence[MapLocalizationInfo], out_dir: Path | None) -> None:
    table(
        "frame", "lat", "lon", "ellipse m", "heading °", "probability", "error m", "ms",
        rows=[_row(record) for record in records],
    )  # fmt: skip
    matches = sum(bool(record.estimate and record.estimate.fix.match) for record in records)
    failures = sum(record.error is not None for record in records)
    out.print(f"{matches} of {len(records)} frames match the map")
    if failures:
        out.print(f"{failures} could not be looked for")
    out.print(
        "positions are of the ground under the frame's middle, ellipses hold 95 %; errors are of the aircraft where "
        "its field of view is known, else of the ground"
    )
    if out_dir:
        out.print(f"wrote {len(records)} records to {out_dir}")


def _row(record: MapLocalizationInfo) -> tuple[object, ...]:
    verify_ms = round(record.timing_ms.verify)
    if record.estimate is None:
        return (record.frame_index, record.error, "", "", "", "", "", verify_ms)
    fix = record.estimate.fix
    if fix.ground is None or fix.heading_deg is None:
        return (record.frame_index, f"no match: {fix.reason}", "", "", "", f"{fix.probability:.3f}", "", verify_ms)
    ellipse = fix.ground.ellipse_95
    error_m = None
    if record.errors is not None:
        error_m = record.errors.fix_ground_m if fix.aircraft is None else record.errors.fix_aircraft_m
    return (
        record.frame_index,
        f"{fix.ground.lat:.7f}",
        f"{fix.ground.lon:.7f}",
        f"{ellipse.major_m:.1f} × {ellipse.minor_m:.1f}",
        f"{fix.heading_deg:.2f}",
        f"{fix.probability:.3f}",
        "" if error_m is None else f"{error_m:.1f}",
        verify_ms,
    )
