"""Option values as users type them, and the filters that search and look-up share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from coarseloc.core import filters
from coarseloc.core.camera import Camera
from coarseloc.core.clock import parse_utc_offset
from coarseloc.core.errors import InputError
from coarseloc.core.filters import Where
from coarseloc.core.types import DOUBTS, FITS
from coarseloc.map_use_cases import MapRequest

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Overlap(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on
    """`50`, `50%` or `0.5`: the domain's overlap, a fraction in [0, 1)."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        return value if isinstance(value, float) else _read(self, filters.read_overlap, value, param, ctx)


class Angles(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on
    """`0,45,90`: whole headings in degrees clockwise from north."""

    name = "degrees"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        return value if isinstance(value, tuple) else _read(self, lambda v: filters.read_angles([v]), value, param, ctx)


def _read(
    kind: click.ParamType[Any],
    read: Callable[[str], T],
    text: str,
    param: click.Parameter | None,
    ctx: click.Context | None,
) -> T:
    try:
        return read(text)
    except InputError as error:
        kind.fail(f"{text!r}: {error}", param, ctx)


def flight_id(name: str) -> str:
    """A flight's folder stands for its id, as `coarseloc search` was given it."""
    return Path(name).resolve().name if Path(name).is_dir() else name


def where_options(command: F) -> F:
    """Add every filter and hand them to the command as one `where`."""

    @functools.wraps(command)
    def with_where(*args: Any, **kwargs: Any) -> Any:
        texts_by_key = {key.name: kwargs.pop(_parameter(key)) for key in filters.KEYS.values()}
        where = Where.parse({name: texts for name, texts in texts_by_key.items() if texts})
        return command(*args, where=where, **kwargs)

    for key in reversed(list(filters.KEYS.values())):
        # Each may be given several times: `Where.parse` says of which that makes no sense, click would take the last.
        option = click.option(f"--{key.name}", _parameter(key), multiple=True, metavar=key.form, help=key.help)
        with_where = option(with_where)
    return with_where  # type: ignore[return-value]


def _parameter(key: filters.Key) -> str:
    return f"where_{key.field}"


def method_option(command: F) -> F:
    return click.option(
        "--method", default="best-place", show_default=True, help="The method whose answers are taken."
    )(command)


def map_options(*, default_sd: str) -> Callable[[F], F]:
    """The map that frames are looked for on, handed to the command as one `map_request`.

    default_sd: its registration error where nobody states it, as help says it.
    """

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def with_map(*args: Any, map_path: Path | None, near: str | None, map_sd_m: float | None, **kwargs: Any) -> Any:
            circle = Where.parse({"near": [near]}).near if near else None
            request = MapRequest(map_path, kwargs.pop("crs"), kwargs.pop("reference_set"), circle, map_sd_m)
            return command(*args, map_request=request, **kwargs)

        for option in (
            click.option(
                "--map-sd-m", type=click.FloatRange(min=0), help=f"The map's registration error. [{default_sd}]"
            ),
            click.option("--near", metavar="LON,LAT,METRES", help="Look around here alone."),
            click.option(
                "--reference-set",
                help="Instead of --map: the orthophoto or the captures that this set was made from.",
            ),
            click.option(
                "--crs", metavar="EPSG:CODE", help="The map's CRS, where its file says none, too little or another."
            ),
            click.option("--map", "map_path", type=click.Path(path_type=Path), help="A GeoTIFF in any CRS."),
        ):
            with_map = option(with_map)
        return with_map  # type: ignore[return-value]

    return decorate


def _language() -> str:
    return str(click.get_current_context().find_root().params["language"])


def report_options(command: F) -> F:
    """How a report reads, beside the file it is written to."""
    for option in (
        click.option("--note", help="A line put above everything, such as what stands in for what."),
        click.option("--figures", type=click.Path(path_type=Path), help="Folder for every figure as PNG and SVG."),
        click.option(
            "--lang", "language", type=click.Choice(["en", "ko"]), default=_language, help="[as of `coarseloc --lang`]"
        ),
    ):
        command = option(command)
    return command


def cut_options(command: F) -> F:
    """How an orthophoto is cut into tiles."""
    from coarseloc.core.rotation import HEADINGS  # it imports Pillow, which commands that cut nothing do not need

    for option in (
        click.option(
            "--tile-px", type=click.IntRange(min=16), help="Side of a cut tile; its native size up to 1024 by default."
        ),
        click.option("--border-is-ground", is_flag=True, help="Take a border of one colour as ground. [left out]"),
        click.option("--crs", metavar="EPSG:CODE", help="The file's CRS, where it says none, too little or another."),
        click.option("--angles", type=Angles(), default=HEADINGS, help="Headings to turn to. [0,45,…,315]"),
        click.option(
            "--overlap", type=Overlap(), default="50", show_default=True, help="Of neighbouring tiles, percent."
        ),
        click.option(
            "--fov-deg",
            type=click.FloatRange(0, 180, min_open=True, max_open=True),
            help="Camera's field of view.",
        ),
        click.option(
            "--altitude-m", type=click.FloatRange(min=0, min_open=True), help="Height above ground to stand for."
        ),
        click.option(
            "--footprint-m", type=click.FloatRange(min=0, min_open=True), help="Side of a tile on the ground."
        ),
    ):
        command = option(command)
    return command


def camera_options(command: F) -> F:
    """What a user says of the camera, handed to the command as one `camera`: it comes before the flight's own table."""

    @functools.wraps(command)
    def with_camera(*args: Any, camera_file: Path | None, **kwargs: Any) -> Any:
        from coarseloc.imagery.flight_toml import read_flight_toml

        camera = Camera(kwargs.pop("footprint_m"), kwargs.pop("fov_deg"), kwargs.pop("stabilised"))
        if camera_file is not None:
            camera = camera.over(read_flight_toml(camera_file).camera)
        return command(*args, camera=camera, **kwargs)

    for option in (
        click.option(
            "--camera",
            "camera_file",
            type=click.Path(path_type=Path),
            help="A file with a [camera] table, as flight.toml has it. [the flight's own]",
        ),
        click.option(
            "--stabilised/--not-stabilised",
            default=None,
            help="A gimbal holds the camera: labels' pitch and roll are not its own.",
        ),
        click.option(
            "--fov-deg",
            type=click.FloatRange(0, 180, min_open=True, max_open=True),
            help="Camera's field of view across the frame: gives the aircraft's own position too.",
        ),
        click.option(
            "--footprint-m", type=click.FloatRange(min=0, min_open=True), help="Width of a frame on the ground."
        ),
    ):
        with_camera = option(with_camera)
    return with_camera  # type: ignore[return-value]


def label_options(command: F) -> F:
    """What a user says of labels, handed to the command as one `labels`: before the flight's own [truth]."""
    option = click.option("--labels", type=click.Path(path_type=Path), help="The truth (JSON or CSV), where elsewhere.")
    return option(with_stated_labels(command))


def with_stated_labels(command: F) -> F:
    """How labels are read, beside the file that a command's own --labels names; `labels` is None where nothing is
    said."""

    @functools.wraps(command)
    def with_labels(*args: Any, labels: Path | None, **kwargs: Any) -> Any:
        from coarseloc.imagery.stated_labels import StatedLabels

        stated = StatedLabels(labels, kwargs.pop("label_crs"), frozenset(kwargs.pop("accepted")))
        return command(*args, labels=None if stated == StatedLabels() else stated, **kwargs)

    for option in (
        click.option(
            "--accept",
            "accepted",
            type=click.Choice(DOUBTS),
            multiple=True,
            help="Answer a doubt about labels with: it is so. May be given several times.",
        ),
        click.option("--label-crs", metavar="EPSG:CODE", help="Of labels whose positions are not WGS84 degrees."),
    ):
        with_labels = option(with_labels)
    return with_labels  # type: ignore[return-value]


class UtcOffset(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on
    """`+09:00`: seconds of local time beyond UTC."""

    name = "offset"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return value if isinstance(value, int) else _read(self, parse_utc_offset, value, param, ctx)


def utc_offset_option(command: F) -> F:
    return click.option(
        "--utc-offset",
        "utc_offset_s",
        type=UtcOffset(),
        metavar="+HH:MM",
        help="Of the frames' times, which are local. [as EXIF or GPS tells]",
    )(command)


def time_options(command: F) -> F:
    """What a user says of the frames' times, handed to the command as one `time`: before the flight's own [time]."""

    @functools.wraps(command)
    def with_time(*args: Any, **kwargs: Any) -> Any:
        from coarseloc.imagery.frame_times import StatedTime

        return command(*args, time=StatedTime(kwargs.pop("interval_s"), kwargs.pop("utc_offset_s")), **kwargs)

    for option in (
        utc_offset_option,
        click.option(
            "--interval",
            "interval_s",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="From one frame to the next, where nothing says when they were taken.",
        ),
    ):
        with_time = option(with_time)
    return with_time  # type: ignore[return-value]


def backbone_options(command: F) -> F:
    """Which encoders, and how they are run."""
    return _backbone_options(command, ["fp32", "bf16", "int8"], "fp32 by default.")


def ingest_backbone_options(command: F) -> F:
    """The same of new embeddings, whose precision may be chosen by trial."""
    tried = "fp32 by default; auto: the fastest here that finds the same places on 200 of the views, which is said."
    return _backbone_options(command, ["fp32", "bf16", "int8", "auto"], tried)


def _backbone_options(command: F, precisions: list[str], precision_help: str) -> F:
    for option in (
        click.option("--device", default=None, help="auto, cpu, cuda, cuda:1 … [COARSELOC_DEVICE]"),
        click.option("--precision", type=click.Choice(precisions), help=precision_help),
        click.option(
            "--fit",
            type=click.Choice(FITS),
            help="How pictures that are not square become so: both sides scaled, the middle square, or padded. "
            "[COARSELOC_FIT, squash]",
        ),
        click.option("--input-px", type=int, default=None, help="Side of the model's input. [COARSELOC_INPUT_PX]"),
        click.option("--backbone", "backbones", multiple=True, help="Encoder; may be given several times."),
    ):
        command = option(command)
    return command
