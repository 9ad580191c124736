"""`coarseloc track`: a flight's frames as one track, with states."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from coarseloc.cli.options import camera_options, flight_id, label_options, map_options, time_options
from coarseloc.cli.terminal import answer, json_option, next_step, out, pass_workspace, table
from coarseloc.core.camera import Camera
from coarseloc.core.errors import InputError
from coarseloc.core.tracks import TrackEvidence
from coarseloc.imagery.frame_times import StatedTime
from coarseloc.map_use_cases import MapRequest
from coarseloc.workspace import Workspace

if TYPE_CHECKING:
    from coarseloc.imagery.stated_labels import StatedLabels
    from search.export.records import FrameTrackInfo


@click.command()
@click.argument("flight", metavar="FLIGHT")
@map_options(default_sd="as ingested, else 1 m")
@click.option(
    "--run", "run_ids", type=int, multiple=True, help="Without a map: the search run whose places are taken. [newest]"
)
@click.option(
    "--evidence",
    type=click.Choice(["ranks", "fixes", "both"]),
    default="fixes",
    show_default=True,
    help="The order of a search's hits, registrations on the map, or registrations about the places of both.",
)
@click.option(
    "--odometry",
    metavar="frames|none|FILE",
    default="frames",
    show_default=True,
    help="What tells the motion from frame to frame; a CSV of metres or speeds says its axes in its columns.",
)
@click.option(
    "--cascade",
    metavar="SMALL,LARGE",
    help="With ranks: the hits of SMALL's run, and LARGE asked only while the place is not sure.",
)
@click.option(
    "--yaw",
    type=click.Choice(["labels", "none"]),
    default="none",
    show_default=True,
    help="The labels' yaw as evidence: of ranks, and of turns that odometry does not tell.",
)
@click.option("--speed", metavar="LO:HI", help="Metres a second over ground, for motion that odometry does not tell.")
@click.option("--online", is_flag=True, help="Each frame by those before it alone: no smoothed track at the end.")
@label_options
@camera_options
@time_options
@click.option("--device", default=None, help="auto, cpu, cuda, cuda:1 … [COARSELOC_DEVICE]")
@json_option
@pass_workspace
def track(
    workspace: Workspace,
    flight: str,
    map_request: MapRequest,
    run_ids: tuple[int, ...],
    evidence: TrackEvidence,
    odometry: str,
    cascade: str | None,
    yaw: Literal["labels", "none"],
    speed: str | None,
    online: bool,
    labels: StatedLabels | None,
    camera: Camera,
    time: StatedTime,
    device: str | None,
    as_json: bool,
) -> None:
    """One track of all frames of FLIGHT: where each lies, how sure that is, or that it is not known.

    A flight that was searched is tracked by its newest run: a frame is looked for where the ones before let expect it,
    and among the run's best places where they do not; by --evidence ranks nothing is looked for, and several runs (of
    several backbones) are one track. With --map or --reference-set FLIGHT is a folder, and nothing
    needs to be embedded. The track is stored as the methods "track" and "track-smoothed". Interrupted, the same command
    goes on.
    """
    from coarseloc.imagery.flights import open_flight

    on_map = map_request.path is not None or map_request.reference_set is not None
    if on_map and run_ids:
        raise InputError("give a map (--map, --reference-set) or a run (--run), not both")
    if not on_map and (map_request.near or map_request.crs or labels):
        raise InputError("--near, --crs and --labels go with --map or --reference-set: a run says them itself")
    records = list(
        workspace.track(
            open_flight(Path(flight), labels=labels, camera=camera, time=time) if on_map else flight_id(flight),
            map_request=map_request,
            run_ids=run_ids,
            evidence=evidence,
            odometry=_odometry(odometry),
            online=online,
            cascade=_cascade(cascade) if cascade else None,
            yaw=yaw,
            speed_mps=_speed(speed) if speed else None,
            camera=camera,
            device=device,
        )
    )
    answer(as_json, [record.model_dump(mode="json") for record in records], lambda: _show(records))


def _odometry(text: str) -> Literal["frames", "none"] | Path:
    if text == "frames":
        return "frames"
    return "none" if text == "none" else Path(text)


def _cascade(text: str) -> tuple[str, str]:
    small, comma, large = (part.strip() for part in text.partition(","))
    if not (small and comma and large) or "," in large:
        raise InputError(f"--cascade {text}: expected two backbones, small and large, such as vits16,vitl16")
    return small, large


def _speed(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low, high = math.nan, math.nan
    if not 0 <= low < high < math.inf:
        raise InputError(f"--speed {text}: expected the least and the most in metres a second, such as 10:35")
    return low, high


def _show(records: Sequence[FrameTrackInfo]) -> None:
    table(
        "frame", "state", "lat", "lon", "ellipse m", "heading °", "m/s", "probability", "error m", "ms",
        rows=[_row(record) for record in records],
    )  # fmt: skip
    states = Counter(record.track.state for record in records)
    out.print(
        f"{states['tracking'] + states['recovered']} of {len(records)} frames tracked, {states['acquiring']} before "
        f"the first was, {states['lost']} lost and {states['recovered']} times recovered; causal: each by the frames "
        "before it"
    )
    errors = [record.errors.track_m for record in records if record.errors]
    points = {record.track.point for record in records} - {None}
    if errors:
        point = "the aircraft" if points == {"aircraft"} else "the ground under the frame's middle"
        out.print(f"median error {statistics.median(errors):.2f} m, of {point} against the aircraft's truth")
    if asked_ms := [record.larger_ms for record in records if record.larger_ms is not None]:
        unasked = len(records) - len(asked_ms)
        out.print(
            f"the larger backbone was asked for {len(asked_ms)} of {len(records)} frames, {sum(asked_ms) / 1e3:.1f} s; "
            f"the {unasked} others, at the median of these, would have taken "
            f"{unasked * statistics.median(asked_ms) / 1e3:.1f} s"
        )
    if failures := [record for record in records if record.error]:
        out.print(f"{len(failures)} frames could not be looked at: {failures[0].relative_path}: {failures[0].error}")
    if records:
        note = "the track for other programs: GPX, KML, NMEA, MCAP"
        next_step("export", records[0].flight_id, "--out", "results", "--format", "track-geojson", note=note)


def _row(record: FrameTrackInfo) -> tuple[object, ...]:
    track, track_ms = record.track, "" if record.track_ms is None else round(record.track_ms)
    if track.location is None:
        return (record.frame_index, track.state, "", "", "", "", "", f"{track.probability:.3f}", "", track_ms)
    ellipse = track.location.ellipse_95
    return (
        record.frame_index,
        track.state,
        f"{track.location.lat:.7f}",
        f"{track.location.lon:.7f}",
        f"{ellipse.major_m:.1f} × {ellipse.minor_m:.1f}",
        "" if track.heading_deg is None else f"{track.heading_deg:.2f}",
        "" if track.speed_mps is None else f"{track.speed_mps:.1f}",
        f"{track.probability:.3f}",
        f"{record.errors.track_m:.2f}" if record.errors else "",
        track_ms,
    )
