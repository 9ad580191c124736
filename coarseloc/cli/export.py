"""`coarseloc export`: a flight's records for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from coarseloc.cli.options import flight_id, method_option, utc_offset_option
from coarseloc.cli.terminal import answer, json_option, next_step, out, pass_workspace
from coarseloc.workspace import Workspace
from search.export.files import FORMATS, TRACK_FORMATS


@click.command()
@click.argument("flight")
@click.option("--out", "out_dir", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
@click.option("--single", is_flag=True, help="One JSON document for the whole flight.")
@click.option(
    "--format",
    "formats",
    type=click.Choice((*FORMATS, *TRACK_FORMATS)),
    multiple=True,
    help="Of runs, or of tracks (track-… gpx nmea mcap). [what the flight has, but for these three, which need UTC]",
)
@click.option("--crs", metavar="EPSG:CODE", help="Positions as x and y of this projected CRS too.")
@click.option(
    "--dem", type=click.Path(path_type=Path), help="Heights of the ground above sea level (GeoTIFF, m), for tracks."
)
@click.option(
    "--track",
    "track_name",
    metavar="NAME",
    help='Which of several tracks: evidence and options, as "both --yaw labels". [one without options first]',
)
@method_option
@utc_offset_option
@json_option
@pass_workspace
def export(
    workspace: Workspace,
    flight: str,
    out_dir: Path,
    single: bool,
    formats: Sequence[str],
    crs: str | None,
    dem: Path | None,
    track_name: str | None,
    method: str,
    utc_offset_s: int | None,
    as_json: bool,
) -> None:
    """FLIGHT's newest runs (CoarseLocalizationInfo, GeoJSON, KML, CSV) and stored tracks (GPX, NMEA, MCAP …).

    Tracks are written whether the flight was searched or not.
    """
    summary = workspace.export(
        flight_id(flight),
        out_dir,
        single=single,
        formats=formats or None,
        crs=crs,
        method=method,
        utc_offset_s=utc_offset_s,
        dem=dem,
        track_name=track_name,
    )

    def show() -> None:
        out.print(f"wrote {summary}")
        next_step("report", flight_id(flight), "--out", "report.html", note="one file of figures and tables, to read")

    answer(as_json, asdict(summary), show)
