"""`coarseloc live`: a flight tracked while it is flown."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from coarseloc.cli.options import camera_options, label_options, map_options, time_options
from coarseloc.cli.terminal import err, json_option, out, pass_workspace, spoken
from coarseloc.core.camera import Camera
from coarseloc.core.errors import InputError
from coarseloc.imagery.frame_times import StatedTime
from coarseloc.map_use_cases import MapRequest
from coarseloc.workspace import Workspace

if TYPE_CHECKING:
    from coarseloc.imagery.stated_labels import StatedLabels
    from coarseloc.live.mavlink import Autopilot, ExtraMessage
    from coarseloc.live.session import LiveOutput, LiveSummary
    from coarseloc.live.sources import FrameSource
    from search.export.records import LiveFrameInfo


class MaxAge(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on
    """Seconds above 0, or `none`, which is 0 within."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if value == "none":
            return 0.0
        try:
            seconds = float(value)
        except ValueError:
            seconds = 0.0
        if not 0.0 < seconds < 1e6:
            self.fail(f"{value!r}: expected seconds, such as 2, or none", param, ctx)
        return seconds


@click.command()
@click.option(
    "--source",
    required=True,
    envvar="COARSELOC_LIVE_SOURCE",
    metavar="DIR|VIDEO|rtsp://…|-",
    help="What frames come from; - is standard input. [COARSELOC_LIVE_SOURCE]",
)
@map_options(default_sd="as ingested, else 1 m")
@click.option("--odometry", type=click.Choice(["frames", "none"]), default="frames", show_default=True)
@label_options
@click.option("--flight-id", help="The flight's name in the records. [the folder's, the video's, or live]")
@camera_options
@time_options
@click.option(
    "--max-age",
    "max_age_s",
    type=MaxAge(),
    default="2",
    show_default=True,
    metavar="SECONDS|none",
    help="A frame older than this is dropped where a newer one waits; none: every frame is tracked, however late.",
)
@click.option("--from-start", is_flag=True, help="Of a folder, what lies there already comes first.")
@click.option("--idle-stop", "idle_stop_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Of a folder or "
              "a camera: end when nothing came for so long.")  # fmt: skip
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Of a video or a camera: from one frame that is tracked to the next.",
)
@click.option(
    "--clock",
    type=click.Choice(["capture", "arrival"]),
    default="capture",
    show_default=True,
    help="A frame's time in UTC: of its capture, or of its arrival by this machine's clock.",
)
@click.option("--out", "json_files", multiple=True, type=click.Path(path_type=Path), help="JSON lines, appended.")
@click.option(
    "--nmea",
    multiple=True,
    metavar="tcp|udp:[HOST:]PORT|serial:DEVICE[:BAUD]",
    help="NMEA 0183; on this machine alone unless HOST is given. Serial ports: extra serial.",
)
@click.option("--mavlink", multiple=True, metavar="udp|tcp:…|serial:…", help="MAVLink 2 (extra mavlink).")
@click.option(
    "--autopilot",
    type=click.Choice(["px4", "ardupilot"]),
    default="px4",
    show_default=True,
    help="Of --mavlink: GLOBAL_POSITION_SENSOR, or the command EXTERNAL_POSITION_ESTIMATE.",
)
@click.option(
    "--mavlink-message",
    "mavlink_messages",
    multiple=True,
    type=click.Choice(["odometry", "vision-position", "gps-input"]),
    help="Beside that; gps-input takes a satellite receiver's place.",
)
@click.option("--mavlink-system", type=click.IntRange(1, 255), default=1, show_default=True, help="Of the vehicle.")
@click.option("--mcap", "mcap_files", multiple=True, type=click.Path(path_type=Path), help="A new file for ROS 2 and "
              "Foxglove (extra mcap).")  # fmt: skip
@click.option("--dem", type=click.Path(path_type=Path), help="Heights of the ground above sea level (GeoTIFF, m), for "
              "--nmea and --mavlink.")  # fmt: skip
@click.option("--device", default=None, help="auto, cpu, cuda, cuda:1 … [COARSELOC_DEVICE]")
@json_option
@pass_workspace
def live(
    workspace: Workspace,
    source: str,
    map_request: MapRequest,
    odometry: Literal["frames", "none"],
    labels: StatedLabels | None,
    flight_id: str | None,
    camera: Camera,
    time: StatedTime,
    max_age_s: float,
    from_start: bool,
    idle_stop_s: float | None,
    every_s: float,
    clock: Literal["capture", "arrival"],
    json_files: tuple[Path, ...],
    nmea: tuple[str, ...],
    mavlink: tuple[str, ...],
    autopilot: Autopilot,
    mavlink_messages: tuple[ExtraMessage, ...],
    mavlink_system: int,
    mcap_files: tuple[Path, ...],
    dem: Path | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Track a flight while it is flown: an estimate for each new frame, to a file, a socket or the page Live.

    Frames come from a folder that fills, a video (as fast as it was filmed; extra video), a camera that is asked for by
    RTSP (extra video), or lines of standard input: paths, or JSON with path, taken_at, altitude, yaw. They are looked
    for on --map or --reference-set, as by `coarseloc track --online`; no embedding is needed. Without --footprint-m the
    first five frames are waited for, to try their width. --json writes a record a line as they come. Ctrl-C ends it,
    with whole files and a summary.
    """
    from coarseloc.live.rtsp import is_rtsp
    from coarseloc.live.session import LiveRequest

    if from_start and not Path(source).is_dir():
        raise InputError("--from-start goes with a folder as --source")
    if idle_stop_s is not None and not (Path(source).is_dir() or is_rtsp(source)):
        raise InputError("--idle-stop goes with a folder or a camera as --source")
    if labels is not None and (Path(source).is_file() or is_rtsp(source)):
        raise InputError("--labels goes with a folder or standard input: frames of a video have no file names")
    if is_rtsp(source) and not max_age_s:
        raise InputError("--max-age none is for replays: a camera does not wait. Give seconds")
    if dem is not None and not (nmea or mavlink):
        raise InputError("--dem gives heights to --nmea and --mavlink, and neither is asked for: leave it out")
    if mavlink_messages and not mavlink:
        raise InputError("--mavlink-message goes with --mavlink")

    def outputs() -> list[LiveOutput]:
        from coarseloc.live.outputs import McapOutput

        opened = _outputs(json_files, nmea, mavlink, autopilot, mavlink_messages, mavlink_system, workspace.notice)
        return [*opened, *(McapOutput(path) for path in mcap_files)]

    session = workspace.live(
        _source(
            source, flight_id, labels, camera, time, from_start, idle_stop_s, every_s, max_age_s > 0, workspace.notice
        ),
        map_request,
        device=device,
        request=LiveRequest(max_age_s or None, clock, odometry, dem),
        open_outputs=outputs,
    )
    with _interrupts(session.stop) as is_interrupted, closing(iter(session)) as estimates:
        for estimate in estimates:
            if as_json:
                sys.stdout.write(estimate.record.model_dump_json() + "\n")
                sys.stdout.flush()
            else:
                out.print(_line(estimate.record))
    for line in _summary_lines(session.summary):
        (err if as_json else out).print(line)
    if is_interrupted():
        raise KeyboardInterrupt


@contextmanager
def _interrupts(stop: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Stop after the frame under way by Ctrl-C or SIGTERM, at once by the second; yields whether there was one."""
    numbers: list[int] = []

    def handle(number: int, _: object) -> None:
        if numbers:
            raise KeyboardInterrupt
        numbers.append(number)
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(numbers)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _source(
    text: str,
    flight_id: str | None,
    labels: StatedLabels | None,
    camera: Camera,
    time: StatedTime,
    from_start: bool,
    idle_stop_s: float | None,
    every_s: float,
    paced: bool,
    notice: Callable[[str], None],
) -> FrameSource:
    from coarseloc.imagery.arriving import ArrivingFlight
    from coarseloc.live.rtsp import RtspSource, is_rtsp, shown_address, stream_name
    from coarseloc.live.sources import FolderSource, LineSource

    if is_rtsp(text):
        arriving = ArrivingFlight(None, flight_id=flight_id or stream_name(text), camera=camera, time=time)
        return RtspSource(arriving, text, every_s=every_s, notice=notice, idle_stop_s=idle_stop_s)
    if "://" in text:
        raise InputError(f"--source {shown_address(text)}: of addresses, rtsp:// and rtsps:// are read")
    path = Path(text)
    if text == "-":
        arriving = ArrivingFlight(None, flight_id=flight_id, labels=labels, camera=camera, time=time)
        return LineSource(arriving, sys.stdin.fileno())
    if path.is_dir():
        arriving = ArrivingFlight(path.resolve(), flight_id=flight_id, labels=labels, camera=camera, time=time)
        return FolderSource(arriving, path.resolve(), from_start=from_start, idle_stop_s=idle_stop_s)
    if path.is_file():
        from coarseloc.live.video import VideoSource

        path = path.resolve()
        arriving = ArrivingFlight(path.parent, flight_id=flight_id or path.stem, camera=camera, time=time)
        return VideoSource(arriving, path, every_s=every_s, paced=paced)
    raise InputError(
        f"--source {text} is not there: expected a folder that fills, a video, rtsp://…, or - for standard input"
    )


def _outputs(
    json_files: Sequence[Path],
    nmea: Sequence[str],
    mavlink: Sequence[str],
    autopilot: Autopilot,
    mavlink_messages: Sequence[ExtraMessage],
    mavlink_system: int,
    notice: Callable[[str], None],
) -> list[LiveOutput]:
    """Opened in their order. Raises InputError where one cannot be."""
    from coarseloc.live.endpoints import EndpointAddress
    from coarseloc.live.mavlink import MavlinkOutput, mavlink_dialect
    from coarseloc.live.outputs import JsonLines, NmeaOutput

    nmea_addresses = [EndpointAddress.parse(text) for text in nmea]
    mavlink_addresses = [EndpointAddress.parse(text) for text in mavlink]
    if mavlink:
        mavlink_dialect()  # before anything is opened
    outputs: list[LiveOutput] = [JsonLines(path) for path in json_files]
    outputs += [NmeaOutput(address.open("NMEA", notice)) for address in nmea_addresses]
    outputs += [
        MavlinkOutput(address.open("MAVLink", notice), autopilot, mavlink_messages, mavlink_system, notice)
        for address in mavlink_addresses
    ]
    return outputs


def _line(record: LiveFrameInfo) -> str:
    track = record.track
    place = "–"
    if track.location is not None:
        ellipse = track.location.ellipse_95
        place = f"{track.location.lat:.7f}, {track.location.lon:.7f} ± {ellipse.major_m:.1f} m"
        if track.heading_deg is not None:
            place += f", {track.heading_deg:.1f}°"
    dropped = f", {record.dropped} dropped" if record.dropped else ""
    error = f" ({record.error})" if record.error else ""
    return (
        f"{record.frame_index:5d} {spoken(track.state):<9} {place}, p {track.probability:.3f}, {record.age_s:.2f} s old"
        f"{dropped}{error}"
    )


def _summary_lines(summary: LiveSummary) -> Iterator[str]:
    states = summary.states
    yield (
        f"{summary.arrived} frames came: {summary.estimated} were tracked ("
        f"{states['tracking'] + states['recovered']} with a position, {states['acquiring']} before the first had one, "
        f"{states['lost']} lost), {summary.dropped} dropped as too late, {summary.unreadable} could not be read"
    )
    if summary.median_age_s is not None:
        yield f"from arrival to estimate: median {summary.median_age_s:.2f} s, largest {summary.largest_age_s:.2f} s"
    if summary.untimed:
        yield f"{summary.untimed} frames have no time in UTC: outputs that need it do not hold them"
    yield from summary.remarks
